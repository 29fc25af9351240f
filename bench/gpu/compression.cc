// The steps of one R-KV compaction of one layer of one sequence of an 8B model (8 KV heads of 128): budget + buffer of
// 1024 + 128 and 2048 + 128 slots.
#include <algorithm>
#include <vector>

#include "bench/gpu/gpu.h"
#include "bench/gpu/paged_layer.h"
#include "kernels/core/copy.h"
#include "kernels/ops/kv_scores.h"
#include "kernels/ops/kv_select.h"

namespace cairn::bench {
namespace {

constexpr int kWindow = 8, kGroup = 4, kHeadDim = 128;
constexpr int kPoolWidth = 7;
constexpr float kThreshold = 0.5f, kLambda = 0.1f;

class Compaction {
 public:
  Compaction(Gpu& gpu, int32_t slots)
      : gpu_(gpu),
        slots_(slots),
        kv_heads_(gpu.small() ? 2 : 8),
        buffer_(gpu.small() ? 8 : 128),
        layer_(gpu, kv_heads_, kHeadDim, 1, slots),
        scores_(gpu.Allocate(static_cast<size_t>(kv_heads_) * slots * sizeof(float))),
        queries_(gpu.Allocate(static_cast<size_t>(kWindow) * q_heads() * kHeadDim * sizeof(float))),
        kept_(gpu.Allocate(static_cast<size_t>(kv_heads_) * slots * sizeof(int32_t))) {
    std::vector<float> queries(queries_.size_bytes() / sizeof(float)), scores(scores_.size_bytes() / sizeof(float));
    for (size_t i = 0; i < queries.size(); ++i) {
      queries[i] = static_cast<float>(gpu.RandomElement(LtType::kBFloat16, static_cast<int64_t>(i)));
    }
    for (size_t i = 0; i < scores.size(); ++i) {
      scores[i] = static_cast<float>(gpu.RandomElement(LtType::kBFloat16, static_cast<int64_t>(3 * i)));
    }
    CopyFromHost(gpu.context(), queries.data(), this->queries());
    CopyFromHost(gpu.context(), scores.data(),
                 Tensor(scores_.data(), DType::kFloat32, {static_cast<int64_t>(scores.size())}, gpu.device()));
  }

  int q_heads() const { return kv_heads_ * kGroup; }
  const KvView& kv() const { return layer_.view(0); }
  Tensor queries() const {
    return Tensor(queries_.data(), DType::kFloat32, {kWindow, q_heads(), kHeadDim}, gpu_.device());
  }
  Tensor scores() const {
    return Tensor(scores_.data(), DType::kFloat32, {kv_heads_, slots_ - kWindow}, gpu_.device());
  }
  // One set for all heads or one each, of `keep` slots.
  Tensor kept() const { return Tensor(kept_.data(), DType::kInt32, {kv_heads_, slots_ - buffer_}, gpu_.device()); }
  void FillKept() {  // slots 0, 9, 10, 11 ..: nearly all move
    const int32_t keep = slots_ - buffer_;
    std::vector<int32_t> kept;
    for (int head = 0; head < kv_heads_; ++head) {
      for (int32_t i = 0; i < keep; ++i) kept.push_back(i + std::min(buffer_, i * 8));
    }
    CopyFromHost(gpu_.context(), kept.data(), this->kept());
  }
  double key_bytes() const { return layer_.bytes() / 2; }
  double logit_flops() const { return 2.0 * kWindow * q_heads() * kHeadDim * slots_; }
  double pair_flops() const { return 1.0 * slots_ * slots_ * kv_heads_ * kHeadDim; }  // each pair once
  double moved_bytes() const { return 2 * layer_.bytes() * (slots_ - buffer_) / slots_; }
  Json fields() const { return {{"slots", slots_}, {"kv_heads", kv_heads_}}; }

 private:
  Gpu& gpu_;
  int32_t slots_;
  int kv_heads_;
  int32_t buffer_;
  PagedLayer layer_;
  Buffer scores_, queries_, kept_;
};

std::vector<int32_t> Sizes(const Gpu& gpu) {
  return gpu.small() ? std::vector<int32_t>{40, 72} : std::vector<int32_t>{1152, 2176};
}

}  // namespace

void MeasureImportance(Gpu& gpu) {
  for (const int32_t slots : Sizes(gpu)) {
    const Compaction c(gpu, slots);
    const double seconds = gpu.Time([&] { WindowImportance(gpu.context(), c.kv(), c.queries(), c.scores()); });
    gpu.Report("importance", c.fields(), seconds, c.key_bytes(), c.logit_flops());
  }
}

void MeasureRedundancy(Gpu& gpu) {
  for (const int32_t slots : Sizes(gpu)) {
    const Compaction c(gpu, slots);
    const double seconds = gpu.Time([&] {
      KeyRedundancy(gpu.context(), c.kv(), kThreshold, RedundancyVariant::kCode, /*remembers=*/false, c.scores());
    });
    gpu.Report("redundancy", c.fields(), seconds, 0, c.pair_flops());
  }
}

void MeasureSelection(Gpu& gpu) {
  for (const int32_t slots : Sizes(gpu)) {
    const Compaction c(gpu, slots);
    const double seconds = gpu.Time([&] { SelectTopK(gpu.context(), c.scores(), 0, kWindow, c.kept()); });
    gpu.Report("selection", c.fields(), seconds, 4.0 * static_cast<double>(c.scores().num_elements()), 0);
  }
}

void MeasureCompaction(Gpu& gpu) {
  for (const int32_t slots : Sizes(gpu)) {
    Compaction c(gpu, slots);
    c.FillKept();
    const double seconds = gpu.Time([&] { KvCompact(gpu.context(), c.kv(), c.kept()); });
    gpu.Report("compaction", c.fields(), seconds, c.moved_bytes(), 0);
  }
}

// All of it, as the scorer rkv and the engine run it for one layer of one sequence.
void MeasureEvent(Gpu& gpu) {
  for (const int32_t slots : Sizes(gpu)) {
    Compaction c(gpu, slots);
    const Buffer memory = gpu.Allocate(static_cast<size_t>(c.scores().num_elements()) * sizeof(float));
    const Tensor pooled(memory.data(), DType::kFloat32, {c.scores().dim(0), c.scores().dim(1)}, gpu.device());
    const double seconds = gpu.Time([&] {
      WindowImportance(gpu.context(), c.kv(), c.queries(), c.scores());
      PoolSlots(gpu.context(), c.scores(), Pooling::kMax, kPoolWidth, pooled);
      KeyRedundancy(gpu.context(), c.kv(), kThreshold, RedundancyVariant::kCode, /*remembers=*/false, c.scores());
      MixScores(gpu.context(), kLambda, pooled, kLambda - 1, c.scores(), c.scores());
      SelectTopK(gpu.context(), c.scores(), 0, kWindow, c.kept());
      KvCompact(gpu.context(), c.kv(), c.kept());
    });
    gpu.Report("event", c.fields(), seconds, 0, c.pair_flops() + c.logit_flops());
  }
}

}  // namespace cairn::bench
