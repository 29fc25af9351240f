// Chooses the kernels for a step's rows.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_state.h"

namespace cairn::cuda {
namespace {

// Partial results of one launch take at most about this.
constexpr size_t kPartialBytes = size_t{64} << 20;

int32_t MostSpans(absl::Span<const SequenceRows> sequences) {
  int32_t slots = 1;
  for (const SequenceRows& rows : sequences) slots = std::max(slots, rows.kv.num_slots);
  return (slots + kSpanSlots - 1) / kSpanSlots;
}

// Partial results of a row, and rows that are done at once.
size_t PartialBytes(size_t heads, size_t spans, size_t head_dim) {
  return heads * spans * (head_dim + 2) * sizeof(float);
}
size_t RowsAtOnce(size_t rows, size_t bytes_per_row) {
  return std::min(rows, std::max<size_t>(1, kPartialBytes / bytes_per_row));
}

// The items' rows, each by spans and a merge, as many at a time as the partial results' memory allows.
template <typename T, typename Launch>
void AttendAndMerge(Context& context, AttentionParams<T> p, const WorkList& work, int32_t spans, const Launch& attend) {
  const size_t d = static_cast<size_t>(p.step.head_dim);
  const size_t per_item = PartialBytes(static_cast<size_t>(p.heads), static_cast<size_t>(spans), d);
  const unsigned at_once = static_cast<unsigned>(RowsAtOnce(work.count, per_item));
  const size_t parts = at_once * static_cast<size_t>(p.heads) * static_cast<size_t>(spans);
  p.spans = spans;
  p.weighted = static_cast<float*>(context.SharedScratch(at_once * per_item));
  p.max = p.weighted + parts * d;
  p.sum = p.max + parts;
  for (unsigned begin = 0; begin < work.count; begin += at_once) {
    p.items = work.items + begin;
    const unsigned count = std::min(at_once, work.count - begin);
    attend(p, count, context.cuda().stream());
    LaunchMergeSpans(p, count, context.cuda().stream());
  }
}

// On tensor cores: rows that come alone by spans of their slots, others 64 query vectors at a time.
template <typename T>
void AttendByTiles(Context& context, AttentionParams<T> p, absl::Span<const SequenceRows> sequences) {
  const auto alone = [&](const SequenceRows& rows) { return rows.num_rows == 1 && p.group <= kDecodeVectors; };
  const WorkList decode = UploadWork(context, sequences, 1, alone);
  const WorkList prefill =
      UploadWork(context, sequences, kPrefillVectors / p.group, [&](const SequenceRows& rows) { return !alone(rows); });
  if (decode.count > 0) AttendAndMerge(context, p, decode, MostSpans(sequences), LaunchDecode<T>);
  if (prefill.count > 0) {
    p.items = prefill.items;
    LaunchPrefill(p, prefill.count, context.cuda().stream());
  }
}

template <typename T>
void Attend(Context& context, const Tensor& q, const Tensor& positions, absl::Span<const SequenceRows> sequences,
            int sliding_window, const Tensor& out) {
  AttentionParams<T> p = {};
  p.q = ViewRows<const T>(q);
  p.out = ViewRows<T>(out);
  p.positions = positions.data<int32_t>();
  p.step = UploadStep(context, sequences);
  p.heads = static_cast<int32_t>(q.dim(1));
  p.group = p.heads / p.step.kv_heads;
  p.window = sliding_window;
  p.scale = 1.0f / std::sqrt(static_cast<float>(p.step.head_dim));
  if constexpr (sizeof(T) == 2) {
    const bool fits = q.dtype() == p.step.dtype || p.step.dtype == DType::kFloat8E4M3;
    if (fits && HasTiles(p.step.head_dim) && p.group <= kPrefillVectors) {
      return AttendByTiles(context, p, sequences);
    }
  }
  const WorkList work = UploadWork(context, sequences, 1, [](const SequenceRows&) { return true; });
  if (work.count > 0) AttendAndMerge(context, p, work, MostSpans(sequences), LaunchAttendRows<T>);
}

}  // namespace

void PagedAttention(Context& context, const Tensor& q, const Tensor& positions,
                    absl::Span<const SequenceRows> sequences, int sliding_window, const Tensor& out) {
  if (sequences.empty()) return;
  WithType(q.dtype(),
           [&](auto element) { Attend<decltype(element)>(context, q, positions, sequences, sliding_window, out); });
}

void ReserveAttention(Context& context, int64_t rows, int64_t heads, int64_t head_dim, int64_t max_slots) {
  size_t most = 0;
  // A recorded step has a power of two of spans; with fewer of them more rows are done at once.
  for (size_t spans = 1;; spans *= 2) {
    const size_t per_row = PartialBytes(static_cast<size_t>(heads), spans, static_cast<size_t>(head_dim));
    most = std::max(most, RowsAtOnce(static_cast<size_t>(rows), per_row) * per_row);
    if (static_cast<int64_t>(spans) * kSpanSlots >= max_slots) break;
  }
  context.SharedScratch(most);
}

}  // namespace cairn::cuda
