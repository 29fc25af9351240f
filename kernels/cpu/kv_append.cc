#include "kernels/core/float8.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/formats.h"
#include "kernels/cpu/parallel_rows.h"

namespace cairn::cpu {
namespace {

void ConvertToFloat8Row(const float* x, int64_t n, void* codes) { ConvertToFloat8(x, n, static_cast<uint8_t*>(codes)); }

// From float32 to the cache's type.
auto ConverterTo(const Kernels& kernels, DType dtype) {
  return dtype == DType::kFloat8E4M3 ? ConvertToFloat8Row : kernels.convert[static_cast<int>(FormatOf(dtype))];
}

// The heads of one row into its slot.
void AppendRow(const Kernels& kernels, const float* k, const float* v, int32_t position, const KvView& kv,
               int32_t slot) {
  const int64_t d = kv.layout.head_dim;
  const auto convert = ConverterTo(kernels, kv.layout.dtype);
  for (int h = 0; h < kv.layout.kv_heads; ++h) {
    convert(k + h * d, d, kv.k(h, slot));
    convert(v + h * d, d, kv.v(h, slot));
    *kv.position(h, slot) = position;
    for (int plane = 0; plane < kv.layout.num_scores; ++plane) *kv.score(h, slot, plane) = 0;
  }
}

}  // namespace

void KvAppend(Context& context, const Tensor& k, const Tensor& v, const Tensor& positions,
              absl::Span<const SequenceRows> sequences) {
  for (const SequenceRows& rows : sequences) {
    ParallelRows(context, rows.num_rows, 2 * k.row_elements(), [&](int64_t i) {
      const int64_t t = rows.row_begin + i;
      const int32_t slot = rows.kv.num_slots - rows.num_rows + static_cast<int32_t>(i);
      AppendRow(context.cpu_kernels(), k.data<float>() + t * k.row_stride(), v.data<float>() + t * v.row_stride(),
                positions.data<int32_t>()[t], rows.kv, slot);
    });
  }
}

}  // namespace cairn::cpu
