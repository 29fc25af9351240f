// Addressing inside a packed weight matrix (layout: kernels/ops/matmul.h).
#ifndef CAIRN_KERNELS_CPU_PANELS_H_
#define CAIRN_KERNELS_CPU_PANELS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/core/dtype.h"

namespace cairn::cpu {

inline constexpr int kPanelColumns = 16;

inline int64_t NumPanels(int64_t rows_n) { return (rows_n + kPanelColumns - 1) / kPanelColumns; }

// bf16 panels hold pairs along K, so an odd K is padded by one zero.
inline int64_t PaddedK(DType dtype, int64_t cols_k) {
  return dtype == DType::kBFloat16 ? (cols_k + 1) / 2 * 2 : cols_k;
}

inline size_t PanelBytes(DType dtype, int64_t cols_k) {
  return static_cast<size_t>(PaddedK(dtype, cols_k)) * kPanelColumns * DTypeSize(dtype);
}

// Element of (k, column) inside a panel.
inline size_t PanelIndex(DType dtype, int64_t k, int column) {
  if (dtype == DType::kBFloat16) return static_cast<size_t>(k / 2) * 2 * kPanelColumns + column * 2 + k % 2;
  return static_cast<size_t>(k) * kPanelColumns + column;
}

}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_PANELS_H_
