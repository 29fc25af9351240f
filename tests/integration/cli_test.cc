// The real command, alone and under mpirun, on the tiny checkpoints: answers, exit codes, error lines, and how it ends.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "cli_process.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace cairn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

std::string Checkpoint(const std::string& family) {
  return std::string(CAIRN_SOURCE_DIR) + "/tests/data/checkpoints/" + family;
}

int Count(const std::string& text, const std::string& what) {
  int count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

class CliTest : public ::testing::Test {
 protected:
  CliTest() {
    char path[] = "/tmp/cairn_cli_test_XXXXXX";
    directory_ = mkdtemp(path);
  }
  ~CliTest() override { fs::remove_all(directory_); }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  std::string Write(const std::string& name, const std::string& content) const {
    std::ofstream(Path(name), std::ios::binary) << content;
    return Path(name);
  }
  // A request line for token ids (or any JSON as the prompt).
  static std::string Item(const std::string& id, const json& prompt, json fields = json::object()) {
    fields["prompt"] = prompt;
    return json({{"custom_id", id}, {"method", "POST"}, {"url", "/v1/completions"}, {"body", fields}}).dump() + "\n";
  }
  // Output records by custom_id; fails on a line that is not whole.
  std::map<std::string, json> Records(const std::string& name) const {
    std::map<std::string, json> records;
    const std::string content = ReadAll(Path(name));
    EXPECT_TRUE(content.empty() || content.back() == '\n') << "torn: " << name;
    std::ifstream file(Path(name));
    for (std::string line; std::getline(file, line);) {
      const json record = json::parse(line);
      const std::string id = record["custom_id"].is_null() ? "" : record["custom_id"].get<std::string>();
      EXPECT_TRUE(records.emplace(id, record).second) << "two records of " << id;
    }
    return records;
  }
  std::vector<std::string> Batch(const std::string& model, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {"run-batch", "--model", model, "-i", Path("in"), "-o", Path("out")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  // A job that takes minutes.
  void WriteLongJob() const {
    std::string input;
    for (int i = 0; i < 100000; ++i) {
      input += Item("id" + std::to_string(i), {5, 6, 7}, {{"max_tokens", 100 + i % 50}, {"ignore_eos", true}});
    }
    Write("in", input);
  }
  // Waits until the job has written results.
  void AwaitResults(const RunningCommand& command) const {
    const double begin = MonotonicSeconds();
    while (!fs::exists(Path("out")) || fs::file_size(Path("out")) == 0) {
      ASSERT_LT(MonotonicSeconds() - begin, 60) << command.ErrSoFar();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  std::string directory_;
};

// --- Flags ---

TEST_F(CliTest, HelpAndVersion) {
  const CommandResult help = RunCairn(0, {"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.out, HasSubstr("run-batch"));
  const CommandResult batch = RunCairn(0, {"run-batch", "--help"});
  EXPECT_EQ(batch.exit_code, 0);
  EXPECT_THAT(batch.out, HasSubstr("-tp, --tensor-parallel-size"));
  EXPECT_THAT(RunCairn(0, {"--version"}).out, HasSubstr("cairn 0."));
  EXPECT_EQ(RunCairn(0, {}).exit_code, 64);
  const CommandResult ranks = RunCairn(3, {"--help"});
  EXPECT_EQ(ranks.exit_code, 0);
  EXPECT_EQ(Count(ranks.out, "Exit codes"), 1);
}

TEST_F(CliTest, UsageErrorsAreOneLineAndExit64) {
  Write("in", Item("a", {5}));
  const std::string config = Write("run.yaml", "model: x\nmax_num_seqz: 3\n");
  const struct {
    std::vector<std::string> arguments;
    std::string expected;
  } cases[] = {
      {{"run-bach"}, "unknown subcommand run-bach, did you mean run-batch?"},
      {{"run-batch", "--modle", "x"}, "did you mean --model?"},
      {{"run-batch", "-i", Path("in"), "-o", Path("out")}, "--model is missing"},
      {Batch("x", {"--block-size=0"}), "--block-size=0"},
      {Batch("x", {"--reasoning-parser=r2"}), "r2"},
      {Batch("x", {"--config", config}), "run.yaml:2: unknown key max_num_seqz, did you mean max_num_seqs?"},
      {Batch(Checkpoint("qwen2"), {"-tp", "2", "-pp", "2"}), "mpirun -np 4 cairn run-batch"},
      {{"generate", "--model", Checkpoint("qwen2")}, "give one of --prompt"},
  };
  for (const auto& c : cases) {
    const CommandResult result = RunCairn(0, c.arguments);
    EXPECT_EQ(result.exit_code, 64) << c.expected;
    EXPECT_THAT(result.err, HasSubstr("cairn: error: "));
    EXPECT_THAT(result.err, HasSubstr(c.expected));
    EXPECT_EQ(Count(result.err, "\n"), 1) << result.err;
  }
}

TEST_F(CliTest, UnderMpirunOneRankSpeaks) {
  Write("in", Item("a", {5}));
  for (const auto& [arguments, expected] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"run-batch", "--modle", "x"}, "did you mean --model?"},
           {Batch(Checkpoint("qwen2"), {"-tp", "2"}), "world size 3 does not match tensor-parallel-size 2"},
           {Batch("x", {"--config", "/no/such.yaml"}), "/no/such.yaml"}}) {
    const CommandResult result = RunCairn(3, arguments);
    EXPECT_EQ(result.exit_code, 64) << result.err;
    EXPECT_EQ(Count(result.err, "cairn: error: "), 1) << result.err;
    EXPECT_THAT(result.err, HasSubstr(expected));
    EXPECT_LT(result.seconds, 20);
  }
}

// --- Files ---

TEST_F(CliTest, FileErrorsComeBeforeTheModel) {
  Write("in", Item("a", {5}));
  Write("full", "{\"old\": 1}\n");
  Write("empty", "");
  Write("blank", "\n \n");
  const std::string model = "/no/such/model";  // would be exit code 65, with its own words
  const auto run = [&](const std::string& input, const std::string& output, int code, const std::string& expected) {
    const CommandResult result = RunCairn(0, {"run-batch", "--model", model, "-i", input, "-o", output});
    EXPECT_EQ(result.exit_code, code) << expected;
    EXPECT_THAT(result.err, HasSubstr(expected));
  };
  run(Path("none"), Path("out"), 65, "No such file");
  run(Path("empty"), Path("out"), 65, "it is empty");
  run(Path("blank"), Path("out"), 65, "it holds no requests");
  run(directory_, Path("out"), 65, "directory");
  run(Path("in"), Path("in"), 64, "is the input file");
  run(Path("in"), Path("full"), 64, "--overwrite");
  run(Path("in"), Path("no/out"), 74, "create its directory");
  run(Path("in"), Path("out"), 65, model);
  EXPECT_EQ(ReadAll(Path("full")), "{\"old\": 1}\n");
  const CommandResult ranks =
      RunCairn(2, {"run-batch", "--model", model, "-tp", "2", "-i", Path("in"), "-o", Path("full")});
  EXPECT_EQ(ranks.exit_code, 64);
  EXPECT_EQ(Count(ranks.err, "cairn: error: "), 1);
}

TEST_F(CliTest, FullDiskIsExit74) {
  Write("in", Item("a", {5}, {{"max_tokens", 3}}) + Item("b", {6}, {{"max_tokens", 3}}));
  for (int ranks : {0, 2}) {
    std::vector<std::string> arguments = {"run-batch", "--model", Checkpoint("qwen2"), "-i",
                                          Path("in"),  "-o",      "/dev/full"};
    if (ranks > 0) arguments.insert(arguments.end(), {"-tp", "2"});
    const CommandResult result = RunCairn(ranks, arguments);
    EXPECT_EQ(result.exit_code, 74) << result.err;
    EXPECT_THAT(result.err, HasSubstr("writing to /dev/full: No space left on device; lines written before: 0"));
    EXPECT_THAT(result.err, Not(HasSubstr("Done")));
  }
}

TEST_F(CliTest, OverwriteReplacesAndStandardStreamsWork) {
  Write("in", Item("a", {5}, {{"max_tokens", 3}}));
  Write("out", "old\n");
  EXPECT_EQ(RunCairn(0, Batch(Checkpoint("qwen2"), {"--overwrite", "--quiet"})).exit_code, 0);
  EXPECT_EQ(Records("out").size(), 1u);
  const CommandResult piped =
      RunCairn(0, {"run-batch", "--model", Checkpoint("qwen2"), "-i", "-", "-o", "-", "--quiet"}, ReadAll(Path("in")));
  EXPECT_EQ(piped.exit_code, 0);
  EXPECT_EQ(piped.err, "");
  EXPECT_EQ(json::parse(piped.out)["custom_id"], "a");
}

// --- Answers ---

struct World {
  std::string family;
  int tp, pp, dp;
};

class CliAnswersTest : public CliTest, public ::testing::WithParamInterface<World> {};

TEST_P(CliAnswersTest, GreedyTokensAreTransformers) {
  const World& world = GetParam();
  const json expected = json::parse(ReadAll(Checkpoint(world.family) + "/expected.json"));
  std::string input;
  std::map<std::string, json> wanted;
  for (const json& c : expected["cases"]) {
    const std::string id = "case" + std::to_string(wanted.size());
    input += Item(
        id, c["prompt_ids"],
        {{"max_tokens", c["greedy_ids"].size()}, {"temperature", 0}, {"ignore_eos", true}, {"return_token_ids", true}});
    wanted[id] = c;
  }
  Write("in", input);
  const int ranks = world.tp * world.pp * world.dp;
  const CommandResult result =
      RunCairn(ranks == 1 ? 0 : ranks,
               Batch(Checkpoint(world.family),
                     {"--dtype=float32", "-tp", std::to_string(world.tp), "-pp", std::to_string(world.pp), "-dp",
                      std::to_string(world.dp), "--output-json", Path("summary")}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::map<std::string, json> records = Records("out");
  ASSERT_EQ(records.size(), wanted.size());
  for (const auto& [id, c] : wanted) {
    const json& body = records.at(id)["response"]["body"];
    EXPECT_EQ(body["choices"][0]["token_ids"], c["greedy_ids"]) << id;
    EXPECT_EQ(body["prompt_token_ids"], c["prompt_ids"]);
    EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
    EXPECT_EQ(body["usage"]["completion_tokens"], c["greedy_ids"].size());
    EXPECT_GT(body["cairn"]["peak_kv_bytes"], 0);
  }
  // The table: one row per rank, printed once.
  EXPECT_EQ(Count(result.err, "KV blocks"), 1);
  EXPECT_THAT(result.err, HasSubstr("Done: " + std::to_string(wanted.size()) + " requests ok, 0 failed"));
  const json summary = json::parse(ReadAll(Path("summary")));
  EXPECT_EQ(summary["completed"], wanted.size());
  EXPECT_EQ(summary["settings"]["tensor_parallel_size"], std::to_string(world.tp));
  int64_t tokens = 0;
  for (const auto& [id, c] : wanted) tokens += static_cast<int64_t>(c["greedy_ids"].size());
  EXPECT_EQ(summary["generated_tokens"], tokens);
}

INSTANTIATE_TEST_SUITE_P(Worlds, CliAnswersTest,
                         ::testing::Values(World{"llama2", 1, 1, 1}, World{"qwen2", 2, 2, 1}, World{"qwen3", 1, 1, 2},
                                           World{"llama3", 2, 1, 2}, World{"mistral", 1, 3, 1}),
                         [](const auto& info) {
                           return info.param.family + "_tp" + std::to_string(info.param.tp) + "_pp" +
                                  std::to_string(info.param.pp) + "_dp" + std::to_string(info.param.dp);
                         });

TEST_F(CliTest, BadItemsHaveRecordsAndStopNobody) {
  const std::string input = Item("good", {5, 6}, {{"max_tokens", 4}}) + "{\"custom_id\": \"torn\n" + Item("good", {5}) +
                            Item("long", std::vector<int>(600, 5)) + Item("vocabulary", {9999}) +
                            Item("typo", {5}, {{"temprature", 0}}) + Item("range", {5}, {{"top_p", 3}}) +
                            Item("text", "some text", {{"max_tokens", 4}, {"n", 2}}) +
                            R"({"custom_id": "chat", "method": "POST", "url": "/v1/chat/completions", )"
                            R"("body": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}})"
                            "\n";
  Write("in", input);
  for (const std::string dp : {"1", "2"}) {
    const CommandResult result = RunCairn(
        dp == "1" ? 0 : 2, Batch(Checkpoint("qwen2"), {"-dp", dp, "--overwrite", "--errors-file", Path("errors")}));
    EXPECT_EQ(result.exit_code, 10) << result.err;
    EXPECT_THAT(result.err, HasSubstr("3 requests ok, 6 failed"));
    std::map<std::string, json> good = Records("out"), bad = Records("errors");
    EXPECT_EQ(good.size(), 3u);
    EXPECT_EQ(good["text"]["response"]["body"]["choices"].size(), 2u);
    EXPECT_EQ(good["chat"]["response"]["body"]["object"], "chat.completion");
    ASSERT_EQ(bad.size(), 6u);
    const auto code = [&](const std::string& id) { return bad[id]["error"]["code"].get<std::string>(); };
    EXPECT_EQ(code(""), "invalid_json");
    EXPECT_EQ(code("good"), "duplicate_custom_id");
    EXPECT_EQ(code("long"), "context_length_exceeded");
    EXPECT_EQ(code("vocabulary"), "invalid_request");
    EXPECT_EQ(code("typo"), "unknown_field");
    EXPECT_EQ(code("range"), "invalid_request");
    EXPECT_THAT(bad["long"]["error"]["message"].get<std::string>(), HasSubstr("line 4: the prompt has 600 tokens"));
  }
}

TEST_F(CliTest, AConfigFileGivesTheSameJob) {
  Write("in", Item("a", {5, 6}, {{"max_tokens", 8}, {"temperature", 0}}));
  const std::string config = Write("run.yaml", "model: " + Checkpoint("qwen2") + "\ninput-file: " + Path("in") +
                                                   "\noutput_file: " + Path("out") +
                                                   "\nmax-num-seqs: 2\nkv_cache_memory_bytes: 1MiB\nquiet: true\n");
  const CommandResult result = RunCairn(0, {"run-batch", "--config", config});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  EXPECT_EQ(Records("out").size(), 1u);
}

TEST_F(CliTest, AFullCachePreemptsAndSaysSo) {
  std::string input;
  for (int i = 0; i < 6; ++i)
    input += Item("id" + std::to_string(i), {5, 6}, {{"max_tokens", 200}, {"ignore_eos", true}});
  Write("in", input);
  // 120 blocks of 16 tokens over 4 layers: 480 tokens for 6 sequences of 202.
  const CommandResult result =
      RunCairn(0, Batch(Checkpoint("qwen2"),
                        {"--kv-cache-memory-bytes=135K", "--max-model-len=256", "--output-json", Path("summary")}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(Records("out").size(), 6u);
  EXPECT_GT(json::parse(ReadAll(Path("summary")))["preemptions"], 0);
}

// --- Compression ---

// The tokens of the 1-rank run over four ranks, whatever shares a set; the counters in records and summary.
TEST_F(CliTest, CompressionIsTheSameOverRanksAndCounted) {
  std::string input;
  for (int i = 0; i < 6; ++i) {
    input += Item("id" + std::to_string(i), {5, 6, 7 + i},
                  {{"max_tokens", 120}, {"temperature", 0}, {"ignore_eos", true}, {"return_token_ids", true}});
  }
  Write("in", input);
  for (const std::string scope : {"head", "layer", "sequence"}) {
    std::vector<std::string> flags = {"--dtype=float32",     "--kv-compression=rkv", "--kv-budget=32", "--kv-buffer=16",
                                      "--kv-scope=" + scope, "--overwrite",          "--output-json",  Path("summary")};
    if (scope != "sequence") flags.push_back("--kv-schedule=pyramid");
    const CommandResult one = RunCairn(0, Batch(Checkpoint("qwen2"), flags));
    ASSERT_EQ(one.exit_code, 0) << one.err;
    const std::map<std::string, json> expected = Records("out");
    flags.insert(flags.end(), {"-tp", "2", "-pp", "2"});
    const CommandResult four = RunCairn(4, Batch(Checkpoint("qwen2"), flags));
    ASSERT_EQ(four.exit_code, 0) << four.err;
    for (const auto& [id, record] : Records("out")) {
      const json& body = record["response"]["body"];
      EXPECT_EQ(body["choices"][0]["token_ids"], expected.at(id)["response"]["body"]["choices"][0]["token_ids"])
          << scope << " " << id;
      const json& cairn = body["cairn"];
      EXPECT_GT(cairn["compactions"], 3) << scope;
      EXPECT_GE(cairn["evicted_tokens"].get<int>(), 122 - 32 - 16) << scope;
      EXPECT_GT(cairn["blocks_freed"], 0);
      EXPECT_GT(cairn["full_cache_kv_bytes"], cairn["peak_kv_bytes"]);
      EXPECT_GT(cairn["compression_ratio"], 1.5);
    }
    EXPECT_THAT(four.err, HasSubstr("compressed by rkv to 32 + 16"));
    EXPECT_THAT(four.err, HasSubstr("compactions took"));
    const json summary = json::parse(ReadAll(Path("summary")));
    EXPECT_GT(summary["compactions"], 6 * 3);
    EXPECT_GT(summary["compression_seconds"], 0);
    EXPECT_EQ(summary["preemptions"], 0);
  }
}

TEST_F(CliTest, BadCompressionSettingsAreOneLine) {
  Write("in", Item("a", {5}));
  const auto error = [&](const std::vector<std::string>& flags) {
    const CommandResult result = RunCairn(0, Batch(Checkpoint("qwen2"), flags));
    EXPECT_EQ(result.exit_code, 64);
    EXPECT_EQ(Count(result.err, "\n"), 1) << result.err;
    return result.err;
  };
  EXPECT_THAT(error({"--kv-compression=rvk"}), HasSubstr("--kv-compression"));
  EXPECT_THAT(error({"--kv-compression=rkv", "--kv-buffer=4"}), HasSubstr("--kv-buffer"));
  EXPECT_THAT(error({"--kv-compression=rkv", "--kv-budget=8"}), HasSubstr("--kv-budget"));
  EXPECT_THAT(error({"--kv-compression=rkv", "--kv-scope=sequence", "--kv-schedule=pyramid"}), HasSubstr("--kv-scope"));
  EXPECT_THAT(error({"--kv-compression=rkv", "--kv-schedule=weighted"}), HasSubstr("needs --kv-layer-weights"));
  EXPECT_THAT(error({"--kv-layer-weights=1,x"}), HasSubstr("--kv-layer-weights=1,x: 'x': expected a number"));
  EXPECT_THAT(error({"--kv-head-weights=1,x"}), HasSubstr("--kv-head-weights=1,x: 'x': expected a number"));
}

TEST_F(CliTest, PlanSaysWhatFits) {
  const CommandResult plan = RunCairn(
      0, {"plan", "--model", "llama-3.1-70b", "-tp", "4", "-pp", "2", "--rank-memory-bytes", "80GiB", "--max-model-len",
          "16384", "--kv-compression", "rkv", "--kv-schedule", "pyramid", "--output-json", Path("plan")});
  ASSERT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_THAT(plan.out, HasSubstr("80 layers, tp 4 x pp 2 x dp 1 = 8 ranks"));
  const json json_plan = json::parse(ReadAll(Path("plan")));
  ASSERT_EQ(json_plan["stages"].size(), 2u);
  int64_t layers = 0;
  double full = 1e9, compressed = 1e9;
  for (const json& stage : json_plan["stages"]) {
    layers += stage["num_layers"].get<int64_t>();
    // 2 KV heads of 128 in bf16 for K and V, the position, and what rkv remembers of a slot, in blocks of 16.
    const int64_t block = 16 * 2 * (2 * 128 * 2 + 4 + 4);
    EXPECT_EQ(stage["kv_bytes_per_sequence"], stage["num_layers"].get<int64_t>() * (16384 / 16) * block);
    full = std::min(full, stage["max_sequences"].get<double>());
    compressed = std::min(compressed, stage["compressed_max_sequences"].get<double>());
  }
  EXPECT_EQ(layers, 80);
  EXPECT_EQ(json_plan["max_sequences"], full);
  EXPECT_EQ(json_plan["compressed_max_sequences"], compressed);
  EXPECT_GT(compressed, 10 * full);  // about 16384 / (1024 + 128)
  const CommandResult small = RunCairn(0, {"plan", "--model", "llama-3.1-70b", "--rank-memory-bytes", "80GiB"});
  EXPECT_EQ(small.exit_code, 65);
  EXPECT_THAT(small.err, HasSubstr("raise -tp or -pp"));
}

// Budgets by the weights of a file of settings; stages show theirs.
TEST_F(CliTest, PlanWithWeightedLayers) {
  Write("run.yaml",
        "kv_cache_compression_config:\n  algorithm: rkv\n  budget: 108\n  schedule: weighted\n"
        "  layer_weights: [1, 2, 0, 1]\n");
  const auto plan = [&](const char* model) {
    return RunCairn(0, {"plan", "--model", model, "-pp", "2", "--pp-layer-partition", "2,2", "--rank-memory-bytes",
                        "1GiB", "--config", Path("run.yaml"), "--output-json", Path("plan")});
  };
  const CommandResult done = plan(Checkpoint("qwen2").c_str());
  ASSERT_EQ(done.exit_code, 0) << done.err;
  // 8 + 1 each, and 4 x 99 slots by weight.
  const json stages = json::parse(ReadAll(Path("plan")))["stages"];
  EXPECT_EQ(stages[0]["largest_budget"], 9 + 198);
  EXPECT_EQ(stages[0]["smallest_budget"], 9 + 99);
  EXPECT_EQ(stages[1]["largest_budget"], 9 + 99);
  EXPECT_EQ(stages[1]["smallest_budget"], 9);
  EXPECT_THAT(plan("llama-3.1-8b").err, HasSubstr("--kv-layer-weights: has 4 numbers, and the model 32 layers"));

  // Of KV heads: each tp rank has one of two, and the first rank's are all the slots beyond the windows.
  Write("run.yaml",
        "kv_cache_compression_config:\n  algorithm: rkv\n  budget: 108\n  buffer_size: 20\n  schedule: weighted\n"
        "  head_weights: [1, 0, 1, 0, 1, 0, 1, 0]\n");
  const CommandResult of_heads = RunCairn(0, {"plan", "--model", Checkpoint("qwen2"), "-tp", "2", "--rank-memory-bytes",
                                              "1GiB", "--config", Path("run.yaml"), "--output-json", Path("plan")});
  ASSERT_EQ(of_heads.exit_code, 0) << of_heads.err;
  const json stage = json::parse(ReadAll(Path("plan")))["stages"][0];
  EXPECT_EQ(stage["largest_budget"], 9 + 198);
  EXPECT_EQ(stage["smallest_budget"], 9);
  // In blocks of 16 slots, of the full cache's 512.
  EXPECT_EQ(stage["compressed_kv_bytes_per_sequence"].get<int64_t>() * (512 / 16),
            stage["kv_bytes_per_sequence"].get<int64_t>() * ((207 + 20 + 15) / 16));
}

// As a start on that GPU: activations take their part, and weights are in the type that its matmul takes.
TEST_F(CliTest, PlanOfGpusThatAreNotHere) {
  const auto plan = [&](std::vector<std::string> more) {
    std::vector<std::string> command = {"plan", "--model",       "llama-3.1-8b", "--device", "cuda", "--max-model-len",
                                        "8192", "--output-json", Path("plan")};
    command.insert(command.end(), more.begin(), more.end());
    return RunCairn(0, command);
  };
  const CommandResult done = plan({"--rank-memory-bytes", "80GiB", "--gpu-memory-utilization", "0.5"});
  ASSERT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.out, HasSubstr("activations/rank"));
  const json written = json::parse(ReadAll(Path("plan")));
  EXPECT_EQ(written["device"], "cuda");
  const json& stage = written["stages"][0];
  const auto bytes = [&](const char* key) { return stage[key].get<int64_t>(); };
  EXPECT_GT(bytes("activation_bytes_per_rank"), 2048 * 4096 * 2 * 4);
  EXPECT_EQ(bytes("weight_bytes_per_rank") + bytes("activation_bytes_per_rank") + bytes("kv_cache_bytes_per_rank"),
            int64_t{40} << 30);
  const int64_t bf16 = bytes("weight_bytes_per_rank");
  ASSERT_EQ(plan({"--rank-memory-bytes", "80GiB", "--dtype", "float32"}).exit_code, 0);
  EXPECT_GT(json::parse(ReadAll(Path("plan")))["stages"][0]["weight_bytes_per_rank"], 1.9 * static_cast<double>(bf16));
  EXPECT_THAT(plan({"--rank-memory-bytes", "12GiB"}).err, HasSubstr("of activations on each rank, and its GPU has"));
  const CommandResult unknown = plan({});
  if (unknown.exit_code != 0) {  // no GPU here
    EXPECT_THAT(unknown.err, HasSubstr("--rank-memory-bytes=80GiB"));
  }
}

TEST_F(CliTest, PlanCountsTheBytesOfQuantizedWeights) {
  const auto plan = [&](const char* quantization) {
    return RunCairn(0, {"plan", "--model", "llama-3.1-70b", "--rank-memory-bytes", "140GB", "--max-model-len", "8192",
                        "--quantization", quantization, "--output-json", Path("plan")});
  };
  EXPECT_THAT(plan("none").err, HasSubstr("raise -tp or -pp"));  // 141 GB of weights alone
  const CommandResult fp8 = plan("fp8");
  ASSERT_EQ(fp8.exit_code, 0) << fp8.err;
  // 80 layers of 855.6 million weights with a scale for each of their 83,968 rows and two norms; embedding and head of
  // 128256 x 8192 in bf16, the last norm.
  const int64_t rows = (64 + 8 + 8) * 128 + 8192 + 2 * 28672 + 8192;
  const int64_t weights = ((64 + 8 + 8) * 128 + 64 * 128 + 3 * 28672) * int64_t{8192};
  EXPECT_EQ(json::parse(ReadAll(Path("plan")))["stages"][0]["weight_bytes_per_rank"],
            80 * (weights + 4 * rows + 2 * 4 * 8192) + 2 * 2 * int64_t{128256} * 8192 + 4 * 8192);
  EXPECT_THAT(plan("fp9").err, HasSubstr("--quantization=fp9: allowed is none, int8 or fp8"));
}

// 80 layers of 8 KV heads of 128, in blocks of 16 tokens with their positions.
TEST_F(CliTest, PlanCountsTheBytesOfTheCache) {
  const auto plan = [&](const char* dtype) {
    return RunCairn(0, {"plan", "--model", "llama-3.1-70b", "--rank-memory-bytes", "400GB", "--max-model-len", "8192",
                        "--kv-cache-dtype", dtype, "--output-json", Path("plan")});
  };
  const auto bytes_of_a_sequence = [&]() -> int64_t {
    return json::parse(ReadAll(Path("plan")))["stages"][0]["kv_bytes_per_sequence"];
  };
  ASSERT_EQ(plan("auto").exit_code, 0);
  EXPECT_EQ(bytes_of_a_sequence(), int64_t{512} * 80 * (2 * 8 * 16 * 128 * 2 + 8 * 16 * 4));
  const CommandResult fp8 = plan("fp8");
  ASSERT_EQ(fp8.exit_code, 0) << fp8.err;
  EXPECT_EQ(bytes_of_a_sequence(), int64_t{512} * 80 * (2 * 8 * 16 * 128 + 8 * 16 * 4));
  EXPECT_THAT(fp8.out, HasSubstr("sequences of 8192 tokens, KV cache in fp8"));
  EXPECT_EQ(json::parse(ReadAll(Path("plan")))["kv_cache_dtype"], "fp8");
  const CommandResult unknown = plan("int8");
  EXPECT_EQ(unknown.exit_code, 64);
  EXPECT_THAT(unknown.err, HasSubstr("--kv-cache-dtype=int8: allowed is auto (the activations' type) or fp8 (E4M3)"));
}

// --- Models that cannot run ---

TEST_F(CliTest, ModelErrorsAreOneLineAndExit65) {
  Write("in", Item("a", {5}));
  const std::string broken = Path("broken");
  fs::copy(Checkpoint("llama3"), broken);
  fs::resize_file(broken + "/model.safetensors", 100000);
  for (int ranks : {0, 2}) {
    const std::string tp = ranks == 0 ? "1" : "2";
    const CommandResult truncated = RunCairn(ranks, Batch(broken, {"-tp", tp}));
    EXPECT_EQ(truncated.exit_code, 65) << truncated.err;
    EXPECT_EQ(Count(truncated.err, "cairn: error: "), 1) << truncated.err;
    EXPECT_THAT(truncated.err, HasSubstr("model.safetensors"));
    EXPECT_LT(truncated.seconds, 20);
  }
  const CommandResult shards = RunCairn(3, Batch(Checkpoint("llama3"), {"-tp", "3"}));
  EXPECT_EQ(shards.exit_code, 65) << shards.err;
  EXPECT_EQ(Count(shards.err, "cairn: error: "), 1) << shards.err;
  const CommandResult stages = RunCairn(2, Batch(Checkpoint("llama3"), {"-pp", "2", "--pp-layer-partition=3,3"}));
  EXPECT_EQ(stages.exit_code, 65) << stages.err;
}

// --- Endings ---

TEST_F(CliTest, WithoutAGpuAutoIsTheCpuAndCudaIsOneLine) {
  const char* set = std::getenv("CUDA_VISIBLE_DEVICES");
  const std::string before = set != nullptr ? set : "";
  setenv("CUDA_VISIBLE_DEVICES", "", 1);
  Write("in", Item("a", {5, 6, 7}, {{"max_tokens", 2}}));
  const CommandResult automatic = RunCairn(0, Batch(Checkpoint("llama3"), {"--device=auto"}));
  EXPECT_EQ(automatic.exit_code, 0) << automatic.err;
  EXPECT_THAT(automatic.err, Not(HasSubstr("cuda")));
  for (const int ranks : {0, 2}) {
    const CommandResult result =
        RunCairn(ranks, Batch(Checkpoint("llama3"), {"--device=cuda", "--overwrite", ranks == 2 ? "-tp=2" : "-tp=1"}));
    EXPECT_EQ(result.exit_code, 65) << result.err;
    EXPECT_EQ(Count(result.err, "cairn: error: "), 1) << result.err;
    EXPECT_THAT(result.err, HasSubstr("--device=cuda: "));
  }
  set != nullptr ? setenv("CUDA_VISIBLE_DEVICES", before.c_str(), 1) : unsetenv("CUDA_VISIBLE_DEVICES");
}

TEST_F(CliTest, SigtermEndsInOrder) {
  WriteLongJob();
  for (int signal : {SIGTERM, SIGINT}) {
    RunningCommand command(0, Batch(Checkpoint("qwen2"), {"--overwrite"}));
    AwaitResults(command);
    const double sent = MonotonicSeconds();
    kill(command.pid(), signal);
    const CommandResult result = command.Wait();
    EXPECT_EQ(result.exit_code, 128 + signal);
    EXPECT_LT(MonotonicSeconds() - sent, 5);
    EXPECT_THAT(result.err, HasSubstr("Interrupted: "));
    EXPECT_GT(Records("out").size(), 0u);
    fs::remove(Path("out"));
  }
}

TEST_F(CliTest, SigtermToMpirunEndsAllRanks) {
  WriteLongJob();
  RunningCommand command(4, Batch(Checkpoint("qwen2"), {"-tp", "2", "-dp", "2"}));
  AwaitResults(command);
  const double sent = MonotonicSeconds();
  kill(command.pid(), SIGTERM);
  EXPECT_NE(command.Wait().exit_code, 0);
  EXPECT_LT(MonotonicSeconds() - sent, 5);
  EXPECT_TRUE(command.RankPids().empty());
  EXPECT_GT(Records("out").size(), 0u);
}

// Each rank in turn: the leader that writes, its followers, the leader of the other replica.
TEST_F(CliTest, AKilledRankEndsAllWithinFiveSeconds) {
  WriteLongJob();
  for (int victim = 0; victim < 4; ++victim) {
    RunningCommand command(4, Batch(Checkpoint("qwen2"), {"-pp", "2", "-dp", "2", "--overwrite"}));
    AwaitResults(command);
    const std::vector<pid_t> ranks = command.RankPids();
    ASSERT_EQ(ranks.size(), 4u);
    const double killed = MonotonicSeconds();
    kill(ranks[victim], SIGKILL);
    const CommandResult result = command.Wait();
    EXPECT_EQ(result.exit_code, 137) << result.err;
    while (!command.RankPids().empty() && MonotonicSeconds() - killed < 5) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    EXPECT_TRUE(command.RankPids().empty()) << "rank " << victim << " was killed, and one is left after 5 s";
    fs::remove(Path("out"));
  }
}

TEST_F(CliTest, AFrozenRankIsGivenUp) {
  WriteLongJob();
  RunningCommand command(2, Batch(Checkpoint("qwen2"), {"-tp", "2", "--distributed-timeout-seconds=2"}));
  AwaitResults(command);
  const std::vector<pid_t> ranks = command.RankPids();
  ASSERT_EQ(ranks.size(), 2u);
  const double frozen = MonotonicSeconds();
  kill(ranks[1], SIGSTOP);
  const CommandResult result = command.Wait();
  EXPECT_EQ(result.exit_code, 70) << result.err;
  EXPECT_THAT(result.err, HasSubstr("waited 2 s for rank 1"));
  EXPECT_LT(MonotonicSeconds() - frozen, 7);
}

// --- generate ---

TEST_F(CliTest, GenerateIsTheSameOverRanks) {
  const std::vector<std::string> arguments = {"generate",     "--model", Checkpoint("qwen2"),
                                              "--chat",       "hello",   "--temperature=0",
                                              "--max-tokens", "12",      "--dtype=float32"};
  const CommandResult alone = RunCairn(0, arguments);
  EXPECT_EQ(alone.exit_code, 0) << alone.err;
  EXPECT_EQ(alone.out.back(), '\n');
  EXPECT_GT(alone.out.size(), 5u);
  EXPECT_THAT(alone.err, HasSubstr("12 generated tokens"));
  std::vector<std::string> ranked = arguments;
  ranked.insert(ranked.end(), {"-tp", "2", "-pp", "2"});
  EXPECT_EQ(RunCairn(4, ranked).out, alone.out);
  std::vector<std::string> piped = arguments;
  piped[4] = "-";
  EXPECT_EQ(RunCairn(0, piped, "hello").out, alone.out);
}

TEST_F(CliTest, GenerateRefusesWhatCannotRun) {
  const std::string words(4000, 'x');
  const CommandResult long_prompt =
      RunCairn(2, {"generate", "--model", Checkpoint("qwen2"), "-tp", "2", "--prompt", words});
  EXPECT_EQ(long_prompt.exit_code, 65) << long_prompt.err;
  EXPECT_THAT(long_prompt.err, HasSubstr("more than the context of 512"));
  const CommandResult no_template = RunCairn(0, {"generate", "--model", Checkpoint("llama2"), "--chat", "hi"});
  EXPECT_EQ(no_template.exit_code, 65);
  EXPECT_THAT(no_template.err, HasSubstr("template"));
}

// --- doctor ---

TEST_F(CliTest, DoctorFindsAllWell) {
  const CommandResult result =
      RunCairn(4, {"doctor", "--model", Checkpoint("qwen2"), "-tp", "2", "-pp", "2", "--output-json", Path("report")});
  EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
  const json report = json::parse(ReadAll(Path("report")));
  EXPECT_EQ(report["ok"], true);
  std::set<std::string> checks;
  for (const json& check : report["checks"]) checks.insert(check["check"].get<std::string>());
  for (const char* name : {"binary", "MPI", "cores", "sizes", "model", "tokenizer", "weights", "shards", "memory",
                           "tp group", "pp group"}) {
    EXPECT_TRUE(checks.contains(name)) << name << " in\n" << result.out;
  }
}

TEST_F(CliTest, DoctorNamesWhatIsWrong) {
  const CommandResult sizes = RunCairn(2, {"doctor", "--model", Checkpoint("qwen2"), "-tp", "4"});
  EXPECT_EQ(sizes.exit_code, 65);
  EXPECT_THAT(sizes.out, HasSubstr("FAIL  sizes"));
  const CommandResult model = RunCairn(0, {"doctor", "--model", "/no/such/model"});
  EXPECT_EQ(model.exit_code, 65);
  EXPECT_THAT(model.out, HasSubstr("FAIL  model"));
  EXPECT_THAT(model.out, HasSubstr("fix: "));
  const CommandResult shards = RunCairn(3, {"doctor", "--model", Checkpoint("llama3"), "-tp", "3"});
  EXPECT_EQ(shards.exit_code, 65);
  EXPECT_THAT(shards.out, HasSubstr("FAIL  shards"));
  EXPECT_EQ(RunCairn(0, {"doctor"}).exit_code, 0);
}

}  // namespace
}  // namespace cairn
