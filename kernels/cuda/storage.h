// Elements of tensors in kernels: read to float32, rounded to nearest even when written.
#ifndef CAIRN_KERNELS_CUDA_STORAGE_H_
#define CAIRN_KERNELS_CUDA_STORAGE_H_

#include <cstdint>

#include "kernels/core/check.h"
#include "kernels/core/dtype.h"
#include "kernels/core/tensor.h"
#include "kernels/cuda/launch.h"

namespace cairn::cuda {

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float ToFloat(__half x) { return __half2float(x); }
__device__ __forceinline__ float ToFloat(__nv_fp8_e4m3 x) { return static_cast<float>(x); }

template <typename T>
__device__ __forceinline__ T FromFloat(float x);
template <>
__device__ __forceinline__ float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 FromFloat<__nv_bfloat16>(float x) {
  return __float2bfloat16(x);
}
template <>
__device__ __forceinline__ __half FromFloat<__half>(float x) {
  return __float2half(x);
}
template <>
__device__ __forceinline__ __nv_fp8_e4m3 FromFloat<__nv_fp8_e4m3>(float x) {
  return __nv_fp8_e4m3(x);  // at most 448
}

// Where the type is known at run time only (one branch for all threads).
__device__ __forceinline__ float ReadAs(DType dtype, const void* data, int64_t i) {
  if (dtype == DType::kBFloat16) return ToFloat(static_cast<const __nv_bfloat16*>(data)[i]);
  if (dtype == DType::kFloat16) return ToFloat(static_cast<const __half*>(data)[i]);
  if (dtype == DType::kFloat8E4M3) return ToFloat(static_cast<const __nv_fp8_e4m3*>(data)[i]);
  return static_cast<const float*>(data)[i];
}
__device__ __forceinline__ void WriteAs(DType dtype, void* data, int64_t i, float value) {
  if (dtype == DType::kBFloat16) {
    static_cast<__nv_bfloat16*>(data)[i] = FromFloat<__nv_bfloat16>(value);
  } else if (dtype == DType::kFloat16) {
    static_cast<__half*>(data)[i] = FromFloat<__half>(value);
  } else if (dtype == DType::kFloat8E4M3) {
    static_cast<__nv_fp8_e4m3*>(data)[i] = FromFloat<__nv_fp8_e4m3>(value);
  } else {
    static_cast<float*>(data)[i] = value;
  }
}

// launch(T()) with the type that a tensor of `dtype` holds.
template <typename Function>
void WithType(DType dtype, const Function& launch) {
  switch (dtype) {
    case DType::kFloat32:
      return launch(float());
    case DType::kBFloat16:
      return launch(__nv_bfloat16());
    case DType::kFloat16:
      return launch(__half());
    default:
      CheckFailed(__FILE__, __LINE__, "a float type", DTypeName(dtype));
  }
}

// A tensor's rows, as kernels take them.
template <typename T>
struct RowView {
  T* data;
  int64_t stride;

  __device__ __forceinline__ T* row(int64_t i) const { return data + i * stride; }
};

template <typename T>
RowView<T> ViewRows(const Tensor& tensor) {
  return {static_cast<T*>(tensor.raw()), tensor.row_stride()};
}

inline unsigned Blocks(int64_t elements, int64_t per_block) {
  return static_cast<unsigned>((elements + per_block - 1) / per_block);
}

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_STORAGE_H_
