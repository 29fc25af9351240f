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
  PagedLayer(Gpu& gpu, int kv_heads, int head_dim, int64_t sequences, int32_t slots);

  // One row a sequence: the last token's.
  const std::vector<SequenceRows>& rows() const { return rows_; }
  const KvView& view(int64_t sequence) const { return rows_[static_cast<size_t>(sequence)].kv; }
  // Keys and values alone: what a decode step must read.
  double bytes() const { return bytes_; }

 private:
  Buffer pool_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<SequenceRows> rows_;
  double bytes_;
};

}  // namespace cairn::bench

#endif  // CAIRN_BENCH_GPU_PAGED_LAYER_H_
