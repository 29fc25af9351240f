// Shared by the op tests: the instruction sets to test, reproducible random rows, and rows that lie apart in memory.
#ifndef CAIRN_TESTS_KERNELS_OP_TESTING_H_
#define CAIRN_TESTS_KERNELS_OP_TESTING_H_

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/core/context.h"
#include "kernels/core/tensor.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/kernels.h"

namespace cairn {

// What this CPU can run, and the AVX-512 kernels on AVX2 registers.
inline std::vector<const cpu::Kernels*> TestedKernels() {
  std::vector<const cpu::Kernels*> kernels = cpu::AvailableKernels();
#if defined(__x86_64__)
  if (kernels.size() > 1) kernels.push_back(&cpu::kEmulatedAvx512Kernels);
#endif
  return kernels;
}

// One test per instruction set: TEST_P(OpTest, ...) with context(threads, activation).
class OpTest : public testing::TestWithParam<const cpu::Kernels*> {
 protected:
  std::unique_ptr<Context> context(int threads = 2, DType activation = DType::kFloat32) const {
    return Context::Cpu(threads, activation, *GetParam());
  }
};

inline std::string KernelsName(const testing::TestParamInfo<const cpu::Kernels*>& info) { return info.param->name; }

#define CAIRN_OP_TEST_SUITE(Suite) INSTANTIATE_TEST_SUITE_P(Isa, Suite, testing::ValuesIn(TestedKernels()), KernelsName)

inline constexpr DType kFloatTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

// Half the distance between neighbouring numbers near 1, as a share: the error of one rounding to nearest.
inline double UnitRoundoff(DType type) {
  return type == DType::kFloat32 ? 0x1p-24 : type == DType::kBFloat16 ? 0x1p-8 : 0x1p-11;
}

inline float RoundTo(DType type, float value) {
  if (type == DType::kBFloat16) return BFloat16ToFloat(FloatToBFloat16(value));
  if (type == DType::kFloat16) return Float16ToFloat(FloatToFloat16(value));
  return value;
}

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  float Normal() { return normal_(engine_); }
  // In [low, high].
  int Integer(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }

 private:
  std::mt19937 engine_;
  std::normal_distribution<float> normal_;
};

// A matrix [rows, columns] whose rows lie `gap` elements apart; the gaps hold a value that nobody may read or write.
class Rows {
 public:
  static constexpr float kGap = -7.75e8f;

  Rows(int64_t rows, int64_t columns, int64_t gap = 0)
      : rows_(rows), columns_(columns), stride_(columns + gap), values_(rows * stride_ + gap, kGap) {}

  static Rows Normal(Random& random, int64_t rows, int64_t columns, int64_t gap = 0,
                     DType rounded_to = DType::kFloat32) {
    Rows r(rows, columns, gap);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) r.at(i, j) = RoundTo(rounded_to, random.Normal());
    }
    return r;
  }
  static Rows Integers(Random& random, int64_t rows, int64_t columns, int low, int high, int64_t gap = 0) {
    Rows r(rows, columns, gap);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) r.at(i, j) = static_cast<float>(random.Integer(low, high));
    }
    return r;
  }

  float& at(int64_t i, int64_t j) { return values_[i * stride_ + j]; }
  float at(int64_t i, int64_t j) const { return values_[i * stride_ + j]; }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }

  Tensor tensor() {
    if (columns_ == stride_) return Tensor(values_.data(), DType::kFloat32, {rows_, columns_});
    return Tensor(values_.data(), DType::kFloat32, {rows_, stride_}).Columns(0, columns_);
  }

  // Gaps untouched?
  bool GapsIntact() const {
    for (int64_t i = 0; i < rows_; ++i) {
      for (int64_t j = columns_; j < stride_; ++j) {
        if (values_[i * stride_ + j] != kGap) return false;
      }
    }
    return true;
  }

 private:
  int64_t rows_, columns_, stride_;
  std::vector<float> values_;
};

// Same bits in row `i` of a and row `j` of b (so NaN equals itself and -0 differs from 0).
inline testing::AssertionResult SameRowBits(const Rows& a, int64_t i, const Rows& b, int64_t j) {
  for (int64_t c = 0; c < a.columns(); ++c) {
    if (std::bit_cast<uint32_t>(a.at(i, c)) != std::bit_cast<uint32_t>(b.at(j, c))) {
      return testing::AssertionFailure() << "row " << i << " against " << j << ", column " << c << ": " << a.at(i, c)
                                         << " against " << b.at(j, c);
    }
  }
  return testing::AssertionSuccess();
}

inline testing::AssertionResult SameBits(const Rows& a, const Rows& b) {
  for (int64_t i = 0; i < a.rows(); ++i) {
    if (auto same = SameRowBits(a, i, b, i); !same) return same;
  }
  return testing::AssertionSuccess();
}

}  // namespace cairn

#endif  // CAIRN_TESTS_KERNELS_OP_TESTING_H_
