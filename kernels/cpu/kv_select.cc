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
  constexpr int64_t kFew = 48;
  // Counted by their leading bits; only those that share them with the one looked for go on, until they are few. Scores
  // often lie close together but for some, so that once is not enough.
  int64_t above = 0;
  while (true) {
    T least = values[0], most = values[0];
    for (int64_t i = 1; i < n; ++i) {
      least = std::min(least, values[i]);
      most = std::max(most, values[i]);
    }
    if (n <= kFew || least == most) break;
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
    int bucket = 256, in_bucket = 0;
    for (; above + in_bucket < count; in_bucket = counts[bucket] + odd_counts[bucket]) {
      above += in_bucket;
      --bucket;
    }
    T* end = work;
    for (int64_t i = 0; i < n; ++i) {
      const T value = values[i];  // `end` may point at it
      *end = value;
      end += bucket_of(value) == bucket ? 1 : 0;
    }
    values = work;
    n = end - work;
  }
  if (values != work) std::copy_n(values, n, work);
  T* const found = work + count - above - 1;
  std::nth_element(work, found, work + n, std::greater<T>());
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
void SelectRows(Context& context, const Tensor& scores, int num_first, int recent, const Tensor& kept) {
  const int64_t m = scores.dim(1), candidates = kept.dim(1) - recent;
  const int64_t first = std::min<int64_t>(num_first, candidates);
  context.threads().ParallelFor(scores.dim(0), [&](int64_t row, int worker) {
    const T* score = scores.data<T>() + row * scores.row_stride();
    int32_t* out = kept.data<int32_t>() + row * kept.row_stride();
    using Order = decltype(OrderOf(T{}));
    Order* order = static_cast<Order*>(context.Scratch(worker, (2 * m + 1) * sizeof(Order)));
    for (int64_t i = 0; i < m; ++i) order[i] = OrderOf(score[i]);
    for (int64_t i = 0; i < first; ++i) *out++ = static_cast<int32_t>(i);
    out = SelectBest(order, order + m, first, m, candidates - first, out);
    for (int64_t i = 0; i < recent; ++i) *out++ = static_cast<int32_t>(m + i);
  });
}

// Moves the slots of one head. kRowBytes: of its keys and values, where the compiler is to know them (the copy of a row
// then is an instruction or a few); 0: any.
template <size_t kRowBytes>
class HeadCompaction {
 public:
  HeadCompaction(const KvView& kv, int64_t head)
      : kv_(kv), head_(head), row_bytes_(kv.layout.head_dim * DTypeSize(kv.layout.dtype)) {}

  // Slot j becomes slot kept[j] for j < end; kept[j] >= j ascends, so that moving in place is safe.
  void Run(const int32_t* kept, int32_t end) const {
    Place from, to;
    for (int32_t j = 0; j < end;) {
      Seek(from, kept[j]);
      Seek(to, j);
      const Rows source = RowsOf(from), target = RowsOf(to);
      const int32_t last = std::min(end, to.end);
      do {  // in one block before and after
        if (kept[j] != j) Move(source, kept[j] - from.end, target, j - to.end);
        ++j;
      } while (j < last && kept[j] < from.end);
    }
  }

 private:
  // A block and the slot behind it.
  struct Place {
    int32_t index = -1, end = 0;
  };
  // Where the head's rows of a block end.
  struct Rows {
    uint8_t* k;
    uint8_t* v;
    uint8_t* position;
    uint8_t* score;
  };

  void Seek(Place& place, int32_t slot) const {
    for (; slot >= place.end; place.end += kv_.layout.block_size) ++place.index;
  }

  Rows RowsOf(const Place& place) const {
    const KvBlockLayout& layout = kv_.layout;
    uint8_t* block = kv_.pool + kv_.block_table[place.index] * layout.block_bytes();
    const size_t rows = (head_ + 1) * layout.block_size, words = rows * sizeof(int32_t);
    return {.k = block + layout.k_offset() + rows * row_bytes_,
            .v = block + layout.v_offset() + rows * row_bytes_,
            .position = block + layout.position_offset() + words,
            .score = block + layout.score_offset() + words};
  }

  void Move(const Rows& source, int64_t from, const Rows& target, int64_t to) const {
    const int64_t row_bytes = kRowBytes > 0 ? kRowBytes : row_bytes_;
    std::memcpy(target.k + to * row_bytes, source.k + from * row_bytes, row_bytes);
    std::memcpy(target.v + to * row_bytes, source.v + from * row_bytes, row_bytes);
    constexpr int64_t kWord = sizeof(int32_t);
    std::memcpy(target.position + to * kWord, source.position + from * kWord, kWord);
    for (int plane = 0; plane < kv_.layout.num_scores; ++plane) {
      const int64_t at = plane * static_cast<int64_t>(kv_.layout.score_plane_bytes());
      std::memcpy(target.score + at + to * kWord, source.score + at + from * kWord, kWord);
    }
  }

  const KvView& kv_;
  int64_t head_;
  size_t row_bytes_;
};

// The heads' slots. kept: a row for each head or one for all.
template <size_t kRowBytes>
void CompactHeads(Context& context, const KvView& kv, const Tensor& kept) {
  context.threads().ParallelFor(kv.layout.kv_heads, [&](int64_t head, int) {
    const int32_t* slots = kept.data<int32_t>() + (kept.dim(0) == 1 ? 0 : head) * kept.row_stride();
    HeadCompaction<kRowBytes>(kv, head).Run(slots, static_cast<int32_t>(kept.dim(1)));
  });
}

}  // namespace

void SelectTopK(Context& context, const Tensor& scores, int num_first, int recent, const Tensor& kept) {
  if (scores.dtype() == DType::kInt64) {
    SelectRows<int64_t>(context, scores, num_first, recent, kept);
  } else {
    SelectRows<float>(context, scores, num_first, recent, kept);
  }
}

void ScoresToFixedPoint(Context& context, const Tensor& scores, bool accumulate, const Tensor& fixed) {
  const int64_t terms = scores.dim(0) / fixed.dim(0);
  ParallelRows(context, fixed.dim(0), terms * scores.dim(1), [&](int64_t row) {
    int64_t* to = fixed.data<int64_t>() + row * fixed.row_stride();
    if (!accumulate) std::fill_n(to, fixed.dim(1), 0);
    for (int64_t term = 0; term < terms; ++term) {
      const float* from = scores.data<float>() + (row * terms + term) * scores.row_stride();
      for (int64_t i = 0; i < scores.dim(1); ++i) to[i] += ToFixedPoint(from[i]);
    }
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
  switch (kv.layout.head_dim * DTypeSize(kv.layout.dtype)) {
    case 32:
      return CompactHeads<32>(context, kv, kept);
    case 128:
      return CompactHeads<128>(context, kv, kept);
    default:
      return CompactHeads<0>(context, kv, kept);
  }
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
