// Addressing inside a packed weight matrix (layout: kernels/ops/matmul.h).
#ifndef CAIRN_KERNELS_CPU_PANELS_H_
#define CAIRN_KERNELS_CPU_PANELS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/formats.h"
#include "kernels/cpu/kernels.h"

namespace cairn::cpu {

inline constexpr int kPanelColumns = 16;

inline int64_t NumPanels(int64_t rows_n) { return (rows_n + kPanelColumns - 1) / kPanelColumns; }

// bf16 panels hold pairs along K, so an odd K is padded by one zero.
inline int64_t PaddedK(Format format, int64_t cols_k) {
  return format == Format::kBf16 ? (cols_k + 1) / 2 * 2 : cols_k;
}

// Bytes of the first k (even for bf16) of a panel.
inline int64_t PanelBytes(Format format, int64_t k) { return PaddedK(format, k) * kPanelColumns * FormatBytes(format); }

// Element of (k, column) inside a panel.
inline int64_t PanelIndex(Format format, int64_t k, int column) {
  if (format == Format::kBf16) return k / 2 * 2 * kPanelColumns + column * 2 + k % 2;
  return k * kPanelColumns + column;
}

}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_PANELS_H_
