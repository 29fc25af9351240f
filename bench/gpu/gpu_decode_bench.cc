// Decode rates of a whole engine at chosen batches and lengths, one JSON object a line:
//
//   gpu_decode_bench --model llama-3.1-8b --load-format dummy --cases 1:8192,64:8192,max@16384:8192
//                    [--device cuda] [--dtype bfloat16] [--steps 32] [--max-model-len 32768] [--max-num-seqs 64]
//                    [--max-num-batched-tokens 8192] [--gpu-memory-utilization 0.9] [--kv-cache-memory-bytes 0]
//                    [--kv-compression none] [--kv-budget 1024] [--kv-buffer 128] [--kv-window 8] [--spread 0]
//
// A case is BATCH:CONTEXT: BATCH sequences that hold CONTEXT tokens each when --steps steps of them all are timed.
// `max` is as many as the cache holds compressed, `max@N` as many of N tokens as it holds uncompressed. With the
// full cache the time of a step is linear in the length, so an answer of N tokens takes N times the step at N / 2: a
// case at that length stands for the whole answer, and needs no hours. --spread N: the sequences' prompts are up to N
// tokens shorter, evenly spread, so that with N the buffer some are compressed in every step, as in the midst of a run.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "engine/engine.h"
#include "kernels/core/status_macros.h"
#include "nlohmann/json.hpp"

namespace cairn {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr int kWarmUpSteps = 4;

double SecondsSince(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

struct Settings {
  std::map<std::string, std::string> values = {{"model", ""},
                                               {"load-format", "auto"},
                                               {"device", "cuda"},
                                               {"dtype", "bfloat16"},
                                               {"cases", ""},
                                               {"steps", "32"},
                                               {"max-model-len", "0"},
                                               {"max-num-seqs", "64"},
                                               {"max-num-batched-tokens", "8192"},
                                               {"gpu-memory-utilization", "0.9"},
                                               {"kv-cache-memory-bytes", "0"},
                                               {"kv-compression", "none"},
                                               {"kv-budget", "1024"},
                                               {"kv-buffer", "128"},
                                               {"kv-window", "8"},
                                               {"spread", "0"}};
  const std::string& Text(const char* name) const { return values.at(name); }
  int64_t Int(const char* name) const { return std::atoll(values.at(name).c_str()); }
};

EngineOptions OptionsOf(const Settings& settings) {
  EngineOptions options;
  options.model = settings.Text("model");
  options.load_format = settings.Text("load-format") == "dummy" ? LoadFormat::kDummy : LoadFormat::kAuto;
  options.device = settings.Text("device");
  options.dtype = settings.Text("dtype");
  options.max_model_len = settings.Int("max-model-len");
  options.max_num_seqs = static_cast<int32_t>(settings.Int("max-num-seqs"));
  options.max_num_batched_tokens = static_cast<int32_t>(settings.Int("max-num-batched-tokens"));
  options.gpu_memory_utilization = std::atof(settings.Text("gpu-memory-utilization").c_str());
  options.kv_cache_memory_bytes = settings.Int("kv-cache-memory-bytes");
  options.compression.algorithm = settings.Text("kv-compression");
  options.compression.budget = static_cast<int32_t>(settings.Int("kv-budget"));
  options.compression.buffer = static_cast<int32_t>(settings.Int("kv-buffer"));
  options.compression.window = static_cast<int32_t>(settings.Int("kv-window"));
  return options;
}

void Print(Json line) {
#if CAIRN_BENCH_EMULATED
  line["emulated"] = true;
#endif
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

// Keys and values of one token over all layers.
int64_t KvBytesPerToken(const ModelConfig& config, const std::string& dtype) {
  return 2 * config.num_layers * config.num_kv_heads * config.head_dim * (dtype == "float32" ? 4 : 2);
}

// A step looks up a few rows of the embedding and reads every other weight.
int64_t EmbeddingWeights(const ModelConfig& config) {
  return config.tie_word_embeddings ? 0 : config.vocab_size * config.hidden_size;
}
int64_t WeightsRead(const ModelConfig& config) { return NumParameters(config) - EmbeddingWeights(config); }
int64_t EmbeddingBytes(const ModelConfig& config, const std::string& dtype) {
  return EmbeddingWeights(config) * (dtype == "float32" ? 4 : 2);
}

struct Case {
  std::string text;
  int64_t batch = 0, context = 0;
};

absl::StatusOr<Case> ParseCase(const std::string& text, const Engine& engine) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  Case c = {.text = text};
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[1], &c.context) || c.context < 1) {
    return absl::InvalidArgumentError(absl::StrCat("--cases: ", text, " is not BATCH:CONTEXT"));
  }
  absl::string_view batch = parts[0];
  int64_t answer = 0;
  if (batch == "max") {
    c.batch = static_cast<int64_t>(engine.kv_capacity().compressed_concurrency);
  } else if (absl::ConsumePrefix(&batch, "max@") && absl::SimpleAtoi(batch, &answer) && answer > 0) {
    c.batch = engine.kv_capacity().tokens / answer;
  } else if (!absl::SimpleAtoi(parts[0], &c.batch)) {
    return absl::InvalidArgumentError(absl::StrCat("--cases: ", text, ": the batch is a number, max or max@N"));
  }
  c.batch = std::min<int64_t>(c.batch, engine.options().max_num_seqs);
  if (c.batch < 1) return absl::InvalidArgumentError(absl::StrCat("--cases: ", text, ": not one sequence fits"));
  return c;
}

// Gives up what has been added and steps until it is forgotten.
absl::Status Drain(Engine& engine, int64_t batch) {
  for (int64_t i = 0; i < batch; ++i) engine.Cancel(absl::StrCat(i)).IgnoreError();  // some may be done
  while (engine.HasWork()) CAIRN_RETURN_IF_ERROR(engine.Step().status());
  return absl::OkStatus();
}

struct Timed {
  bool fits = true;
  double prefill_seconds = 0;
  int64_t prefill_steps = 0, tokens = 0;
  std::vector<double> step_seconds;
  EngineStats before, after;
};

absl::StatusOr<Timed> Time(Engine& engine, const Case& c, int64_t steps, int64_t spread) {
  std::mt19937 random(1);
  // Those that are read first decode while the others are read.
  const int64_t chunk = std::max<int64_t>(1, engine.options().max_num_batched_tokens - c.batch);
  const int64_t warm_up = kWarmUpSteps + spread;  // until the shortest is as long as the others were
  const int64_t answer = steps + warm_up + 8 + c.batch * c.context / chunk + 2 * c.batch * 64 / chunk;
  for (int64_t i = 0; i < c.batch; ++i) {
    Request request;
    request.id = absl::StrCat(i);
    for (int64_t t = 0; t < std::max<int64_t>(1, c.context - spread * i / c.batch); ++t) {
      request.prompt_ids.push_back(static_cast<int32_t>(random() % engine.model_config().vocab_size));
    }
    request.sampling.temperature = 0;
    request.sampling.max_tokens = static_cast<int32_t>(answer);
    request.sampling.ignore_eos = true;
    CAIRN_RETURN_IF_ERROR(engine.Add(std::move(request)));
  }
  Timed timed;
  std::set<std::string> begun;
  bool one_is_done = false;
  const Clock::time_point begin = Clock::now();
  while (static_cast<int64_t>(begun.size()) < c.batch && !one_is_done) {
    CAIRN_ASSIGN_OR_RETURN(const std::vector<RequestOutput> outputs, engine.Step());
    ++timed.prefill_steps;
    for (const RequestOutput& output : outputs) {
      begun.insert(output.id);
      one_is_done = one_is_done || output.finished;
    }
  }
  timed.prefill_seconds = SecondsSince(begin);
  for (int64_t i = 0; i < warm_up; ++i) CAIRN_RETURN_IF_ERROR(engine.Step().status());
  timed.before = engine.stats();
  for (int64_t i = 0; i < steps && timed.fits; ++i) {
    timed.fits = !one_is_done && engine.num_running() == c.batch;
    const Clock::time_point start = Clock::now();
    CAIRN_ASSIGN_OR_RETURN(const std::vector<RequestOutput> outputs, engine.Step());
    timed.step_seconds.push_back(SecondsSince(start));
    for (const RequestOutput& output : outputs) {
      for (const Completion& completion : output.completions) {
        timed.tokens += static_cast<int64_t>(completion.token_ids.size());
      }
    }
  }
  timed.after = engine.stats();
  timed.fits = timed.fits && timed.after.preemptions == timed.before.preemptions;
  CAIRN_RETURN_IF_ERROR(Drain(engine, c.batch));
  return timed;
}

absl::Status Run(const Settings& settings) {
  const Clock::time_point begin = Clock::now();
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, Engine::CreateLocal(OptionsOf(settings)));
  const EngineOptions& options = engine->options();
  const RankInfo& rank = engine->ranks().front();
  const bool compressed = options.compression.enabled();
  Print({{"figure", "engine"},
         {"model", options.model},
         {"dtype", settings.Text("dtype")},
         {"device", rank.device},
         {"load_seconds", SecondsSince(begin)},
         {"weight_bytes", rank.weight_bytes},
         {"weights_read", WeightsRead(engine->model_config())},
         {"weight_bytes_read", rank.weight_bytes - EmbeddingBytes(engine->model_config(), settings.Text("dtype"))},
         {"kv_bytes_per_token", KvBytesPerToken(engine->model_config(), settings.Text("dtype"))},
         {"num_layers", engine->model_config().num_layers},
         {"kv_cache_bytes", rank.kv_blocks * rank.kv_block_bytes},
         {"capacity_tokens", engine->kv_capacity().tokens},
         {"budget", compressed ? options.compression.budget : 0},
         {"buffer", compressed ? options.compression.buffer : 0},
         {"compressed_concurrency", engine->kv_capacity().compressed_concurrency}});
  const std::vector<std::string> cases = absl::StrSplit(settings.Text("cases"), ',', absl::SkipEmpty());
  const int64_t steps = settings.Int("steps");
  for (const std::string& text : cases) {
    CAIRN_ASSIGN_OR_RETURN(const Case c, ParseCase(text, *engine));
    CAIRN_ASSIGN_OR_RETURN(Timed timed, Time(*engine, c, steps, settings.Int("spread")));
    Json line = {{"figure", "decode"},
                 {"case", c.text},
                 {"compression", options.compression.algorithm},
                 {"batch", c.batch},
                 {"context", c.context},
                 {"spread", settings.Int("spread")},
                 {"fits", timed.fits},
                 {"prefill_seconds", timed.prefill_seconds},
                 {"prefill_tokens_per_second", static_cast<double>(c.batch * c.context) / timed.prefill_seconds}};
    if (timed.fits && steps > 0) {
      double total = 0;
      for (const double seconds : timed.step_seconds) total += seconds;
      std::sort(timed.step_seconds.begin(), timed.step_seconds.end());
      const double busy = timed.after.busy_seconds - timed.before.busy_seconds;
      const int64_t drift = timed.prefill_steps / 2 + kWarmUpSteps + steps / 2;
      const int64_t grown = c.context + drift + settings.Int("spread") / 2;
      line["slots"] = compressed ? options.compression.budget + options.compression.buffer / 2 : grown;
      line["steps"] = steps;
      line["ms_per_step"] = 1e3 * total / static_cast<double>(steps);
      line["ms_per_step_p50"] = 1e3 * timed.step_seconds[timed.step_seconds.size() / 2];
      line["ms_per_step_p99"] = 1e3 * timed.step_seconds[timed.step_seconds.size() * 99 / 100];
      line["tokens_per_second"] = static_cast<double>(timed.tokens) / total;
      // On a GPU what the host spends on it; the kernels run on.
      line["host_compression_share"] =
          busy > 0 ? (timed.after.compression_seconds - timed.before.compression_seconds) / busy : 0;
    }
    Print(line);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace cairn

int main(int argc, char** argv) {
  cairn::Settings settings;
  for (int i = 1; i < argc; i += 2) {
    absl::string_view name = argv[i];
    const auto value =
        absl::ConsumePrefix(&name, "--") ? settings.values.find(std::string(name)) : settings.values.end();
    if (value == settings.values.end() || i + 1 == argc) {
      std::fprintf(stderr, "gpu_decode_bench: %s: an unknown flag, or one without a value\n", argv[i]);
      return 64;
    }
    value->second = argv[i + 1];
  }
  const absl::Status status = cairn::Run(settings);
  if (!status.ok()) std::fprintf(stderr, "gpu_decode_bench: %s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}
