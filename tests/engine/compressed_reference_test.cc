// Greedy generation under compression against the reference (golden/compression/generate_*.json): tokens, when events
// come, how long every layer is, which slots every head keeps, and which positions are left at the end; over ways of
// sharding, chunk sizes, block sizes and neighbours.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "kernels/core/fnv1a.h"
#include "tests/engine/engine_harness.h"

namespace cairn {
namespace {

using Json = nlohmann::json;
// (layer, head) -> kept slots and positions.
using KeptSets = std::map<std::pair<int, int>, Eviction>;

uint64_t FingerprintOf(const std::vector<int32_t>& slots) {
  uint64_t hash = kFnv1aSeed;
  for (const int32_t slot : slots) hash = Fnv1a(hash, static_cast<uint32_t>(slot));
  return hash;
}

struct Golden {
  Json json;
  std::string model;
};

// One of the two is in the repository, with its model.
std::optional<Golden> LoadGolden(const std::string& name) {
  const std::string data = std::string(CAIRN_SOURCE_DIR) + "/tests/data";
  if (name == "generate_stories260k") {
    return Golden{ReadJson(data + "/compression/" + name + ".json"), data + "/stories260k"};
  }
  const std::optional<std::string> shared = SharedDir();
  if (!shared) return std::nullopt;
  return Golden{ReadJson(*shared + "/golden/compression/" + name + ".json"), *shared + "/models/stories3m"};
}

CompressionConfig ConfigOf(const Json& run, const Json& params) {
  CompressionConfig config;
  config.algorithm = run["policy"];
  if (config.algorithm == "gkv_redundancy") {
    config.algorithm = "gkv";
    config.gkv_redundancy = true;
  }
  config.budget = run["budget"];
  config.buffer = run["buffer"];
  config.window = run["window"];
  config.scope = run["scope"];
  config.schedule = run["schedule"];
  config.prefill = run["compress_prompt"];
  config.decode = run["compress_decode"];
  config.mix_lambda = params["lambda"];
  config.similarity_threshold = params["threshold"];
  config.kernel_size = params["kernel"];
  config.beta = params["beta"];
  config.num_sinks = params["sinks"];
  config.gamma = params["gamma"];
  return config;
}

// By logical length, the sets of an event.
std::map<int64_t, KeptSets> EventsOf(const HarnessResult& result, const std::string& id) {
  std::map<int64_t, KeptSets> events;
  for (const Eviction& eviction : result.evictions) {
    if (eviction.request_id != id) continue;
    const bool is_new =
        events[eviction.logical_length].emplace(std::pair(eviction.layer, eviction.kv_head), eviction).second;
    EXPECT_TRUE(is_new) << "layer " << eviction.layer << " head " << eviction.kv_head << " twice";
  }
  return events;
}

std::vector<int32_t> Ascending(int32_t n) {
  std::vector<int32_t> all(n);
  for (int32_t i = 0; i < n; ++i) all[i] = i;
  return all;
}

// Tokens, and the fingerprint of every (layer, head) of every event.
void ExpectRun(const Json& run, const HarnessResult& result, const std::string& id, const std::string& label) {
  EXPECT_EQ(result.outputs.at(id).completions[0].token_ids, run["tokens"].get<std::vector<int32_t>>()) << label;
  const std::map<int64_t, KeptSets> events = EventsOf(result, id);
  ASSERT_EQ(events.size(), run["events"].size()) << label;
  auto event = events.begin();
  for (const Json& expected : run["events"]) {
    EXPECT_EQ(event->first, expected["logical_len"].get<int64_t>()) << label;
    uint64_t plan = kFnv1aSeed;
    const Json& fingerprints = expected["fingerprints"];  // [layer][head]
    for (size_t layer = 0; layer < fingerprints.size(); ++layer) {
      const int32_t after = expected["after"][layer];
      for (size_t head = 0; head < fingerprints[layer].size(); ++head) {
        // A layer that is within its budget keeps all.
        const auto found = event->second.find({static_cast<int>(layer), static_cast<int>(head)});
        const std::vector<int32_t> kept = found != event->second.end() ? found->second.slots : Ascending(after);
        EXPECT_EQ(static_cast<int32_t>(kept.size()), after) << label << " layer " << layer;
        const uint64_t fingerprint = FingerprintOf(kept);
        EXPECT_EQ(absl::StrCat(absl::Hex(fingerprint, absl::kZeroPad16)), fingerprints[layer][head].get<std::string>())
            << label << " at " << event->first << " layer " << layer << " head " << head;
        plan = Fnv1a(plan, fingerprint);
      }
    }
    EXPECT_EQ(absl::StrCat(absl::Hex(plan, absl::kZeroPad16)), expected["plan_fingerprint"].get<std::string>());
    ++event;
  }
}

// What a head holds when the last token has been fed: what its last event kept, and all that followed.
std::vector<int32_t> FinalPositions(const HarnessResult& result, const std::string& id, int layer, int head,
                                    int64_t fed) {
  std::vector<int32_t> positions;
  int64_t from = 0;
  for (const Eviction& eviction : result.evictions) {
    if (eviction.request_id != id || eviction.layer != layer || eviction.kv_head != head) continue;
    positions = eviction.positions;
    from = eviction.logical_length;
  }
  for (; from < fed; ++from) positions.push_back(static_cast<int32_t>(from));
  return positions;
}

void ExpectFinalPositions(const Json& run, const HarnessResult& result, const std::string& id, int64_t fed) {
  const int last_layer = static_cast<int>(run["final_lengths"].size()) - 1;
  for (const auto& [layer, key] :
       {std::pair(0, "final_positions_first_layer"), std::pair(last_layer, "final_positions_last_layer")}) {
    const Json& heads = run[key];
    for (size_t head = 0; head < heads.size(); ++head) {
      EXPECT_EQ(FinalPositions(result, id, layer, static_cast<int>(head), fed), heads[head].get<std::vector<int32_t>>())
          << key << " head " << head;
    }
  }
}

class CompressedReference : public testing::TestWithParam<std::string> {};

TEST_P(CompressedReference, TokensEventsAndKeptSets) {
  const std::optional<Golden> golden = LoadGolden(GetParam());
  if (!golden) GTEST_SKIP() << "no ../shared (or CAIRN_SHARED_DIR): generation under compression is not checked";
  struct Shape {
    ParallelSizes sizes;
    int32_t chunk, block;
    int neighbours;
  };
  const Shape shapes[] = {{{1, 1, 1}, 512, 16, 0}, {{1, 1, 1}, 5, 3, 6},  {{2, 1, 1}, 512, 16, 0},
                          {{1, 2, 1}, 512, 16, 3}, {{2, 2, 1}, 16, 8, 2}, {{4, 1, 1}, 512, 16, 0}};
  const Json& prompts = golden->json["inputs"]["prompt_ids"];
  for (const Json& run : golden->json["expected"]["runs"]) {
    for (const Shape& shape : shapes) {
      if (shape.sizes.tp == 4 && GetParam() == "generate_stories3m") continue;  // its groups of 3 do not split
      EngineOptions options = TestOptions(golden->model, shape.sizes);
      options.compression = ConfigOf(run, golden->json["params"]);
      options.max_num_batched_tokens = std::max(shape.chunk, 8);
      options.max_num_seqs = 8;
      options.block_size = shape.block;
      options.record_evictions = true;
      const auto prompt = prompts[run["prompt"].get<int>()].get<std::vector<int32_t>>();
      std::vector<Request> requests = {GreedyRequest("run", prompt, run["count"].get<int32_t>())};
      for (int i = 0; i < shape.neighbours; ++i) {
        Request neighbour = GreedyRequest(absl::StrCat("n", i), {1 + i, 5, 40 + i}, 60 + 13 * i);
        neighbour.sampling.temperature = 1;
        requests.insert(requests.begin() + i % 2, neighbour);
      }
      const std::string label = absl::StrCat(run["policy"].get<std::string>(), " budget ", run["budget"].get<int>(),
                                             " scope ", run["scope"].get<std::string>(), " ",
                                             run["schedule"].get<std::string>(), " prompt ", run["prompt"].get<int>(),
                                             "; tp ", shape.sizes.tp, " pp ", shape.sizes.pp, " chunk ", shape.chunk);
      const absl::StatusOr<HarnessResult> result = RunEngine(options, requests);
      ASSERT_TRUE(result.ok()) << label << ": " << result.status();
      ExpectRun(run, *result, "run", label);
      ExpectFinalPositions(run, *result, "run", static_cast<int64_t>(prompt.size()) + run["count"].get<int>() - 1);
      EXPECT_EQ(result->outputs.at("run").cache.compactions, static_cast<int64_t>(run["events"].size())) << label;
      EXPECT_EQ(result->stats.preemptions, 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, CompressedReference, testing::Values("generate_stories260k", "generate_stories3m"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace cairn
