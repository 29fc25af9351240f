// A compression method is its scores: how much each slot of a layer is worth, per KV head. Higher is kept. A scorer
// sees one layer of one sequence on one rank; it knows no rank and no other layer (scorers/: one file per method). It
// keeps memory between calls, so a context has scorers of its own.
#ifndef CAIRN_COMPRESSION_SCORER_H_
#define CAIRN_COMPRESSION_SCORER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "compression/compression_config.h"
#include "kernels/core/context.h"
#include "kernels/core/kv_view.h"
#include "kernels/core/tensor.h"

namespace cairn {

// One layer of one sequence. n = kv.num_slots, w = the window; n > w.
struct ScorerInputs {
  KvView kv;
  // [w, kv_heads * group, d] f32 after RoPE, row r being the query of slot n - w + r, the whole group of every KV head
  // (heads of KV head h are h * group ..). Empty where the scorer does not need them.
  Tensor queries;
  int32_t layer = 0;          // of the model
  int32_t first_kv_head = 0;  // of the model: the cache's head 0
};

class Scorer {
 public:
  virtual ~Scorer() = default;

  virtual bool needs_queries() const = 0;
  // A float per slot and head in the cache (KvBlockLayout::has_score) that moves with its slot, 0 in a new slot.
  virtual bool needs_running_score() const { return false; }
  // The first slots that stay whatever their score.
  virtual int num_sinks() const { return 0; }

  // scores [kv_heads, n - w] f32 of the candidates, slots 0 .. n - w - 1. May write the running scores of kv's slots.
  // Allocates nothing once it has seen the largest n.
  virtual void Score(Context& context, const ScorerInputs& inputs, const Tensor& scores) const = 0;
};

// Of config.algorithm (not "none"); `config` is valid. registry.cc has one line per method.
std::unique_ptr<Scorer> MakeScorer(const CompressionConfig& config);
// "rkv, snapkv, ..." for messages; and whether a name is one of them.
std::string AlgorithmNames();
bool IsAlgorithm(const std::string& name);

}  // namespace cairn

#endif  // CAIRN_COMPRESSION_SCORER_H_
