// Runs whole engines over ranks as threads, for tests: requests in, finished answers by request id.
#ifndef CAIRN_TESTS_ENGINE_ENGINE_HARNESS_H_
#define CAIRN_TESTS_ENGINE_ENGINE_HARNESS_H_

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "kernels/core/status_macros.h"
#include "nlohmann/json.hpp"
#include "parallel/comm/thread_channel.h"
#include "tests/engine/config/temp_model.h"

namespace cairn {

inline nlohmann::json ReadJson(const std::string& path) {
  std::ifstream in(path);
  return nlohmann::json::parse(in);
}

// ../shared, or none: then the caller skips.
inline std::optional<std::string> SharedDir() {
  const char* set = std::getenv("CAIRN_SHARED_DIR");
  const std::string dir = set != nullptr ? set : std::string(CAIRN_SOURCE_DIR) + "/../shared";
  return std::filesystem::exists(dir + "/golden") ? std::optional(dir) : std::nullopt;
}

// Where tools/get_model.py put the real models, or none: then the caller skips.
inline std::optional<std::string> RealModelsDir() {
  const char* set = std::getenv("CAIRN_REAL_MODELS_DIR");
  return set != nullptr ? std::optional<std::string>(set) : std::nullopt;
}

inline EngineOptions TestOptions(const std::string& model, ParallelSizes parallel = {}) {
  EngineOptions options;
  options.model = model;
  options.dtype = "float32";
  options.device = "cpu";
  options.parallel = parallel;
  options.kv_cache_memory_bytes = 64 << 20;
  options.threads = 1;
  return options;
}

inline Request GreedyRequest(const std::string& id, std::vector<int32_t> prompt, int32_t max_tokens) {
  Request request;
  request.id = id;
  request.prompt_ids = std::move(prompt);
  request.sampling.temperature = 0;
  request.sampling.max_tokens = max_tokens;
  request.sampling.ignore_eos = true;
  return request;
}

struct HarnessResult {
  std::map<std::string, RequestOutput> outputs;
  EngineStats stats;                // of replica 0
  std::vector<Eviction> evictions;  // of all replicas, where they are recorded
};

// Adds all requests at once (dealt round robin over the replicas) and steps until they are done.
inline absl::StatusOr<HarnessResult> RunEngine(const EngineOptions& options, const std::vector<Request>& requests) {
  HarnessResult result;
  std::mutex mutex;
  const auto body = [&](ControlChannel& world) -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(ProcessGroups groups, MakeProcessGroups(&world, options.parallel));
    const int replica = groups.at.dp;
    CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, Engine::Create(options, std::move(groups)));
    if (!engine->is_leader()) return engine->Serve();
    for (size_t i = replica; i < requests.size(); i += options.parallel.dp) {
      CAIRN_RETURN_IF_ERROR(engine->Add(requests[i]));
    }
    while (engine->HasWork()) {
      CAIRN_ASSIGN_OR_RETURN(std::vector<RequestOutput> outputs, engine->Step());
      for (RequestOutput& output : outputs) {
        if (!output.finished) continue;
        const std::lock_guard lock(mutex);
        result.outputs[output.id] = std::move(output);
      }
      const std::lock_guard lock(mutex);
      for (Eviction& eviction : engine->TakeEvictions()) result.evictions.push_back(std::move(eviction));
    }
    if (replica == 0) result.stats = engine->stats();
    return engine->Shutdown();
  };
  for (const absl::Status& status : RunThreadRanks(options.parallel.world(), body)) CAIRN_RETURN_IF_ERROR(status);
  return result;
}

// The same where nothing may fail.
inline HarnessResult Answer(const EngineOptions& options, const std::vector<Request>& requests) {
  absl::StatusOr<HarnessResult> result = RunEngine(options, requests);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *std::move(result) : HarnessResult();
}

}  // namespace cairn

#endif  // CAIRN_TESTS_ENGINE_ENGINE_HARNESS_H_
