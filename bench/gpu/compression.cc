// The steps of R-KV compactions of layers of an 8B model (8 KV heads of 128), some together: budget + buffer of
// 1024 + 128 and 2048 + 128 slots. A first event compares all keys; later ones, of which a long answer has many, look
// at pairs with a key that is new since the last ("event", "redundancy_again").
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
  Compaction(Gpu& gpu, int32_t slots, int layers)
      : gpu_(gpu),
        slots_(slots),
        layers_(layers),
        kv_heads_(gpu.small() ? 2 : 8),
        buffer_(gpu.small() ? 8 : 128),
        layer_(gpu, kv_heads_, kHeadDim, layers, slots, /*num_scores=*/1),
        scores_(gpu.Allocate(static_cast<size_t>(rows()) * slots * sizeof(float))),
        pooled_(gpu.Allocate(static_cast<size_t>(rows()) * slots * sizeof(float))),
        queries_(gpu.Allocate(static_cast<size_t>(layers) * kWindow * q_heads() * kHeadDim * sizeof(float))),
        kept_(gpu.Allocate(static_cast<size_t>(rows()) * slots * sizeof(int32_t))) {
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
    for (int layer = 0; layer < layers; ++layer) views_.push_back(layer_.view(layer));
    candidates_.assign(static_cast<size_t>(layers), slots - kWindow);
    keeps_.assign(static_cast<size_t>(layers), slots - buffer_);
    selections_.assign(static_cast<size_t>(layers), {slots - kWindow, kWindow, slots - buffer_});
  }

  int rows() const { return layers_ * kv_heads_; }
  int q_heads() const { return kv_heads_ * kGroup; }
  Tensor queries() const {
    return Tensor(queries_.data(), DType::kFloat32, {int64_t{layers_} * kWindow, q_heads(), kHeadDim}, gpu_.device());
  }
  Tensor scores() const { return Matrix(scores_, DType::kFloat32, slots_ - kWindow); }
  Tensor pooled() const { return Matrix(pooled_, DType::kFloat32, slots_ - kWindow); }
  Tensor kept() const { return Matrix(kept_, DType::kInt32, slots_ - buffer_); }
  void FillKept() {  // slots 0, 9, 10, 11 ..: nearly all move
    std::vector<int32_t> kept;
    for (int row = 0; row < rows(); ++row) {
      for (int32_t i = 0; i < slots_ - buffer_; ++i) kept.push_back(i + std::min(buffer_, i * 8));
    }
    CopyFromHost(gpu_.context(), kept.data(), this->kept());
  }

  void Importance() { WindowImportance(gpu_.context(), views_, queries(), kWindow, scores()); }
  // A buffer of new keys since the last event, or nothing that could be remembered.
  void Prepare() { layer_.SetMemory(buffer_); }
  void Redundancy(bool remembers) {
    KeyRedundancy(gpu_.context(), views_, kWindow, kThreshold, RedundancyVariant::kCode, remembers, scores());
  }
  void Select() { SelectTopK(gpu_.context(), scores(), selections_, 0, kept()); }
  void Compact() { KvCompact(gpu_.context(), views_, kept(), keeps_); }
  // All of it, as the scorer rkv and the engine run it.
  void Event(bool remembers) {
    Importance();
    PoolSlots(gpu_.context(), scores(), candidates_, Pooling::kMax, kPoolWidth, pooled());
    Redundancy(remembers);
    MixScores(gpu_.context(), kLambda, pooled(), kLambda - 1, scores(), scores());
    Select();
    Compact();
  }

  double key_bytes() const { return layer_.bytes() / 2; }
  double logit_flops() const { return 2.0 * layers_ * kWindow * q_heads() * kHeadDim * slots_; }
  double pair_flops() const { return 1.0 * slots_ * slots_ * rows() * kHeadDim; }  // each pair once
  double moved_bytes() const { return 2 * layer_.bytes() * (slots_ - buffer_) / slots_; }
  Json fields() const { return {{"slots", slots_}, {"kv_heads", kv_heads_}, {"batch", layers_}}; }

 private:
  Tensor Matrix(const Buffer& memory, DType dtype, int64_t columns) const {
    return Tensor(memory.data(), dtype, {rows(), columns}, gpu_.device());
  }

  Gpu& gpu_;
  int32_t slots_;
  int layers_;
  int kv_heads_;
  int32_t buffer_;
  PagedLayer layer_;
  Buffer scores_, pooled_, queries_, kept_;
  std::vector<KvView> views_;
  std::vector<int32_t> candidates_, keeps_;
  std::vector<Selection> selections_;
};

// measure(compaction) for one layer, for those of one sequence of an 8B model, and for as many as are taken together.
template <typename Function>
void ForSizes(Gpu& gpu, const Function& measure) {
  const std::vector<int32_t> sizes = gpu.small() ? std::vector<int32_t>{40, 72} : std::vector<int32_t>{1152, 2176};
  for (const int32_t slots : sizes) {
    for (const int layers : gpu.small() ? std::vector<int>{1, 3} : std::vector<int>{1, 8, 16, 32, 56}) {
      if (slots > sizes[0] && layers > 32) continue;
      Compaction compaction(gpu, slots, layers);
      measure(compaction);
    }
  }
}

}  // namespace

void MeasureImportance(Gpu& gpu) {
  ForSizes(gpu, [&](Compaction& c) {
    gpu.Report("importance", c.fields(), gpu.Time([&] { c.Importance(); }), c.key_bytes(), c.logit_flops());
  });
}

void MeasureRedundancy(Gpu& gpu) {
  ForSizes(gpu, [&](Compaction& c) {
    gpu.Report("redundancy", c.fields(), gpu.Time([&] { c.Redundancy(false); }), 0, c.pair_flops());
    gpu.Report("redundancy_again", c.fields(), gpu.Time([&] { c.Redundancy(true); }, [&] { c.Prepare(); }), 0, 0);
  });
}

void MeasureSelection(Gpu& gpu) {
  ForSizes(gpu, [&](Compaction& c) {
    gpu.Report("selection", c.fields(), gpu.Time([&] { c.Select(); }),
               4.0 * static_cast<double>(c.scores().num_elements()), 0);
  });
}

void MeasureCompaction(Gpu& gpu) {
  ForSizes(gpu, [&](Compaction& c) {
    c.FillKept();
    gpu.Report("compaction", c.fields(), gpu.Time([&] { c.Compact(); }), c.moved_bytes(), 0);
  });
}

void MeasureEvent(Gpu& gpu) {
  ForSizes(gpu, [&](Compaction& c) {
    gpu.Report("first_event", c.fields(), gpu.Time([&] { c.Event(false); }), 0, c.pair_flops() + c.logit_flops());
    gpu.Report("event", c.fields(), gpu.Time([&] { c.Event(true); }, [&] { c.Prepare(); }), 0, 0);
  });
}

}  // namespace cairn::bench
