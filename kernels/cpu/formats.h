// Between the types of tensors and the formats of the inner loops.
#ifndef CAIRN_KERNELS_CPU_FORMATS_H_
#define CAIRN_KERNELS_CPU_FORMATS_H_

#include "kernels/core/check.h"
#include "kernels/core/context.h"
#include "kernels/core/dtype.h"
#include "kernels/cpu/kernels.h"

namespace cairn::cpu {

constexpr Format FormatOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return Format::kF32;
    case DType::kBFloat16:
      return Format::kBf16;
    case DType::kFloat16:
      return Format::kF16;
    case DType::kFloat8E4M3:
      return Format::kF8;
    case DType::kInt8:
      return Format::kI8;
    case DType::kInt32:
    case DType::kInt64:
      break;
  }
  CheckFailed(__FILE__, __LINE__, "a float type", DTypeName(dtype));
}

inline int64_t FormatBytes(Format format) {
  if (format == Format::kF8 || format == Format::kI8) return 1;
  return format == Format::kF32 ? 4 : 2;
}

// What the context's ops round to.
inline Format ActivationFormat(const Context& context) { return FormatOf(context.activation_dtype()); }

}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_FORMATS_H_
