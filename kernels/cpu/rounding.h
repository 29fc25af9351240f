// Rounding of what an op writes to the context's activation type, one value at a time.
#ifndef CAIRN_KERNELS_CPU_ROUNDING_H_
#define CAIRN_KERNELS_CPU_ROUNDING_H_

#include "kernels/core/dtype.h"

namespace cairn::cpu {

inline float RoundTo(DType activation, float value) {
  if (activation == DType::kBFloat16) return BFloat16ToFloat(FloatToBFloat16(value));
  if (activation == DType::kFloat16) return Float16ToFloat(FloatToFloat16(value));
  return value;
}

// Element i of an array of `dtype` (kFloat32, kBFloat16 or kFloat16).
inline float LoadAs(DType dtype, const void* data, size_t i) {
  if (dtype == DType::kBFloat16) return BFloat16ToFloat(static_cast<const uint16_t*>(data)[i]);
  if (dtype == DType::kFloat16) return Float16ToFloat(static_cast<const uint16_t*>(data)[i]);
  return static_cast<const float*>(data)[i];
}

inline void StoreAs(DType dtype, void* data, size_t i, float value) {
  if (dtype == DType::kBFloat16) {
    static_cast<uint16_t*>(data)[i] = FloatToBFloat16(value);
  } else if (dtype == DType::kFloat16) {
    static_cast<uint16_t*>(data)[i] = FloatToFloat16(value);
  } else {
    static_cast<float*>(data)[i] = value;
  }
}

}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_ROUNDING_H_
