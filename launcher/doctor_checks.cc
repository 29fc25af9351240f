#include "launcher/doctor_checks.h"

#include <algorithm>
#include <filesystem>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/cache/cache_size.h"
#include "engine/config/model_config_reader.h"
#include "engine/host_resources.h"
#include "engine/rank_setup.h"
#include "engine/runner/model_runner.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "engine/weights/weight_source.h"
#include "kernels/core/context.h"
#include "launcher/byte_size.h"
#include "parallel/pipeline/partition.h"

namespace cairn {
namespace {

namespace fs = std::filesystem;

Finding Failure(const char* check, const absl::Status& status, std::string fix) {
  return {check, Verdict::kFail, std::string(status.message()), std::move(fix), /*among_ranks=*/false};
}

Finding Good(const char* check, std::string detail) {
  return {check, Verdict::kOk, std::move(detail), "", /*among_ranks=*/false};
}

Finding CheckTokenizer(const std::string& directory) {
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(directory);
  if (!tokenizer.ok()) {
    return Failure("tokenizer", tokenizer.status(), "give --tokenizer the directory that holds tokenizer.json");
  }
  const bool chats = ChatTemplate::FromTokenizer(**tokenizer).family() != ChatTemplate::Family::kNone;
  Finding finding =
      Good("tokenizer", absl::StrCat((*tokenizer)->vocab_size(), " tokens", chats ? ", chat template recognised" : ""));
  if (!chats) {
    finding.verdict = Verdict::kWarn;
    absl::StrAppend(&finding.detail, ", no known chat template");
    finding.fix = "send `prompt` to /v1/completions instead of messages";
  }
  return finding;
}

// Is each of its rows divided over tp?
bool IsRowParallel(const TensorSpec& spec) {
  return spec.name.find("o_proj.weight") != std::string::npos ||
         spec.name.find("down_proj.weight") != std::string::npos;
}

// Elements of the tensor on one rank of tp.
int64_t ShardElements(const TensorSpec& spec, const ModelConfig& config, const HeadShard& heads, int tp) {
  int64_t elements = 1;
  for (int64_t size : spec.shape) elements *= size;
  const auto is = [&](const char* module) { return spec.name.find(module) != std::string::npos; };
  if (is("q_proj")) return elements / config.num_heads * heads.query_heads.size();
  if (is("k_proj") || is("v_proj")) return elements / config.num_kv_heads * heads.kv_heads.size();
  if (is("gate_proj") || is("up_proj")) return elements / tp;
  if (IsRowParallel(spec)) return elements / tp;
  return elements;
}

}  // namespace

std::vector<Finding> CheckCores(int local_ranks, int bound_cores, int online_cores, int threads_flag) {
  const int threads = threads_flag > 0             ? threads_flag
                      : bound_cores < online_cores ? bound_cores
                                                   : std::max(1, online_cores / local_ranks);
  Finding finding = Good(
      "cores", absl::StrCat(local_ranks, " ranks x ", threads, " threads on ", online_cores, " cores of this host"));
  if (bound_cores < online_cores) absl::StrAppend(&finding.detail, ", bound to ", bound_cores);
  if (local_ranks > online_cores) {
    finding.verdict = Verdict::kWarn;
    finding.fix = absl::StrCat("more ranks than cores run one after the other: start at most ", online_cores,
                               " ranks on this host (mpirun --host or a hostfile with slots=", online_cores, ")");
  } else if (bound_cores < online_cores && bound_cores < threads) {
    finding.verdict = Verdict::kWarn;
    finding.fix = absl::StrCat(
        "threads share the cores that mpirun bound the rank to: mpirun --bind-to none, or --map-by "
        "slot:PE=",
        threads);
  } else if (static_cast<int64_t>(local_ranks) * threads > online_cores) {
    finding.verdict = Verdict::kWarn;
    finding.fix = absl::StrCat("more threads than cores: --threads=", std::max(1, online_cores / local_ranks));
  } else if (bound_cores < online_cores && local_ranks * bound_cores < online_cores) {
    finding.verdict = Verdict::kWarn;
    finding.fix =
        absl::StrCat("cores stay idle: mpirun --bind-to none, or --map-by slot:PE=", online_cores / local_ranks);
  }
  return {finding};
}

std::vector<Finding> CheckModelFiles(const EngineOptions& options, std::optional<ModelConfig>& config) {
  std::vector<Finding> findings;
  const bool dummy = options.load_format == LoadFormat::kDummy;
  const absl::StatusOr<ModelConfig> read = dummy ? ReadModelConfigYaml(options.model) : ReadModelConfig(options.model);
  if (!read.ok()) {
    return {Failure("model", read.status(),
                    dummy ? "give --model the name or the path of a shape"
                          : "--model must name the same readable directory on every host")};
  }
  config = *read;
  const double parameters = static_cast<double>(NumParameters(*config));
  const std::string size = parameters < 1e9 ? absl::StrFormat("%.1f million", parameters / 1e6)
                                            : absl::StrFormat("%.2f billion", parameters / 1e9);
  findings.push_back(Good("model", absl::StrCat(config->architecture, ", ", config->num_layers, " layers, ", size,
                                                " parameters, ", DTypeName(config->dtype))));
  const std::string tokenizer = options.tokenizer.empty() && !dummy ? options.model : options.tokenizer;
  if (!tokenizer.empty()) findings.push_back(CheckTokenizer(tokenizer));
  if (dummy) return findings;
  if (const auto weights = OpenSafetensors(options.model, *config); !weights.ok()) {
    findings.push_back(Failure("weights", weights.status(), "copy the checkpoint again: it is incomplete or damaged"));
  } else {
    findings.push_back(Good("weights", absl::StrCat(ExpectedTensors(*config).size(), " tensors, all there")));
  }
  return findings;
}

std::vector<Finding> CheckShards(const EngineOptions& options, const ModelConfig& config, std::vector<Range>& stages) {
  const ParallelSizes& sizes = options.parallel;
  if (const absl::Status fits =
          CheckTensorParallel(config.num_heads, config.num_kv_heads, config.intermediate_size, sizes.tp);
      !fits.ok()) {
    return {Failure("shards", fits, "choose one of these sizes for --tensor-parallel-size")};
  }
  if (const absl::Status fits = options.compression.ValidateFor(config.num_layers, config.num_kv_heads); !fits.ok()) {
    return {Failure("shards", fits, "give a weight for each layer of this model")};
  }
  const int64_t length = options.max_model_len > 0 ? options.max_model_len : config.max_position_embeddings;
  absl::StatusOr<std::vector<Range>> partition =
      ParsePartition(options.pp_layer_partition, DecodeCosts(config, options, length), sizes.pp);
  if (!partition.ok()) {
    return {Failure("shards", partition.status(), "lower --pipeline-parallel-size, or change --pp-layer-partition")};
  }
  stages = *std::move(partition);
  std::string layers;
  for (const Range& stage : stages) absl::StrAppend(&layers, layers.empty() ? "" : ",", stage.size());
  return {Good("shards", absl::StrCat(config.num_heads, " query and ", config.num_kv_heads, " KV heads over tp ",
                                      sizes.tp, sizes.tp > config.num_kv_heads ? " (KV heads replicated)" : "",
                                      "; layers by stage ", layers))};
}

int64_t WeightBytes(const ModelConfig& config, const Range& layers, const RankCoordinates& at,
                    const ParallelSizes& sizes, DType compute, Quantization quantization, Device device) {
  const HeadShard heads = *ShardHeads(config.num_heads, config.num_kv_heads, sizes.tp, at.tp);
  const bool first = at.pp == 0, last = at.pp == sizes.pp - 1;
  const int64_t table = VocabShard(config.vocab_size, sizes.tp, at.tp).size() * config.hidden_size;
  const int64_t packed = static_cast<int64_t>(DTypeSize(PackedTypeFor(config.dtype, compute, device)));
  // Norms are kept in float32; biases as activations are, but for those that are added to a sum over ranks.
  const int64_t bias = device.is_cpu() ? 4 : static_cast<int64_t>(DTypeSize(compute));
  int64_t bytes = 0;
  for (const TensorSpec& spec : ExpectedTensors(config)) {
    int64_t layer = -1;
    if (std::sscanf(spec.name.c_str(), "model.layers.%ld.", &layer) == 1) {
      if (layer < layers.begin || layer >= layers.end) continue;
      const int64_t elements = ShardElements(spec, config, heads, sizes.tp);
      if (spec.shape.size() == 1) {
        const bool is_bias = absl::EndsWith(spec.name, ".bias");
        const bool is_summed =
            sizes.tp > 1 && (absl::StrContains(spec.name, "o_proj") || absl::StrContains(spec.name, "down_proj"));
        bytes += elements * (is_bias && !is_summed ? bias : 4);
      } else if (quantization != Quantization::kNone || config.float8_weights) {  // and a scale for each row
        bytes += elements + 4 * (IsRowParallel(spec) ? spec.shape[0] : elements / spec.shape[1]);
      } else {
        bytes += elements * packed;
      }
    } else if (spec.name == "model.norm.weight") {
      bytes += last ? config.hidden_size * 4 : 0;
    } else {
      const bool here = spec.name == "lm_head.weight" ? last : first || (last && config.tie_word_embeddings);
      bytes += here ? table * packed : 0;
    }
  }
  return bytes;
}

SharedMemory FindMemory(const EngineOptions& options, int local_ranks) {
  const int gpus = options.device == "cpu" ? 0 : Context::NumCudaDevices();
  if (gpus > 0) {
    const absl::StatusOr<std::unique_ptr<Context>> gpu = Context::Cuda(0, DType::kFloat32);
    if (gpu.ok()) {
      const int64_t bytes = static_cast<int64_t>((*gpu)->device_memory().total_bytes);
      return {(*gpu)->device(), bytes, (local_ranks + gpus - 1) / gpus};
    }
  }
  return {Device(), AvailableMemory(), local_ranks};
}

std::vector<Finding> CheckMemory(const EngineOptions& options, const ModelConfig& config, const Range& layers,
                                 const RankCoordinates& at, const SharedMemory& memory) {
  const absl::StatusOr<DType> compute = ComputeType(options.dtype, config.dtype);
  if (!compute.ok()) return {Failure("memory", compute.status(), "choose a --dtype")};
  const absl::StatusOr<Quantization> quantization = ParseQuantization(options.quantization);
  if (!quantization.ok()) return {Failure("memory", quantization.status(), "choose a --quantization")};
  const absl::StatusOr<DType> cached = KvCacheType(options.kv_cache_dtype, *compute);
  if (!cached.ok()) return {Failure("memory", cached.status(), "choose a --kv-cache-dtype")};
  const int64_t weights = WeightBytes(config, layers, at, options.parallel, *compute, *quantization, memory.device);
  const HeadShard heads = *ShardHeads(config.num_heads, config.num_kv_heads, options.parallel.tp, at.tp);
  const int64_t per_token =
      layers.size() * heads.kv_heads.size() * config.head_dim * 2 * static_cast<int64_t>(DTypeSize(*cached));
  const int64_t length = options.max_model_len > 0 ? options.max_model_len : config.max_position_embeddings;
  const double share = static_cast<double>(memory.bytes) / memory.sharers, used = options.gpu_memory_utilization;
  double for_cache = (share - static_cast<double>(weights)) * used;
  std::string needs = absl::StrCat("weights ", FormatBytes(static_cast<double>(weights)));
  if (!memory.device.is_cpu()) {
    const int64_t activations = DeviceBytesOfSteps(ShapeOfSteps(config, heads, options.parallel, at, *compute,
                                                                options.max_num_seqs, options.max_num_batched_tokens),
                                                   options.parallel, at);
    for_cache = share * used - static_cast<double>(weights + activations);
    absl::StrAppend(&needs, ", activations ", FormatBytes(static_cast<double>(activations)));
  }
  Finding finding = Good(
      "memory", absl::StrCat(needs, " and ", FormatBytes(static_cast<double>(per_token)), " of KV cache a token, ",
                             FormatBytes(share), memory.device.is_cpu() ? " free" : " on the GPU", " for this rank"));
  if (for_cache < static_cast<double>(per_token * options.block_size)) {
    finding.verdict = Verdict::kFail;
    finding.fix = "spread the model over more ranks or hosts (-tp, -pp), or free memory";
  } else if (for_cache < static_cast<double>(per_token) * static_cast<double>(length)) {
    finding.verdict = Verdict::kWarn;
    finding.fix = absl::StrFormat("one sequence of %d tokens does not fit: --max-model-len=%d%s, or more ranks", length,
                                  static_cast<int64_t>(for_cache / static_cast<double>(per_token)),
                                  options.kv_cache_dtype == "auto" ? ", --kv-cache-dtype=fp8" : "");
  }
  return {finding};
}

}  // namespace cairn
