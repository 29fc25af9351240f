// The fake cuBLASLt against plain loops, in every arrangement that the project uses, and what it refuses.
#include <cublasLt.h>

#include <cmath>
#include <optional>

#include "tests/emulator/kernel_testing.h"

namespace cuda_emulator {
namespace {

struct Matrix {
  cudaDataType type;
  int64_t rows, columns, leading;
  std::vector<float> values;  // column by column, `leading` apart

  float at(int64_t row, int64_t column) const { return values[static_cast<size_t>(column * leading + row)]; }
};

Matrix Filled(cudaDataType type, int64_t rows, int64_t columns, int64_t padding, int seed) {
  Matrix m = {type, rows, columns, rows + padding, {}};
  for (int64_t i = 0; i < columns * m.leading; ++i) {
    m.values.push_back(static_cast<float>((i * 7 + seed * 11) % 9 - 4));
  }
  return m;
}

std::vector<char> Bytes(const Matrix& m) {
  std::vector<char> bytes;
  for (float value : m.values) {
    char buffer[4];
    size_t size = 4;
    std::memcpy(buffer, &value, 4);
    if (m.type == CUDA_R_16BF) {
      const __nv_bfloat16 x = __float2bfloat16(value);
      std::memcpy(buffer, &x, size = 2);
    } else if (m.type == CUDA_R_8F_E4M3) {
      const __nv_fp8_e4m3 x(value);
      std::memcpy(buffer, &x, size = 1);
    }
    bytes.insert(bytes.end(), buffer, buffer + size);
  }
  return bytes;
}

struct Options {
  bool transpose_a = false, transpose_b = false;
  float alpha = 1, beta = 0;
  std::optional<std::vector<float>> bias;  // in D's type, f32 here
  std::optional<std::vector<float>> a_scale, b_scale;
  bool scale_per_channel = false;
};

// D = op(A) op(B) through the library's interface, D in f32; empty where it refuses, with the status.
std::vector<float> Multiply(const Matrix& a, const Matrix& b, const Options& options, cublasStatus_t* status) {
  const int64_t m = options.transpose_a ? a.columns : a.rows, n = options.transpose_b ? b.rows : b.columns;
  DeviceArray<char> da(Bytes(a)), db(Bytes(b));
  DeviceArray<float> dd(std::vector<float>(static_cast<size_t>(m * n), 3)),
      bias(options.bias.value_or(std::vector{0.f})), a_scale(options.a_scale.value_or(std::vector{1.f})),
      b_scale(options.b_scale.value_or(std::vector{1.f}));
  cublasLtHandle_t handle;
  cublasLtMatmulDesc_t what;
  cublasLtMatrixLayout_t la, lb, ld;
  cublasLtMatmulPreference_t preference;
  cublasLtCreate(&handle);
  cublasLtMatmulDescCreate(&what, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
    EXPECT_EQ(cublasLtMatmulDescSetAttribute(what, attribute, &value, sizeof(value)), CUBLAS_STATUS_SUCCESS);
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, options.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, options.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  const void *bias_pointer = bias.data(), *a_pointer = a_scale.data(), *b_pointer = b_scale.data();
  if (options.bias) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias_pointer);
  }
  if (options.a_scale) set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, a_pointer);
  if (options.b_scale) set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, b_pointer);
  if (options.scale_per_channel) {
    set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
  }
  cublasLtMatrixLayoutCreate(&la, a.type, a.rows, a.columns, a.leading);
  cublasLtMatrixLayoutCreate(&lb, b.type, b.rows, b.columns, b.leading);
  cublasLtMatrixLayoutCreate(&ld, CUDA_R_32F, m, n, m);
  cublasLtMatmulPreferenceCreate(&preference);
  cublasLtMatmulHeuristicResult_t chosen;
  int found = 0;
  *status = cublasLtMatmulAlgoGetHeuristic(handle, what, la, lb, ld, ld, preference, 1, &chosen, &found);
  std::vector<float> result;
  if (*status == CUBLAS_STATUS_SUCCESS) {
    *status = cublasLtMatmul(handle, what, &options.alpha, da.data(), la, db.data(), lb, &options.beta, dd.data(), ld,
                             dd.data(), ld, &chosen.algo, nullptr, 0, nullptr);
    if (*status == CUBLAS_STATUS_SUCCESS) result = dd.Read();
  }
  cublasLtMatmulPreferenceDestroy(preference);
  for (cublasLtMatrixLayout_t layout : {la, lb, ld}) cublasLtMatrixLayoutDestroy(layout);
  cublasLtMatmulDescDestroy(what);
  cublasLtDestroy(handle);
  return result;
}

TEST(FakeCublasLtTest, MultipliesInEveryArrangement) {
  for (cudaDataType type : {CUDA_R_32F, CUDA_R_16BF}) {
    for (int arrangement = 0; arrangement < 8; ++arrangement) {
      Options options;
      options.transpose_a = arrangement % 2 == 1;
      options.transpose_b = arrangement / 2 % 2 == 1;
      const int64_t m = 5, n = 7, k = 9, padding = arrangement / 4 * 3;
      const Matrix a = Filled(type, options.transpose_a ? k : m, options.transpose_a ? m : k, padding, 1);
      const Matrix b = Filled(type, options.transpose_b ? n : k, options.transpose_b ? k : n, padding, 2);
      options.alpha = 2;
      options.beta = 0.5f;
      options.bias = std::vector<float>{1, 2, 3, 4, 5};
      cublasStatus_t status;
      const std::vector<float> d = Multiply(a, b, options, &status);
      ASSERT_EQ(status, CUBLAS_STATUS_SUCCESS);
      for (int64_t row = 0; row < m; ++row) {
        for (int64_t column = 0; column < n; ++column) {
          float expected = 0;
          for (int64_t i = 0; i < k; ++i) {
            expected += (options.transpose_a ? a.at(i, row) : a.at(row, i)) *
                        (options.transpose_b ? b.at(column, i) : b.at(i, column));
          }
          expected = 2 * expected + 0.5f * 3 + static_cast<float>(row + 1);
          ASSERT_EQ(d[static_cast<size_t>(column * m + row)], expected) << row << ", " << column;
        }
      }
    }
  }
}

TEST(FakeCublasLtTest, ScalesFp8) {
  const Matrix a = Filled(CUDA_R_8F_E4M3, 32, 16, 0, 1), b = Filled(CUDA_R_8F_E4M3, 32, 16, 0, 2);
  for (bool per_channel : {false, true}) {
    Options options;
    options.transpose_a = true;
    options.scale_per_channel = per_channel;
    options.a_scale = options.b_scale = std::vector<float>();
    for (int i = 0; i < 16; ++i) {
      options.a_scale->push_back(static_cast<float>(i + 1));
      options.b_scale->push_back(std::ldexp(1.0f, -i));
    }
    cublasStatus_t status;
    const std::vector<float> d = Multiply(a, b, options, &status);
    ASSERT_EQ(status, CUBLAS_STATUS_SUCCESS);
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 16; ++column) {
        float expected = 0;
        for (int i = 0; i < 32; ++i) expected += a.at(i, row) * b.at(i, column);
        expected *= per_channel ? static_cast<float>(row + 1) * std::ldexp(1.0f, -column) : 1;
        ASSERT_EQ(d[static_cast<size_t>(column * 16 + row)], expected);
      }
    }
  }
}

TEST(FakeCublasLtTest, RefusesWhatTheLibraryRefuses) {
  cublasStatus_t status;
  const Options plain = {};
  Multiply(Filled(CUDA_R_16BF, 4, 8, 0, 1), Filled(CUDA_R_16BF, 7, 4, 0, 1), plain, &status);  // K differs
  EXPECT_EQ(status, CUBLAS_STATUS_INVALID_VALUE);
  Multiply(Filled(CUDA_R_16BF, 4, 8, -1, 1), Filled(CUDA_R_16BF, 8, 4, 0, 1), plain, &status);  // rows overlap
  EXPECT_EQ(status, CUBLAS_STATUS_INVALID_VALUE);
  Multiply(Filled(CUDA_R_16BF, 4, 8, 0, 1), Filled(CUDA_R_32F, 8, 4, 0, 1), plain, &status);  // two types
  EXPECT_EQ(status, CUBLAS_STATUS_NOT_SUPPORTED);
  Multiply(Filled(CUDA_R_8F_E4M3, 16, 32, 0, 1), Filled(CUDA_R_8F_E4M3, 32, 16, 0, 1), plain, &status);  // fp8, A as is
  EXPECT_EQ(status, CUBLAS_STATUS_INVALID_VALUE);
}

}  // namespace
}  // namespace cuda_emulator
