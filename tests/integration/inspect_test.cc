// cairn inspect on a tiny checkpoint, alone and under mpirun: complete and equal kept sets, the page, what it refuses.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "cli_process.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace cairn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

constexpr int kBudget = 24, kBuffer = 16, kWindow = 8;

// What the checkpoint has: 4 layers of 2 KV heads.
constexpr int kLayers = 4, kHeads = 2;
std::string Model() { return std::string(CAIRN_SOURCE_DIR) + "/tests/data/checkpoints/qwen2"; }

std::vector<int> Positions(const json& ranges) {
  std::vector<int> positions;
  for (const json& range : ranges) {
    for (int position = range[0]; position < range[1]; ++position) positions.push_back(position);
  }
  return positions;
}

class InspectTest : public ::testing::Test {
 protected:
  InspectTest() {
    char path[] = "/tmp/cairn_inspect_test_XXXXXX";
    directory_ = mkdtemp(path);
  }
  ~InspectTest() override { fs::remove_all(directory_); }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }

  static std::vector<std::string> Answer(const std::string& subcommand, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {subcommand,
                                          "--model",
                                          Model(),
                                          "--prompt",
                                          "The quick brown fox",
                                          "--temperature=0",
                                          "--ignore-eos",
                                          "--dtype=float32",
                                          "--max-tokens=90",
                                          absl::StrCat("--kv-budget=", kBudget),
                                          absl::StrCat("--kv-buffer=", kBuffer),
                                          absl::StrCat("--kv-window=", kWindow),
                                          "--kv-compression=rkv"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  json Inspect(int ranks, std::vector<std::string> more) const {
    more.insert(more.end(), {"--output-json", Path("json")});
    const CommandResult result = RunCairn(ranks, Answer("inspect", more));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(ReadAll(Path("json")));
  }

  std::string directory_;
};

// Every event has every layer and head, holding exactly its budget (or all there is), in order, the window among it,
// and nothing that was gone before.
void ExpectComplete(const json& report) {
  ASSERT_EQ(report["budgets"].size(), static_cast<size_t>(kLayers));
  const int64_t total = report["prompt_tokens"].get<int64_t>() + report["answer_tokens"].get<int64_t>();
  ASSERT_EQ(report["tokens"].size(), static_cast<size_t>(total));
  ASSERT_GE(report["events"].size(), 3u);
  EXPECT_EQ(report["counters"]["compactions"], report["events"].size());
  std::vector<json> states = report["events"];
  states.push_back(report["final"]);
  EXPECT_EQ(states.back()["logical_length"], total - 1);
  for (size_t i = 0; i < states.size(); ++i) {
    const int length = states[i]["logical_length"];
    if (i > 0 && i + 1 < states.size()) {
      EXPECT_EQ(length - states[i - 1]["logical_length"].get<int>(), kBuffer);
    }
    ASSERT_EQ(states[i]["kept"].size(), static_cast<size_t>(kLayers));
    for (int layer = 0; layer < kLayers; ++layer) {
      ASSERT_EQ(states[i]["kept"][layer].size(), static_cast<size_t>(kHeads));
      for (int head = 0; head < kHeads; ++head) {
        const std::string where = absl::StrCat("state ", i, " layer ", layer, " head ", head);
        const std::vector<int> kept = Positions(states[i]["kept"][layer][head]);
        std::vector<int> before;  // what it could keep
        int from = 0;
        if (i > 0) {
          before = Positions(states[i - 1]["kept"][layer][head]);
          from = states[i - 1]["logical_length"];
        }
        for (; from < length; ++from) before.push_back(from);
        const int budget = report["budgets"][layer], held = static_cast<int>(before.size());
        EXPECT_EQ(static_cast<int>(kept.size()), i + 1 == states.size() ? held : std::min(budget, held)) << where;
        EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end())) << where;
        EXPECT_TRUE(std::includes(before.begin(), before.end(), kept.begin(), kept.end())) << where;
        ASSERT_GE(kept.size(), static_cast<size_t>(kWindow));
        EXPECT_EQ(kept[kept.size() - kWindow], length - kWindow) << where << ": the window";
        EXPECT_EQ(kept.back(), length - 1) << where;
      }
    }
  }
}

void ExpectSharedSets(const json& report, const std::string& scope) {
  for (const json& event : report["events"]) {
    bool heads_differ = false, layers_differ = false;
    for (int layer = 0; layer < kLayers; ++layer) {
      heads_differ |= event["kept"][layer][0] != event["kept"][layer][1];
      layers_differ |= event["kept"][layer] != event["kept"][0];
    }
    EXPECT_EQ(heads_differ, scope == "head");
    EXPECT_EQ(layers_differ, scope != "sequence");
  }
}

class InspectScopeTest : public InspectTest, public ::testing::WithParamInterface<std::string> {};

TEST_P(InspectScopeTest, KeptSetsAreCompleteAndTheSameOverRanks) {
  const std::string scope = absl::StrCat("--kv-scope=", GetParam());
  const json alone = Inspect(0, {scope}), ranked = Inspect(4, {scope, "-tp", "2", "-pp", "2"});
  ExpectComplete(alone);
  ExpectSharedSets(alone, GetParam());
  for (const char* key : {"tokens", "events", "final", "budgets", "finish_reason", "compression"}) {
    EXPECT_EQ(alone[key], ranked[key]) << key;
  }
}

INSTANTIATE_TEST_SUITE_P(Scopes, InspectScopeTest, ::testing::Values("head", "layer", "sequence"),
                         [](const auto& info) { return info.param; });

TEST_F(InspectTest, PyramidAndReplicatedHeads) {
  const json alone = Inspect(0, {"--kv-schedule=pyramid"});
  ExpectComplete(alone);
  EXPECT_GT(alone["budgets"][0], alone["budgets"][kLayers - 1]);
  // 2 KV heads on 4 ranks: one of two replicas speaks.
  const json ranked = Inspect(4, {"--kv-schedule=pyramid", "-tp", "4"});
  ExpectComplete(ranked);
  EXPECT_EQ(alone["events"], ranked["events"]);
}

TEST_F(InspectTest, TheAnswerIsThatOfGenerateAndThePageSaysWhatTheFileSays) {
  const CommandResult generated = RunCairn(0, Answer("generate", {"--quiet"}));
  const CommandResult result =
      RunCairn(0, Answer("inspect", {"--output-json", Path("json"), "--output-html", Path("page.html")}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, generated.out);
  EXPECT_THAT(result.err, HasSubstr("90 generated tokens, finish_reason length; 5 compactions"));
  const json report = json::parse(ReadAll(Path("json")));
  const std::string page = ReadAll(Path("page.html")), mark = R"(<script id="data" type="application/json">)";
  const size_t begin = page.find(mark) + mark.size();
  const json data = json::parse(page.substr(begin, page.find("</script>", begin) - begin));
  std::string evicted_at;
  ASSERT_TRUE(absl::Base64Unescape(data["evicted_at"]["base64"].get<std::string>(), &evicted_at));
  const int fed = report["final"]["logical_length"];
  ASSERT_EQ(evicted_at.size(), static_cast<size_t>(kLayers * kHeads * fed));
  for (size_t event = 0; event < report["events"].size(); ++event) {
    const json& state = report["events"][event];
    EXPECT_EQ(state["logical_length"], data["events"][event]);
    for (int layer = 0; layer < kLayers; ++layer) {
      for (int head = 0; head < kHeads; ++head) {
        std::vector<int> kept;
        for (int position = 0; position < state["logical_length"]; ++position) {
          const int gone = static_cast<uint8_t>(evicted_at[(layer * kHeads + head) * fed + position]);
          if (gone == 0 || gone > static_cast<int>(event) + 1) kept.push_back(position);
        }
        EXPECT_EQ(kept, Positions(state["kept"][layer][head]));
      }
    }
  }
  for (size_t position = 0; position < report["tokens"].size(); ++position) {
    EXPECT_EQ(report["tokens"][position]["text"], data["texts"][position]);
    EXPECT_EQ(report["tokens"][position]["id"], data["ids"][position]);
  }
}

TEST_F(InspectTest, RefusalsComeBeforeTheModel) {
  const auto run = [&](std::vector<std::string> arguments, int code, const std::string& expected) {
    arguments.insert(arguments.begin(), {"inspect", "--model", "/no/such/model"});
    const CommandResult result = RunCairn(0, arguments);
    EXPECT_EQ(result.exit_code, code) << expected;
    EXPECT_THAT(result.err, HasSubstr(expected));
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  };
  const std::string rkv = "--kv-compression=rkv", prompt = "--prompt=hi", page = "--output-html=" + Path("page");
  run({prompt, page}, 64, "give --kv-compression rkv");
  run({prompt, rkv}, 64, "give --output-html FILE");
  run({rkv, page}, 64, "give one of --prompt");
  run({prompt, rkv, page, "-dp", "2"}, 64, "--data-parallel-size=2");
  run({prompt, rkv, page, "--output-json=" + Path("page")}, 64, "another flag of this one");
  run({prompt, rkv, "--output-html=" + Path("no/page")}, 74, "create its directory");
  run({prompt, rkv, "--output-json=" + directory_}, 74, "directory");
  run({prompt, rkv, page}, 65, "/no/such/model");
}

TEST_F(InspectTest, ErrorsOfTheRunHaveTheirExitCodes) {
  for (int ranks : {0, 2}) {
    std::vector<std::string> more = {"--quiet", "-tp", ranks == 0 ? "1" : "2"};
    std::vector<std::string> full = more, longer = more;
    full.insert(full.end(), {"--output-html", "/dev/full"});
    longer.insert(longer.end(), {"--output-html", Path("page"), "--prompt", std::string(4000, 'x')});
    const CommandResult disk = RunCairn(ranks, Answer("inspect", full));
    EXPECT_EQ(disk.exit_code, 74) << disk.err;
    EXPECT_THAT(disk.err, HasSubstr("No space left on device"));
    const CommandResult prompt = RunCairn(ranks, Answer("inspect", longer));
    EXPECT_EQ(prompt.exit_code, 65) << prompt.err;
    EXPECT_THAT(prompt.err, HasSubstr("more than the context of 512"));
  }
}

TEST_F(InspectTest, AnInterruptedRunShowsWhatThereIs) {
  std::ofstream(Path("shape.yaml")) << "architectures: [LlamaForCausalLM]\nvocab_size: 384\nhidden_size: 64\n"
                                       "intermediate_size: 160\nnum_hidden_layers: 2\nnum_attention_heads: 4\n"
                                       "num_key_value_heads: 2\nhead_dim: 16\nmax_position_embeddings: 1000000\n"
                                       "rms_norm_eps: 1.0e-5\nrope_parameters: {rope_type: default, rope_theta: 1e4}\n"
                                       "tie_word_embeddings: true\ndtype: float32\n";
  RunningCommand command(
      0, Answer("inspect", {"--model", Path("shape.yaml"), "--load-format=dummy", "--tokenizer", Model(),
                            "--max-num-seqs=1", "--max-tokens=900000", "--output-json", Path("json")}));
  const double begin = MonotonicSeconds();
  while (command.ErrSoFar().find("KV cache size") == std::string::npos) {
    ASSERT_LT(MonotonicSeconds() - begin, 60) << command.ErrSoFar();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(700));
  kill(command.pid(), SIGINT);
  const CommandResult result = command.Wait();
  ASSERT_EQ(result.exit_code, 130) << result.err;
  const json report = json::parse(ReadAll(Path("json")));
  EXPECT_EQ(report["finish_reason"], "interrupted");
  ASSERT_GT(report["answer_tokens"], 0);
  EXPECT_EQ(report["final"]["logical_length"],
            report["prompt_tokens"].get<int>() + report["answer_tokens"].get<int>() - 1);
  if (!report["events"].empty()) {
    EXPECT_LE(report["events"].back()["logical_length"], report["final"]["logical_length"]);
  }
}

}  // namespace
}  // namespace cairn
