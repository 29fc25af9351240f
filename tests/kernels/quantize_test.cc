#include "kernels/ops/quantize.h"

#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

#include "kernels/core/float8.h"
#include "tests/kernels/op_testing.h"

namespace cairn {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(Float8Test, EveryCodeIsItsOwnNearestNumber) {
  EXPECT_EQ(Float8E4M3ToFloat(0x01), 0x1p-9f);
  EXPECT_EQ(Float8E4M3ToFloat(0x08), 0x1p-6f);
  EXPECT_EQ(Float8E4M3ToFloat(0x38), 1.0f);
  EXPECT_EQ(Float8E4M3ToFloat(0x3f), 1.875f);
  EXPECT_EQ(Float8E4M3ToFloat(0x7e), 448.0f);
  for (int code = 0; code < 256; ++code) {
    const float value = Float8E4M3ToFloat(static_cast<uint8_t>(code));
    if ((code & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value));
      EXPECT_EQ(FloatToFloat8E4M3(value), 0x7f);
      continue;
    }
    EXPECT_EQ(FloatToFloat8E4M3(value), code);
    EXPECT_EQ(std::bit_cast<uint32_t>(RoundToFloat8E4M3(value)), std::bit_cast<uint32_t>(value));
  }
}

// Between two neighbours the nearer one, half way the one whose last bit is 0.
TEST(Float8Test, RoundsToNearestEven) {
  for (int code = 0; code < 0x7e; ++code) {
    const float low = Float8E4M3ToFloat(static_cast<uint8_t>(code));
    const float high = Float8E4M3ToFloat(static_cast<uint8_t>(code + 1));
    const float middle = (low + high) / 2;  // exact
    const int even = code % 2 == 0 ? code : code + 1;
    for (const float sign : {1.0f, -1.0f}) {
      const int minus = sign < 0 ? 0x80 : 0;
      EXPECT_EQ(FloatToFloat8E4M3(sign * middle), minus | even) << middle;
      EXPECT_EQ(FloatToFloat8E4M3(sign * std::nextafter(middle, 0.0f)), minus | code) << middle;
      EXPECT_EQ(FloatToFloat8E4M3(sign * std::nextafter(middle, kInfinity)), minus | (code + 1)) << middle;
      EXPECT_EQ(RoundToFloat8E4M3(sign * middle), sign * Float8E4M3ToFloat(static_cast<uint8_t>(even)));
    }
  }
  for (const float large : {449.0f, 480.0f, 1e30f, kInfinity}) {
    EXPECT_EQ(FloatToFloat8E4M3(large), 0x7e);
    EXPECT_EQ(FloatToFloat8E4M3(-large), 0xfe);
  }
  EXPECT_TRUE(std::isnan(RoundToFloat8E4M3(std::nanf(""))));
  EXPECT_EQ(FloatToFloat8E4M3(-0.0f), 0x80);
}

// PyTorch's float8_e4m3fn, as tools/make_float8_codes.py found it: the number of each code, and from which float32 on
// a number of at most 448 gets it.
TEST(Float8Test, CodesAreThoseOfPyTorch) {
  std::ifstream in(std::string(CAIRN_SOURCE_DIR) + "/tests/data/float8_e4m3.txt");
  int code = 0;
  uint32_t value = 0, first = 0;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with('#')) continue;
    ASSERT_EQ(std::sscanf(line.c_str(), "%x %x %x", &code, &value, &first), 3) << line;
    EXPECT_EQ(std::bit_cast<uint32_t>(Float8E4M3ToFloat(static_cast<uint8_t>(code))), value);
    EXPECT_EQ(std::bit_cast<uint32_t>(Float8E4M3ToFloat(static_cast<uint8_t>(code | 0x80))), value | 0x80000000u);
    for (const auto& [bits, expected] : {std::pair<uint32_t, int>{first, code}, {first - 1, code - 1}}) {
      if (expected < 0) continue;
      EXPECT_EQ(FloatToFloat8E4M3(std::bit_cast<float>(bits)), expected) << line;
      EXPECT_EQ(FloatToFloat8E4M3(std::bit_cast<float>(bits | 0x80000000u)), expected | 0x80) << line;
    }
  }
  EXPECT_EQ(code, 0x7e);
}

// With the test above: so are all numbers between two thresholds.
TEST(Float8Test, CodesNeverFallAsNumbersGrow) {
  int before = 0;
  for (uint32_t bits = 0; bits < 0x7f800000u; bits += 61) {
    const int code = FloatToFloat8E4M3(std::bit_cast<float>(bits));
    ASSERT_GE(code, before) << bits;
    before = code;
  }
  EXPECT_EQ(before, 0x7e);
}

// What the header says, one element after the other.
struct Quantized {
  std::vector<uint8_t> codes;
  std::vector<float> scales;
};

Quantized Expected(const Rows& x, int64_t rows, int64_t padded) {
  Quantized q = {std::vector<uint8_t>(static_cast<size_t>(rows * padded)),
                 std::vector<float>(static_cast<size_t>(rows))};
  for (int64_t m = 0; m < x.rows(); ++m) {
    float largest = 0x1p-60f;
    for (int64_t k = 0; k < x.columns(); ++k) {
      if (std::abs(x.at(m, k)) > largest) largest = std::abs(x.at(m, k));
    }
    const float inverse = 448 / largest;
    for (int64_t k = 0; k < x.columns(); ++k) q.codes[m * padded + k] = FloatToFloat8E4M3(x.at(m, k) * inverse);
    q.scales[m] = largest / 448;
  }
  return q;
}

Quantized QuantizeOn(Context& context, Rows& x, int64_t rows, int64_t padded) {
  Quantized q = {std::vector<uint8_t>(static_cast<size_t>(rows * padded), 0xaa),
                 std::vector<float>(static_cast<size_t>(rows), -1)};
  const size_t code_bytes = (q.codes.size() + 255) / 256 * 256;
  Buffer memory = Buffer::Allocate(context.device(), code_bytes + q.scales.size() * sizeof(float)).value();
  const Tensor codes(memory.data(), DType::kFloat8E4M3, {rows, padded}, context.device());
  const Tensor scales(memory.data() + code_bytes, DType::kFloat32, {rows}, context.device());
  CopyFromHost(context, q.codes.data(), codes);
  CopyFromHost(context, q.scales.data(), scales);
  Operands on(context);
  QuantizeRows(context, on(x), codes, scales);
  CopyToHost(context, codes, q.codes.data());
  CopyToHost(context, scales, q.scales.data());
  return q;
}

class QuantizeTest : public OpTest {};
CAIRN_OP_TEST_SUITE(QuantizeTest);

TEST_P(QuantizeTest, GivesTheSameCodesAndScalesOnEveryDevice) {
  Random random(1);
  for (DType activation : kFloatTypes) {
    for (const auto& [M, K] : {std::pair<int64_t, int64_t>{1, 1}, {3, 16}, {2, 300}, {5, 1037}}) {
      auto c = context(2, activation);
      Rows x = Rows::Normal(random, M, K, 3, activation);
      for (int64_t k = 0; k < K; ++k) x.at(M - 1, k) = RoundTo(activation, x.at(M - 1, k) * 1e-3f);
      const int64_t rows = Float8Padded(M), padded = Float8Padded(K);
      const Quantized expected = Expected(x, rows, padded), q = QuantizeOn(*c, x, rows, padded);
      EXPECT_EQ(q.codes, expected.codes) << DTypeName(activation) << ", " << M << " x " << K;
      EXPECT_EQ(q.scales, expected.scales) << DTypeName(activation) << ", " << M << " x " << K;
    }
  }
}

TEST_P(QuantizeTest, RowsOfZerosNanAndInfinity) {
  Rows x(4, 20);
  for (int64_t k = 0; k < 20; ++k) {
    x.at(0, k) = k % 2 == 0 ? 0.0f : -0.0f;
    x.at(1, k) = static_cast<float>(k);
    x.at(2, k) = static_cast<float>(k);
    x.at(3, k) = 1e-30f;
  }
  x.at(1, 7) = std::nanf("");
  x.at(2, 7) = -kInfinity;
  const Quantized q = QuantizeOn(*context(), x, 4, 32);
  EXPECT_EQ(q.codes[0], 0);
  EXPECT_GT(q.scales[0], 0);
  EXPECT_EQ(q.codes[32 + 7], 0x7f);
  EXPECT_EQ(q.codes[32 + 19], 0x7e);
  EXPECT_EQ(q.scales[1], 19.0f / 448);
  EXPECT_EQ(q.codes[64 + 7], 0x7f);  // infinity by zero
  EXPECT_EQ(q.codes[64 + 19], 0);
  EXPECT_EQ(q.scales[2], kInfinity);
  EXPECT_EQ(q.codes[96], 0);  // far below 2^-60: nothing is left
}

}  // namespace
}  // namespace cairn
