// One layer's paged cache on the GPU for benchmarks: sequences of the same length in blocks that lie interleaved, as a
// pool that several sequences grow in has them, with random keys and values.
#ifndef CAIRN_BENCH_GPU_PAGED_LAYER_H_
#define CAIRN_BENCH_GPU_PAGED_LAYER_H_

#include <cstdint>
#include <vector>

#include "bench/gpu/gpu.h"
#include "kernels/core/kv_view.h"
#include "kernels/core/tensor.h"

namespace cairn::bench {

class PagedLayer {
 public:
  PagedLayer(Gpu& gpu, int kv_heads, int head_dim, int64_t sequences, int32_t slots, int num_scores = 0);

  // One row a sequence: the last token's.
  const std::vector<SequenceRows>& rows() const { return rows_; }
  const KvView& view(int64_t sequence) const { return rows_[static_cast<size_t>(sequence)].kv; }
  // With a plane of scores: positions count the slots, and the plane says what R-KV's redundancy remembers where all
  // slots but the last `new_slots` have been compared before and have no near-duplicate. On the GPU's stream.
  void SetMemory(int32_t new_slots);
  // Keys and values alone: what a decode step must read.
  double bytes() const { return bytes_; }

 private:
  Gpu& gpu_;
  KvBlockLayout layout_;
  Buffer pool_, marks_;  // the planes behind K and V, of every block
  std::vector<std::vector<int32_t>> tables_;
  std::vector<SequenceRows> rows_;
  double bytes_;
};

}  // namespace cairn::bench

#endif  // CAIRN_BENCH_GPU_PAGED_LAYER_H_
