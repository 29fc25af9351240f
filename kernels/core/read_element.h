// Elements whose type is known at run time only, on the host.
#ifndef CAIRN_KERNELS_CORE_READ_ELEMENT_H_
#define CAIRN_KERNELS_CORE_READ_ELEMENT_H_

#include <cstdint>
#include <cstring>

#include "kernels/core/dtype.h"
#include "kernels/core/float8.h"

namespace cairn {

// Element i of kFloat32, kBFloat16, kFloat16 or kFloat8E4M3 (without a scale) at `data`, which need not be aligned.
inline float ReadElement(DType type, const void* data, int64_t i) {
  if (type == DType::kFloat32) {
    float value;
    std::memcpy(&value, static_cast<const char*>(data) + i * sizeof value, sizeof value);
    return value;
  }
  if (type == DType::kFloat8E4M3) return Float8E4M3ToFloat(static_cast<const uint8_t*>(data)[i]);
  uint16_t bits;
  std::memcpy(&bits, static_cast<const char*>(data) + i * sizeof bits, sizeof bits);
  return type == DType::kBFloat16 ? BFloat16ToFloat(bits) : Float16ToFloat(bits);
}

}  // namespace cairn

#endif  // CAIRN_KERNELS_CORE_READ_ELEMENT_H_
