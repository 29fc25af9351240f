#include "launcher/flags.h"

#include "absl/flags/flag.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/core/status_macros.h"
#include "launcher/byte_size.h"
#include "launcher/exit_codes.h"

ABSL_FLAG(std::string, config, "", "YAML file with the same keys as the flags; flags win");

ABSL_FLAG(
    std::string, model, "",
    "directory of a Hugging Face checkpoint; with --load-format=dummy a shape (YAML file, or name in configs/models)");
ABSL_FLAG(std::string, tokenizer, "", "directory with tokenizer.json; by default the model's");
ABSL_FLAG(std::string, dtype, cairn::EngineOptions().dtype,
          "type of activations: auto (as stored), float32, bfloat16 or float16");
ABSL_FLAG(
    std::string, quantization, cairn::EngineOptions().quantization,
    "weights of the linear layers: none (as stored), int8 (on CPU), or fp8 (E4M3, as the activations that they meet)");
ABSL_FLAG(std::string, kv_cache_dtype, cairn::EngineOptions().kv_cache_dtype,
          "type of cached keys and values: auto (that of the activations), or fp8 (E4M3): half the bytes of a token");
ABSL_FLAG(std::string, load_format, "auto", "auto, safetensors, or dummy (reproducible random weights)");
ABSL_FLAG(std::string, device, cairn::EngineOptions().device, "auto (cuda where every rank has a GPU), cpu or cuda");
ABSL_FLAG(int64_t, seed, cairn::EngineOptions().seed,
          "for requests without a seed of their own, and for dummy weights");

ABSL_FLAG(int32_t, tensor_parallel_size, cairn::ParallelSizes().tp, "ranks that share each layer");
ABSL_FLAG(int32_t, pipeline_parallel_size, cairn::ParallelSizes().pp, "stages that the layers are divided into");
ABSL_FLAG(int32_t, data_parallel_size, cairn::ParallelSizes().dp, "copies of the model that share the requests");
ABSL_FLAG(
    std::string, comm, cairn::EngineOptions().comm,
    "how GPUs speak: auto (nccl where every rank has a GPU of its own and the library), nccl, or mpi (through the "
    "hosts' memory)");
ABSL_FLAG(std::string, pp_layer_partition, cairn::EngineOptions().pp_layer_partition,
          "auto, or the layers of each stage: 18,21,21,20");
ABSL_FLAG(int32_t, threads, cairn::EngineOptions().threads, "threads of each rank; 0 is cores / ranks on the host");
ABSL_FLAG(double, distributed_timeout_seconds, cairn::EngineOptions().distributed_timeout_seconds,
          "how long a rank waits for another before the job is given up");

ABSL_FLAG(int64_t, max_model_len, cairn::EngineOptions().max_model_len,
          "longest prompt + answer in tokens; 0 is the model's own limit");
ABSL_FLAG(int32_t, max_num_seqs, cairn::EngineOptions().max_num_seqs, "sequences that run at once, per replica");
ABSL_FLAG(int32_t, max_num_batched_tokens, cairn::EngineOptions().max_num_batched_tokens,
          "tokens of one step: running sequences first, the rest for chunks of prompts");
ABSL_FLAG(double, gpu_memory_utilization, cairn::EngineOptions().gpu_memory_utilization,
          "share of a GPU's memory for weights, activations and KV cache; on CPU, share of what is free for the cache");
ABSL_FLAG(cairn::ByteSize, kv_cache_memory_bytes, {cairn::EngineOptions().kv_cache_memory_bytes},
          "KV cache of each rank, such as 2GiB or 512M; 0 takes it from --gpu-memory-utilization");
ABSL_FLAG(bool, enforce_eager, cairn::EngineOptions().enforce_eager,
          "on a GPU: no CUDA graphs, every decode step's kernels are launched one by one");
ABSL_FLAG(int32_t, block_size, cairn::EngineOptions().block_size, "tokens in a KV block");

ABSL_FLAG(
    cairn::ByteSize, rank_memory_bytes, {0},
    "memory of each rank, with --device=cuda of its GPU, such as 80GiB; 0: the GPU's here, or this host's free memory "
    "over all ranks");

ABSL_FLAG(
    std::string, kv_compression, cairn::CompressionConfig().algorithm,
    "none (the full cache), rkv, rkv-history, snapkv, streamingllm, h2o, keydiff, gkv or random: docs/compression.md");
ABSL_FLAG(int32_t, kv_budget, cairn::CompressionConfig().budget,
          "slots that a KV head of a layer keeps when it is compressed, the window included (mean over layers)");
ABSL_FLAG(int32_t, kv_buffer, cairn::CompressionConfig().buffer, "tokens between compressions");
ABSL_FLAG(int32_t, kv_window, cairn::CompressionConfig().window, "last tokens, which score the others and stay");
ABSL_FLAG(double, kv_recent_ratio, cairn::CompressionConfig().recent_ratio,
          "share of a layer's slots for its last tokens; the window at least");
ABSL_FLAG(
    std::string, kv_schedule, cairn::CompressionConfig().schedule,
    "uniform; pyramid: shallow layers keep more, deep ones less; weighted: --kv-layer-weights or --kv-head-weights");
ABSL_FLAG(std::string, kv_layer_weights, "", "weighted: a number for each layer of the model, its share of the slots");
ABSL_FLAG(std::string, kv_head_weights, "", "weighted: or a number for each KV head of each layer, layer by layer");
ABSL_FLAG(double, kv_beta, cairn::CompressionConfig().beta, "slope of the pyramid, 1 is flat");
ABSL_FLAG(std::string, kv_scope, cairn::CompressionConfig().scope,
          "who shares a kept set: head (nobody), layer (its KV heads) or sequence (all layers too)");
ABSL_FLAG(double, kv_lambda, cairn::CompressionConfig().mix_lambda,
          "rkv, rkv-history, gkv with redundancy: weight of importance, the rest is redundancy's");
ABSL_FLAG(double, kv_threshold, cairn::CompressionConfig().similarity_threshold,
          "rkv: cosine above which two keys are near-duplicates");
ABSL_FLAG(int32_t, kv_kernel, cairn::CompressionConfig().kernel_size,
          "rkv, rkv-history, snapkv: width of the pooling, odd");
ABSL_FLAG(std::string, kv_pooling, cairn::CompressionConfig().pooling, "snapkv: max or avg");
ABSL_FLAG(std::string, kv_group_reduce, cairn::CompressionConfig().group_reduce,
          "snapkv: mean, max or sum over the query heads of a KV head");
ABSL_FLAG(std::string, kv_variant, cairn::CompressionConfig().variant,
          "rkv: redundancy as in the published code, or as in the paper");
ABSL_FLAG(int32_t, kv_sinks, cairn::CompressionConfig().num_sinks, "streamingllm: first tokens, which stay");
ABSL_FLAG(double, kv_gamma, cairn::CompressionConfig().gamma, "gkv: decay of a slot's running score");
ABSL_FLAG(bool, kv_gkv_redundancy, cairn::CompressionConfig().gkv_redundancy, "gkv: with rkv's redundancy");
ABSL_FLAG(bool, kv_prefill, cairn::CompressionConfig().prefill,
          "compress a long prompt when it has been read; off: with the first full buffer of the answer");
ABSL_FLAG(bool, kv_decode, cairn::CompressionConfig().decode,
          "compress while decoding; off: the prompt alone, as snapkv and pyramidkv were published");
ABSL_FLAG(bool, kv_bounded_prefill, cairn::CompressionConfig().bounded_prefill,
          "compress a long prompt as it is read, so that it never holds more than budget + buffer (an approximation)");

ABSL_FLAG(std::string, input_file, "", "requests, one JSON object a line (OpenAI batch format)");
ABSL_FLAG(std::string, output_file, "", "results, one JSON object a line, in the order in which they finish");
ABSL_FLAG(std::string, errors_file, "", "where failed requests go; by default the output file");
ABSL_FLAG(bool, overwrite, false, "replace an output file that is not empty");
ABSL_FLAG(std::string, reasoning_parser, "none",
          "split thinking from the answer: none, deepseek_r1 or qwen3 (reasoning_content and content)");

ABSL_FLAG(std::string, prompt, "", "text to continue as it is; - reads it from standard input");
ABSL_FLAG(std::string, chat, "", "user message, put into the model's chat template; - reads it from standard input");
ABSL_FLAG(std::string, system, "", "system message before --chat");
ABSL_FLAG(bool, enable_thinking, true, "off closes the thinking block of a Qwen3 chat at once");

ABSL_FLAG(int32_t, max_tokens, 0, "longest answer in tokens; 0 is up to the context limit");
ABSL_FLAG(int32_t, min_tokens, cairn::SamplingParams().min_tokens, "shortest answer in tokens");
ABSL_FLAG(float, temperature, cairn::SamplingParams().temperature, "0 is greedy");
ABSL_FLAG(float, top_p, cairn::SamplingParams().top_p, "smallest set of tokens with this probability");
ABSL_FLAG(int32_t, top_k, cairn::SamplingParams().top_k, "most likely tokens; -1 is all");
ABSL_FLAG(float, min_p, cairn::SamplingParams().min_p, "least probability relative to the likeliest token");
ABSL_FLAG(float, repetition_penalty, cairn::SamplingParams().repetition_penalty, "above 1 discourages repetition");
ABSL_FLAG(float, presence_penalty, cairn::SamplingParams().presence_penalty, "per token that occurred, -2 to 2");
ABSL_FLAG(float, frequency_penalty, cairn::SamplingParams().frequency_penalty, "per occurrence of a token, -2 to 2");
ABSL_FLAG(std::string, stop, "", "text that ends the answer");
ABSL_FLAG(bool, ignore_eos, cairn::SamplingParams().ignore_eos, "go on after the end-of-text token");

ABSL_FLAG(std::string, output_json, "", "file for the summary (inspect: for what was kept) as JSON");
ABSL_FLAG(std::string, output_html, "", "file for a page that shows what was kept, to open in a browser");
ABSL_FLAG(bool, quiet, false, "no progress, tables or summary, only errors");

namespace cairn {

const FlagGroup kModelFlags{"Model",
                            {{"model", "DIR"},
                             {"tokenizer", "DIR"},
                             {"dtype", "TYPE"},
                             {"quantization", "NAME"},
                             {"kv_cache_dtype", "TYPE"},
                             {"load_format", "FORMAT"},
                             {"device", "DEVICE"},
                             {"seed", "N"}}};
const FlagGroup kParallelFlags{"Ranks",
                               {{"tensor_parallel_size", "N", "tp"},
                                {"pipeline_parallel_size", "N", "pp"},
                                {"data_parallel_size", "N", "dp"},
                                {"pp_layer_partition", "LIST"},
                                {"comm", "PLANE"},
                                {"threads", "N"},
                                {"distributed_timeout_seconds", "S"}}};
const FlagGroup kMemoryFlags{"Scheduling and memory",
                             {{"max_model_len", "N"},
                              {"max_num_seqs", "N"},
                              {"max_num_batched_tokens", "N"},
                              {"gpu_memory_utilization", "X"},
                              {"kv_cache_memory_bytes", "BYTES"},
                              {"block_size", "N"},
                              {"enforce_eager"}}};
const FlagGroup kCompressionFlags{"KV compression",
                                  {{"kv_compression", "METHOD"},
                                   {"kv_budget", "N"},
                                   {"kv_buffer", "N"},
                                   {"kv_window", "N"},
                                   {"kv_recent_ratio", "X"},
                                   {"kv_schedule", "NAME"},
                                   {"kv_beta", "X"},
                                   {"kv_layer_weights", "LIST"},
                                   {"kv_head_weights", "LIST"},
                                   {"kv_scope", "NAME"},
                                   {"kv_lambda", "X"},
                                   {"kv_threshold", "X"},
                                   {"kv_kernel", "N"},
                                   {"kv_pooling", "NAME"},
                                   {"kv_group_reduce", "NAME"},
                                   {"kv_variant", "NAME"},
                                   {"kv_sinks", "N"},
                                   {"kv_gamma", "X"},
                                   {"kv_gkv_redundancy"},
                                   {"kv_prefill"},
                                   {"kv_decode"},
                                   {"kv_bounded_prefill"}}};
const FlagGroup kPlanFlags{"Machine", {{"rank_memory_bytes", "BYTES"}}};
const FlagGroup kBatchFlags{"Batch",
                            {{"input_file", "FILE", "i"},
                             {"output_file", "FILE", "o"},
                             {"errors_file", "FILE"},
                             {"overwrite"},
                             {"reasoning_parser", "NAME"}}};
const FlagGroup kPromptFlags{"Prompt", {{"prompt", "TEXT"}, {"chat", "TEXT"}, {"system", "TEXT"}, {"enable_thinking"}}};
const FlagGroup kSamplingFlags{"Sampling",
                               {{"max_tokens", "N"},
                                {"min_tokens", "N"},
                                {"temperature", "X"},
                                {"top_p", "X"},
                                {"top_k", "N"},
                                {"min_p", "X"},
                                {"repetition_penalty", "X"},
                                {"presence_penalty", "X"},
                                {"frequency_penalty", "X"},
                                {"stop", "TEXT"},
                                {"ignore_eos"}}};
const FlagGroup kReportFlags{"Report", {{"output_json", "FILE"}, {"quiet"}}};
const FlagGroup kInspectFlags{"Report", {{"output_html", "FILE"}, {"output_json", "FILE"}, {"quiet"}}};
const FlagGroup kQuietFlags{"Report", {{"quiet"}}};
const FlagGroup kConfigFlags{"Settings from a file", {{"config", "FILE"}}};

namespace {

absl::StatusOr<std::vector<double>> WeightsFromFlag(const char* flag, const std::string& text) {
  std::vector<double> weights;
  if (text.empty()) return weights;
  for (const absl::string_view item : absl::StrSplit(text, ',')) {
    if (!absl::SimpleAtod(item, &weights.emplace_back())) {
      return UsageError(absl::StrCat(flag, "=", text, ": '", item, "': expected a number"));
    }
  }
  return weights;
}

absl::StatusOr<CompressionConfig> CompressionFromFlags() {
  CompressionConfig config;
  config.algorithm = absl::GetFlag(FLAGS_kv_compression);
  config.schedule = absl::GetFlag(FLAGS_kv_schedule);
  config.scope = absl::GetFlag(FLAGS_kv_scope);
  config.budget = absl::GetFlag(FLAGS_kv_budget);
  config.buffer = absl::GetFlag(FLAGS_kv_buffer);
  config.window = absl::GetFlag(FLAGS_kv_window);
  config.recent_ratio = absl::GetFlag(FLAGS_kv_recent_ratio);
  config.beta = absl::GetFlag(FLAGS_kv_beta);
  CAIRN_ASSIGN_OR_RETURN(config.layer_weights,
                         WeightsFromFlag("--kv-layer-weights", absl::GetFlag(FLAGS_kv_layer_weights)));
  CAIRN_ASSIGN_OR_RETURN(config.head_weights,
                         WeightsFromFlag("--kv-head-weights", absl::GetFlag(FLAGS_kv_head_weights)));
  config.mix_lambda = absl::GetFlag(FLAGS_kv_lambda);
  config.similarity_threshold = absl::GetFlag(FLAGS_kv_threshold);
  config.kernel_size = absl::GetFlag(FLAGS_kv_kernel);
  config.pooling = absl::GetFlag(FLAGS_kv_pooling);
  config.group_reduce = absl::GetFlag(FLAGS_kv_group_reduce);
  config.variant = absl::GetFlag(FLAGS_kv_variant);
  config.num_sinks = absl::GetFlag(FLAGS_kv_sinks);
  config.gamma = absl::GetFlag(FLAGS_kv_gamma);
  config.gkv_redundancy = absl::GetFlag(FLAGS_kv_gkv_redundancy);
  config.prefill = absl::GetFlag(FLAGS_kv_prefill);
  config.decode = absl::GetFlag(FLAGS_kv_decode);
  config.bounded_prefill = absl::GetFlag(FLAGS_kv_bounded_prefill);
  return config;
}

}  // namespace

absl::StatusOr<EngineOptions> UncheckedEngineOptionsFromFlags() {
  EngineOptions options;
  options.model = absl::GetFlag(FLAGS_model);
  options.tokenizer = absl::GetFlag(FLAGS_tokenizer);
  options.dtype = absl::GetFlag(FLAGS_dtype);
  options.quantization = absl::GetFlag(FLAGS_quantization);
  options.kv_cache_dtype = absl::GetFlag(FLAGS_kv_cache_dtype);
  const std::string format = absl::GetFlag(FLAGS_load_format);
  if (format == "auto") {
    options.load_format = LoadFormat::kAuto;
  } else if (format == "safetensors") {
    options.load_format = LoadFormat::kSafetensors;
  } else if (format == "dummy") {
    options.load_format = LoadFormat::kDummy;
  } else {
    return UsageError(absl::StrCat("--load-format=", format, ": allowed is auto, safetensors or dummy"));
  }
  options.device = absl::GetFlag(FLAGS_device);
  options.parallel = {.tp = absl::GetFlag(FLAGS_tensor_parallel_size),
                      .pp = absl::GetFlag(FLAGS_pipeline_parallel_size),
                      .dp = absl::GetFlag(FLAGS_data_parallel_size)};
  options.comm = absl::GetFlag(FLAGS_comm);
  options.pp_layer_partition = absl::GetFlag(FLAGS_pp_layer_partition);
  options.max_model_len = absl::GetFlag(FLAGS_max_model_len);
  options.max_num_seqs = absl::GetFlag(FLAGS_max_num_seqs);
  options.max_num_batched_tokens = absl::GetFlag(FLAGS_max_num_batched_tokens);
  options.gpu_memory_utilization = absl::GetFlag(FLAGS_gpu_memory_utilization);
  options.kv_cache_memory_bytes = absl::GetFlag(FLAGS_kv_cache_memory_bytes).bytes;
  options.block_size = absl::GetFlag(FLAGS_block_size);
  options.enforce_eager = absl::GetFlag(FLAGS_enforce_eager);
  CAIRN_ASSIGN_OR_RETURN(options.compression, CompressionFromFlags());
  options.seed = absl::GetFlag(FLAGS_seed);
  options.threads = absl::GetFlag(FLAGS_threads);
  options.distributed_timeout_seconds = absl::GetFlag(FLAGS_distributed_timeout_seconds);
  return options;
}

absl::StatusOr<EngineOptions> EngineOptionsFromFlags() {
  absl::StatusOr<EngineOptions> options = UncheckedEngineOptionsFromFlags();
  if (!options.ok()) return options;
  if (absl::Status valid = options->Validate(); !valid.ok()) return WithExitCode(valid, kExitUsage);
  return options;
}

absl::StatusOr<SamplingParams> SamplingParamsFromFlags() {
  SamplingParams sampling;
  if (const int32_t max_tokens = absl::GetFlag(FLAGS_max_tokens); max_tokens != 0) sampling.max_tokens = max_tokens;
  sampling.min_tokens = absl::GetFlag(FLAGS_min_tokens);
  sampling.temperature = absl::GetFlag(FLAGS_temperature);
  sampling.top_p = absl::GetFlag(FLAGS_top_p);
  sampling.top_k = absl::GetFlag(FLAGS_top_k);
  sampling.min_p = absl::GetFlag(FLAGS_min_p);
  sampling.repetition_penalty = absl::GetFlag(FLAGS_repetition_penalty);
  sampling.presence_penalty = absl::GetFlag(FLAGS_presence_penalty);
  sampling.frequency_penalty = absl::GetFlag(FLAGS_frequency_penalty);
  if (std::string stop = absl::GetFlag(FLAGS_stop); !stop.empty()) sampling.stop.push_back(std::move(stop));
  sampling.ignore_eos = absl::GetFlag(FLAGS_ignore_eos);
  if (absl::Status valid = sampling.Validate(); !valid.ok()) return WithExitCode(valid, kExitUsage);
  return sampling;
}

}  // namespace cairn
