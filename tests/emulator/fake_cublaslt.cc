// cublasLtMatmul on the CPU, linked in place of libcublasLt: transposes, leading dimensions, orders, batches, alpha and
// beta, the bias epilogue, f32, bf16, f16 and fp8 with scales. It refuses what the library refuses (types, alignments,
// layouts for fp8), checks that a cached algorithm is used for the shape and the alignment that it was chosen for, and
// fills the workspace with NaN, so that a workspace that overlaps something live shows.
#include <cublasLt.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "cuda_emulator.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/runtime.h"

namespace {

using cuda_emulator::Enqueue;
using cuda_emulator::IsAllocated;

struct Descriptor {
  int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  int32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  int32_t bias_type = -1;
  const float *a_scale = nullptr, *b_scale = nullptr, *d_scale = nullptr;
  int32_t a_scale_mode = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
  int32_t b_scale_mode = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
  int8_t fast_accumulation = 0;
};

struct Layout {
  cudaDataType type;
  uint64_t rows, columns;
  int64_t leading;
  int32_t order = CUBLASLT_ORDER_COL;
  int32_t batches = 1;
  int64_t batch_stride = 0;

  int64_t At(int64_t row, int64_t column) const {
    return order == CUBLASLT_ORDER_COL ? column * leading + row : row * leading + column;
  }
  int64_t Elements() const {  // from the first to the last
    return (batches - 1) * batch_stride + At(static_cast<int64_t>(rows) - 1, static_cast<int64_t>(columns) - 1) + 1;
  }
};

struct Preference {
  uint64_t workspace_bytes = 0;
  uint32_t alignment[4] = {256, 256, 256, 256};  // A, B, C, D
};

constexpr size_t kWorkspaceWanted = 4096;

// What an algorithm was chosen for, in its opaque words.
struct Chosen {
  uint64_t problem;
  uint32_t alignment[4];
  uint64_t workspace_bytes;
};
static_assert(sizeof(Chosen) <= sizeof(cublasLtMatmulAlgo_t));

bool IsFp8(cudaDataType type) { return type == CUDA_R_8F_E4M3 || type == CUDA_R_8F_E5M2; }

size_t BytesOf(cudaDataType type) { return IsFp8(type) ? 1 : type == CUDA_R_32F ? 4 : 2; }

bool IsKnown(cudaDataType type) {
  return IsFp8(type) || type == CUDA_R_32F || type == CUDA_R_16BF || type == CUDA_R_16F;
}

float Read(const void* data, cudaDataType type, int64_t i) {
  switch (type) {
    case CUDA_R_16BF:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
    case CUDA_R_16F:
      return __half2float(static_cast<const __half*>(data)[i]);
    case CUDA_R_8F_E4M3:
      return static_cast<float>(static_cast<const __nv_fp8_e4m3*>(data)[i]);
    case CUDA_R_8F_E5M2:
      return static_cast<float>(static_cast<const __nv_fp8_e5m2*>(data)[i]);
    default:
      return static_cast<const float*>(data)[i];
  }
}

void Write(void* data, cudaDataType type, int64_t i, float value) {
  switch (type) {
    case CUDA_R_16BF:
      static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16(value);
      return;
    case CUDA_R_16F:
      static_cast<__half*>(data)[i] = __float2half(value);
      return;
    case CUDA_R_8F_E4M3:
      static_cast<__nv_fp8_e4m3*>(data)[i] = __nv_fp8_e4m3(value);
      return;
    case CUDA_R_8F_E5M2:
      static_cast<__nv_fp8_e5m2*>(data)[i] = __nv_fp8_e5m2(value);
      return;
    default:
      static_cast<float*>(data)[i] = value;
  }
}

struct Job {
  Descriptor descriptor;
  Layout a, b, c, d;
  const void *a_data, *b_data, *c_data;
  void* d_data;
  float alpha, beta;
  void* workspace;
  size_t workspace_bytes;

  int64_t m() const { return static_cast<int64_t>(descriptor.transpose_a == CUBLAS_OP_N ? a.rows : a.columns); }
  int64_t k() const { return static_cast<int64_t>(descriptor.transpose_a == CUBLAS_OP_N ? a.columns : a.rows); }
  int64_t n() const { return static_cast<int64_t>(descriptor.transpose_b == CUBLAS_OP_N ? b.columns : b.rows); }
};

// Column m of op(A)^T (or of op(B)) as k floats, one after the other.
std::vector<float> Unpack(const void* data, const Layout& layout, bool transposed, int64_t outer, int64_t k,
                          int batch) {
  std::vector<float> values(static_cast<size_t>(outer * k));
  for (int64_t i = 0; i < outer; ++i) {
    for (int64_t j = 0; j < k; ++j) {
      const int64_t at = batch * layout.batch_stride + (transposed ? layout.At(j, i) : layout.At(i, j));
      values[static_cast<size_t>(i * k + j)] = Read(data, layout.type, at);
    }
  }
  return values;
}

float ScaleOf(const float* scale, int32_t mode, int64_t i) {
  if (scale == nullptr) return 1;
  return mode == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F ? scale[i] : scale[0];
}

std::string Run(const Job& job) {
  const Descriptor& what = job.descriptor;
  const int64_t m = job.m(), n = job.n(), k = job.k();
  if (job.workspace != nullptr) std::memset(job.workspace, 0xff, job.workspace_bytes);
  for (int batch = 0; batch < job.d.batches; ++batch) {
    const std::vector<float> a = Unpack(job.a_data, job.a, what.transpose_a != CUBLAS_OP_N, m, k, batch);
    const std::vector<float> b = Unpack(job.b_data, job.b, what.transpose_b == CUBLAS_OP_N, n, k, batch);
    for (int64_t column = 0; column < n; ++column) {
      for (int64_t row = 0; row < m; ++row) {
        float sum = 0;
        for (int64_t i = 0; i < k; ++i) sum += a[row * k + i] * b[column * k + i];
        const int64_t c_at = batch * job.c.batch_stride + job.c.At(row, column);
        float value = job.alpha * sum * ScaleOf(what.a_scale, what.a_scale_mode, row) *
                      ScaleOf(what.b_scale, what.b_scale_mode, column);
        if (job.beta != 0) value += job.beta * Read(job.c_data, job.c.type, c_at);
        if (what.epilogue == CUBLASLT_EPILOGUE_BIAS) {
          value += Read(what.bias, static_cast<cudaDataType>(what.bias_type), row);
        }
        if (what.d_scale != nullptr) value *= *what.d_scale;
        Write(job.d_data, job.d.type, batch * job.d.batch_stride + job.d.At(row, column), value);
      }
    }
  }
  return "";
}

// The library's table of types, as far as this project goes.
bool TypesFit(const Job& job) {
  const cudaDataType in = job.a.type, out = job.d.type;
  if (job.c.type != out) return false;
  if (IsFp8(in) || IsFp8(job.b.type)) {
    return IsFp8(in) && IsFp8(job.b.type) && !(in == CUDA_R_8F_E5M2 && job.b.type == CUDA_R_8F_E5M2) && !IsFp8(out);
  }
  return in == job.b.type && IsKnown(in) && (out == in || out == CUDA_R_32F);
}

bool IsSane(const Layout& layout) {
  const int64_t least = static_cast<int64_t>(layout.order == CUBLASLT_ORDER_COL ? layout.rows : layout.columns);
  return IsKnown(layout.type) && layout.leading >= least && layout.rows > 0 && layout.columns > 0;
}

bool ShapesFit(const Job& job) {
  const auto is = [](const Layout& l, int64_t rows, int64_t columns) {
    return static_cast<int64_t>(l.rows) == rows && static_cast<int64_t>(l.columns) == columns;
  };
  const int64_t m = job.m(), n = job.n(), k = job.k();
  if (!IsSane(job.a) || !IsSane(job.b) || !IsSane(job.c) || !IsSane(job.d)) return false;
  const bool b_fits = job.descriptor.transpose_b == CUBLAS_OP_N ? is(job.b, k, n) : is(job.b, n, k);
  if (!b_fits || !is(job.c, m, n) || !is(job.d, m, n)) return false;
  if (!IsFp8(job.a.type)) return true;
  // fp8 on sm_90: A transposed, B not; sizes in multiples of 16.
  return job.descriptor.transpose_a == CUBLAS_OP_T && job.descriptor.transpose_b == CUBLAS_OP_N && m % 16 == 0 &&
         n % 16 == 0 && k % 16 == 0;
}

bool EpilogueFits(Job& job) {
  Descriptor& what = job.descriptor;
  if (what.epilogue == CUBLASLT_EPILOGUE_DEFAULT) return true;
  if (what.epilogue != CUBLASLT_EPILOGUE_BIAS) return false;
  const bool fp8 = IsFp8(job.a.type);
  const cudaDataType expected = fp8 && job.d.type == CUDA_R_32F ? CUDA_R_16BF : job.d.type;
  if (what.bias_type == -1) what.bias_type = expected;
  return what.bias_type == expected;
}

uint64_t ProblemOf(const Job& job) {
  uint64_t hash = 1469598103934665603u;
  const auto mix = [&](uint64_t value) { hash = (hash ^ value) * 1099511628211u; };
  for (const Layout* l : {&job.a, &job.b, &job.c, &job.d}) {
    for (uint64_t value : {static_cast<uint64_t>(l->type), l->rows, l->columns, static_cast<uint64_t>(l->leading),
                           static_cast<uint64_t>(l->order), static_cast<uint64_t>(l->batches)}) {
      mix(value);
    }
  }
  mix(static_cast<uint64_t>(job.descriptor.transpose_a * 16 + job.descriptor.transpose_b));
  mix(static_cast<uint64_t>(job.descriptor.epilogue));
  mix(static_cast<uint64_t>(job.descriptor.a_scale_mode * 16 + job.descriptor.b_scale_mode));
  return hash;
}

cublasStatus_t Check(Job& job) {
  if (!ShapesFit(job)) return CUBLAS_STATUS_INVALID_VALUE;
  if (!TypesFit(job) || !EpilogueFits(job)) return CUBLAS_STATUS_NOT_SUPPORTED;
  return CUBLAS_STATUS_SUCCESS;
}

// Are all operands there, in full, and as aligned as the algorithm was told?
bool OperandsFit(const Job& job, const uint32_t* alignment) {
  const auto fits = [](const void* data, const Layout& layout, uint32_t aligned) {
    return reinterpret_cast<uintptr_t>(data) % aligned == 0 &&
           IsAllocated(data, static_cast<size_t>(layout.Elements()) * BytesOf(layout.type));
  };
  const auto scales_fit = [](const float* scales, int32_t mode, int64_t rows) {
    const int64_t count = mode == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F ? rows : 1;
    return scales == nullptr || IsAllocated(scales, static_cast<size_t>(count) * sizeof(float));
  };
  if (!scales_fit(job.descriptor.a_scale, job.descriptor.a_scale_mode, job.m()) ||
      !scales_fit(job.descriptor.b_scale, job.descriptor.b_scale_mode, job.n())) {
    return false;
  }
  if (job.descriptor.epilogue == CUBLASLT_EPILOGUE_BIAS) {
    const size_t bytes = static_cast<size_t>(job.m()) * BytesOf(static_cast<cudaDataType>(job.descriptor.bias_type));
    if (!IsAllocated(job.descriptor.bias, bytes)) return false;
  }
  return fits(job.a_data, job.a, alignment[0]) && fits(job.b_data, job.b, alignment[1]) &&
         (job.beta == 0 || fits(job.c_data, job.c, alignment[2])) && fits(job.d_data, job.d, alignment[3]);
}

// The handles are pointers to structs that only the library defines.
template <typename T, typename Handle>
T& As(Handle handle) {
  return *reinterpret_cast<T*>(handle);
}

template <typename T>
cublasStatus_t Set(T& field, const void* value, size_t bytes) {
  if (bytes != sizeof(field)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&field, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

Job JobOf(cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
          cublasLtMatrixLayout_t out) {
  Job job = {};
  job.descriptor = As<Descriptor>(d);
  job.a = As<Layout>(a);
  job.b = As<Layout>(b);
  job.c = As<Layout>(c);
  job.d = As<Layout>(out);
  return job;
}

}  // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(new int(0));
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<int*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}
const char* cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "success";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "invalid value";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "not supported";
    default:
      return "error";
  }
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* descriptor, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  *descriptor = reinterpret_cast<cublasLtMatmulDesc_t>(new Descriptor);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t descriptor) {
  delete &As<Descriptor>(descriptor);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t descriptor, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  Descriptor& d = As<Descriptor>(descriptor);
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return Set(d.transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return Set(d.transpose_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return Set(d.epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return Set(d.bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return Set(d.bias_type, value, bytes);
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER:
      return Set(d.a_scale, value, bytes);
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER:
      return Set(d.b_scale, value, bytes);
    case CUBLASLT_MATMUL_DESC_D_SCALE_POINTER:
      return Set(d.d_scale, value, bytes);
    case CUBLASLT_MATMUL_DESC_A_SCALE_MODE:
      return Set(d.a_scale_mode, value, bytes);
    case CUBLASLT_MATMUL_DESC_B_SCALE_MODE:
      return Set(d.b_scale_mode, value, bytes);
    case CUBLASLT_MATMUL_DESC_FAST_ACCUM:
      return Set(d.fast_accumulation, value, bytes);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t leading) {
  *layout = reinterpret_cast<cublasLtMatrixLayout_t>(new Layout{type, rows, columns, leading});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete &As<Layout>(layout);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void* value,
                                                size_t bytes) {
  Layout& l = As<Layout>(layout);
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
      return Set(l.order, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      return Set(l.batches, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      return Set(l.batch_stride, value, bytes);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete &As<Preference>(preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  Preference& p = As<Preference>(preference);
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return Set(p.workspace_bytes, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return Set(p.alignment[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return Set(p.alignment[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return Set(p.alignment[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return Set(p.alignment[3], value, bytes);
    default:
      return CUBLAS_STATUS_SUCCESS;
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t descriptor,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t* results, int* found) {
  *found = 0;
  if (wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
  Job job = JobOf(descriptor, a, b, c, d);
  if (const cublasStatus_t status = Check(job); status != CUBLAS_STATUS_SUCCESS) return status;
  const Preference& p = As<Preference>(preference);
  const uint32_t least = IsFp8(job.a.type) ? 16 : static_cast<uint32_t>(BytesOf(job.a.type));
  if (*std::min_element(p.alignment, p.alignment + 4) < least) return CUBLAS_STATUS_NOT_SUPPORTED;
  Chosen chosen = {ProblemOf(job), {}, std::min<uint64_t>(p.workspace_bytes, kWorkspaceWanted)};
  std::copy_n(p.alignment, 4, chosen.alignment);
  results[0] = {};
  std::memcpy(&results[0].algo, &chosen, sizeof(chosen));
  results[0].workspaceSize = chosen.workspace_bytes;
  results[0].state = CUBLAS_STATUS_SUCCESS;
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t descriptor, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  Job job = JobOf(descriptor, a_layout, b_layout, c_layout, d_layout);
  if (const cublasStatus_t status = Check(job); status != CUBLAS_STATUS_SUCCESS) return status;
  job.a_data = a;
  job.b_data = b;
  job.c_data = c;
  job.d_data = d;
  job.alpha = *static_cast<const float*>(alpha);
  job.beta = *static_cast<const float*>(beta);
  const uint32_t element = static_cast<uint32_t>(BytesOf(job.a.type));
  Chosen chosen = {ProblemOf(job), {element, element, element, element}, 0};
  if (algorithm != nullptr) std::memcpy(&chosen, algorithm, sizeof(chosen));
  if (chosen.problem != ProblemOf(job) || !OperandsFit(job, chosen.alignment)) return CUBLAS_STATUS_INVALID_VALUE;
  if (chosen.workspace_bytes > workspace_bytes ||
      (chosen.workspace_bytes > 0 && !IsAllocated(workspace, workspace_bytes))) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  job.workspace = workspace;
  job.workspace_bytes = static_cast<size_t>(chosen.workspace_bytes);
  const cudaError_t error = Enqueue(stream, [job] { return Run(job); });
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // extern "C"
