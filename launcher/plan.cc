// cairn plan: what a model takes and how many sequences it runs on given ranks, without weights and without ranks.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "compression/budget.h"
#include "engine/cache/cache_accountant.h"
#include "engine/cache/cache_size.h"
#include "engine/cache/footprint.h"
#include "engine/config/model_config_reader.h"
#include "engine/host_resources.h"
#include "engine/rank_setup.h"
#include "engine/runner/model_runner.h"
#include "kernels/core/context.h"
#include "kernels/core/status_macros.h"
#include "launcher/byte_size.h"
#include "launcher/doctor_checks.h"
#include "launcher/exit_codes.h"
#include "launcher/flags.h"
#include "launcher/report_file.h"
#include "launcher/subcommands.h"
#include "launcher/topology.h"
#include "nlohmann/json.hpp"
#include "parallel/pipeline/partition.h"

namespace cairn {
namespace {

using nlohmann::ordered_json;

// One stage of a replica; bytes are of one of its tp ranks.
struct StagePlan {
  Range layers;
  int64_t weight_bytes = 0, kv_bytes = 0, ring_bytes = 0, num_blocks = 0, block_bytes = 0;
  int64_t activation_bytes = 0;                    // on a GPU
  int64_t full_blocks = 0, compressed_blocks = 0;  // of one sequence
  int32_t largest_budget = 0, smallest_budget = 0;

  static double Ratio(int64_t blocks, int64_t each) {
    return each > 0 ? static_cast<double>(blocks) / static_cast<double>(each) : 0;
  }
  double full_sequences() const { return Ratio(num_blocks, full_blocks); }
  double compressed_sequences() const { return Ratio(num_blocks, compressed_blocks); }
};

struct Plan {
  EngineOptions options;
  ModelConfig config;
  int64_t max_length = 0, rank_memory = 0;
  bool on_gpus = false;
  std::vector<StagePlan> stages;
  size_t tightest_full = 0, tightest_compressed = 0;
};

// A checkpoint's directory, or a shape of configs/models.
absl::StatusOr<ModelConfig> ReadShape(const EngineOptions& options) {
  const bool checkpoint = options.load_format != LoadFormat::kDummy && std::filesystem::is_directory(options.model);
  return checkpoint ? ReadModelConfig(options.model) : ReadModelConfigYaml(options.model);
}

// Of a rank: what --rank-memory-bytes says; else of the GPU here, or of the host.
absl::StatusOr<int64_t> RankMemory(const EngineOptions& options, bool on_gpus, DType dtype) {
  const int64_t said = absl::GetFlag(FLAGS_rank_memory_bytes).bytes;
  if (said > 0) return said;
  if (!on_gpus) return AvailableMemory() / options.parallel.world();
  if (Context::NumCudaDevices() == 0) {
    return absl::FailedPreconditionError(
        "--device=cuda: no GPU is seen here; say what memory each has, such as --rank-memory-bytes=80GiB");
  }
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<Context> gpu, Context::Cuda(0, dtype));
  return gpu->device_memory().total_bytes;
}

absl::StatusOr<Plan> MakePlan(const EngineOptions& options) {
  Plan plan;
  plan.options = options;
  CAIRN_ASSIGN_OR_RETURN(plan.config, ReadShape(options));
  CAIRN_ASSIGN_OR_RETURN(const DType dtype, ComputeType(options.dtype, plan.config.dtype));
  CAIRN_ASSIGN_OR_RETURN(const Quantization quantization, ParseQuantization(options.quantization));
  const ParallelSizes& sizes = options.parallel;
  plan.max_length = options.max_model_len > 0 ? options.max_model_len : plan.config.max_position_embeddings;
  plan.on_gpus = options.device == "cuda" || (options.device == "auto" && Context::NumCudaDevices() > 0);
  CAIRN_ASSIGN_OR_RETURN(plan.rank_memory, RankMemory(options, plan.on_gpus, dtype));
  CAIRN_RETURN_IF_ERROR(
      CheckTensorParallel(plan.config.num_heads, plan.config.num_kv_heads, plan.config.intermediate_size, sizes.tp));
  CAIRN_ASSIGN_OR_RETURN(const HeadShard heads,
                         ShardHeads(plan.config.num_heads, plan.config.num_kv_heads, sizes.tp, 0));
  const CompressionConfig& compression = options.compression;
  CAIRN_RETURN_IF_ERROR(compression.ValidateFor(plan.config.num_layers, plan.config.num_kv_heads));
  const Footprint footprint(compression, plan.config.num_layers, plan.config.num_kv_heads);
  CAIRN_ASSIGN_OR_RETURN(
      const std::vector<Range> partition,
      ParsePartition(options.pp_layer_partition, DecodeCosts(plan.config, options, plan.max_length), sizes.pp));
  for (int pp = 0; pp < sizes.pp; ++pp) {
    StagePlan stage = {.layers = partition[pp]};
    const RankCoordinates at = {.tp = 0, .pp = pp, .dp = 0};
    const Device device = plan.on_gpus ? Device{DeviceKind::kCuda, 0} : Device();
    stage.weight_bytes = WeightBytes(plan.config, stage.layers, at, sizes, dtype, quantization, device);
    if (plan.on_gpus) {
      stage.activation_bytes = DeviceBytesOfSteps(
          ShapeOfSteps(plan.config, heads, sizes, at, dtype, options.max_num_seqs, options.max_num_batched_tokens),
          sizes, at);
    }
    stage.kv_bytes = options.kv_cache_memory_bytes;
    if (stage.kv_bytes == 0) {
      stage.kv_bytes = static_cast<int64_t>(static_cast<double>(plan.rank_memory) * options.gpu_memory_utilization) -
                       stage.weight_bytes - stage.activation_bytes;
    }
    if (stage.kv_bytes <= 0) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "stage ", pp, " holds ", FormatBytes(static_cast<double>(stage.weight_bytes)), " of weights ",
          plan.on_gpus
              ? absl::StrCat("and ", FormatBytes(static_cast<double>(stage.activation_bytes)), " of activations ")
              : "",
          "on each rank, and ", plan.on_gpus ? "its GPU has " : "the rank has ",
          FormatBytes(static_cast<double>(plan.rank_memory)), " x --gpu-memory-utilization=",
          options.gpu_memory_utilization, ": raise -tp or -pp, or --rank-memory-bytes"));
    }
    // As many blocks as fit, not only those that --max-num-seqs sequences can use.
    const CacheLayers layers(compression, stage.layers, heads, plan.config.num_kv_heads);
    CAIRN_ASSIGN_OR_RETURN(const CacheSize size,
                           SizeCache(plan.config, options, layers, dtype, INT32_MAX / 2, stage.kv_bytes));
    stage.ring_bytes = size.ring_bytes;
    stage.num_blocks = size.num_blocks;
    stage.block_bytes = static_cast<int64_t>(size.layout.block_bytes());
    // Of the rank that holds most, where heads have budgets of their own.
    std::vector<StageCapacity> ranks = {{.num_blocks = stage.num_blocks, .layers = layers}};
    for (int tp = 1; tp < sizes.tp && compression.by_head(); ++tp) {
      CAIRN_ASSIGN_OR_RETURN(const HeadShard own,
                             ShardHeads(plan.config.num_heads, plan.config.num_kv_heads, sizes.tp, tp));
      ranks.push_back({.num_blocks = stage.num_blocks,
                       .layers = CacheLayers(compression, stage.layers, own, plan.config.num_kv_heads)});
    }
    const CacheAccountant accountant(std::move(ranks), options.block_size);
    stage.full_blocks = accountant.FullCache(plan.max_length)[0];
    if (compression.enabled()) {
      const Budgets budgets = footprint.BudgetsFor(1);
      const StageBlocks steady = footprint.Steady(accountant, plan.max_length - 1);
      stage.compressed_blocks = *std::max_element(steady.begin(), steady.end());
      const int64_t per_layer = static_cast<int64_t>(budgets->size()) / plan.config.num_layers;
      const auto [least, most] = std::minmax_element(budgets->begin() + stage.layers.begin * per_layer,
                                                     budgets->begin() + stage.layers.end * per_layer);
      stage.largest_budget = *most;
      stage.smallest_budget = *least;
    }
    plan.stages.push_back(stage);
  }
  for (size_t s = 1; s < plan.stages.size(); ++s) {
    if (plan.stages[s].full_sequences() < plan.stages[plan.tightest_full].full_sequences()) plan.tightest_full = s;
    if (plan.stages[s].compressed_sequences() < plan.stages[plan.tightest_compressed].compressed_sequences()) {
      plan.tightest_compressed = s;
    }
  }
  return plan;
}

std::string Bytes(int64_t bytes) { return FormatBytes(static_cast<double>(bytes)); }

std::string PlanText(const Plan& plan) {
  const CompressionConfig& compression = plan.options.compression;
  const ParallelSizes& sizes = plan.options.parallel;
  std::vector<std::vector<std::string>> rows = {
      {"stage", "layers", "weights/rank", "KV cache/rank", "KV/sequence", "sequences"}};
  if (plan.on_gpus) rows[0].insert(rows[0].begin() + 3, "activations/rank");
  if (compression.enabled()) rows[0].insert(rows[0].end(), {"budgets", "compressed KV/sequence", "sequences"});
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const StagePlan& stage = plan.stages[s];
    rows.push_back({absl::StrCat(s), absl::StrCat(stage.layers.begin, "-", stage.layers.end - 1),
                    Bytes(stage.weight_bytes), Bytes(stage.kv_bytes), Bytes(stage.full_blocks * stage.block_bytes),
                    absl::StrFormat("%.1f", stage.full_sequences())});
    if (plan.on_gpus) rows.back().insert(rows.back().begin() + 3, Bytes(stage.activation_bytes));
    if (!compression.enabled()) continue;
    rows.back().push_back(stage.largest_budget == stage.smallest_budget
                              ? absl::StrCat(stage.largest_budget)
                              : absl::StrCat(stage.largest_budget, "..", stage.smallest_budget));
    rows.back().push_back(Bytes(stage.compressed_blocks * stage.block_bytes));
    rows.back().push_back(absl::StrFormat("%.1f", stage.compressed_sequences()));
  }
  const std::string cache_type =
      plan.options.kv_cache_dtype == "auto" ? "" : absl::StrCat(", KV cache in ", plan.options.kv_cache_dtype);
  std::string text = absl::StrFormat("%s: %d layers, tp %d x pp %d x dp %d = %d ranks; sequences of %d tokens%s\n%s",
                                     plan.options.model, plan.config.num_layers, sizes.tp, sizes.pp, sizes.dp,
                                     sizes.world(), plan.max_length, cache_type, FormatTable(rows));
  const double full = plan.stages[plan.tightest_full].full_sequences() * sizes.dp;
  absl::StrAppendFormat(&text, "Sequences at once over all ranks: %.1f with the full cache (stage %d is the tightest)",
                        full, plan.tightest_full);
  if (compression.enabled()) {
    const double compressed = plan.stages[plan.tightest_compressed].compressed_sequences() * sizes.dp;
    absl::StrAppendFormat(&text, ",\n%.1f compressed by %s to %d + %d, %s (stage %d): %.1f times as many", compressed,
                          compression.algorithm, compression.budget, compression.buffer, compression.schedule,
                          plan.tightest_compressed, compressed / full);
    if (plan.stages[0].ring_bytes > 0) {
      absl::StrAppendFormat(&text, ";\nthe last %d queries of --max-num-seqs=%d sequences take %s a rank of it",
                            compression.window, plan.options.max_num_seqs, Bytes(plan.stages[0].ring_bytes));
    }
  }
  text += "\n";
  if (plan.on_gpus) {
    absl::StrAppend(&text, "What CUDA, cuBLASLt and NCCL take of a GPU beside this is known once it is tried.\n");
  }
  return text;
}

ordered_json PlanJson(const Plan& plan) {
  const ParallelSizes& sizes = plan.options.parallel;
  ordered_json stages = ordered_json::array();
  for (const StagePlan& stage : plan.stages) {
    stages.push_back({{"first_layer", stage.layers.begin},
                      {"num_layers", stage.layers.size()},
                      {"weight_bytes_per_rank", stage.weight_bytes},
                      {"activation_bytes_per_rank", stage.activation_bytes},
                      {"kv_cache_bytes_per_rank", stage.kv_bytes},
                      {"query_ring_bytes_per_rank", stage.ring_bytes},
                      {"kv_blocks", stage.num_blocks},
                      {"kv_bytes_per_sequence", stage.full_blocks * stage.block_bytes},
                      {"max_sequences", stage.full_sequences()}});
    if (!plan.options.compression.enabled()) continue;
    stages.back()["largest_budget"] = stage.largest_budget;
    stages.back()["smallest_budget"] = stage.smallest_budget;
    stages.back()["compressed_kv_bytes_per_sequence"] = stage.compressed_blocks * stage.block_bytes;
    stages.back()["compressed_max_sequences"] = stage.compressed_sequences();
  }
  ordered_json json = {{"model", plan.options.model},
                       {"tensor_parallel_size", sizes.tp},
                       {"pipeline_parallel_size", sizes.pp},
                       {"data_parallel_size", sizes.dp},
                       {"quantization", plan.options.quantization},
                       {"kv_cache_dtype", plan.options.kv_cache_dtype},
                       {"max_model_len", plan.max_length},
                       {"device", plan.on_gpus ? "cuda" : "cpu"},
                       {"rank_memory_bytes", plan.rank_memory},
                       {"stages", std::move(stages)},
                       {"max_sequences", plan.stages[plan.tightest_full].full_sequences() * sizes.dp}};
  if (plan.options.compression.enabled()) {
    json["compressed_max_sequences"] = plan.stages[plan.tightest_compressed].compressed_sequences() * sizes.dp;
  }
  return json;
}

}  // namespace

absl::StatusOr<int> PlanRun(World& world, const Subcommand&) {
  CAIRN_ASSIGN_OR_RETURN(const EngineOptions options, EngineOptionsFromFlags());
  const absl::StatusOr<Plan> plan = MakePlan(options);
  if (!plan.ok()) return WithExitCode(plan.status(), kExitBadInput);
  if (!world.is_root()) return kExitOk;
  if (!absl::GetFlag(FLAGS_quiet)) std::fputs(PlanText(*plan).c_str(), stdout);
  if (const absl::Status written = WriteOutputJson(PlanJson(*plan)); !written.ok()) {
    PrintError(written);
    return ExitCodeOf(written);
  }
  return kExitOk;
}

}  // namespace cairn
