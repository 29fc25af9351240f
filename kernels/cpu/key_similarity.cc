// How alike the keys of a head are: R-KV's redundancy and KeyDiff.
//
// All pairs of keys are looked at 64 x 64 at a time, and of a tile of products only one bit each is kept: is it above
// the threshold? A pair serves both of its keys, so that tiles on one side of the diagonal are enough; and pairs in
// which neither key can find a newer near-duplicate than it has are left out, by whole tiles or by parts of them. (Keys
// of real models are alike: three in four of SmolLM2-135M's pairs are above 0.5, and at 1152 tokens one tile in four is
// looked at and one product in seven is made, most of them near the diagonal.) With a memory of the last call (a plane
// of the cache), a key that was there then and whose near-duplicate is still there, or that had none, has nothing to
// find among the keys of then: of a tile of old keys only those are looked for whose near-duplicate has gone.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/cpu/key_tiles.h"
#include "kernels/cpu/kv_ops.h"

namespace cairn::cpu {
namespace {

// What is known of one head's first n keys, in scratch memory.
struct HeadKeys {
  float* units;     // [tiles * 64, padded]: normalised keys, then zeros
  float* sums;      // [tiles, padded]: of each tile's units
  float* squares;   // [tiles * 64]: the units' norms squared
  float* means;     // [tiles * 64]: S, the mean similarity
  float* left_out;  // [tiles * 64]: similarity to the newest near-duplicate
  int32_t* newest;  // [tiles * 64]: the newest near-duplicate, -1 if there is none
  int32_t* oldest;  // [tiles]: no key of the tile has an older one than this
  uint64_t* open;   // [tiles]: a bit for each key that has something to find among old keys
  // With a memory: [tiles * 64] what the plane says of a slot, and the position of its token.
  int32_t* memory;
  int32_t* positions;
};

// What the plane says of a slot: nothing yet, no near-duplicate, or the position of the newest (plus kFirstPosition).
constexpr int32_t kNew = 0, kAlone = 1, kFirstPosition = 2;

struct Keys {
  const KvView& kv;
  int64_t n;    // looked at
  int64_t old;  // of these, the first have been looked at by the last call

  int64_t d() const { return kv.layout.head_dim; }
  int64_t padded() const { return PaddedFloats(d()); }
  int64_t tiles() const { return NumKeyTiles(n); }
  int64_t floats_per_head() const {
    return tiles() * (kKeyTileSlots * (padded() + 6) + padded()) + 3 * PaddedFloats(tiles());
  }
  HeadKeys head(float* memory, int64_t index) const {
    const int64_t slots = tiles() * kKeyTileSlots;
    HeadKeys k;
    k.units = memory + index * floats_per_head();
    k.sums = k.units + slots * padded();
    k.squares = k.sums + tiles() * padded();
    k.means = k.squares + slots;
    k.left_out = k.means + slots;
    k.newest = reinterpret_cast<int32_t*>(k.left_out + slots);
    k.memory = k.newest + slots;
    k.positions = k.memory + slots;
    k.open = reinterpret_cast<uint64_t*>(k.positions + slots);
    k.oldest = reinterpret_cast<int32_t*>(k.open + PaddedFloats(tiles()));
    return k;
  }
};

// The planes of a head's slots, block by block: f(slot, scores, positions, count).
template <typename F>
void ForBlocks(const KvView& kv, int head, int64_t n, const F& f) {
  for (int64_t slot = 0; slot < n; slot += kv.layout.block_size) {
    const int32_t first = static_cast<int32_t>(slot);
    f(slot, kv.score(head, first), kv.position(head, first), std::min<int64_t>(kv.layout.block_size, n - slot));
  }
}

void ReadMemory(const Keys& keys, const HeadKeys& k, int head) {
  ForBlocks(keys.kv, head, keys.old, [&](int64_t slot, const float* scores, const int32_t* positions, int64_t count) {
    std::memcpy(k.memory + slot, scores, count * sizeof(float));
    std::copy_n(positions, count, k.positions + slot);
  });
}

// What the last call found for the keys of a tile, as far as it still holds.
void Recall(const Keys& keys, const HeadKeys& k, int64_t tile) {
  const int64_t begin = tile * kKeyTileSlots, end = std::min(keys.old, begin + kKeyTileSlots);
  std::fill_n(k.newest + begin, kKeyTileSlots, -1);
  k.open[tile] = 0;
  for (int64_t slot = begin; slot < end; ++slot) {
    if (k.memory[slot] == kAlone) continue;
    // The last slot whose position is not above the wanted one; without branches, which would be guessed wrong.
    const int32_t wanted = k.memory[slot] - kFirstPosition;
    const int32_t* found = k.positions;
    for (int64_t left = keys.old; left > 1;) {
      const int64_t half = left / 2;
      found += found[half] <= wanted ? half : 0;
      left -= half;
    }
    if (*found == wanted) {
      k.newest[slot] = static_cast<int32_t>(found - k.positions);
    } else {
      k.open[tile] |= uint64_t{1} << (slot - begin);
    }
  }
  k.oldest[tile] = -1;
}

// Normalised keys of `heads` heads from `first` on.
void FindUnits(Context& context, const Keys& keys, int64_t first, int64_t heads, float* memory) {
  const int64_t tiles = keys.tiles(), padded = keys.padded();
  if (keys.old > 0) {
    context.threads().ParallelFor(
        heads, [&](int64_t head, int) { ReadMemory(keys, keys.head(memory, head), static_cast<int>(first + head)); });
  }
  context.threads().ParallelFor(heads * tiles, [&](int64_t task, int) {
    const int64_t head = task / tiles, tile = task % tiles, slot = tile * kKeyTileSlots;
    const HeadKeys k = keys.head(memory, head);
    context.cpu_kernels().unit_keys(KeyTileOf(keys.kv, first + head, tile, keys.n), padded, k.units + slot * padded,
                                    k.squares + slot, k.sums + tile * padded);
    Recall(keys, k, tile);
  });
}

// The mean of the units [padded], the same for every caller.
void MeanUnit(const Keys& keys, const HeadKeys& k, float* mean) {
  const int64_t padded = keys.padded();
  std::fill_n(mean, padded, 0.0f);
  for (int64_t tile = 0; tile < keys.tiles(); ++tile) {
    for (int64_t i = 0; i < padded; ++i) mean[i] += k.sums[tile * padded + i];
  }
  for (int64_t i = 0; i < padded; ++i) mean[i] /= static_cast<float>(keys.n);
}

// Threads look at different tiles with keys in common. Whatever the order, the newest near-duplicate wins; what another
// thread does not see yet costs it time, nothing else.
int32_t Load(int32_t& shared) { return std::atomic_ref<int32_t>(shared).load(std::memory_order_relaxed); }
void Store(int32_t& shared, int32_t value) { std::atomic_ref<int32_t>(shared).store(value, std::memory_order_relaxed); }
void Raise(int32_t& shared, int32_t value) {
  std::atomic_ref<int32_t> atomic(shared);
  int32_t known = atomic.load(std::memory_order_relaxed);
  while (known < value && !atomic.compare_exchange_weak(known, value, std::memory_order_relaxed)) {
  }
}

// The newest near-duplicates that the keys of a tile are known to have, and the oldest of these.
struct Found {
  int32_t newest[kKeyTileSlots];
  int32_t oldest;

  explicit Found(int32_t* shared) {
    for (int i = 0; i < kKeyTileSlots; ++i) newest[i] = Load(shared[i]);
    FindOldest();
  }
  void FindOldest() {
    oldest = INT32_MAX;
    for (int32_t slot : newest) oldest = std::min(oldest, slot);
  }
  // Bit i: key i could still find a near-duplicate below `end` that is newer than what it has.
  uint64_t Searching(int64_t end) const {
    if (oldest >= end - 1) return 0;
    uint64_t mask = 0;
    for (int i = 0; i < kKeyTileSlots; ++i) mask |= static_cast<uint64_t>(newest[i] < end - 1) << i;
    return mask;
  }
};

// The keys of the tile at `row` that search below `end`.
uint64_t SearchingRows(const HeadKeys& k, int64_t row, int64_t end) {
  int32_t& oldest = k.oldest[row / kKeyTileSlots];
  if (Load(oldest) >= end - 1) return 0;
  const Found rows(k.newest + row);
  Store(oldest, rows.oldest);
  return rows.Searching(end);
}

// Bit c of masks[r]: key row + r is similar to key column + c.
void Record(const HeadKeys& k, int64_t row, int64_t column, const uint64_t* masks, Found& columns) {
  uint64_t found = 0;
  for (int64_t r = kKeyTileSlots - 1; r >= 0; --r) {
    const uint64_t mask = masks[r];
    if (mask == 0) continue;
    Raise(k.newest[row + r], static_cast<int32_t>(column + std::bit_width(mask) - 1));
    for (uint64_t first = mask & ~found; first != 0; first &= first - 1) {
      int32_t& newest = columns.newest[std::countr_zero(first)];
      newest = std::max(newest, static_cast<int32_t>(row + r));
    }
    found |= mask;
  }
  columns.FindOldest();
}

// The pairs of tile `column` with itself and all older tiles, newest first.
void SearchTile(const Kernels& kernels, const Keys& keys, const HeadKeys& k, int64_t column, float threshold,
                float* panels) {
  const int64_t d = keys.d(), padded = keys.padded(), at = column * kKeyTileSlots;
  const int64_t slots = std::min<int64_t>(kKeyTileSlots, keys.n - at);
  Found columns(k.newest + at);
  // Nothing behind the last key searches or is found.
  const uint64_t valid = slots == kKeyTileSlots ? ~uint64_t{0} : (uint64_t{1} << slots) - 1;
  std::fill(columns.newest + slots, columns.newest + kKeyTileSlots, INT32_MAX);
  uint64_t masks[kKeyTileSlots];
  bool packed = false;
  const bool is_old = at + slots <= keys.old;  // then so are all older tiles
  for (int64_t row = at; row >= 0; row -= kKeyTileSlots) {
    const uint64_t open_columns = is_old ? k.open[column] : ~uint64_t{0};
    const uint64_t open_rows = is_old ? k.open[row / kKeyTileSlots] : ~uint64_t{0};
    if (open_columns == 0 && open_rows == 0) continue;
    const uint64_t searching_columns = open_columns == 0 ? 0 : columns.Searching(row + kKeyTileSlots) & open_columns;
    const uint64_t searching_rows = open_rows == 0 ? 0 : SearchingRows(k, row, at + slots) & open_rows;
    if (searching_columns == 0 && searching_rows == 0) continue;
    if (!packed) kernels.key_panels(k.units + at * padded, padded, d, panels);
    packed = true;
    kernels.similar_keys(k.units + row * padded, padded, panels, d, threshold, searching_rows, searching_columns,
                         row == at, masks);
    for (int64_t r = 0; r < kKeyTileSlots; ++r) masks[r] &= row < at ? valid : valid & (~uint64_t{1} << r);
    Record(k, row, at, masks, columns);
  }
  for (int64_t i = 0; i < slots; ++i) Raise(k.newest[at + i], columns.newest[i]);
}

void FindNewest(Context& context, const Keys& keys, int64_t heads, float threshold, float* memory) {
  const int64_t tiles = keys.tiles();
  const int64_t floats = kKeyTileSlots * keys.d();
  context.threads().ParallelFor(heads * tiles, [&](int64_t task, int worker) {
    // Head by head, whose keys then stay in the L2 cache; the newest tiles first, which spare the others most.
    const int64_t head = task / tiles, column = tiles - 1 - task % tiles;
    SearchTile(context.cpu_kernels(), keys, keys.head(memory, head), column, threshold,
               static_cast<float*>(context.Scratch(worker, floats * sizeof(float))));
  });
}

// Mean similarities of the keys of a tile before anything is left out, and what is.
void MeanSimilarities(const Kernels& kernels, const Keys& keys, const HeadKeys& k, int64_t tile, bool clears_first,
                      float* mean) {
  const int64_t begin = tile * kKeyTileSlots, end = std::min(keys.n, begin + kKeyTileSlots);
  MeanUnit(keys, k, mean);
  kernels.unit_dots(k.units + begin * keys.padded(), keys.padded(), end - begin, mean, k.means + begin);
  for (int64_t i = begin; i < end; ++i) {
    k.means[i] -= k.squares[i] / static_cast<float>(keys.n);
    if (k.newest[i] < 0 && clears_first) k.newest[i] = 0;
  }
  kernels.pair_dots(k.units, keys.padded(), begin, end, k.newest, k.left_out);
}

// For the next call: what was found for each slot of a head.
void Remember(const Keys& keys, const HeadKeys& k, int head) {
  ForBlocks(keys.kv, head, keys.n, [&](int64_t slot, const float*, const int32_t* positions, int64_t count) {
    std::copy_n(positions, count, k.positions + slot);
  });
  ForBlocks(keys.kv, head, keys.n, [&](int64_t slot, float* scores, const int32_t*, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const int32_t newest = k.newest[slot + i];
      const int32_t memory = newest < 0 ? kAlone : k.positions[newest] + kFirstPosition;
      std::memcpy(scores + i, &memory, sizeof memory);
    }
  });
}

// How many slots the last call has seen: they come first, and new ones have no memory.
int64_t OldSlots(const KvView& kv) {
  int32_t low = 0, high = kv.num_slots;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    int32_t memory;
    std::memcpy(&memory, kv.score(0, middle), sizeof memory);
    if (memory != kNew) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

void FinishRedundancy(const Kernels& kernels, const Keys& keys, const HeadKeys& k, RedundancyVariant variant,
                      int64_t columns, float* out) {
  const float share = 1.0f / static_cast<float>(keys.n);
  for (int64_t i = 0; i < keys.n; ++i) {
    if (k.newest[i] >= 0) k.means[variant == RedundancyVariant::kCode ? k.newest[i] : i] -= k.left_out[i] * share;
  }
  const float factor = 1.0f / kernels.exp_row(k.means, keys.n);
  for (int64_t i = 0; i < columns; ++i) out[i] = k.means[i] * factor;
}

}  // namespace

void KeyRedundancy(Context& context, const KvView& kv, float threshold, RedundancyVariant variant, bool remembers,
                   const Tensor& out) {
  const Kernels& kernels = context.cpu_kernels();
  const bool is_code = variant == RedundancyVariant::kCode;
  const Keys keys = {.kv = kv, .n = is_code ? kv.num_slots : out.dim(1), .old = remembers ? OldSlots(kv) : 0};
  const int64_t tiles = keys.tiles();
  ForHeadGroups(context, kv.layout.kv_heads, keys.floats_per_head(), [&](int64_t begin, int64_t end, float* memory) {
    const int64_t heads = end - begin;
    FindUnits(context, keys, begin, heads, memory);
    FindNewest(context, keys, heads, threshold, memory);
    if (remembers) {
      context.threads().ParallelFor(
          heads, [&](int64_t head, int) { Remember(keys, keys.head(memory, head), static_cast<int>(begin + head)); });
    }
    context.threads().ParallelFor(heads * tiles, [&](int64_t task, int worker) {
      MeanSimilarities(kernels, keys, keys.head(memory, task / tiles), task % tiles, is_code,
                       static_cast<float*>(context.Scratch(worker, keys.padded() * sizeof(float))));
    });
    context.threads().ParallelFor(heads, [&](int64_t head, int) {
      FinishRedundancy(kernels, keys, keys.head(memory, head), variant, out.dim(1),
                       out.data<float>() + (begin + head) * out.row_stride());
    });
  });
}

void KeyDifference(Context& context, const KvView& kv, const Tensor& out) {
  const Kernels& kernels = context.cpu_kernels();
  const Keys keys = {.kv = kv, .n = kv.num_slots, .old = 0};
  const int64_t padded = keys.padded();
  ForHeadGroups(context, kv.layout.kv_heads, keys.floats_per_head(), [&](int64_t begin, int64_t end, float* memory) {
    FindUnits(context, keys, begin, end - begin, memory);
    context.threads().ParallelFor(end - begin, [&](int64_t head, int worker) {
      const HeadKeys k = keys.head(memory, head);
      float* mean = static_cast<float*>(context.Scratch(worker, padded * sizeof(float)));
      MeanUnit(keys, k, mean);
      float square = 0;
      kernels.unit_dots(mean, padded, 1, mean, &square);
      const float factor = -1.0f / (std::sqrt(square) + 1e-8f);
      float* row = out.data<float>() + (begin + head) * out.row_stride();
      kernels.unit_dots(k.units, padded, out.dim(1), mean, row);
      for (int64_t i = 0; i < out.dim(1); ++i) row[i] *= factor;
    });
  });
}

}  // namespace cairn::cpu
