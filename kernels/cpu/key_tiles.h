// A KV head's keys as the inner loops read them, 64 slots at a time, when pairs of them are similar, and how many heads
// share the scratch memory.
#ifndef CAIRN_KERNELS_CPU_KEY_TILES_H_
#define CAIRN_KERNELS_CPU_KEY_TILES_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/core/context.h"
#include "kernels/core/kv_view.h"
#include "kernels/cpu/formats.h"
#include "kernels/cpu/kernels.h"

namespace cairn::cpu {

inline int64_t NumKeyTiles(int64_t slots) { return (slots + kKeyTileSlots - 1) / kKeyTileSlots; }

// Tile `tile` of the first `slots` slots.
inline KeyTile KeyTileOf(const KvView& kv, int64_t head, int64_t tile, int64_t slots) {
  const KvBlockLayout& layout = kv.layout;
  KeyTile t;
  t.format = FormatOf(layout.dtype);
  t.k = kv.pool + layout.k_offset() + head * layout.block_size * layout.head_dim * FormatBytes(t.format);
  t.block_bytes = static_cast<int64_t>(layout.block_bytes());
  t.block_table = kv.block_table;
  t.block_size = layout.block_size;
  t.head_dim = layout.head_dim;
  t.slot_begin = static_cast<int32_t>(tile * kKeyTileSlots);
  t.slot_end = static_cast<int32_t>(std::min(slots, (tile + 1) * kKeyTileSlots));
  return t;
}

// Starts fetching the tile's keys: blocks lie scattered, and the hardware sees each one's few lines too late.
inline void FetchKeys(const KeyTile& tile) {
  const int64_t row_bytes = tile.head_dim * FormatBytes(tile.format);
  for (int32_t slot = tile.slot_begin, count; slot < tile.slot_end; slot += count) {
    const int32_t row = slot % tile.block_size;
    count = std::min(tile.block_size - row, tile.slot_end - slot);
    const uint8_t* keys = tile.k + tile.block_table[slot / tile.block_size] * tile.block_bytes + row * row_bytes;
    for (int64_t at = 0; at < count * row_bytes; at += 64) __builtin_prefetch(keys + at);
  }
}

// Who does the steps of some heads: all threads, one step after the other, or this one.
struct AllThreads {
  static constexpr bool kShare = true;
  Context& context;
  // f(task, worker) for each.
  template <typename F>
  void ForEach(int64_t tasks, const F& f) const {
    context.threads().ParallelFor(tasks, f);
  }
};
struct ThisThread {
  static constexpr bool kShare = false;
  int worker;
  template <typename F>
  void ForEach(int64_t tasks, const F& f) const {
    for (int64_t task = 0; task < tasks; ++task) f(task, worker);
  }
};

// Calls body(threads, first_head, heads, memory) for groups of heads that fit into 64 MB of shared scratch together
// (one head may take more): long prompts need much per head, and a head's result does not depend on the others. Where
// there are enough heads for that, a thread does all steps of a head, and the threads need not wait for each other.
template <typename Body>
void ForHeads(Context& context, int64_t heads, int64_t floats_per_head, const Body& body) {
  constexpr int64_t kGroupFloats = int64_t{16} << 20;
  const int64_t at_once = std::clamp<int64_t>(kGroupFloats / std::max<int64_t>(1, floats_per_head), 1, heads);
  const int64_t threads = context.threads().num_threads();
  float* memory = static_cast<float*>(context.SharedScratch(at_once * floats_per_head * sizeof(float)));
  for (int64_t first = 0; first < heads; first += at_once) {
    const int64_t count = std::min(heads - first, at_once);
    if (count % threads != 0 && count < 4 * threads) {
      body(AllThreads{context}, first, count, memory);
      continue;
    }
    context.threads().ParallelFor(count, [&](int64_t head, int worker) {
      body(ThisThread{worker}, first + head, 1, memory + head * floats_per_head);
    });
  }
}

// When the product of two rounded units says that theirs is above the threshold, and when it leaves that in doubt.
//
// An element is rounded by at most 0.5 and a little, so a product is off by at most that times the sums of both units'
// absolute values, each at most sqrt(d) as the units' norms are at most 1 (and d eps); to which comes what the chain of
// FMAs, which decides, is off itself.
struct SimilarBounds {
  int32_t first_similar;
  uint32_t doubt;

  SimilarBounds(float threshold, int64_t head_dim) {
    const double d = static_cast<double>(head_dim), one = kRoundedOne;
    const double error = 1.02 * (std::sqrt(d) + d / one) / one + (d + 16) * 0x1p-24;
    constexpr double kMost = 1.05e9;  // no product of rounded units is as large
    const double low = (threshold - error) * one * one;
    first_similar = static_cast<int32_t>(low > -kMost ? std::floor(std::min(low, kMost)) + 1 : -kMost);
    // Keys that are no numbers have been rounded to zeros: they are in doubt where zeros are similar.
    doubt = low > 0 ? static_cast<uint32_t>(2 * error * one * one) + 1 : INT32_MAX;
  }
};

// Floats rounded up to whole cache lines.
inline int64_t PaddedFloats(int64_t floats) { return (floats + 15) / 16 * 16; }

}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_KEY_TILES_H_
