#include "bench/gpu/lt_matmul.h"

#include "absl/strings/str_cat.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"

namespace cairn::bench {
namespace {

void Check(const cuda::CublasLt& functions, cublasStatus_t status, const char* call) {
  CAIRN_CHECK(status == CUBLAS_STATUS_SUCCESS, call, ": ", functions.GetStatusString(status));
}

}  // namespace

absl::StatusOr<std::unique_ptr<LtLibrary>> LtLibrary::Create() {
  CAIRN_ASSIGN_OR_RETURN(const cuda::CublasLt* functions, cuda::CublasLt::Load());
  cublasLtHandle_t handle = nullptr;
  if (const cublasStatus_t status = functions->Create(&handle); status != CUBLAS_STATUS_SUCCESS) {
    return absl::UnavailableError(absl::StrCat("cublasLtCreate: ", functions->GetStatusString(status)));
  }
  return std::unique_ptr<LtLibrary>(new LtLibrary(*functions, handle));
}

// The library's matrices are column-major: a row-major y [m, n] is its D [n, m] = w^T x with w and x as [k, ...].
LtMatMul::LtMatMul(LtLibrary& library, const Problem& problem, int candidates) : library_(library), problem_(problem) {
  const cuda::CublasLt& lt = library.functions();
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
    Check(lt, lt.MatmulDescSetAttribute(descriptor_, attribute, &value, sizeof(value)),
          "cublasLtMatmulDescSetAttribute");
  };
  Check(lt, lt.MatmulDescCreate(&descriptor_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
  set(CUBLASLT_MATMUL_DESC_TRANSA, int32_t{CUBLAS_OP_T});
  const bool fp8 = problem.type == LtType::kFloat8;
  if (fp8) {
    set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, static_cast<const void*>(problem.scale));
    set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, static_cast<const void*>(problem.scale));
    set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, int8_t{1});
  }
  const auto layout = [&](cublasLtMatrixLayout_t* made, cudaDataType type, int64_t rows, int64_t columns) {
    Check(lt, lt.MatrixLayoutCreate(made, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), rows),
          "cublasLtMatrixLayoutCreate");
  };
  const cudaDataType input = fp8 ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
  layout(&w_, input, problem.k, problem.n);
  layout(&x_, input, problem.k, problem.m);
  layout(&y_, CUDA_R_16BF, problem.n, problem.m);
  cublasLtMatmulPreference_t preference = nullptr;
  Check(lt, lt.MatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  const uint64_t workspace = problem.workspace_bytes;
  Check(lt,
        lt.MatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                        sizeof(workspace)),
        "cublasLtMatmulPreferenceSetAttribute");
  std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<size_t>(candidates));
  int found = 0;
  const cublasStatus_t status = lt.MatmulAlgoGetHeuristic(library.handle(), descriptor_, w_, x_, y_, y_, preference,
                                                          candidates, results.data(), &found);
  lt.MatmulPreferenceDestroy(preference);
  if (status != CUBLAS_STATUS_SUCCESS) return;
  for (int i = 0; i < found; ++i) {
    if (results[i].state == CUBLAS_STATUS_SUCCESS) algorithms_.push_back(results[i].algo);
  }
}

LtMatMul::~LtMatMul() {
  const cuda::CublasLt& lt = library_.functions();
  for (cublasLtMatrixLayout_t layout : {x_, w_, y_}) lt.MatrixLayoutDestroy(layout);
  lt.MatmulDescDestroy(descriptor_);
}

void LtMatMul::Run(int algorithm, const void* x, const void* w, void* y, void* workspace, cudaStream_t stream) {
  const float one = 1, zero = 0;
  Check(library_.functions(),
        library_.functions().Matmul(library_.handle(), descriptor_, &one, w, w_, x, x_, &zero, y, y_, y, y_,
                                    &algorithms_[algorithm], workspace, problem_.workspace_bytes, stream),
        "cublasLtMatmul");
}

}  // namespace cairn::bench
