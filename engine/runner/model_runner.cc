#include "engine/runner/model_runner.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/copy.h"
#include "kernels/core/profile_range.h"
#include "kernels/core/status_macros.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/elementwise.h"
#include "parallel/shard/parallel_embedding.h"

namespace cairn {

WorkspaceShape ShapeOfSteps(const ModelConfig& config, const HeadShard& heads, const ParallelSizes& sizes,
                            const RankCoordinates& at, DType activations, int max_sequences, int64_t max_tokens) {
  WorkspaceShape shape;
  shape.max_tokens = max_tokens;
  shape.activations = activations;
  shape.sums_over_ranks = sizes.tp > 1;
  shape.hidden = config.hidden_size;
  shape.qkv = (heads.query_heads.size() + 2 * heads.kv_heads.size()) * config.head_dim;
  shape.attention = heads.query_heads.size() * config.head_dim;
  shape.intermediate = config.intermediate_size / sizes.tp;
  if (at.pp == sizes.pp - 1) {
    shape.max_sampled = std::min<int64_t>(max_sequences, max_tokens);
    if (at.tp == 0) shape.vocab = config.vocab_size;
    if (sizes.tp > 1) {
      const int64_t shard = VocabShard(config.vocab_size, sizes.tp, 0).size();
      shape.vocab_scratch = shape.max_sampled * shard * (sizes.tp + 1);
    }
  }
  return shape;
}

int64_t DeviceBytesOfSteps(const WorkspaceShape& shape, const ParallelSizes& sizes, const RankCoordinates& at) {
  const int64_t message = shape.max_tokens * shape.hidden * static_cast<int64_t>(DTypeSize(shape.activations));
  return shape.size_bytes() + (at.pp < sizes.pp - 1 ? sizes.pp * message : 0);
}

absl::StatusOr<std::unique_ptr<ModelRunner>> ModelRunner::Create(Context* context, ProcessGroups* groups,
                                                                 Transformer transformer,
                                                                 const CompressionConfig& compression,
                                                                 int max_sequences, int64_t max_tokens,
                                                                 int64_t max_slots) {
  CAIRN_ASSIGN_OR_RETURN(
      Workspace workspace,
      Workspace::Create(context->device(),
                        ShapeOfSteps(transformer.config(), transformer.weights().heads, groups->sizes, groups->at,
                                     context->storage_dtype(), max_sequences, max_tokens)));
  if (workspace.partial.num_elements() > 0) {
    CAIRN_ASSIGN_OR_RETURN(void* const memory, groups->tp->AllocateForReduce(workspace.partial.size_bytes()));
    if (memory != nullptr)
      workspace.partial = Tensor(memory, DType::kFloat32, {max_tokens, workspace.partial.dim(1)}, context->device());
  }
  auto runner = std::unique_ptr<ModelRunner>(
      new ModelRunner(context, groups, std::move(transformer), std::move(workspace), max_sequences));
  if (!context->device().is_cpu() && runner->is_sampling_rank()) {
    CAIRN_ASSIGN_OR_RETURN(runner->host_logits_,
                           PinnedMemory::Allocate(context->device(), runner->workspace_.logits.size_bytes()));
  }
  const ModelConfig& config = runner->transformer_.config();
  const StageWeights& weights = runner->transformer_.weights();
  for (const LayerWeights& layer : weights.layer) {
    for (const PackedMatrix* matrix :
         {&layer.attention.qkv.weight, &layer.attention.o.weight, &layer.mlp.gate_up.weight, &layer.mlp.down.weight}) {
      ReserveMatMul(*context, *matrix, max_tokens);
    }
  }
  ReserveAttention(*context, max_tokens, weights.heads.query_heads.size(), config.head_dim, max_slots);
  if (groups->is_last_stage()) {
    CAIRN_ASSIGN_OR_RETURN(runner->shard_sampler_,
                           ShardSampler::Create(context->device(), runner->workspace_.sampled.dim(0),
                                                runner->transformer_.config().vocab_size, groups->sizes.tp));
  }
  if (!groups->is_last_stage()) {  // as many steps are under way as there are stages
    CAIRN_RETURN_IF_ERROR(groups->pp->ReserveMessages(groups->sizes.pp, runner->workspace_.hidden.size_bytes()));
  }
  if (!compression.enabled()) return runner;
  Footprint footprint(compression, config.num_layers, config.num_kv_heads);
  const CacheLayers layers(compression, weights.layers, weights.heads, config.num_kv_heads);
  CAIRN_ASSIGN_OR_RETURN(runner->compressor_, CacheCompressor::Create(context, groups, std::move(footprint), layers,
                                                                      static_cast<int>(config.head_dim),
                                                                      static_cast<int32_t>(max_slots), max_sequences));
  return runner;
}

ModelRunner::ModelRunner(Context* context, ProcessGroups* groups, Transformer transformer, Workspace workspace,
                         int max_sequences)
    : context_(context),
      groups_(groups),
      max_sequences_(max_sequences),
      transformer_(std::move(transformer)),
      workspace_(std::move(workspace)) {
  if (groups->is_last_stage()) {
    sampler_ =
        std::make_unique<Sampler>(max_sequences, transformer_.config().vocab_size, context->threads().num_threads());
  }
}

void ModelRunner::OpenAndClose(const StepPlan& plan) {
  for (int32_t sequence : plan.closes) {
    cache_->Close(sequence);
    if (sampler_ != nullptr) sampler_->Close(sequence);
  }
  for (const OpenSequence& open : plan.opens) {
    cache_->Open(open.sequence);
    if (compressor_ != nullptr) compressor_->Open(open);
    if (sampler_ != nullptr) sampler_->Open(open);
  }
}

absl::Status ModelRunner::SetCache(KvCache cache, bool records_steps) {
  cache_.emplace(std::move(cache));
  const bool ranks_allow = groups_->tp->size() == 1 || groups_->tp->runs_on_stream();
  if (context_->device().is_cpu() || !records_steps || !ranks_allow) return absl::OkStatus();
  CAIRN_ASSIGN_OR_RETURN(graphs_, DecodeGraphs::Create(context_, {.num_layers = cache_->num_layers(),
                                                                  .max_rows = max_sequences_,
                                                                  .layout = cache_->layout(),
                                                                  .pool = cache_->View(0, 0).pool,
                                                                  .device_tables = cache_->View(0, 0).device_tables}));
  return absl::OkStatus();
}

absl::Status ModelRunner::WarmUp(int64_t max_length, int64_t cache_tokens) {
  if (context_->device().is_cpu()) return absl::OkStatus();
  CAIRN_RETURN_IF_ERROR(RunMadeUp(1, std::min(max_length, workspace_.ids.dim(0))));
  const int most = static_cast<int>(std::min<int64_t>(max_sequences_, cache_tokens / cache_->layout().block_size));
  if (graphs_ != nullptr) {
    for (int rows = 1; rows < most; rows = DecodeGraphs::PaddedRows(rows + 1, most)) {
      CAIRN_RETURN_IF_ERROR(RunMadeUp(rows, 1));
    }
  }
  if (most > 0) CAIRN_RETURN_IF_ERROR(RunMadeUp(most, 1));
  return compressor_ == nullptr ? absl::OkStatus() : compressor_->WarmUp(*cache_, static_cast<int32_t>(max_length));
}

// A step of so many sequences with so many tokens each; nothing of it stays.
absl::Status ModelRunner::RunMadeUp(int sequences, int64_t tokens) {
  StepPlan plan, end;
  for (int32_t i = 0; i < sequences; ++i) {
    plan.opens.push_back({.sequence = i, .sampler = {}, .prompt_length = static_cast<int32_t>(tokens)});
    plan.sequences.push_back(
        {.sequence = i, .tokens = std::vector<int32_t>(static_cast<size_t>(tokens), 0), .sample = true});
    end.closes.push_back(i);
  }
  CAIRN_RETURN_IF_ERROR(Run(plan).status());
  OpenAndClose(end);
  return absl::OkStatus();
}

// Lays the plan's tokens out as rows and makes room for them in the cache.
void ModelRunner::FillRows(const StepPlan& plan) {
  const int64_t total = plan.num_tokens();
  CAIRN_CHECK(total <= workspace_.ids.dim(0), "a step of ", total, " tokens, room for ", workspace_.ids.dim(0));
  rows_.ids = workspace_.ids.Rows(0, total);
  rows_.positions = workspace_.positions.Rows(0, total);
  rows_.sequences.clear();
  rows_.cache_handles.clear();
  sampled_.clear();
  last_rows_.clear();
  ids_.resize(total);
  positions_.resize(total);
  int32_t row = 0;
  for (const SequenceStep& step : plan.sequences) {
    const int32_t count = static_cast<int32_t>(step.tokens.size());
    cache_->Append(step.sequence, count);
    rows_.sequences.push_back({.row_begin = row, .num_rows = count, .kv = {}});
    rows_.cache_handles.push_back(step.sequence);
    for (int32_t i = 0; i < count; ++i) {
      ids_[row + i] = step.tokens[i];
      positions_[row + i] = step.position + i;
    }
    row += count;
    if (!step.sample) continue;
    sampled_.push_back({step.sequence, step.position + count});
    last_rows_.push_back(row - 1);
  }
  cache_->SendTables(*context_);
  CopyFromHost(*context_, ids_.data(), rows_.ids);
  CopyFromHost(*context_, positions_.data(), rows_.positions);
}

// Puts the rows that need whole rows of logits first; how many they are.
int64_t ModelRunner::OrderSampled() {
  const std::vector<Sampler::Row> sampled = sampled_;
  const std::vector<int32_t> last_rows = last_rows_;
  places_.resize(sampled.size());
  std::iota(places_.begin(), places_.end(), 0);
  const auto whole_end = std::stable_partition(places_.begin(), places_.end(),
                                               [&](int32_t i) { return sampler_->NeedsLogits(sampled[i]); });
  for (size_t i = 0; i < places_.size(); ++i) {
    sampled_[i] = sampled[places_[i]];
    last_rows_[i] = last_rows[places_[i]];
  }
  return whole_end - places_.begin();
}

absl::StatusOr<std::optional<StepResult>> ModelRunner::SampleRows(const StepPlan& plan, const Tensor& hidden) {
  const int64_t count = static_cast<int64_t>(sampled_.size());
  StepResult result;
  result.step = plan.step;
  if (count == 0) return is_sampling_rank() ? std::optional(result) : std::nullopt;
  const int64_t whole = OrderSampled();
  const Tensor sampled = workspace_.sampled.Rows(0, count);
  TakeRows(*context_, hidden, last_rows_, sampled);
  Communicator& tp = *groups_->tp;
  const Tensor logits = workspace_.logits.Rows(0, count);
  const Tensor part = transformer_.ShardLogits(*context_, tp, workspace_, sampled, logits);
  const absl::Span<const Sampler::Row> rows = absl::MakeConstSpan(sampled_);
  if (whole < count) {
    CAIRN_RETURN_IF_ERROR(
        shard_sampler_.Sample(*context_, tp, part.Rows(whole, count), *sampler_, rows.subspan(whole)));
  }
  if (whole > 0) {
    const Tensor whole_logits = logits.Rows(0, whole);
    CAIRN_RETURN_IF_ERROR(
        GatherLogits(*context_, tp, transformer_.config().vocab_size, part, workspace_.vocab_scratch, whole_logits));
  }
  if (!is_sampling_rank()) return std::nullopt;
  CAIRN_RETURN_IF_ERROR(WaitForRanks());
  if (whole > 0) sampler_->Sample(*context_, OnHost(logits.Rows(0, whole)), rows.first(whole), whole_tokens_);
  if (whole < count) shard_sampler_.TakeTokens(*context_, count - whole, shard_tokens_);
  result.tokens.resize(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    StepResult::Token& token = result.tokens[places_[i]];
    token = i < whole ? whole_tokens_[i]
                      : StepResult::Token{rows[i].sequence, {static_cast<int32_t>(shard_tokens_[i - whole])}};
  }
  return result;
}

// What the first stage embeds, and the stage's layers.
absl::Status ModelRunner::RunLayers(StepRows& rows, const Tensor& hidden) {
  if (groups_->is_first_stage()) {
    CAIRN_RETURN_IF_ERROR(transformer_.Embed(*context_, *groups_->tp, rows.ids, hidden));
  }
  return transformer_.Layers(*context_, *groups_->tp, rows, *cache_, workspace_, hidden);
}

// The same for a decode step, recorded; the rows that pad it hold what earlier steps have left there.
absl::Status ModelRunner::RunRecorded() {
  const size_t sequences = rows_.sequences.size();
  graphs_->Begin(static_cast<int>(sequences));
  views_.resize(sequences);
  rings_.resize(cache_->has_rings() ? sequences : 0);
  for (int layer = 0; layer < cache_->num_layers(); ++layer) {
    for (size_t i = 0; i < sequences; ++i) {
      views_[i] = cache_->View(rows_.cache_handles[i], layer);
      if (cache_->has_rings()) rings_[i] = cache_->QueryRing(rows_.cache_handles[i], layer);
    }
    graphs_->SetLayer(layer, views_, rings_);
  }
  return graphs_->Run([&](absl::Span<const SequenceRows> recorded) {
    const int64_t rows = static_cast<int64_t>(recorded.size());
    recorded_rows_.ids = workspace_.ids.Rows(0, rows);
    recorded_rows_.positions = workspace_.positions.Rows(0, rows);
    recorded_rows_.sequences.assign(recorded.begin(), recorded.end());
    recorded_rows_.graphs = graphs_.get();
    return RunLayers(recorded_rows_, workspace_.hidden.Rows(0, rows));
  });
}

// Before the host reads what depends on other ranks: they may not have come.
absl::Status ModelRunner::WaitForRanks() {
  CAIRN_RETURN_IF_ERROR(groups_->tp->Synchronize());
  return groups_->pp->Synchronize();
}

// The logits where the sampler reads them.
Tensor ModelRunner::OnHost(const Tensor& logits) {
  if (context_->device().is_cpu()) return logits;
  CopyToHost(*context_, logits, host_logits_.data());
  return Tensor(host_logits_.data(), DType::kFloat32, {logits.dim(0), logits.dim(1)});
}

// This stage's layers; the last stage samples, the others hand the residual stream on.
absl::StatusOr<std::optional<StepResult>> ModelRunner::Forward(const StepPlan& plan) {
  const Tensor hidden = workspace_.hidden.Rows(0, rows_.ids.dim(0));
  if (!groups_->is_first_stage()) {
    const ProfileRange range("recv");
    CAIRN_RETURN_IF_ERROR(groups_->pp->Recv(hidden, groups_->at.pp - 1));
  }
  const int64_t sequences = static_cast<int64_t>(rows_.sequences.size());
  const bool is_decode = sequences > 0 && rows_.ids.dim(0) == sequences;
  {
    const ProfileRange range(is_decode ? "decode" : "prefill");
    CAIRN_RETURN_IF_ERROR(is_decode && graphs_ != nullptr ? RunRecorded() : RunLayers(rows_, hidden));
  }
  if (groups_->is_last_stage()) {
    const ProfileRange range("sampling");
    return SampleRows(plan, hidden);
  }
  const ProfileRange range("send");
  CAIRN_RETURN_IF_ERROR(groups_->pp->Send(hidden, groups_->at.pp + 1));
  return std::nullopt;
}

absl::StatusOr<std::optional<StepResult>> ModelRunner::Run(const StepPlan& plan) {
  const ProfileRange range("step");
  OpenAndClose(plan);
  if (compressor_ != nullptr) compressor_->Apply(*cache_, plan.compactions);
  FillRows(plan);
  CAIRN_ASSIGN_OR_RETURN(std::optional<StepResult> result, Forward(plan));
  // The token is sampled from the cache as it was; the next forward of a compressed sequence sees what is kept.
  if (compressor_ != nullptr && plan.compresses()) {
    const ProfileRange compaction("compaction");
    CAIRN_RETURN_IF_ERROR(WaitForRanks());
    std::vector<Compaction> selected;
    CAIRN_RETURN_IF_ERROR(compressor_->Run(*cache_, plan, selected));
    if (result.has_value()) result->compactions = std::move(selected);
  }
  return result;
}

}  // namespace cairn
