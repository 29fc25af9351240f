#include "parallel/comm/reduce.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/core/check.h"

namespace cairn {
namespace {

// Accumulates block by block, so that the running sum stays in the L1 cache while the sources stream past.
constexpr int64_t kBlockElements = 2048;

struct Add {
  float operator()(float a, float b) const { return a + b; }
  int64_t operator()(int64_t a, int64_t b) const {
    return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
  }
};

struct Min {
  float operator()(float a, float b) const {
    const float smaller = b < a ? b : a;
    return a != a || b != b ? std::numeric_limits<float>::quiet_NaN() : smaller;
  }
  int64_t operator()(int64_t a, int64_t b) const { return b < a ? b : a; }
};

struct Max {
  float operator()(float a, float b) const {
    const float larger = b > a ? b : a;
    return a != a || b != b ? std::numeric_limits<float>::quiet_NaN() : larger;
  }
  int64_t operator()(int64_t a, int64_t b) const { return b > a ? b : a; }
};

template <typename T, typename Op>
void ReduceTyped(absl::Span<const void* const> sources, int64_t count, T* out) {
  const Op op;
  for (int64_t begin = 0; begin < count; begin += kBlockElements) {
    const int64_t n = std::min(kBlockElements, count - begin);
    T* __restrict block = out + begin;
    const T* first = static_cast<const T*>(sources[0]) + begin;
    if (sources.size() == 1) {
      std::memcpy(block, first, static_cast<size_t>(n) * sizeof(T));
      continue;
    }
    const T* second = static_cast<const T*>(sources[1]) + begin;
    for (int64_t i = 0; i < n; ++i) block[i] = op(first[i], second[i]);
    for (size_t s = 2; s < sources.size(); ++s) {
      const T* source = static_cast<const T*>(sources[s]) + begin;
      for (int64_t i = 0; i < n; ++i) block[i] = op(block[i], source[i]);
    }
  }
}

template <typename T>
void ReduceOf(absl::Span<const void* const> sources, int64_t count, ReduceOp op, void* out) {
  switch (op) {
    case ReduceOp::kSum:
      return ReduceTyped<T, Add>(sources, count, static_cast<T*>(out));
    case ReduceOp::kMin:
      return ReduceTyped<T, Min>(sources, count, static_cast<T*>(out));
    case ReduceOp::kMax:
      return ReduceTyped<T, Max>(sources, count, static_cast<T*>(out));
  }
}

}  // namespace

void ReduceInRankOrder(absl::Span<const void* const> sources, int64_t count, DType dtype, ReduceOp op, void* out) {
  CAIRN_CHECK(!sources.empty() && (dtype == DType::kFloat32 || dtype == DType::kInt64), DTypeName(dtype));
  if (dtype == DType::kFloat32) {
    ReduceOf<float>(sources, count, op, out);
  } else {
    ReduceOf<int64_t>(sources, count, op, out);
  }
}

}  // namespace cairn
