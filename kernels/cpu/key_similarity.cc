// How alike the keys of a head are: R-KV's redundancy and KeyDiff.
//
// All pairs of keys are looked at 64 x 64 at a time, and of a tile of products only one bit each is kept: is it above
// the threshold? A pair serves both of its keys, so that tiles on one side of the diagonal are enough; and pairs in
// which neither key can find a newer near-duplicate than it has are left out, by whole tiles or by parts of them. (Keys
// of real models are alike: three in four of SmolLM2-135M's pairs are above 0.5, so that most keys have found theirs
// near the diagonal.) With a memory of the last call (a plane
// of the cache), a key that was there then and whose near-duplicate is still there, or that had none, has nothing to
// find among the keys of then: of a tile of old keys only those are looked for whose near-duplicate has gone.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/core/key_memory.h"
#include "kernels/cpu/key_tiles.h"
#include "kernels/cpu/kv_ops.h"

namespace cairn::cpu {
namespace {

// What is known of one head's first n keys, in scratch memory.
struct HeadKeys {
  float* units;      // [tiles * 64, padded]: normalised keys, then zeros
  int16_t* rounded;  // [tiles * 64, padded]: the same in 16 bits
  float* sums;       // [tiles, padded]: of each tile's units
  float* mean;       // [padded]: of all units
  float* squares;    // [tiles * 64]: the units' norms squared
  float* means;      // [tiles * 64]: S, the mean similarity
  float* left_out;   // [tiles * 64]: similarity to the newest near-duplicate
  int32_t* newest;   // [tiles * 64]: the newest near-duplicate, -1 if there is none
  uint64_t* open;    // [tiles]: a bit for each key that has something to find among old keys
  // With a memory: [tiles * 64] what the plane says of a slot, and the position of its token.
  int32_t* memory;
  int32_t* positions;
  int32_t* index;  // [places]: the first slot of a place's share of all positions, -1 if there is none
};

struct Keys {
  const KvView& kv;
  int64_t n;    // looked at
  int64_t old;  // of these, the first have been looked at by the last call

  int64_t d() const { return kv.layout.head_dim; }
  int64_t padded() const { return PaddedFloats(d()); }
  int64_t tiles() const { return NumKeyTiles(n); }
  int64_t places() const { return 4 * kKeyTileSlots * tiles(); }
  int64_t floats_per_head() const {
    return tiles() * (kKeyTileSlots * (padded() + padded() / 2 + 6) + padded()) + places() + padded() +
           2 * PaddedFloats(tiles());
  }
  HeadKeys head(float* memory, int64_t index) const {
    const int64_t slots = tiles() * kKeyTileSlots;
    HeadKeys k;
    k.units = memory + index * floats_per_head();
    k.rounded = reinterpret_cast<int16_t*>(k.units + slots * padded());
    k.sums = k.units + slots * padded() + slots * padded() / 2;
    k.mean = k.sums + tiles() * padded();
    k.squares = k.mean + padded();
    k.means = k.squares + slots;
    k.left_out = k.means + slots;
    k.newest = reinterpret_cast<int32_t*>(k.left_out + slots);
    k.memory = k.newest + slots;
    k.positions = k.memory + slots;
    k.index = k.positions + slots;
    k.open = reinterpret_cast<uint64_t*>(k.index + places());
    return k;
  }
};

// The planes of a head's slots, block by block: f(slot, scores, positions, count).
template <typename F>
void ForBlocks(const KvView& kv, int head, int64_t n, const F& f) {
  const int64_t size = kv.layout.block_size, block_bytes = static_cast<int64_t>(kv.layout.block_bytes());
  uint8_t* const scores = kv.pool + kv.layout.score_offset() + head * size * sizeof(float);
  uint8_t* const positions = kv.pool + kv.layout.position_offset() + head * size * sizeof(int32_t);
  for (int64_t slot = 0, index = 0; slot < n; slot += size, ++index) {
    const int64_t block = kv.block_table[index] * block_bytes;
    f(slot, reinterpret_cast<float*>(scores + block), reinterpret_cast<const int32_t*>(positions + block),
      std::min(size, n - slot));
  }
}

// Where in the index a position's search begins.
struct PositionIndex {
  int32_t base;   // the first slot's position
  uint32_t last;  // the last slot's place
  int shift;

  PositionIndex(const HeadKeys& k, int64_t old, int64_t places) : base(k.positions[0]) {
    const uint32_t range = static_cast<uint32_t>(k.positions[old - 1] - base);
    shift = std::max(0, static_cast<int>(std::bit_width(range)) -
                            static_cast<int>(std::bit_width(static_cast<uint32_t>(places))) + 1);
    last = range >> shift;
  }
  uint32_t PlaceOf(int32_t position) const { return static_cast<uint32_t>(position - base) >> shift; }
};

void ReadMemory(const Keys& keys, const HeadKeys& k, int head) {
  ForBlocks(keys.kv, head, keys.old, [&](int64_t slot, const float* scores, const int32_t* positions, int64_t count) {
    std::memcpy(k.memory + slot, scores, count * sizeof(float));
    std::copy_n(positions, count, k.positions + slot);
  });
  const PositionIndex index(k, keys.old, keys.places());
  std::fill_n(k.index, index.last + 1, -1);
  for (int64_t slot = keys.old - 1; slot >= 0; --slot) {
    k.index[index.PlaceOf(k.positions[slot])] = static_cast<int32_t>(slot);  // the lowest slot of a place stays
  }
}

// The slot of the token at a position, -1 if it has gone.
int32_t SlotAt(const Keys& keys, const HeadKeys& k, const PositionIndex& index, int32_t position) {
  const uint32_t place = index.PlaceOf(position);
  if (place > index.last) return -1;
  int32_t slot = k.index[place];
  if (index.shift == 0 || slot < 0) return slot;
  while (slot < keys.old && k.positions[slot] < position) ++slot;
  return slot < keys.old && k.positions[slot] == position ? slot : -1;
}

// What the last call found for the keys of a tile, as far as it still holds.
void Recall(const Keys& keys, const HeadKeys& k, int64_t tile) {
  const int64_t begin = tile * kKeyTileSlots, end = std::min(keys.old, begin + kKeyTileSlots);
  std::fill_n(k.newest + begin, kKeyTileSlots, -1);
  k.open[tile] = 0;
  if (begin >= end) return;
  const PositionIndex index(k, keys.old, keys.places());
  for (int64_t slot = begin; slot < end; ++slot) {
    if (k.memory[slot] == KeyMemory::kAlone) continue;
    const int32_t found = SlotAt(keys, k, index, k.memory[slot] - KeyMemory::kFirstPosition);
    k.newest[slot] = found;
    k.open[tile] |= static_cast<uint64_t>(found < 0) << (slot - begin);
  }
}

// Normalised keys of `heads` heads from `first` on: the same whoever does it.
template <typename Threads>
void FindUnits(const Threads& threads, const Kernels& kernels, const Keys& keys, int64_t first, int64_t heads,
               float* memory) {
  const int64_t tiles = keys.tiles(), padded = keys.padded();
  if (keys.old > 0) {
    threads.ForEach(heads, [&](int64_t head, int) {  //
      ReadMemory(keys, keys.head(memory, head), static_cast<int>(first + head));
    });
  }
  threads.ForEach(heads * tiles, [&](int64_t task, int) {
    const int64_t head = task / tiles, tile = task % tiles, slot = tile * kKeyTileSlots;
    const HeadKeys k = keys.head(memory, head);
    kernels.unit_keys(KeyTileOf(keys.kv, first + head, tile, keys.n), padded, k.units + slot * padded, k.squares + slot,
                      k.sums + tile * padded, k.rounded + slot * padded);
    Recall(keys, k, tile);
  });
}

void FindMean(const Keys& keys, const HeadKeys& k) {
  const int64_t padded = keys.padded();
  std::fill_n(k.mean, padded, 0.0f);
  for (int64_t tile = 0; tile < keys.tiles(); ++tile) {
    for (int64_t i = 0; i < padded; ++i) k.mean[i] += k.sums[tile * padded + i];
  }
  for (int64_t i = 0; i < padded; ++i) k.mean[i] /= static_cast<float>(keys.n);
}

// The newest near-duplicates of the keys of a tile while they are looked at. Threads that look at tiles with keys in
// common share them: whatever the order, the newest wins; what another thread does not see yet costs it time, nothing
// else.
class Newest {
 public:
  Newest(int32_t* known, bool is_shared) : known_(known), is_shared_(is_shared) {
    if (!is_shared) return;
    for (int i = 0; i < kKeyTileSlots; ++i) {
      copy_[i] = std::atomic_ref<int32_t>(known[i]).load(std::memory_order_relaxed);
    }
  }
  Newest(const Newest&) = delete;
  Newest& operator=(const Newest&) = delete;
  ~Newest() {
    for (uint64_t left = raised_; left != 0; left &= left - 1) Publish(std::countr_zero(left));
  }

  const int32_t* slots() const { return is_shared_ ? copy_ : known_; }
  void Raise(int key, int32_t slot) {
    int32_t& newest = is_shared_ ? copy_[key] : known_[key];
    if (newest >= slot) return;
    newest = slot;
    if (is_shared_) raised_ |= uint64_t{1} << key;
  }

 private:
  void Publish(int key) {
    std::atomic_ref<int32_t> atomic(known_[key]);
    int32_t known = atomic.load(std::memory_order_relaxed);
    while (known < copy_[key] && !atomic.compare_exchange_weak(known, copy_[key], std::memory_order_relaxed)) {
    }
  }

  int32_t* known_;
  bool is_shared_;
  uint64_t raised_ = 0;
  int32_t copy_[kKeyTileSlots];
};

// Bit c of masks[r]: key row + r is similar to key column + c; `found` are the rows that have one. Only keys that
// search have something to learn.
void Record(int64_t row, int64_t column, const uint64_t* masks, uint64_t found, uint64_t searching_rows,
            uint64_t searching_columns, Newest& rows, Newest& columns) {
  for (uint64_t left = found & searching_rows; left != 0; left &= left - 1) {
    const int r = std::countr_zero(left);
    rows.Raise(r, static_cast<int32_t>(column + std::bit_width(masks[r]) - 1));
  }
  while (found != 0 && searching_columns != 0) {
    const int r = std::bit_width(found) - 1;
    for (uint64_t similar = masks[r] & searching_columns; similar != 0; similar &= similar - 1) {
      columns.Raise(std::countr_zero(similar), static_cast<int32_t>(row + r));
    }
    searching_columns &= ~masks[r];
    found &= ~(uint64_t{1} << r);
  }
}

// The pairs of tile `column` with itself and all older tiles, newest first.
void SearchTile(const Kernels& kernels, const Keys& keys, const HeadKeys& k, int64_t column, float threshold,
                const SimilarBounds& bounds, bool is_shared, uint32_t* panels) {
  const int64_t d = keys.d(), padded = keys.padded(), at = column * kKeyTileSlots;
  const int64_t slots = std::min<int64_t>(kKeyTileSlots, keys.n - at);
  const uint64_t valid = slots == kKeyTileSlots ? ~uint64_t{0} : (uint64_t{1} << slots) - 1;
  const int32_t end = static_cast<int32_t>(at + slots);
  const bool is_old = end <= keys.old;  // then so are all older tiles
  uint64_t open_columns = is_old ? k.open[column] : valid;
  Newest columns(k.newest + at, is_shared);
  uint64_t masks[kKeyTileSlots];
  KeyPairs pairs;
  pairs.column_units = k.units + at * padded;
  pairs.padded = padded;
  pairs.head_dim = d;
  pairs.threshold = threshold;
  pairs.first_similar = bounds.first_similar;
  pairs.doubt = bounds.doubt;
  pairs.valid = valid;
  for (int64_t row = at; row >= 0; row -= kKeyTileSlots) {
    const int64_t tile = row / kKeyTileSlots;
    const uint64_t open_rows = is_old ? k.open[tile] : row == at ? valid : ~uint64_t{0};
    if (open_columns == 0 && open_rows == 0) continue;
    // Those that could still find a near-duplicate that is newer than what they have: never more than before, as rows
    // and columns are ever older.
    if (open_columns != 0) {
      open_columns &= kernels.below(columns.slots(), static_cast<int32_t>(row + kKeyTileSlots) - 1);
    }
    Newest rows(k.newest + row, is_shared);
    const uint64_t searching_rows = open_rows != 0 ? kernels.below(rows.slots(), end - 1) & open_rows : 0;
    if (is_old && !is_shared) k.open[tile] = searching_rows;
    if (open_columns == 0 && searching_rows == 0) continue;
    if (pairs.columns == nullptr) kernels.key_panels(k.rounded + at * padded, padded, d, panels);
    pairs.columns = panels;
    pairs.row_units = k.units + row * padded;
    pairs.rows = k.rounded + row * padded;
    pairs.searching_rows = searching_rows;
    pairs.searching_columns = open_columns;
    pairs.above = row == at;
    const uint64_t found = kernels.similar_keys(pairs, masks);
    Record(row, at, masks, found, searching_rows, open_columns, rows, columns);
  }
}

// Mean similarities of the keys of a tile before anything is left out, and what is.
void MeanSimilarities(const Kernels& kernels, const Keys& keys, const HeadKeys& k, int64_t tile, bool clears_first) {
  const int64_t begin = tile * kKeyTileSlots, end = std::min(keys.n, begin + kKeyTileSlots);
  kernels.unit_dots(k.units + begin * keys.padded(), keys.padded(), end - begin, k.mean, k.means + begin);
  const float n = static_cast<float>(keys.n);
  for (int64_t i = begin; i < end; ++i) k.means[i] -= k.squares[i] / n;
  const int32_t lowest = clears_first ? 0 : -1;
  for (int64_t i = begin; i < end; ++i) k.newest[i] = std::max(k.newest[i], lowest);
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
      k.memory[slot + i] = newest < 0 ? KeyMemory::kAlone : k.positions[newest] + KeyMemory::kFirstPosition;
    }
    std::memcpy(scores, k.memory + slot, count * sizeof(float));  // in one piece: another core writes beside it
  });
}

// How many slots the last call has seen: they come first, and new ones have no memory.
int64_t OldSlots(const KvView& kv) {
  int32_t low = 0, high = kv.num_slots;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    int32_t memory;
    std::memcpy(&memory, kv.score(0, middle), sizeof memory);
    if (memory != KeyMemory::kNew) {
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

struct Redundancy {
  float threshold;
  RedundancyVariant variant;
  bool remembers;
};

// Redundancy of `heads` heads from `first` on, to the rows of out.
template <typename Threads>
void FindRedundancy(const Threads& threads, Context& context, const Keys& keys, const Redundancy& redundancy,
                    int64_t first, int64_t heads, float* memory, const Tensor& out) {
  const Kernels& kernels = context.cpu_kernels();
  const bool is_code = redundancy.variant == RedundancyVariant::kCode;
  const int64_t tiles = keys.tiles();
  const SimilarBounds bounds(redundancy.threshold, keys.d());
  FindUnits(threads, kernels, keys, first, heads, memory);
  threads.ForEach(heads * tiles, [&](int64_t task, int worker) {
    // Head by head, whose keys then stay in the L2 cache; the newest tiles first, which spare the others most.
    const int64_t head = task / tiles, column = tiles - 1 - task % tiles;
    const int64_t panel_pairs = kKeyTileSlots * ((keys.d() + 1) / 2);
    // A compaction follows, which moves the values: they come into the cache while there is much to compute.
    KeyTile values = KeyTileOf(keys.kv, first + head, column, keys.n);
    values.k += keys.kv.layout.v_offset() - keys.kv.layout.k_offset();
    FetchKeys(values);
    uint32_t* panels = static_cast<uint32_t*>(context.Scratch(worker, panel_pairs * sizeof(uint32_t)));
    SearchTile(kernels, keys, keys.head(memory, head), column, redundancy.threshold, bounds, Threads::kShare, panels);
  });
  threads.ForEach(heads, [&](int64_t head, int) {
    FindMean(keys, keys.head(memory, head));
    if (redundancy.remembers) Remember(keys, keys.head(memory, head), static_cast<int>(first + head));
  });
  threads.ForEach(heads * tiles, [&](int64_t task, int) {
    MeanSimilarities(kernels, keys, keys.head(memory, task / tiles), task % tiles, is_code);
  });
  threads.ForEach(heads, [&](int64_t head, int) {
    FinishRedundancy(kernels, keys, keys.head(memory, head), redundancy.variant, out.dim(1),
                     out.data<float>() + (first + head) * out.row_stride());
  });
}

}  // namespace

void KeyRedundancy(Context& context, const KvView& kv, float threshold, RedundancyVariant variant, bool remembers,
                   const Tensor& out) {
  const Redundancy redundancy = {threshold, variant, remembers};
  const Keys keys = {.kv = kv,
                     .n = variant == RedundancyVariant::kCode ? kv.num_slots : out.dim(1),
                     .old = remembers ? OldSlots(kv) : 0};
  ForHeads(context, kv.layout.kv_heads, keys.floats_per_head(),
           [&](const auto& threads, int64_t first, int64_t heads, float* memory) {
             FindRedundancy(threads, context, keys, redundancy, first, heads, memory, out);
           });
}

void KeyDifference(Context& context, const KvView& kv, const Tensor& out) {
  const Kernels& kernels = context.cpu_kernels();
  const Keys keys = {.kv = kv, .n = kv.num_slots, .old = 0};
  const int64_t padded = keys.padded();
  const auto of_heads = [&](const auto& threads, int64_t first, int64_t heads, float* memory) {
    FindUnits(threads, kernels, keys, first, heads, memory);
    threads.ForEach(heads, [&](int64_t head, int) {
      const HeadKeys k = keys.head(memory, head);
      FindMean(keys, k);
      float square = 0;
      kernels.unit_dots(k.mean, padded, 1, k.mean, &square);
      const float factor = -1.0f / (std::sqrt(square) + 1e-8f);
      float* row = out.data<float>() + (first + head) * out.row_stride();
      kernels.unit_dots(k.units, padded, out.dim(1), k.mean, row);
      for (int64_t i = 0; i < out.dim(1); ++i) row[i] *= factor;
    });
  };
  ForHeads(context, kv.layout.kv_heads, keys.floats_per_head(), of_heads);
}

}  // namespace cairn::cpu
