#include "engine/rank_setup.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "compression/budget.h"
#include "engine/cache/cache_size.h"
#include "engine/cache/footprint.h"
#include "engine/config/model_config_reader.h"
#include "engine/host_resources.h"
#include "engine/model/load_transformer.h"
#include "engine/scheduler/wire.h"
#include "engine/weights/weight_source.h"
#include "kernels/core/status_macros.h"
#include "parallel/comm/device_groups.h"
#include "parallel/pipeline/partition.h"

namespace cairn {

absl::StatusOr<DType> ComputeType(const std::string& flag, DType stored) {
  if (flag == "float32") return DType::kFloat32;
  if (flag == "bfloat16") return DType::kBFloat16;
  if (flag == "float16") return DType::kFloat16;
  if (flag == "auto") return stored;
  return absl::InvalidArgumentError(absl::StrCat("--dtype=", flag, " is not a type"));
}

PartitionCosts DecodeCosts(const ModelConfig& config, const EngineOptions& options, int64_t max_length) {
  const double c = static_cast<double>(config.hidden_size), d = static_cast<double>(config.head_dim);
  const double q = config.num_heads * d, kv = config.num_kv_heads * d;
  // A weight of 8 bits is half an element, and so is a key's or value's.
  const double element = options.quantization != "none" || config.float8_weights ? 0.5 : 1;
  const double kv_element = options.kv_cache_dtype != "auto" ? 0.5 : 1;
  const double weights = element * (c * (q + 2 * kv) + q * c + 3 * c * config.intermediate_size);
  const int num_layers = static_cast<int>(config.num_layers);
  PartitionCosts costs;
  if (options.compression.enabled() && options.compression.decode) {
    // As many sequences run as may: each holds its budget and half the buffer, on average.
    const int num_budgets = NumBudgets(options.compression, config.num_layers, config.num_kv_heads);
    const int per_layer = num_budgets / num_layers;
    const std::vector<int32_t> budgets = AllocateBudgets(options.compression, num_budgets);
    costs.layer.assign(num_layers, weights);
    for (int i = 0; i < num_budgets; ++i) {
      const double tokens =
          std::min(static_cast<double>(max_length) / 2, budgets[i] + options.compression.buffer / 2.0);
      costs.layer[i / per_layer] += 2 * kv * kv_element * tokens * options.max_num_seqs / per_layer;
    }
  } else {
    costs.layer.assign(num_layers, weights + 2 * kv * kv_element * static_cast<double>(max_length) / 2);
  }
  costs.embedding = c;  // one row
  costs.head = c * static_cast<double>(config.vocab_size);
  return costs;
}

namespace {

namespace fs = std::filesystem;

class Setup {
 public:
  Setup(EngineOptions options, ProcessGroups& groups) : groups_(groups) { setup_.options = std::move(options); }

  absl::StatusOr<RankSetup> Run() {
    CAIRN_RETURN_IF_ERROR(Agree(setup_.options.Validate()));
    CAIRN_RETURN_IF_ERROR(Agree(ChooseDevice()));
    CAIRN_RETURN_IF_ERROR(Agree(Describe()));
    CAIRN_RETURN_IF_ERROR(MoveGroupsToDevice());
    CAIRN_RETURN_IF_ERROR(Agree(LoadWeights()));
    CAIRN_RETURN_IF_ERROR(Agree(MakeRunner()));
    CAIRN_RETURN_IF_ERROR(Agree(SizeTheCache()));  // once every rank has what it needs besides
    CAIRN_RETURN_IF_ERROR(Agree(MakeCache()));
    CAIRN_RETURN_IF_ERROR(ShareRankInfo());
    CAIRN_RETURN_IF_ERROR(ResolveModelLength());
    CAIRN_RETURN_IF_ERROR(Agree(WarmUp()));
    return std::move(setup_);
  }

 private:
  absl::Status Agree(const absl::Status& mine) { return AgreeOnStatus(*groups_.world, mine); }

  // --device=auto is a GPU where every rank has one.
  absl::Status ChooseDevice() {
    std::string& device = setup_.options.device;
    const bool has_gpu = device == "auto" && !setup_.options.shadow_full && Context::NumCudaDevices() > 0;
    CAIRN_ASSIGN_OR_RETURN(const std::vector<std::string> all, groups_.world->AllGather(has_gpu ? "gpu" : ""));
    if (device == "auto") device = std::find(all.begin(), all.end(), "") == all.end() ? "cuda" : "cpu";
    if (device == "cpu") return absl::OkStatus();
    if (setup_.options.quantization == "int8") {
      return absl::InvalidArgumentError(
          "--quantization=int8 is for --device=cpu; on GPUs use --quantization=fp8, or none");
    }
    const absl::StatusOr<int> gpu = ChooseGpu(*groups_.world);
    if (Context::NumCudaDevices() == 0) return absl::OkStatus();  // Context::Cuda says why
    if (!gpu.ok()) {
      return absl::FailedPreconditionError(absl::StrCat("--device=cuda: ", gpu.status().message()));
    }
    gpu_ = *gpu;
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<Context>> MakeContext() const {
    if (setup_.options.device == "cpu") return Context::Cpu(setup_.options.threads, compute_);
    absl::StatusOr<std::unique_ptr<Context>> context = Context::Cuda(gpu_, compute_);
    if (context.ok()) return context;
    return absl::FailedPreconditionError(absl::StrCat("--device=cuda: ", context.status().message()));
  }

  // Who shares this rank's memory; and on a GPU, how tensors in its memory travel.
  absl::Status MoveGroupsToDevice() {
    const std::string mine = absl::StrCat(groups_.world->host(), " ", setup_.context->device_id());
    CAIRN_ASSIGN_OR_RETURN(const std::vector<std::string> all, groups_.world->AllGather(mine));
    sharers_ = static_cast<int>(std::count(all.begin(), all.end(), mine));
    const EngineOptions& options = setup_.options;
    if (on_cpu() && options.comm == "nccl") {
      return absl::InvalidArgumentError("--comm=nccl speaks between GPUs, and this job runs on CPUs (--device)");
    }
    if (on_cpu()) return absl::OkStatus();
    CAIRN_ASSIGN_OR_RETURN(const DeviceComm wanted, ParseDeviceComm(options.comm));
    CAIRN_ASSIGN_OR_RETURN(const CommChoice choice,
                           ConnectGpus(groups_, *setup_.context, wanted, options.distributed_timeout_seconds));
    if (options.show_progress && groups_.world->rank() == 0) {
      std::fprintf(stderr, "data plane between GPUs: %s\n", choice.text.c_str());
    }
    return absl::OkStatus();
  }

  bool on_cpu() const { return setup_.context->device().is_cpu(); }

  // Everything that needs no weights: options, config, tokenizer, layers.
  absl::Status Describe() {
    EngineOptions& options = setup_.options;
    if (options.load_format == LoadFormat::kDummy) {
      CAIRN_ASSIGN_OR_RETURN(setup_.config, ReadModelConfigYaml(options.model));
    } else {
      CAIRN_ASSIGN_OR_RETURN(setup_.config, ReadModelConfig(options.model));
    }
    CAIRN_ASSIGN_OR_RETURN(compute_, ComputeType(options.dtype, setup_.config.dtype));
    options.dtype = DTypeName(compute_);
    if (options.threads == 0) options.threads = ThreadsFor(groups_.world->local_size());
    CAIRN_ASSIGN_OR_RETURN(setup_.context, MakeContext());
    if (options.max_model_len > setup_.config.max_position_embeddings) {
      return absl::InvalidArgumentError(
          absl::StrCat("--max-model-len=", options.max_model_len, " is beyond the model's max_position_embeddings ",
                       setup_.config.max_position_embeddings, " (", options.model, "/config.json)"));
    }
    CAIRN_RETURN_IF_ERROR(options.compression.ValidateFor(setup_.config.num_layers, setup_.config.num_kv_heads));
    CAIRN_RETURN_IF_ERROR(CheckTensorParallel(setup_.config.num_heads, setup_.config.num_kv_heads,
                                              setup_.config.intermediate_size, options.parallel.tp));
    CAIRN_ASSIGN_OR_RETURN(
        stages_, ParsePartition(options.pp_layer_partition, DecodeCosts(setup_.config, options, wanted_length()),
                                options.parallel.pp));
    return LoadTokenizer();
  }

  absl::Status LoadTokenizer() {
    EngineOptions& options = setup_.options;
    const bool named = !options.tokenizer.empty();
    if (!named && options.load_format != LoadFormat::kDummy) options.tokenizer = options.model;
    if (!groups_.is_leader() || options.tokenizer.empty()) return absl::OkStatus();
    if (!named && !fs::exists(fs::path(options.tokenizer) / "tokenizer.json")) return absl::OkStatus();
    CAIRN_ASSIGN_OR_RETURN(setup_.tokenizer, Tokenizer::Load(options.tokenizer));
    return absl::OkStatus();
  }

  int64_t wanted_length() const {
    return setup_.options.max_model_len > 0 ? setup_.options.max_model_len : setup_.config.max_position_embeddings;
  }

  absl::Status LoadWeights() {
    const EngineOptions& options = setup_.options;
    std::unique_ptr<WeightSource> source;
    if (options.load_format == LoadFormat::kDummy) {
      source = MakeDummyWeights(setup_.config, static_cast<uint64_t>(options.seed));
    } else {
      CAIRN_ASSIGN_OR_RETURN(source, OpenSafetensors(options.model, setup_.config));
      CAIRN_RETURN_IF_ERROR(CheckCacheScales(*source));
    }
    const StagePlacement placement = {.layers = stages_[groups_.at.pp],
                                      .tp = groups_.sizes.tp,
                                      .tp_rank = groups_.at.tp,
                                      .first_stage = groups_.is_first_stage(),
                                      .last_stage = groups_.is_last_stage()};
    LoadProgress progress;
    if (options.show_progress && groups_.world->rank() == 0) progress = ProgressLines(*source);
    CAIRN_ASSIGN_OR_RETURN(const Quantization quantization, ParseQuantization(options.quantization));
    CAIRN_ASSIGN_OR_RETURN(StageWeights weights,
                           LoadStage(setup_.config, placement, *setup_.context, quantization, *source, progress));
    weights_ = std::move(weights);
    return absl::OkStatus();
  }

  // Some checkpoints come with scales for a cache in fp8; this one has none, and numbers meant to be divided by them
  // may be beyond its range.
  absl::Status CheckCacheScales(const WeightSource& source) const {
    if (setup_.options.kv_cache_dtype == "auto") return absl::OkStatus();
    for (const char* name : {"k_scale", "k_proj.k_scale", "v_scale", "v_proj.v_scale", "kv_scale"}) {
      const std::string tensor = absl::StrCat("model.layers.", stages_[groups_.at.pp].begin, ".self_attn.", name);
      if (!source.TypeOf(tensor).ok()) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          "--kv-cache-dtype=", setup_.options.kv_cache_dtype, ": ", setup_.options.model, " has ", tensor,
          ", a scale for keys or values in fp8, and this cache keeps them without one: use --kv-cache-dtype=auto"));
    }
    return absl::OkStatus();
  }

  // Rank 0 speaks for all (their shards are alike), about every quarter.
  static LoadProgress ProgressLines(const WeightSource& source) {
    return [&source, next = 0.25](double share) mutable {
      if (share < next) return;
      std::fprintf(stderr, "loading weights: %3.0f %%, %.1f MB read by rank 0\n", share * 100,
                   static_cast<double>(source.bytes_read()) / 1e6);
      while (next <= share) next += 0.25;
    };
  }

  // Bytes for this rank's cache, after what the rank has by now.
  int64_t CacheBudget() const {
    const EngineOptions& options = setup_.options;
    if (options.kv_cache_memory_bytes > 0) return options.kv_cache_memory_bytes;
    const double share = options.gpu_memory_utilization;
    if (on_cpu()) return static_cast<int64_t>(static_cast<double>(AvailableMemory()) * share / sharers_);
    const Context::MemoryInfo memory = setup_.context->device_memory();
    const double allowed = static_cast<double>(memory.total_bytes) * share;
    const double used = static_cast<double>(memory.total_bytes - memory.free_bytes);
    return static_cast<int64_t>(std::max(0.0, allowed - used) / sharers_);
  }

  absl::StatusOr<CacheSize> SizeForBudget() const {
    return SizeCache(setup_.config, setup_.options, cache_layers_, compute_, wanted_length(), CacheBudget());
  }

  absl::Status MakeRunner() {
    const EngineOptions& options = setup_.options;
    layers_ = weights_.layers;
    cache_layers_ = CacheLayers(options.compression, layers_, weights_.heads, setup_.config.num_kv_heads);
    info_ = {.world_rank = groups_.world->rank(),
             .host = groups_.world->host(),
             .at = groups_.at,
             .layers = layers_,
             .weight_bytes = weights_.size_bytes(),
             .threads = options.threads,
             .device = on_cpu() ? "cpu" : absl::StrCat("cuda:", setup_.context->device().index)};
    // No layer will be longer: the cache's size once the runner has its memory is at most this.
    CAIRN_ASSIGN_OR_RETURN(const CacheSize most, SizeForBudget());
    max_slots_ = std::min(wanted_length(), most.num_blocks / cache_layers_.size() * options.block_size);
    CAIRN_ASSIGN_OR_RETURN(
        setup_.runner,
        ModelRunner::Create(setup_.context.get(), &groups_, Transformer(setup_.config, std::move(weights_)),
                            options.compression, options.max_num_seqs, options.max_num_batched_tokens, max_slots_));
    return absl::OkStatus();
  }

  absl::Status SizeTheCache() {
    CAIRN_ASSIGN_OR_RETURN(cache_size_, SizeForBudget());
    info_.kv_blocks = cache_size_.num_blocks;
    info_.kv_block_bytes = static_cast<int64_t>(cache_size_.layout.block_bytes());
    return absl::OkStatus();
  }

  absl::Status MakeCache() {
    CAIRN_ASSIGN_OR_RETURN(KvCache cache,
                           KvCache::Create(setup_.context->device(), cache_size_.layout, cache_size_.rings,
                                           static_cast<int>(cache_layers_.size()), cache_size_.num_blocks,
                                           setup_.options.max_num_seqs, max_slots_));
    return setup_.runner->SetCache(std::move(cache), !setup_.options.enforce_eager);
  }

  absl::Status ShareRankInfo() {
    WireWriter out;
    out.Put(info_.at);
    out.Put(info_.layers);
    out.Put(info_.weight_bytes);
    out.Put(info_.kv_blocks);
    out.Put(info_.kv_block_bytes);
    out.Put(info_.threads);
    out.PutString(info_.host);
    out.PutString(info_.device);
    CAIRN_ASSIGN_OR_RETURN(const std::vector<std::string> all, groups_.world->AllGather(out.Take()));
    // Ranks of a stage hold as many blocks as each other, unless their heads have budgets of their own.
    const int per_stage = setup_.options.compression.by_head() ? groups_.sizes.tp : 1;
    setup_.stages.assign(groups_.sizes.pp * per_stage, {.num_blocks = INT64_MAX});
    for (size_t rank = 0; rank < all.size(); ++rank) {
      WireReader in(all[rank]);
      RankInfo info;
      info.world_rank = static_cast<int>(rank);
      info.at = in.Get<RankCoordinates>();
      info.layers = in.Get<Range>();
      info.weight_bytes = in.Get<int64_t>();
      info.kv_blocks = in.Get<int64_t>();
      info.kv_block_bytes = in.Get<int64_t>();
      info.threads = in.Get<int>();
      info.host = in.GetString();
      info.device = in.GetString();
      StageCapacity& stage = setup_.stages[info.at.pp * per_stage + info.at.tp % per_stage];
      stage.num_blocks = std::min(stage.num_blocks, info.kv_blocks);
      CAIRN_ASSIGN_OR_RETURN(const HeadShard heads, ShardHeads(setup_.config.num_heads, setup_.config.num_kv_heads,
                                                               groups_.sizes.tp, info.at.tp));
      stage.layers = CacheLayers(setup_.options.compression, info.layers, heads, setup_.config.num_kv_heads);
      if (info.at.dp == 0) stage.bytes_per_block += info.kv_block_bytes;
      setup_.ranks.push_back(std::move(info));
    }
    return absl::OkStatus();
  }

  // The same arithmetic on every rank, so that an error is everybody's.
  absl::Status ResolveModelLength() {
    EngineOptions& options = setup_.options;
    const CacheAccountant accountant(setup_.stages, options.block_size);
    if (options.compression.enabled() && options.compression.decode) {
      // A long answer always fits where its budgets do; a prompt must fit before it is compressed (Engine::Add).
      const Footprint footprint(options.compression, setup_.config.num_layers, setup_.config.num_kv_heads);
      options.max_model_len = wanted_length();
      if (accountant.Fits(footprint.Steady(accountant, options.max_model_len))) return absl::OkStatus();
      return absl::ResourceExhaustedError(absl::StrCat(
          "one sequence of --kv-budget=", options.compression.budget, " + --kv-buffer=", options.compression.buffer,
          " slots per layer does not fit the KV cache, which holds ", accountant.MaxTokens(),
          ": lower them, or raise --kv-cache-memory-bytes or --gpu-memory-utilization"));
    }
    const int64_t fits = accountant.MaxTokens();
    if (options.max_model_len > fits) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "one sequence of --max-model-len=", options.max_model_len, " tokens does not fit the KV cache, which holds ",
          fits,
          ": lower --max-model-len, raise --kv-cache-memory-bytes or --gpu-memory-utilization, or compress the "
          "cache (--kv-compression=rkv)"));
    }
    if (options.max_model_len == 0) options.max_model_len = std::min(wanted_length(), fits);
    return absl::OkStatus();
  }

  absl::Status WarmUp() {
    const CacheAccountant accountant(setup_.stages, setup_.options.block_size);
    const int64_t fits = accountant.MaxTokens();
    return setup_.runner->WarmUp(std::min(setup_.options.max_model_len, fits), fits);
  }

  ProcessGroups& groups_;
  RankSetup setup_;
  int gpu_ = 0;  // where the device is one
  DType compute_ = DType::kFloat32;
  std::vector<Range> stages_;
  int sharers_ = 1;       // ranks of this host, or of this rank's GPU
  StageWeights weights_;  // until the runner has them
  Range layers_;
  CacheLayers cache_layers_;
  int64_t max_slots_ = 0;  // of a layer of a sequence
  CacheSize cache_size_;
  RankInfo info_;
};

}  // namespace

absl::StatusOr<RankSetup> SetUpRank(EngineOptions options, ProcessGroups& groups) {
  return Setup(std::move(options), groups).Run();
}

}  // namespace cairn
