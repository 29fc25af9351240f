// The paged cache as kernels read it (kernels/core/kv_view.h has the layout of a block), and the tables of a step on
// their way there.
#ifndef CAIRN_KERNELS_CUDA_PAGED_H_
#define CAIRN_KERNELS_CUDA_PAGED_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "kernels/core/context.h"
#include "kernels/core/kv_view.h"
#include "kernels/cuda/launch.h"

namespace cairn::cuda {

struct PagedSequence {
  uint8_t* pool;
  int32_t table_begin;  // of its block table, in the step's tables
  int32_t row_begin, num_rows, num_slots;
};

// A piece of work: rows from `row` of the step on, all of one sequence.
struct WorkItem {
  int32_t sequence, row;
};

// One layer's cache of a step's sequences: a kernel's parameter.
struct PagedStep {
  const PagedSequence* sequences;
  const int32_t* tables;
  int32_t kv_heads, head_dim, block_size;
  uint32_t block_factor;  // 2^32 / block_size, rounded up: a division is half of a kernel's instructions
  DType dtype;
  uint32_t block_bytes, v_offset, position_offset;
  uint32_t score_offset, score_plane_bytes;  // of the first plane of scores, and of one
  int32_t num_scores;

  // slot / block_size, exact for slots below 2^32 / block_size.
  __device__ __forceinline__ int32_t BlockIndex(int32_t slot) const {
    const uint64_t scaled = static_cast<uint64_t>(static_cast<uint32_t>(slot)) * block_factor;
    return block_size == 1 ? slot : static_cast<int32_t>(scaled >> 32);
  }
  // slot % block_size.
  __device__ __forceinline__ int32_t InBlock(int32_t slot) const { return slot - BlockIndex(slot) * block_size; }
  __device__ __forceinline__ uint8_t* Block(const PagedSequence& s, int32_t slot) const {
    return s.pool +
           static_cast<uint64_t>(static_cast<uint32_t>(tables[s.table_begin + BlockIndex(slot)])) * block_bytes;
  }
  // Of (head, slot) inside the planes of its block: the first element of K or V, and the position.
  __device__ __forceinline__ int32_t InPlane(int32_t head, int32_t slot) const {
    return head * block_size + InBlock(slot);
  }
  __device__ __forceinline__ int32_t* Position(const PagedSequence& s, int32_t head, int32_t slot) const {
    return reinterpret_cast<int32_t*>(Block(s, slot) + position_offset) + InPlane(head, slot);
  }
  __device__ __forceinline__ float* Score(const PagedSequence& s, int32_t head, int32_t slot, int32_t plane = 0) const {
    return reinterpret_cast<float*>(Block(s, slot) + score_offset + plane * score_plane_bytes) + InPlane(head, slot);
  }
  // The slot of a row of the step; the row sees the slots up to it.
  __device__ __forceinline__ static int32_t SlotOf(const PagedSequence& s, int32_t row) {
    return s.num_slots - s.num_rows + (row - s.row_begin);
  }
};

// Sends sequences and block tables to the device, unless the step's tables are there (StepTables). All of one layout.
PagedStep UploadStep(Context& context, absl::Span<const SequenceRows> sequences);
// Layers without rows of a step, as its sequences: what compression reads and moves. All of one layout.
PagedStep UploadCaches(Context& context, absl::Span<const KvView> kv);

// Items of at most `rows_per_item` rows over the sequences that `takes` says; null and 0 where there are none.
struct WorkList {
  const WorkItem* items;
  unsigned count;
};
WorkList UploadWork(Context& context, absl::Span<const SequenceRows> sequences, int32_t rows_per_item,
                    absl::FunctionRef<bool(const SequenceRows&)> takes);

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_PAGED_H_
