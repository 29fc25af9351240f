#include "kernels/cuda/matmul_plans.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "kernels/core/buffer.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"
#include "kernels/cuda/cublaslt.h"

namespace cairn::cuda {
namespace {

// What NVIDIA advises for sm_90.
constexpr uint64_t kWorkspaceBytes = uint64_t{32} << 20;

cudaDataType TypeOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return CUDA_R_32F;
    case DType::kBFloat16:
      return CUDA_R_16BF;
    case DType::kFloat16:
      return CUDA_R_16F;
    case DType::kFloat8E4M3:
      return CUDA_R_8F_E4M3;
    default:
      CheckFailed(__FILE__, __LINE__, "a float type", DTypeName(dtype));
  }
}

// The largest power of two, up to the library's default, that divides the address.
uint32_t AlignmentOf(const void* address) {
  const uintptr_t bits = reinterpret_cast<uintptr_t>(address) | 256;
  return static_cast<uint32_t>(bits & (~bits + 1));
}

// Everything that the choice of an algorithm hangs on.
using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, DType, DType, bool, bool, uint32_t,
                       uint32_t, uint32_t>;

Key KeyOf(const MatMulProblem& p) {
  return {p.m,
          p.n,
          p.k,
          p.x_stride,
          p.w_stride,
          p.y_stride,
          p.input,
          p.output,
          p.bias != nullptr,
          p.x_scales != nullptr,
          AlignmentOf(p.x),
          AlignmentOf(p.w),
          AlignmentOf(p.y)};
}

struct Plan {
  cublasLtMatmulDesc_t descriptor = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};
  cublasStatus_t found = CUBLAS_STATUS_NOT_SUPPORTED;  // an algorithm
};

class CublasLtPlans : public MatMulPlans {
 public:
  CublasLtPlans(const CublasLt& library, cublasLtHandle_t handle, Buffer workspace)
      : library_(library), handle_(handle), workspace_(std::move(workspace)) {}

  ~CublasLtPlans() override {
    for (const auto& [key, plan] : plans_) {
      for (cublasLtMatrixLayout_t layout : {plan.w, plan.x, plan.y}) library_.MatrixLayoutDestroy(layout);
      library_.MatmulDescDestroy(plan.descriptor);
    }
    library_.Destroy(handle_);
  }

  bool Takes(const MatMulProblem& p) override { return PlanFor(p).found == CUBLAS_STATUS_SUCCESS; }

  void Run(const MatMulProblem& p, cudaStream_t stream) override {
    Plan& plan = PlanFor(p);
    Check(plan.found, "cublasLtMatmulAlgoGetHeuristic", p);
    SetPointers(p, plan);
    const float one = 1, zero = 0;
    Check(library_.Matmul(handle_, plan.descriptor, &one, p.w, plan.w, p.x, plan.x, &zero, p.y, plan.y, p.y, plan.y,
                          &plan.algorithm, workspace_.data(), workspace_.size_bytes(), stream),
          "cublasLtMatmul", p);
  }

 private:
  Plan& PlanFor(const MatMulProblem& p) {
    auto [it, is_new] = plans_.try_emplace(KeyOf(p));
    if (is_new) Make(p, it->second);
    return it->second;
  }

  void Check(cublasStatus_t status, const char* call, const MatMulProblem& p) const {
    CAIRN_CHECK(status == CUBLAS_STATUS_SUCCESS, call, ": ", library_.GetStatusString(status), " for x [", p.m, ", ",
                p.k, "] (rows ", p.x_stride, " apart), w [", p.n, ", ", p.k, "], ", DTypeName(p.input), " to ",
                DTypeName(p.output));
  }

  template <typename T>
  void Set(Plan& plan, cublasLtMatmulDescAttributes_t attribute, const T& value) {
    CAIRN_CHECK(library_.MatmulDescSetAttribute(plan.descriptor, attribute, &value, sizeof(value)) ==
                CUBLAS_STATUS_SUCCESS);
  }

  void SetPointers(const MatMulProblem& p, Plan& plan) {
    if (p.bias != nullptr) Set(plan, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    if (p.x_scales == nullptr) return;
    Set(plan, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, p.w_scales);
    Set(plan, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, p.x_scales);
  }

  // The library's matrices are column-major: a row-major y [m, n] is its D [n, m] = w^T x with w and x as [k, ...].
  void Make(const MatMulProblem& p, Plan& plan) {
    Check(library_.MatmulDescCreate(&plan.descriptor, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate", p);
    Set(plan, CUBLASLT_MATMUL_DESC_TRANSA, int32_t{CUBLAS_OP_T});
    if (p.bias != nullptr) {
      Set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE, int32_t{CUBLASLT_EPILOGUE_BIAS});
    }
    if (p.x_scales != nullptr) {
      Set(plan, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, int32_t{CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F});
      Set(plan, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, int32_t{CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F});
    }
    SetPointers(p, plan);
    const auto layout = [&](cublasLtMatrixLayout_t* made, DType dtype, int64_t rows, int64_t columns, int64_t stride) {
      Check(library_.MatrixLayoutCreate(made, TypeOf(dtype), static_cast<uint64_t>(rows),
                                        static_cast<uint64_t>(columns), stride),
            "cublasLtMatrixLayoutCreate", p);
    };
    layout(&plan.w, p.input, p.k, p.n, p.w_stride);
    layout(&plan.x, p.input, p.k, p.m, p.x_stride);
    layout(&plan.y, p.output, p.n, p.m, p.y_stride);
    Choose(p, plan);
  }

  void Choose(const MatMulProblem& p, Plan& plan) {
    cublasLtMatmulPreference_t preference = nullptr;
    Check(library_.MatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate", p);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      CAIRN_CHECK(library_.MatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)) ==
                  CUBLAS_STATUS_SUCCESS);
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{workspace_.size_bytes()});
    // Sums of a cut K stay float32 until they are whole: as 16-bit parts they would err beyond the output's rounding.
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE} | uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, AlignmentOf(p.w));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, AlignmentOf(p.x));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, AlignmentOf(p.y));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, AlignmentOf(p.y));
    cublasLtMatmulHeuristicResult_t chosen = {};
    int found = 0;
    plan.found = library_.MatmulAlgoGetHeuristic(handle_, plan.descriptor, plan.w, plan.x, plan.y, plan.y, preference,
                                                 1, &chosen, &found);
    if (plan.found == CUBLAS_STATUS_SUCCESS) plan.found = found > 0 ? chosen.state : CUBLAS_STATUS_NOT_SUPPORTED;
    plan.algorithm = chosen.algo;
    library_.MatmulPreferenceDestroy(preference);
  }

  const CublasLt& library_;
  cublasLtHandle_t handle_;
  Buffer workspace_;
  absl::flat_hash_map<Key, Plan> plans_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MatMulPlans>> MatMulPlans::Create(int device) {
  CAIRN_ASSIGN_OR_RETURN(const CublasLt* library, CublasLt::Load());
  CAIRN_ASSIGN_OR_RETURN(Buffer workspace, Buffer::Allocate({DeviceKind::kCuda, device}, kWorkspaceBytes));
  cublasLtHandle_t handle = nullptr;
  if (const cublasStatus_t status = library->Create(&handle); status != CUBLAS_STATUS_SUCCESS) {
    return absl::UnavailableError(
        absl::StrCat("cublasLtCreate on GPU ", device, ": ", library->GetStatusString(status)));
  }
  return std::make_unique<CublasLtPlans>(*library, handle, std::move(workspace));
}

}  // namespace cairn::cuda
