// A compression method is its scores: how much each slot of a layer is worth, per KV head. Higher is kept. A layer's
// scores depend on that layer alone; a scorer knows no rank (scorers/: one file per method). It keeps memory between
// calls, so a context has scorers of its own.
#ifndef CAIRN_COMPRESSION_SCORER_H_
#define CAIRN_COMPRESSION_SCORER_H_

#include <memory>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/compression_config.h"
#include "kernels/core/context.h"
#include "kernels/core/kv_view.h"
#include "kernels/core/tensor.h"

namespace cairn {

// Layers of one sequence or of several, which a GPU scores together. n = a layer's num_slots, w = the window; n > w.
struct ScorerInputs {
  absl::Span<const KvView> kv;
  // [layers * w, kv_heads * group, d] f32 after RoPE, row r of a layer being the query of its slot n - w + r, the whole
  // group of every KV head (heads of KV head h are h * group ..). Empty where the scorer does not need them.
  Tensor queries;
  absl::Span<const int32_t> layers;   // their numbers in the model
  absl::Span<const int32_t> windows;  // how many their sequence's slots have seen, this one included (Scorer::observes)
  int32_t first_kv_head = 0;          // of the model: the cache's head 0

  // The candidates of each layer.
  absl::InlinedVector<int32_t, 64> Candidates(int window) const {
    absl::InlinedVector<int32_t, 64> candidates;
    for (const KvView& view : kv) candidates.push_back(view.num_slots - window);
    return candidates;
  }
};

class Scorer {
 public:
  virtual ~Scorer() = default;

  virtual bool needs_queries() const = 0;
  // Floats per slot and head in the cache (KvBlockLayout::num_scores) that move with their slot, 0 in a new slot.
  virtual int num_running_scores() const { return 0; }
  // Whether it has to see the window's queries once in a window, between events too (Observe).
  virtual bool observes() const { return false; }
  // The first slots that stay whatever their score.
  virtual int num_sinks() const { return 0; }

  // On a GPU: takes the memory for matrices of up to `floats` numbers, so that Score never allocates.
  virtual void Reserve(const Context&, int64_t /*floats*/) const {}
  // scores [layers * kv_heads, the largest n - w] f32 of the candidates, slots 0 .. n - w - 1 of each layer; what lies
  // behind a shorter layer's is any number. May write the running scores of kv's slots. Allocates
  // nothing on the device once it has seen, or reserved, the largest matrix.
  virtual void Score(Context& context, const ScorerInputs& inputs, const Tensor& scores) const = 0;
  // The running scores alone, as Score would leave them. Where the method observes.
  virtual void Observe(Context&, const ScorerInputs&) const {}
};

// Of config.algorithm (not "none"); `config` is valid. registry.cc has one line per method.
std::unique_ptr<Scorer> MakeScorer(const CompressionConfig& config);
// "rkv, snapkv, ..." for messages; and whether a name is one of them.
std::string AlgorithmNames();
bool IsAlgorithm(const std::string& name);

}  // namespace cairn

#endif  // CAIRN_COMPRESSION_SCORER_H_
