// Prefill and decode rates of the engine on one rank, in the shape that llama.cpp's llama-bench and llama-batched-bench
// use:
//
//   engine_bench --model DIR [--prompt-tokens 512] [--decode-tokens 64] [--context 128] [--batch 1,8,32] [--threads 2]
//                [--dtype auto] [--repeat 3] [--quantization none] [--kv-cache-dtype auto]
//
// Prefill: one prompt of --prompt-tokens alone. Decode: --batch sequences with --context tokens in the cache each take
// --decode-tokens steps together. Prints the best of --repeat as `prefill TOKENS RATE` and `decode BATCH RATE`
// (tokens/s).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "engine/engine.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

using Clock = std::chrono::steady_clock;

struct Settings {
  std::map<std::string, std::string> values = {
      {"model", ""},           {"prompt-tokens", "512"}, {"decode-tokens", "64"},   {"context", "128"},
      {"batch", "1,8,32"},     {"threads", "0"},         {"dtype", "auto"},         {"repeat", "3"},
      {"load-format", "auto"}, {"quantization", "none"}, {"kv-cache-dtype", "auto"}};
  int Int(const char* name) const { return std::atoi(values.at(name).c_str()); }
};

Request RandomRequest(std::mt19937& rng, int64_t vocab, int prompt, int answer, int number) {
  Request request;
  request.id = std::to_string(number);
  for (int i = 0; i < prompt; ++i) request.prompt_ids.push_back(static_cast<int32_t>(rng() % vocab));
  request.sampling.temperature = 0;
  request.sampling.max_tokens = answer;
  request.sampling.ignore_eos = true;
  return request;
}

// Steps until every sequence has its first token; then counts what the rest takes. {prefill seconds, decode seconds}.
absl::StatusOr<std::pair<double, double>> Time(Engine& engine, std::mt19937& rng, int batch, int prompt, int answer) {
  for (int i = 0; i < batch; ++i) {
    CAIRN_RETURN_IF_ERROR(engine.Add(RandomRequest(rng, engine.model_config().vocab_size, prompt, answer, i)));
  }
  const auto start = Clock::now();
  auto first = start;
  std::map<std::string, bool> begun;
  while (engine.HasWork()) {
    CAIRN_ASSIGN_OR_RETURN(const std::vector<RequestOutput> outputs, engine.Step());
    if (static_cast<int>(begun.size()) == batch) continue;
    for (const RequestOutput& output : outputs) begun[output.id] = true;
    if (static_cast<int>(begun.size()) == batch) first = Clock::now();
  }
  const auto seconds = [](auto a, auto b) { return std::chrono::duration<double>(b - a).count(); };
  return std::pair(seconds(start, first), seconds(first, Clock::now()));
}

absl::Status Run(const Settings& settings) {
  EngineOptions options;
  options.model = settings.values.at("model");
  options.dtype = settings.values.at("dtype");
  options.quantization = settings.values.at("quantization");
  options.kv_cache_dtype = settings.values.at("kv-cache-dtype");
  options.threads = settings.Int("threads");
  options.load_format = settings.values.at("load-format") == "dummy" ? LoadFormat::kDummy : LoadFormat::kAuto;
  options.max_num_batched_tokens = 512;
  options.max_model_len =
      std::max(settings.Int("prompt-tokens") + 1, settings.Int("context") + settings.Int("decode-tokens") + 1);
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, Engine::CreateLocal(options));
  std::mt19937 rng(1);
  const int prompt = settings.Int("prompt-tokens"), steps = settings.Int("decode-tokens");
  CAIRN_RETURN_IF_ERROR(Time(*engine, rng, 1, prompt, 1).status());  // warm-up
  double best = 1e300;
  for (int i = 0; i < settings.Int("repeat"); ++i) {
    CAIRN_ASSIGN_OR_RETURN(const auto time, Time(*engine, rng, 1, prompt, 1));
    best = std::min(best, time.first);
  }
  std::printf("prefill %d %.1f\n", prompt, prompt / best);
  const std::vector<std::string> batches = absl::StrSplit(settings.values.at("batch"), ',');
  for (const std::string& text : batches) {
    const int batch = std::atoi(text.c_str());
    best = 1e300;
    for (int i = 0; i < settings.Int("repeat"); ++i) {
      CAIRN_ASSIGN_OR_RETURN(const auto time, Time(*engine, rng, batch, settings.Int("context"), steps + 1));
      best = std::min(best, time.second);
    }
    std::printf("decode %d %.1f\n", batch, batch * steps / best);
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace cairn

int main(int argc, char** argv) {
  cairn::Settings settings;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i] + (std::string(argv[i]).rfind("--", 0) == 0 ? 2 : 0);
    if (settings.values.count(name) == 0) {
      std::fprintf(stderr, "engine_bench: unknown flag %s\n", argv[i]);
      return 64;
    }
    settings.values[name] = argv[i + 1];
  }
  const absl::Status status = cairn::Run(settings);
  if (!status.ok()) std::fprintf(stderr, "engine_bench: %s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}
