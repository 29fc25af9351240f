// From scores to a smaller cache. All of it is exact: integers, comparisons and copies.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <type_traits>

#include "kernels/core/fnv1a.h"
#include "kernels/cpu/fixed_point.h"
#include "kernels/cpu/kv_ops.h"
#include "kernels/cpu/parallel_rows.h"

namespace cairn::cpu {
namespace {

// An integer that orders scores: NaN counts as -infinity, -0 equals 0.
int32_t OrderOf(float score) {
  const int32_t bits = std::bit_cast<int32_t>(std::isnan(score) ? -INFINITY : score);
  return bits >= 0 ? bits : static_cast<int32_t>(INT32_MIN - static_cast<int64_t>(bits));  // 0 for -0
}
int64_t OrderOf(int64_t score) { return score; }

// The count-th largest of values [n], and how many are larger. `work` has room for n.
template <typename T>
struct Threshold {
  T value;
  int64_t above;
};
template <typename T>
Threshold<T> FindThreshold(const T* values, T* work, int64_t n, int64_t count) {
  using Unsigned = std::make_unsigned_t<T>;
  // Counted by their leading bits; only those that share them with the one looked for are put in order.
  T least = values[0], most = values[0];
  for (int64_t i = 1; i < n; ++i) {
    least = std::min(least, values[i]);
    most = std::max(most, values[i]);
  }
  const Unsigned base = static_cast<Unsigned>(least);
  const int shift = std::max(0, static_cast<int>(std::bit_width(static_cast<Unsigned>(most) - base)) - 8);
  const auto bucket_of = [&](T value) { return static_cast<int>((static_cast<Unsigned>(value) - base) >> shift); };
  // Counted in two places: neighbours often fall into one bucket, and would wait for each other.
  int32_t counts[256] = {}, odd_counts[256] = {};
  for (int64_t i = 0; i + 1 < n; i += 2) {
    ++counts[bucket_of(values[i])];
    ++odd_counts[bucket_of(values[i + 1])];
  }
  if (n % 2 != 0) ++counts[bucket_of(values[n - 1])];
  for (int i = 0; i < 256; ++i) counts[i] += odd_counts[i];
  int bucket = 255;
  int64_t above = 0;
  for (; above + counts[bucket] < count; --bucket) above += counts[bucket];
  T* end = work;
  for (int64_t i = 0; i < n; ++i) {
    *end = values[i];
    end += bucket_of(values[i]) == bucket ? 1 : 0;
  }
  T* const found = work + count - above - 1;
  std::nth_element(work, found, end, std::greater<T>());
  return {.value = *found, .above = above + std::count_if(work, found, [&](T value) { return value > *found; })};
}

// The `count` best of slots [first, m), ascending, to kept. `order` holds m values, `work` has room for m more.
template <typename T>
int32_t* SelectBest(const T* order, T* work, int64_t first, int64_t m, int64_t count, int32_t* kept) {
  if (count == 0) return kept;
  const Threshold<T> threshold = FindThreshold(order + first, work, m - first, count);
  // Everything above the count-th best stays, and of its equals the lowest slots.
  int64_t equals = count - threshold.above;
  int32_t* const end = kept + count;
  for (int64_t slot = first; kept != end; ++slot) {
    *kept = static_cast<int32_t>(slot);
    const bool is_equal = order[slot] == threshold.value && equals > 0;
    equals -= is_equal ? 1 : 0;
    kept += order[slot] > threshold.value || is_equal ? 1 : 0;
  }
  return kept;
}

template <typename T>
void SelectRows(Context& context, const Tensor& scores, int num_first, int window, const Tensor& kept) {
  const int64_t m = scores.dim(1), candidates = kept.dim(1) - window;
  const int64_t first = std::min<int64_t>(num_first, candidates);
  context.threads().ParallelFor(scores.dim(0), [&](int64_t row, int worker) {
    const T* score = scores.data<T>() + row * scores.row_stride();
    int32_t* out = kept.data<int32_t>() + row * kept.row_stride();
    using Order = decltype(OrderOf(T{}));
    Order* order = static_cast<Order*>(context.Scratch(worker, (2 * m + 1) * sizeof(Order)));
    for (int64_t i = 0; i < m; ++i) order[i] = OrderOf(score[i]);
    for (int64_t i = 0; i < first; ++i) *out++ = static_cast<int32_t>(i);
    out = SelectBest(order, order + m, first, m, candidates - first, out);
    for (int64_t i = 0; i < window; ++i) *out++ = static_cast<int32_t>(m + i);
  });
}

// Moves the slots of one head, whose planes are [block_size] rows of some bytes in every block.
class HeadCompaction {
 public:
  HeadCompaction(const KvView& kv, int64_t head) : kv_(kv), block_bytes_(kv.layout.block_bytes()) {
    const KvBlockLayout& layout = kv.layout;
    const size_t row_bytes = layout.head_dim * DTypeSize(layout.dtype);
    const auto add = [&](size_t offset, size_t bytes) {
      planes_[num_planes_++] = {offset + head * layout.block_size * bytes, bytes};
    };
    add(layout.k_offset(), row_bytes);
    add(layout.v_offset(), row_bytes);
    add(layout.position_offset(), sizeof(int32_t));
    if (layout.has_score) add(layout.score_offset(), sizeof(float));
  }

  // Slot j becomes slot kept[j] for j < end; kept[j] >= j ascends, so that moving in place is safe. Neighbours that
  // stay neighbours, in one block before and after, move together.
  void Run(const int32_t* kept, int32_t end) const {
    Place from, to;
    for (int32_t j = 0, count; j < end; j += count) {
      const int32_t slot = kept[j];
      if (Seek(from, slot)) FetchValues(from.index + 2);
      Seek(to, j);
      const int32_t most = std::min({end - j, from.end - slot, to.end - j});
      for (count = 1; count < most && kept[j + count] == slot + count;) ++count;
      if (slot != j) Move(from, slot, to, j, count);
    }
  }

 private:
  struct Plane {
    size_t offset;  // of the head's rows in a block
    size_t bytes;   // of a row
  };
  // A block and the slot behind it.
  struct Place {
    int32_t index = -1, end = 0;
  };

  // Whether it is another block.
  bool Seek(Place& place, int32_t slot) const {
    if (slot < place.end) return false;
    for (; slot >= place.end; place.end += kv_.layout.block_size) ++place.index;
    return true;
  }

  // Keys have been read for their scores, values have not.
  void FetchValues(int32_t index) const {
    if (static_cast<int64_t>(index) * kv_.layout.block_size >= kv_.num_slots) return;
    const uint8_t* values = kv_.pool + kv_.block_table[index] * block_bytes_ + planes_[1].offset;
    for (size_t at = 0; at < planes_[1].bytes * kv_.layout.block_size; at += 64) __builtin_prefetch(values + at);
  }

  void Move(const Place& from, int32_t slot, const Place& to, int32_t j, int32_t count) const {
    const uint8_t* source = kv_.pool + kv_.block_table[from.index] * block_bytes_;
    uint8_t* target = kv_.pool + kv_.block_table[to.index] * block_bytes_;
    const int32_t size = kv_.layout.block_size;
    const size_t source_row = slot - (from.end - size), target_row = j - (to.end - size);
    for (int i = 0; i < num_planes_; ++i) {
      const Plane& plane = planes_[i];
      std::memmove(target + plane.offset + target_row * plane.bytes, source + plane.offset + source_row * plane.bytes,
                   count * plane.bytes);
    }
  }

  const KvView& kv_;
  size_t block_bytes_;
  Plane planes_[4];
  int num_planes_ = 0;
};

}  // namespace

void SelectTopK(Context& context, const Tensor& scores, int num_first, int window, const Tensor& kept) {
  if (scores.dtype() == DType::kInt64) {
    SelectRows<int64_t>(context, scores, num_first, window, kept);
  } else {
    SelectRows<float>(context, scores, num_first, window, kept);
  }
}

void ScoresToFixedPoint(Context& context, const Tensor& scores, bool accumulate, const Tensor& fixed) {
  ParallelRows(context, scores.dim(0), scores.dim(1), [&](int64_t row) {
    const float* from = scores.data<float>() + row * scores.row_stride();
    int64_t* to = fixed.data<int64_t>() + row * fixed.row_stride();
    for (int64_t i = 0; i < scores.dim(1); ++i) to[i] = (accumulate ? to[i] : 0) + ToFixedPoint(from[i]);
  });
}

void FingerprintRows(Context& context, const Tensor& kept, const Tensor& fingerprints) {
  ParallelRows(context, kept.dim(0), 4 * kept.dim(1), [&](int64_t row) {
    const int32_t* slots = kept.data<int32_t>() + row * kept.row_stride();
    uint64_t hash = kFnv1aSeed;
    for (int64_t i = 0; i < kept.dim(1); ++i) hash = Fnv1a(hash, static_cast<uint32_t>(slots[i]));
    fingerprints.data<int64_t>()[row * fingerprints.row_stride()] = std::bit_cast<int64_t>(hash);
  });
}

void KvCompact(Context& context, const KvView& kv, const Tensor& kept) {
  context.threads().ParallelFor(kv.layout.kv_heads, [&](int64_t head, int) {
    const int32_t* slots = kept.data<int32_t>() + (kept.dim(0) == 1 ? 0 : head) * kept.row_stride();
    HeadCompaction(kv, head).Run(slots, static_cast<int32_t>(kept.dim(1)));
  });
}

void RecordQueries(Context& context, const Tensor& q, const Tensor& positions, absl::Span<const SequenceRows> sequences,
                   absl::Span<float* const> rings, int window) {
  const int64_t row_elements = q.row_elements();
  ParallelRows(context, static_cast<int64_t>(sequences.size()), row_elements, [&](int64_t i) {
    const SequenceRows& rows = sequences[i];
    for (int64_t t = rows.row_begin + std::max(0, rows.num_rows - window); t < rows.row_begin + rows.num_rows; ++t) {
      const int64_t slot = positions.data<int32_t>()[t] % window;
      std::memcpy(rings[i] + slot * row_elements, q.data<float>() + t * q.row_stride(), row_elements * sizeof(float));
    }
  });
}

}  // namespace cairn::cpu
