#include "kernels/ops/matmul.h"

#include <algorithm>

#include "kernels/core/float8.h"
#include "tests/kernels/op_testing.h"

namespace cairn {
namespace {

// Row-major weights [N, K] in f32 whose values `type` holds exactly, and the same packed.
struct Weights {
  Rows rows;
  PackedMatrix packed;
};

Weights Pack(Device device, Rows rows, DType type) {
  PackedMatrix packed = PackedMatrix::Create(device, type, rows.rows(), rows.columns()).value();
  packed.PackRows(0, rows.rows(), rows.tensor().raw(), DType::kFloat32);
  return {std::move(rows), std::move(packed)};
}

Weights RandomWeights(Device device, Random& random, int64_t N, int64_t K, DType type) {
  return Pack(device, Rows::Normal(random, N, K, 0, type), type);
}

Weights IntegerWeights(Device device, Random& random, int64_t N, int64_t K, DType type) {
  return Pack(device, Rows::Integers(random, N, K, -8, 8), type);
}

struct Shape {
  int64_t M, N, K;
};

// Whole panels and parts of one, odd K, every height of a register tile, heights that make several blocks and chunks.
std::vector<Shape> Shapes() {
  std::vector<Shape> shapes;
  for (int64_t M = 1; M <= 17; ++M) shapes.push_back({M, 40, 33});
  for (int64_t M : {1, 2, 5, 13}) shapes.push_back({M, 130, 96});
  for (int64_t M : {1, 8, 47, 48, 64, 65, 200}) shapes.push_back({M, 24, 517});
  shapes.insert(shapes.end(),
                {{1, 1, 1}, {3, 16, 1}, {3, 15, 2}, {7, 17, 3}, {2, 256, 1030}, {70, 150, 7}, {1, 515, 64}});
  return shapes;
}

// A tensor of activations, or of float32 where outputs are not rounded.
Tensor Output(Operands& on, Rows& y, bool rounded) { return rounded ? on(y) : on.F32(y); }

class MatMulTest : public OpTest {
 protected:
  // On a GPU weights hold the activations' type.
  bool Takes(DType weights, DType activation) const { return on_cpu() || weights == activation; }
};
CAIRN_OP_TEST_SUITE(MatMulTest);

// Small integers: no sum rounds, so the answer is exact whatever the order.
TEST_P(MatMulTest, IsExactOnIntegers) {
  Random random(1);
  for (DType activation : {DType::kFloat32, DType::kBFloat16}) {
    for (DType type : kFloatTypes) {
      if (!Takes(type, activation)) continue;
      for (const auto& [M, N, K] : Shapes()) {
        SCOPED_TRACE(testing::Message() << DTypeName(type) << " M " << M << " N " << N << " K " << K);
        auto c = context(2, activation);
        Weights w = IntegerWeights(c->device(), random, N, K, type);
        Rows x = Rows::Integers(random, M, K, -8, 8, 3), y(M, N, 5);
        Operands on(*c);
        MatMul(*c, on(x), w.packed, Output(on, y, false), {.round_output = false});
        on.Fetch();
        for (int64_t m = 0; m < M; ++m) {
          for (int64_t n = 0; n < N; ++n) {
            int64_t expected = 0;
            for (int64_t k = 0; k < K; ++k) expected += static_cast<int64_t>(x.at(m, k) * w.rows.at(n, k));
            ASSERT_EQ(y.at(m, n), static_cast<float>(expected)) << "at " << m << ", " << n;
          }
        }
        EXPECT_TRUE(y.GapsIntact());
      }
    }
  }
}

// A chain of K fused multiply-adds errs by at most K u sum |x w| (u = 2^-24; Higham, Accuracy and Stability, 3.1);
// without fusing, and with the bias, by (K + 2) u; then the output is rounded once.
TEST_P(MatMulTest, IsWithinTheRoundingErrorOfTheSum) {
  Random random(2);
  for (DType activation : kFloatTypes) {
    for (DType type : kFloatTypes) {
      if (!Takes(type, activation)) continue;
      for (const auto& [M, N, K] : {Shape{5, 40, 96}, Shape{64, 33, 333}, Shape{1, 100, 1031}}) {
        auto c = context(2, activation);
        Weights w = RandomWeights(c->device(), random, N, K, type);
        Rows x = Rows::Normal(random, M, K, 0, activation), bias = Rows::Normal(random, 1, N, 0, activation), y(M, N);
        Operands on(*c);
        MatMul(*c, on(x), w.packed, on(y), {.bias = on(bias).Reshape({N})});
        on.Fetch();
        for (int64_t m = 0; m < M; ++m) {
          for (int64_t n = 0; n < N; ++n) {
            double expected = bias.at(0, n), size = std::abs(expected);
            for (int64_t k = 0; k < K; ++k) {
              const double product = static_cast<double>(x.at(m, k)) * w.rows.at(n, k);
              expected += product;
              size += std::abs(product);
            }
            // cuBLASLt may round the product before it adds the bias (seen on an H100).
            const double before_bias = on_cpu() ? 0 : std::abs(expected - bias.at(0, n));
            const double rounded = UnitRoundoff(activation) * (std::abs(expected) + before_bias);
            ASSERT_NEAR(y.at(m, n), expected, (K + 2) * 0x1p-24 * size + rounded)
                << DTypeName(type) << " weights, " << DTypeName(activation) << " activations, at " << m << ", " << n;
            ASSERT_EQ(y.at(m, n), RoundTo(activation, y.at(m, n)));
          }
        }
      }
    }
  }
}

// Weights in int8: on CPU.
class Int8MatMulTest : public OpTest {};
CAIRN_CPU_OP_TEST_SUITE(Int8MatMulTest);

// A row's scale is its largest magnitude over 127, and every weight is off by half a step at most; the sum as above.
TEST_P(Int8MatMulTest, IsTheProductOfTheRoundedWeights) {
  Random random(11);
  for (DType activation : {DType::kFloat32, DType::kBFloat16}) {
    for (const auto& [M, N, K] : {Shape{1, 16, 32}, Shape{5, 40, 96}, Shape{20, 33, 1100}, Shape{1, 1, 1}}) {
      auto c = context(2, activation);
      Weights w = Pack(c->device(), Rows::Normal(random, N, K), DType::kInt8);
      Rows x = Rows::Normal(random, M, K, 3, activation), bias = Rows::Normal(random, 1, N, 0, activation), y(M, N, 5);
      MatMul(*c, x.tensor(), w.packed, y.tensor(), {.bias = bias.tensor().Reshape({N})});
      for (int64_t n = 0; n < N; ++n) {
        float largest = 0;
        for (int64_t k = 0; k < K; ++k) largest = std::max(largest, std::abs(w.rows.at(n, k)));
        for (int64_t m = 0; m < M; ++m) {
          double expected = 0, size = 0;
          for (int64_t k = 0; k < K; ++k) {
            const double code = std::nearbyint(w.rows.at(n, k) * (127 / largest));
            ASSERT_NEAR(code * largest / 127, w.rows.at(n, k), 0.501 * largest / 127);
            expected += x.at(m, k) * code;
            size += std::abs(x.at(m, k) * code);
          }
          expected = expected * largest / 127 + bias.at(0, n);
          size = size * largest / 127 + std::abs(bias.at(0, n));
          ASSERT_NEAR(y.at(m, n), expected, (K + 4) * 0x1p-24 * size + UnitRoundoff(activation) * std::abs(expected))
              << M << " x " << N << " x " << K << " at " << m << ", " << n;
        }
      }
      EXPECT_TRUE(y.GapsIntact());
    }
  }
}

TEST_P(Int8MatMulTest, ARowWithNanOrInfinityIsNan) {
  auto c = context(1);
  Rows values(3, 20);
  for (int64_t k = 0; k < 20; ++k) values.at(0, k) = values.at(1, k) = values.at(2, k) = 1;
  values.at(1, 3) = std::nanf("");
  values.at(2, 3) = std::numeric_limits<float>::infinity();
  Weights w = Pack(c->device(), std::move(values), DType::kInt8);
  Rows x(1, 20), y(1, 3);
  for (int64_t k = 0; k < 20; ++k) x.at(0, k) = 1;
  MatMul(*c, x.tensor(), w.packed, y.tensor());
  EXPECT_EQ(y.at(0, 0), 20);
  EXPECT_TRUE(std::isnan(y.at(0, 1)) && std::isnan(y.at(0, 2)));
}

// cuBLASLt sums as it likes, with another algorithm for another batch; so this holds on CPU alone.
class CpuMatMulTest : public OpTest {};
CAIRN_CPU_OP_TEST_SUITE(CpuMatMulTest);

// A row's bits do not depend on the rows beside it, its place, or the threads.
TEST_P(CpuMatMulTest, RowsAreIndependentOfTheBatch) {
  Random random(3);
  for (DType activation : {DType::kFloat32, DType::kBFloat16}) {
    for (DType type : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat8E4M3, DType::kInt8}) {
      for (int repeat = 0; repeat < 4; ++repeat) {
        // Also more rows and more of K than are worked on at a time.
        const bool is_large = repeat == 3;
        const int64_t M = is_large ? 530 : 230, N = random.Integer(1, is_large ? 40 : 90);
        const int64_t K = is_large ? random.Integer(1600, 3300) : random.Integer(1, 700);
        SCOPED_TRACE(testing::Message() << DTypeName(type) << " N " << N << " K " << K);
        Weights w = RandomWeights(Device{}, random, N, K, type);
        Rows x = Rows::Normal(random, M, K, 0, activation), all(M, N);
        MatMul(*context(1, activation), x.tensor(), w.packed, all.tensor());
        for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 11, 17, 32, 48, 65, 193, 290}) {
          if (rows > M) continue;
          auto c = context(1 + random.Integer(0, 2), activation);
          const int64_t begin = random.Integer(0, static_cast<int>(M - rows));
          Rows part(rows, N, 2);
          MatMul(*c, x.tensor().Rows(begin, begin + rows), w.packed, part.tensor());
          for (int64_t i = 0; i < rows; ++i) {
            ASSERT_TRUE(SameRowBits(part, i, all, begin + i)) << rows << " rows from " << begin;
          }
        }
      }
    }
  }
}

TEST_P(MatMulTest, NanAndInfinityReachTheirOutputsOnly) {
  Random random(4);
  const int64_t N = 37, K = 65;
  for (DType type : kFloatTypes) {
    for (int64_t M : {3, 70}) {
      auto c = context(2, on_cpu() ? DType::kFloat32 : type);
      Rows values = Rows::Normal(random, N, K, 0, type);
      values.at(20, K - 1) = std::numeric_limits<float>::infinity();
      Weights w = Pack(c->device(), std::move(values), type);
      Rows x = Rows::Normal(random, M, K), y(M, N);
      x.at(1, 7) = std::nanf("");
      Operands on(*c);
      MatMul(*c, on(x), w.packed, on(y));
      on.Fetch();
      for (int64_t m = 0; m < M; ++m) {
        for (int64_t n = 0; n < N; ++n) {
          ASSERT_EQ(std::isnan(y.at(m, n)), m == 1) << m << ", " << n;
          ASSERT_EQ(std::isinf(y.at(m, n)), m != 1 && n == 20) << m << ", " << n;
        }
      }
    }
  }
}

TEST_P(MatMulTest, OfNoRowsOrNoColumnsDoesNothing) {
  auto c = context(2, DType::kBFloat16);
  Weights w = Pack(c->device(), Rows(4, 8), DType::kBFloat16);
  Rows x(0, 8), y(0, 4);
  Operands on(*c);
  MatMul(*c, on(x), w.packed, on(y));
  Weights empty = Pack(c->device(), Rows(4, 0), DType::kBFloat16);
  Rows nothing(2, 0), zeros(2, 4);
  MatMul(*c, on(nothing), empty.packed, on(zeros));
  on.Fetch();
  EXPECT_EQ(zeros.at(1, 3), 0);
}

#if defined(__x86_64__)
// One chain of fused multiply-adds per output, in one order: so all vector instruction sets agree to the last bit.
TEST(MatMulIsaTest, WideAndNarrowVectorsAgree) {
  if (cpu::AvailableKernels().size() < 2) GTEST_SKIP() << "this CPU has no AVX2";
  Random random(5);
  for (DType type : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat8E4M3, DType::kInt8}) {
    for (int64_t M : {1, 9, 60}) {
      Weights w = RandomWeights(Device{}, random, 100, 301, type);
      Rows x = Rows::Normal(random, M, 301), narrow(M, 100), wide(M, 100);
      MatMul(*Context::Cpu(2, DType::kFloat32, cpu::kAvx2Kernels), x.tensor(), w.packed, narrow.tensor());
      MatMul(*Context::Cpu(2, DType::kFloat32, cpu::kEmulatedAvx512Kernels), x.tensor(), w.packed, wide.tensor());
      EXPECT_TRUE(SameBits(narrow, wide));
    }
  }
}
#endif

// The E4M3 numbers of rows and their scales, as kernels/core/float8.h defines them.
struct Float8Rows {
  Rows codes;
  std::vector<float> scales;
};

Float8Rows Quantize(const Rows& rows) {
  Float8Rows q = {Rows(rows.rows(), rows.columns()), {}};
  for (int64_t i = 0; i < rows.rows(); ++i) {
    float largest = kLeastQuantizedRow;
    for (int64_t k = 0; k < rows.columns(); ++k) largest = std::max(largest, std::abs(rows.at(i, k)));
    for (int64_t k = 0; k < rows.columns(); ++k) {
      q.codes.at(i, k) = Float8E4M3ToFloat(FloatToFloat8E4M3(rows.at(i, k) * (kMaxFloat8 / largest)));
    }
    q.scales.push_back(largest / kMaxFloat8);
  }
  return q;
}

class Float8MatMulTest : public OpTest {};
CAIRN_OP_TEST_SUITE(Float8MatMulTest);

// Products of E4M3 numbers are exact in float32; a sum of K of them errs by at most K u sum |x w|, the scales and the
// bias add three roundings, the output one. On a GPU the tensor cores keep fewer bits of a sum (at least 13, of the
// largest of the terms that they add at once).
TEST_P(Float8MatMulTest, IsTheProductOfTheRoundedRows) {
  Random random(8);
  int turn = 0;
  for (DType activation : kFloatTypes) {
    // Multiples of 16 and others, whole panels and parts of one, several blocks of K.
    for (const auto& [M, N, K] : {Shape{1, 16, 32}, Shape{16, 32, 48}, Shape{5, 40, 96}, Shape{64, 33, 333},
                                  Shape{20, 48, 1100}, Shape{48, 16, 16}, Shape{1, 1, 1}, Shape{270, 17, 20}}) {
      for (bool rounded : {true, false}) {
        for (bool has_bias : {true, false}) {
          if (Skips(turn++, 3)) continue;
          SCOPED_TRACE(testing::Message() << DTypeName(activation) << " M " << M << " N " << N << " K " << K
                                          << (rounded ? " rounded" : "") << (has_bias ? " bias" : ""));
          auto c = context(2, activation);
          Weights w = Pack(c->device(), Rows::Normal(random, N, K), DType::kFloat8E4M3);
          Rows x = Rows::Normal(random, M, K, 3, activation), bias = Rows::Normal(random, 1, N, 0, activation);
          Rows y(M, N, 5);
          const Float8Rows xq = Quantize(x), wq = Quantize(w.rows);
          Operands on(*c);
          const Tensor b = has_bias ? Output(on, bias, rounded).Reshape({N}) : Tensor();
          MatMul(*c, on(x), w.packed, Output(on, y, rounded), {.bias = b, .round_output = rounded});
          on.Fetch();
          const bool real_gpu = !on_cpu() && !kEmulated;
          const double u = real_gpu ? 0x1p-13 : 0x1p-24;
          for (int64_t m = 0; m < M; ++m) {
            for (int64_t n = 0; n < N; ++n) {
              double expected = 0, size = 0;
              for (int64_t k = 0; k < K; ++k) {
                const double product = static_cast<double>(xq.codes.at(m, k)) * wq.codes.at(n, k);
                expected += product;
                size += std::abs(product);
              }
              const double scale = static_cast<double>(wq.scales[n]) * xq.scales[m];
              expected = expected * scale + (has_bias ? bias.at(0, n) : 0);
              size = size * scale + (has_bias ? std::abs(bias.at(0, n)) : 0);
              const double tolerance =
                  (K + 3) * u * size + (rounded ? UnitRoundoff(activation) * std::abs(expected) : 0);
              ASSERT_NEAR(y.at(m, n), expected, tolerance) << "at " << m << ", " << n;
            }
          }
          EXPECT_TRUE(y.GapsIntact());
        }
      }
    }
  }
}

// Rows that come as E4M3, in any order of pieces, are those that were made of the same numbers.
TEST_P(Float8MatMulTest, TakesRowsThatAreQuantizedAlready) {
  Random random(9);
  const int64_t M = 3, N = 37, K = 50;
  auto c = context(1);
  Weights w = Pack(c->device(), Rows::Normal(random, N, K), DType::kFloat8E4M3);
  const Float8Rows q = Quantize(w.rows);
  std::vector<uint8_t> codes;
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t k = 0; k < K; ++k) codes.push_back(FloatToFloat8E4M3(q.codes.at(n, k)));
  }
  PackedMatrix taken = PackedMatrix::Create(c->device(), DType::kFloat8E4M3, N, K).value();
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{20, 37}, {0, 5}, {5, 20}}) {
    taken.PackQuantizedRows(begin, end - begin, codes.data() + begin * K, q.scales.data() + begin);
  }
  EXPECT_EQ(taken.size_bytes(), w.packed.size_bytes());
  Rows x = Rows::Normal(random, M, K), made_y(M, N), taken_y(M, N);
  Operands on(*c);
  MatMul(*c, on(x), w.packed, on(made_y));
  MatMul(*c, on(x), taken, on(taken_y));
  on.Fetch();
  EXPECT_TRUE(SameBits(made_y, taken_y));
}

TEST_P(Float8MatMulTest, NanReachesItsOutputsOnly) {
  Random random(10);
  const int64_t M = 4, N = 32, K = 40;
  auto c = context(2);
  Rows values = Rows::Normal(random, N, K);
  values.at(20, K - 1) = std::nanf("");
  Weights w = Pack(c->device(), std::move(values), DType::kFloat8E4M3);
  Rows x = Rows::Normal(random, M, K), y(M, N);
  x.at(1, 7) = std::nanf("");
  Operands on(*c);
  MatMul(*c, on(x), w.packed, on(y));
  on.Fetch();
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t n = 0; n < N; ++n) ASSERT_EQ(std::isnan(y.at(m, n)), m == 1 || n == 20) << m << ", " << n;
  }
}

class EmbeddingTest : public OpTest {};
CAIRN_OP_TEST_SUITE(EmbeddingTest);

TEST_P(EmbeddingTest, LooksUpOwnRowsAndZerosTheOthers) {
  Random random(6);
  for (DType activation : kFloatTypes) {
    for (DType type : kFloatTypes) {
      auto c = context(3, activation);
      const int64_t V = 45, C = 83, row_begin = 100;
      Weights w = RandomWeights(c->device(), random, V, C, type);
      std::vector<int32_t> ids = {99, 100, 144, 145, 116, 0, 117, 116};
      Rows y(static_cast<int64_t>(ids.size()), C, 4);
      Operands on(*c);
      Embedding(*c, on.Ints(ids), w.packed, row_begin, on(y));
      on.Fetch();
      for (int64_t t = 0; t < y.rows(); ++t) {
        const int64_t row = ids[t] - row_begin;
        for (int64_t j = 0; j < C; ++j) {
          const float expected = row >= 0 && row < V ? RoundTo(activation, w.rows.at(row, j)) : 0;
          ASSERT_EQ(y.at(t, j), expected) << "id " << ids[t] << ", column " << j;
        }
      }
      EXPECT_TRUE(y.GapsIntact());
    }
  }
}

// Reads a packed matrix back through Embedding in f32.
Rows Unpack(Context& c, const PackedMatrix& matrix) {
  std::vector<int32_t> ids(matrix.rows());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  Rows y(matrix.rows(), matrix.cols());
  Operands on(c);
  Embedding(c, on.Ints(ids), matrix, 0, on(y));
  on.Fetch();
  return y;
}

std::vector<uint16_t> To16Bits(const Rows& rows, DType type) {
  std::vector<uint16_t> bits;
  for (int64_t i = 0; i < rows.rows(); ++i) {
    for (int64_t j = 0; j < rows.columns(); ++j) {
      bits.push_back(type == DType::kBFloat16 ? FloatToBFloat16(rows.at(i, j)) : FloatToFloat16(rows.at(i, j)));
    }
  }
  return bits;
}

class PackedMatrixTest : public OpTest {};
CAIRN_OP_TEST_SUITE(PackedMatrixTest);

TEST_P(PackedMatrixTest, ConvertsFromEveryTypeInAnyOrderOfPieces) {
  Random random(7);
  auto c = context(1);
  for (DType to : kFloatTypes) {
    for (DType from : kFloatTypes) {
      for (int64_t K : {1, 2, 15, 64, 97}) {
        const int64_t N = 53;
        Rows values = Rows::Normal(random, N, K, 0, from);
        const std::vector<uint16_t> bits = To16Bits(values, from);
        PackedMatrix matrix = PackedMatrix::Create(c->device(), to, N, K).value();
        for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{17, 53}, {0, 3}, {3, 17}}) {
          const void* source = from == DType::kFloat32 ? static_cast<const void*>(&values.at(begin, 0))
                                                       : static_cast<const void*>(bits.data() + begin * K);
          matrix.PackRows(begin, end - begin, source, from);
        }
        const Rows read = Unpack(*c, matrix);
        for (int64_t i = 0; i < N; ++i) {
          for (int64_t j = 0; j < K; ++j) ASSERT_EQ(read.at(i, j), RoundTo(to, values.at(i, j))) << i << ", " << j;
        }
      }
    }
  }
}

TEST_P(PackedMatrixTest, SaysWhichMatrixDoesNotFit) {
  const auto matrix = PackedMatrix::Create(context()->device(), DType::kBFloat16, int64_t{1} << 30, int64_t{1} << 20);
  ASSERT_FALSE(matrix.ok());
  EXPECT_EQ(matrix.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(matrix.status().message().find("[1073741824, 1048576]"), absl::string_view::npos) << matrix.status();
}

}  // namespace
}  // namespace cairn
