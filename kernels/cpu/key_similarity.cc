// How alike the keys of a head are: R-KV's redundancy and KeyDiff.
//
// All pairs of keys are looked at 64 x 64 at a time, and of a tile of products only one bit each is kept: is it above
// the threshold? A pair serves both of its keys, so that tiles on one side of the diagonal are enough; and a tile in
// which no key can find a newer near-duplicate than it has is left out.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>

#include "kernels/cpu/key_tiles.h"
#include "kernels/cpu/kv_ops.h"

namespace cairn::cpu {
namespace {

// What is known of one head's first n keys, in scratch memory.
struct HeadKeys {
  float* units;     // [tiles * 64, d]: normalised keys, then zeros
  float* squares;   // [tiles * 64]: their norms squared
  float* sums;      // [tiles, d]: of each tile's units
  float* means;     // [tiles * 64]: S, the mean similarity
  float* left_out;  // [tiles * 64]: similarity to the newest near-duplicate, over n
  int32_t* newest;  // [tiles * 64]: the newest near-duplicate, -1 if there is none

  static int64_t Floats(int64_t tiles, int64_t d) {
    return tiles * (kKeyTileSlots * (d + 4) + PaddedFloats(d)) + PaddedFloats(d);
  }
  HeadKeys(float* memory, int64_t tiles, int64_t d) {
    const int64_t slots = tiles * kKeyTileSlots;
    squares = memory;
    means = squares + slots;
    left_out = means + slots;
    newest = reinterpret_cast<int32_t*>(left_out + slots);
    units = left_out + 2 * slots;
    sums = units + slots * d;
  }
};

struct Keys {
  const KvView& kv;
  int64_t n;  // looked at

  int64_t d() const { return kv.layout.head_dim; }
  int64_t tiles() const { return NumKeyTiles(n); }
  int64_t floats_per_head() const { return HeadKeys::Floats(tiles(), d()); }
  HeadKeys head(float* memory, int64_t index) const {
    return HeadKeys(memory + index * floats_per_head(), tiles(), d());
  }
};

// Normalised keys of `heads` heads from `first` on.
void FindUnits(Context& context, const Keys& keys, int64_t first, int64_t heads, float* memory) {
  const int64_t tiles = keys.tiles(), d = keys.d();
  context.threads().ParallelFor(heads * tiles, [&](int64_t task, int) {
    const int64_t head = task / tiles, tile = task % tiles, slot = tile * kKeyTileSlots;
    const HeadKeys k = keys.head(memory, head);
    context.cpu_kernels().unit_keys(KeyTileOf(keys.kv, first + head, tile, keys.n), k.units + slot * d,
                                    k.squares + slot, k.sums + tile * PaddedFloats(d));
    std::fill_n(k.newest + slot, kKeyTileSlots, -1);
  });
}

// The mean of the units, the same for every caller.
void MeanUnit(const Keys& keys, const HeadKeys& k, float* mean) {
  const int64_t d = keys.d();
  std::fill_n(mean, d, 0.0f);
  for (int64_t tile = 0; tile < keys.tiles(); ++tile) {
    for (int64_t i = 0; i < d; ++i) mean[i] += k.sums[tile * PaddedFloats(d) + i];
  }
  for (int64_t i = 0; i < d; ++i) mean[i] /= static_cast<float>(keys.n);
}

// Threads look at different tiles with keys in common; whatever the order, the newest wins.
int32_t Newest(const HeadKeys& k, int64_t slot) {
  return std::atomic_ref<int32_t>(k.newest[slot]).load(std::memory_order_relaxed);
}
void Offer(const HeadKeys& k, int64_t slot, int32_t other) {
  std::atomic_ref<int32_t> newest(k.newest[slot]);
  int32_t known = newest.load(std::memory_order_relaxed);
  while (known < other && !newest.compare_exchange_weak(known, other, std::memory_order_relaxed)) {
  }
}

// Whether a key of the tile at `slot` could still find a near-duplicate below `end` that is newer than what it has.
bool Searching(const HeadKeys& k, int64_t slot, int64_t slots, int64_t end) {
  for (int64_t i = 0; i < slots; ++i) {
    if (Newest(k, slot + i) < end - 1) return true;
  }
  return false;
}

// Bit c of masks[r]: key row + r is similar to key column + c.
void OfferPairs(const HeadKeys& k, int64_t row, int64_t column, const uint64_t* masks) {
  uint64_t found = 0;
  for (int64_t r = kKeyTileSlots - 1; r >= 0; --r) {
    const uint64_t mask = masks[r];
    if (mask == 0) continue;
    Offer(k, row + r, static_cast<int32_t>(column + std::bit_width(mask) - 1));
    for (uint64_t first = mask & ~found; first != 0; first &= first - 1) {
      Offer(k, column + std::countr_zero(first), static_cast<int32_t>(row + r));
    }
    found |= mask;
  }
}

// The pairs of tile `column` with itself and all older tiles, newest first.
void SearchTile(const Kernels& kernels, const Keys& keys, const HeadKeys& k, int64_t column, float threshold,
                float* scratch) {
  const int64_t d = keys.d(), at = column * kKeyTileSlots, slots = std::min<int64_t>(kKeyTileSlots, keys.n - at);
  float* panels = scratch + kKeyTileSlots * kKeyTileSlots;
  uint64_t masks[kKeyTileSlots];
  bool packed = false;
  for (int64_t row = at; row >= 0; row -= kKeyTileSlots) {
    if (!Searching(k, at, slots, row + kKeyTileSlots) && !Searching(k, row, kKeyTileSlots, at + slots)) continue;
    if (!packed) kernels.key_panels(k.units + at * d, d, panels);
    packed = true;
    kernels.similar_keys(k.units + row * d, panels, d, threshold, scratch, masks);
    if (row == at) {
      for (int64_t i = 0; i < kKeyTileSlots; ++i) masks[i] &= ~(uint64_t{1} << i);
    }
    // With a negative threshold the zeros behind the last key look similar.
    const uint64_t valid = slots == kKeyTileSlots ? ~uint64_t{0} : (uint64_t{1} << slots) - 1;
    for (uint64_t& mask : masks) mask &= valid;
    if (row == at) std::fill(masks + slots, masks + kKeyTileSlots, 0);
    OfferPairs(k, row, at, masks);
  }
}

void FindNewest(Context& context, const Keys& keys, int64_t heads, float threshold, float* memory) {
  const int64_t tiles = keys.tiles();
  const int64_t floats = kKeyTileSlots * (kKeyTileSlots + keys.d());
  context.threads().ParallelFor(heads * tiles, [&](int64_t task, int worker) {
    // The newest tiles first: they have the most pairs, and spare the others most.
    const int64_t head = task % heads, column = tiles - 1 - task / heads;
    SearchTile(context.cpu_kernels(), keys, keys.head(memory, head), column, threshold,
               static_cast<float*>(context.Scratch(worker, floats * sizeof(float))));
  });
}

// Mean similarities of the keys of a tile before anything is left out, and what is.
void MeanSimilarities(const Kernels& kernels, const Keys& keys, const HeadKeys& k, int64_t tile, bool clears_first,
                      float* mean) {
  const int64_t d = keys.d(), begin = tile * kKeyTileSlots, end = std::min(keys.n, begin + kKeyTileSlots);
  const float share = 1.0f / static_cast<float>(keys.n);
  MeanUnit(keys, k, mean);
  for (int64_t i = begin; i < end; ++i) {
    const float* unit = k.units + i * d;
    k.means[i] = kernels.dot(unit, mean, d) - k.squares[i] * share;
    if (k.newest[i] < 0 && clears_first) k.newest[i] = 0;
    const int64_t other = k.newest[i];
    k.left_out[i] = other < 0 || other == i ? 0 : kernels.dot(unit, k.units + other * d, d) * share;
  }
}

void FinishRedundancy(const Kernels& kernels, const Keys& keys, const HeadKeys& k, RedundancyVariant variant,
                      int64_t columns, float* out) {
  for (int64_t i = 0; i < keys.n; ++i) {
    if (k.newest[i] >= 0) k.means[variant == RedundancyVariant::kCode ? k.newest[i] : i] -= k.left_out[i];
  }
  const float factor = 1.0f / kernels.exp_row(k.means, keys.n);
  for (int64_t i = 0; i < columns; ++i) out[i] = k.means[i] * factor;
}

}  // namespace

void KeyRedundancy(Context& context, const KvView& kv, float threshold, RedundancyVariant variant, const Tensor& out) {
  const Kernels& kernels = context.cpu_kernels();
  const Keys keys = {kv, variant == RedundancyVariant::kCode ? kv.num_slots : out.dim(1)};
  const int64_t tiles = keys.tiles();
  ForHeadGroups(context, kv.layout.kv_heads, keys.floats_per_head(), [&](int64_t begin, int64_t end, float* memory) {
    const int64_t heads = end - begin;
    FindUnits(context, keys, begin, heads, memory);
    FindNewest(context, keys, heads, threshold, memory);
    context.threads().ParallelFor(heads * tiles, [&](int64_t task, int worker) {
      MeanSimilarities(kernels, keys, keys.head(memory, task / tiles), task % tiles,
                       variant == RedundancyVariant::kCode,
                       static_cast<float*>(context.Scratch(worker, keys.d() * sizeof(float))));
    });
    context.threads().ParallelFor(heads, [&](int64_t head, int) {
      FinishRedundancy(kernels, keys, keys.head(memory, head), variant, out.dim(1),
                       out.data<float>() + (begin + head) * out.row_stride());
    });
  });
}

void KeyDifference(Context& context, const KvView& kv, const Tensor& out) {
  const Kernels& kernels = context.cpu_kernels();
  const Keys keys = {kv, kv.num_slots};
  ForHeadGroups(context, kv.layout.kv_heads, keys.floats_per_head(), [&](int64_t begin, int64_t end, float* memory) {
    FindUnits(context, keys, begin, end - begin, memory);
    context.threads().ParallelFor(end - begin, [&](int64_t head, int worker) {
      const HeadKeys k = keys.head(memory, head);
      float* mean = static_cast<float*>(context.Scratch(worker, keys.d() * sizeof(float)));
      MeanUnit(keys, k, mean);
      const float norm = std::sqrt(kernels.dot(mean, mean, keys.d())) + 1e-8f;
      float* row = out.data<float>() + (begin + head) * out.row_stride();
      for (int64_t i = 0; i < out.dim(1); ++i) row[i] = -kernels.dot(k.units + i * keys.d(), mean, keys.d()) / norm;
    });
  });
}

}  // namespace cairn::cpu
