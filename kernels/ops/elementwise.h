// The small ops between the matmuls. Activations are float32 on CPU and of the activation type on CUDA
// (Context::storage_dtype); rows may be strided (Tensor::row_stride); what is written is rounded to the context's
// activation type; every row is computed alone, in float32.
#ifndef CAIRN_KERNELS_OPS_ELEMENTWISE_H_
#define CAIRN_KERNELS_OPS_ELEMENTWISE_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/core/context.h"
#include "kernels/core/tensor.h"

namespace cairn {

// y = x / sqrt(mean(x^2) + eps) * weight over the last dimension (arXiv 1910.07467). x, y [T, C], or [T, heads, C] (a
// norm per head: Qwen3's q and k); they may be the same. weight [C] f32.
void RmsNorm(Context& context, const Tensor& x, const Tensor& weight, float eps, const Tensor& y);

// hidden += update, then normed = RmsNorm(hidden): the end of one sublayer and the beginning of the next in one pass
// over the residual stream, with the bits of AddInPlace and RmsNorm. hidden, normed [T, C], which do not overlap;
// weight [C] f32; update [T, C] activations, or (where those are of 16 bits in memory) float32: a sum over ranks, which
// is rounded to the activation type before it is added.
void AddRmsNorm(Context& context, const Tensor& hidden, const Tensor& update, const Tensor& weight, float eps,
                const Tensor& normed);

// Rotary embedding, in place (arXiv 2104.09864; Hugging Face's half-split layout: dimension i pairs with i + d/2).
// x [T, heads, d], positions [T] int32, inv_freq [d/2] f32. Angles are position * inv_freq in float32, as Hugging Face
// computes them; `attention_scale` multiplies cos and sin (1 except for some scaled variants).
void Rope(Context& context, const Tensor& x, const Tensor& positions, const Tensor& inv_freq,
          float attention_scale = 1);

// y = silu(gate) * up (arXiv 2002.05202). gate_up [T, 2 I], the gate first; y [T, I].
void SwiGlu(Context& context, const Tensor& gate_up, const Tensor& y);

// x += y, both [T, C]; y as AddRmsNorm's update.
void AddInPlace(Context& context, const Tensor& x, const Tensor& y);

// y = x [T, C] f32 rounded to the activation type: what a matmul with round_output does, for sums made outside of one.
// y: activations; it may be x where they are stored as float32.
void RoundToActivation(Context& context, const Tensor& x, const Tensor& y);

// y[i] = x[rows[i]]: activations x [T, C], y [M, C]; the M row numbers are host memory.
void TakeRows(Context& context, const Tensor& x, absl::Span<const int32_t> rows, const Tensor& y);

// to[indices[i]] = values[i]: `to` [n] int32, no index twice; the lists, of one length, are host memory.
void ScatterInts(Context& context, absl::Span<const int32_t> indices, absl::Span<const int32_t> values,
                 const Tensor& to);

}  // namespace cairn

#endif  // CAIRN_KERNELS_OPS_ELEMENTWISE_H_
