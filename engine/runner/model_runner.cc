#include "engine/runner/model_runner.h"

#include <algorithm>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

WorkspaceShape ShapeFor(const Transformer& transformer, const ProcessGroups& groups, int max_sequences,
                        int64_t max_tokens) {
  const ModelConfig& config = transformer.config();
  const HeadShard& heads = transformer.weights().heads;
  WorkspaceShape shape;
  shape.max_tokens = max_tokens;
  shape.hidden = config.hidden_size;
  shape.qkv = (heads.query_heads.size() + 2 * heads.kv_heads.size()) * config.head_dim;
  shape.attention = heads.query_heads.size() * config.head_dim;
  shape.intermediate = config.intermediate_size / groups.sizes.tp;
  if (groups.is_last_stage()) {
    shape.max_sampled = std::min<int64_t>(max_sequences, max_tokens);
    if (groups.at.tp == 0) shape.vocab = config.vocab_size;
    if (groups.sizes.tp > 1) {
      const int64_t shard = VocabShard(config.vocab_size, groups.sizes.tp, 0).size();
      shape.vocab_scratch = shape.max_sampled * shard * (groups.sizes.tp + 1);
    }
  }
  return shape;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelRunner>> ModelRunner::Create(Context* context, ProcessGroups* groups,
                                                                 Transformer transformer, KvCache cache,
                                                                 const CompressionConfig& compression,
                                                                 int max_sequences, int64_t max_tokens,
                                                                 int64_t max_slots) {
  CAIRN_ASSIGN_OR_RETURN(
      Workspace workspace,
      Workspace::Create(context->device(), ShapeFor(transformer, *groups, max_sequences, max_tokens)));
  auto runner = std::unique_ptr<ModelRunner>(
      new ModelRunner(context, groups, std::move(transformer), std::move(cache), std::move(workspace), max_sequences));
  if (!compression.enabled()) return runner;
  const ModelConfig& config = runner->transformer_.config();
  const StageWeights& weights = runner->transformer_.weights();
  const CompressorShape shape = {.heads = weights.heads,
                                 .head_dim = static_cast<int>(config.head_dim),
                                 .num_layers = static_cast<int>(weights.layers.size()),
                                 .max_slots = static_cast<int32_t>(max_slots)};
  CAIRN_ASSIGN_OR_RETURN(runner->compressor_,
                         CacheCompressor::Create(context, groups, compression, weights.layers,
                                                 static_cast<int>(config.num_layers), shape, max_sequences));
  return runner;
}

ModelRunner::ModelRunner(Context* context, ProcessGroups* groups, Transformer transformer, KvCache cache,
                         Workspace workspace, int max_sequences)
    : context_(context),
      groups_(groups),
      transformer_(std::move(transformer)),
      cache_(std::move(cache)),
      workspace_(std::move(workspace)) {
  if (is_sampling_rank()) {
    sampler_ =
        std::make_unique<Sampler>(max_sequences, transformer_.config().vocab_size, context->threads().num_threads());
  }
}

void ModelRunner::OpenAndClose(const StepPlan& plan) {
  for (int32_t sequence : plan.closes) {
    cache_.Close(sequence);
    if (sampler_ != nullptr) sampler_->Close(sequence);
  }
  for (const OpenSequence& open : plan.opens) {
    cache_.Open(open.sequence);
    if (compressor_ != nullptr) compressor_->Open(open);
    if (sampler_ != nullptr) sampler_->Open(open);
  }
}

// Lays the plan's tokens out as rows and makes room for them in the cache.
void ModelRunner::FillRows(const StepPlan& plan) {
  const int64_t total = plan.num_tokens();
  CAIRN_CHECK(total <= workspace_.ids.dim(0), "a step of ", total, " tokens, room for ", workspace_.ids.dim(0));
  rows_.ids = workspace_.ids.Rows(0, total);
  rows_.positions = workspace_.positions.Rows(0, total);
  rows_.sequences.clear();
  rows_.cache_handles.clear();
  sampled_rows_.clear();
  int32_t* ids = rows_.ids.data<int32_t>();
  int32_t* positions = rows_.positions.data<int32_t>();
  int32_t row = 0;
  for (const SequenceStep& step : plan.sequences) {
    const int32_t count = static_cast<int32_t>(step.tokens.size());
    cache_.Append(step.sequence, count);
    rows_.sequences.push_back({.row_begin = row, .num_rows = count, .kv = {}});
    rows_.cache_handles.push_back(step.sequence);
    for (int32_t i = 0; i < count; ++i) {
      ids[row + i] = step.tokens[i];
      positions[row + i] = step.position + i;
    }
    row += count;
    if (step.sample) sampled_rows_.push_back({step.sequence, step.position + count});
  }
}

absl::StatusOr<std::optional<StepResult>> ModelRunner::SampleRows(const StepPlan& plan, const Tensor& hidden) {
  const int64_t count = static_cast<int64_t>(sampled_rows_.size());
  StepResult result;
  result.step = plan.step;
  if (count == 0) return is_sampling_rank() ? std::optional(result) : std::nullopt;
  const Tensor sampled = workspace_.sampled.Rows(0, count);
  int64_t out = 0;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    if (!plan.sequences[i].sample) continue;
    const int64_t last = rows_.sequences[i].row_begin + rows_.sequences[i].num_rows - 1;
    std::copy_n(hidden.Rows(last, last + 1).data<float>(), hidden.dim(1), sampled.Rows(out, out + 1).data<float>());
    ++out;
  }
  const Tensor logits = workspace_.logits.Rows(0, count);
  CAIRN_RETURN_IF_ERROR(transformer_.Logits(*context_, *groups_->tp, workspace_, sampled, logits));
  if (!is_sampling_rank()) return std::nullopt;
  sampler_->Sample(*context_, logits, sampled_rows_, result.tokens);
  return result;
}

// This stage's layers; the last stage samples, the others hand the residual stream on.
absl::StatusOr<std::optional<StepResult>> ModelRunner::Forward(const StepPlan& plan) {
  const Tensor hidden = workspace_.hidden.Rows(0, rows_.ids.dim(0));
  if (groups_->is_first_stage()) {
    CAIRN_RETURN_IF_ERROR(transformer_.Embed(*context_, *groups_->tp, rows_.ids, hidden));
  } else {
    CAIRN_RETURN_IF_ERROR(groups_->pp->Recv(hidden, groups_->at.pp - 1));
  }
  CAIRN_RETURN_IF_ERROR(transformer_.Layers(*context_, *groups_->tp, rows_, cache_, workspace_, hidden));
  if (groups_->is_last_stage()) return SampleRows(plan, hidden);
  CAIRN_RETURN_IF_ERROR(groups_->pp->Send(hidden, groups_->at.pp + 1));
  return std::nullopt;
}

absl::StatusOr<std::optional<StepResult>> ModelRunner::Run(const StepPlan& plan) {
  OpenAndClose(plan);
  if (compressor_ != nullptr) compressor_->Apply(cache_, plan.compactions);
  FillRows(plan);
  CAIRN_ASSIGN_OR_RETURN(std::optional<StepResult> result, Forward(plan));
  // The token is sampled from the cache as it was; the next forward of a compressed sequence sees what is kept.
  if (compressor_ != nullptr) {
    std::vector<Compaction> selected;
    CAIRN_RETURN_IF_ERROR(compressor_->Run(cache_, plan, selected));
    if (result.has_value()) result->compactions = std::move(selected);
  }
  return result;
}

}  // namespace cairn
