#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/core/check.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/paged.h"

namespace cairn::cuda {
namespace {

// Of four million slots a block's index is exact.
constexpr int kMaxBlockSize = 1024;

PagedStep StepOf(const PagedSequence* sequences, const int32_t* tables, const KvBlockLayout& layout) {
  CAIRN_CHECK(layout.block_size > 0 && layout.block_size <= kMaxBlockSize, "a block of ", layout.block_size,
              " slots on a GPU, at most ", kMaxBlockSize);
  CAIRN_CHECK(layout.num_scores <= kMaxScores, layout.num_scores, " planes of scores");
  CAIRN_CHECK(layout.block_bytes() < size_t{1} << 31, "blocks of ", layout.block_bytes(), " bytes on a GPU");
  return {.sequences = sequences,
          .tables = tables,
          .kv_heads = layout.kv_heads,
          .head_dim = layout.head_dim,
          .block_size = layout.block_size,
          .block_factor = static_cast<uint32_t>(0xffffffffu / static_cast<uint32_t>(layout.block_size)) + 1,
          .dtype = layout.dtype,
          .block_bytes = static_cast<uint32_t>(layout.block_bytes()),
          .v_offset = static_cast<uint32_t>(layout.v_offset()),
          .position_offset = static_cast<uint32_t>(layout.position_offset()),
          .score_offset = static_cast<uint32_t>(layout.score_offset()),
          .score_plane_bytes = static_cast<uint32_t>(layout.score_plane_bytes()),
          .num_scores = layout.num_scores};
}

}  // namespace

PagedStep UploadStep(Context& context, absl::Span<const SequenceRows> sequences) {
  static_assert(sizeof(PagedSequence) % sizeof(int32_t) == 0);
  const KvBlockLayout& layout = sequences[0].kv.layout;
  if (const StepTables* there = context.cuda().step_tables(); there != nullptr) {
    return StepOf(there->sequences, there->tables, layout);
  }
  const size_t header = sequences.size() * sizeof(PagedSequence) / sizeof(int32_t);
  std::vector<int32_t>& words = context.cuda().table_words();
  words.assign(header, 0);
  const int32_t* const device_tables = sequences[0].kv.device_tables;
  std::vector<PagedSequence> records;
  records.reserve(sequences.size());
  for (const SequenceRows& rows : sequences) {
    CAIRN_CHECK(rows.kv.device_tables == device_tables, "block tables here and there");
    CAIRN_CHECK(rows.kv.layout.block_bytes() == layout.block_bytes() && rows.kv.layout.dtype == layout.dtype &&
                    rows.kv.layout.block_size == layout.block_size,
                "sequences of a step in caches of different layouts");
    const int32_t begin =
        device_tables != nullptr ? rows.kv.device_table_begin : static_cast<int32_t>(words.size() - header);
    records.push_back({rows.kv.pool, begin, rows.row_begin, rows.num_rows, rows.kv.num_slots});
    if (device_tables != nullptr) continue;
    const int32_t blocks = (rows.kv.num_slots + layout.block_size - 1) / layout.block_size;
    words.insert(words.end(), rows.kv.block_table, rows.kv.block_table + blocks);
  }
  std::memcpy(words.data(), records.data(), records.size() * sizeof(PagedSequence));
  const int32_t* device = context.cuda().Upload(words.data(), words.size());
  return StepOf(reinterpret_cast<const PagedSequence*>(device),
                device_tables != nullptr ? device_tables : device + header, layout);
}

PagedStep UploadCaches(Context& context, absl::Span<const KvView> kv) {
  std::vector<SequenceRows> rows;
  rows.reserve(kv.size());
  for (const KvView& view : kv) rows.push_back({0, 0, view});
  return UploadStep(context, rows);
}

WorkList UploadWork(Context& context, absl::Span<const SequenceRows> sequences, int32_t rows_per_item,
                    absl::FunctionRef<bool(const SequenceRows&)> takes) {
  if (const StepTables* there = context.cuda().step_tables(); there != nullptr) {
    const auto count = static_cast<size_t>(std::count_if(sequences.begin(), sequences.end(), takes));
    CAIRN_CHECK(count == 0 || count == sequences.size(), "recorded steps have rows of one kind");
    return {count > 0 ? there->items : nullptr, static_cast<unsigned>(count)};
  }
  std::vector<int32_t>& words = context.cuda().table_words();
  words.clear();
  for (size_t s = 0; s < sequences.size(); ++s) {
    if (!takes(sequences[s])) continue;
    for (int32_t row = 0; row < sequences[s].num_rows; row += rows_per_item) {
      words.push_back(static_cast<int32_t>(s));
      words.push_back(sequences[s].row_begin + row);
    }
  }
  if (words.empty()) return {nullptr, 0};
  static_assert(sizeof(WorkItem) == 2 * sizeof(int32_t));
  const int32_t* device = context.cuda().Upload(words.data(), words.size());
  return {reinterpret_cast<const WorkItem*>(device), static_cast<unsigned>(words.size() / 2)};
}

}  // namespace cairn::cuda
