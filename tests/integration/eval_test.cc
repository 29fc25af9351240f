// cairn eval on a tiny checkpoint: the same answers whatever the ranks, and however often it was killed.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

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
using ::testing::Not;

int64_t CountLines(const std::string& path) {
  const std::string text = ReadAll(path);
  return std::count(text.begin(), text.end(), '\n');
}

class EvalTest : public ::testing::Test {
 protected:
  EvalTest() {
    char path[] = "/tmp/cairn_eval_test_XXXXXX";
    directory_ = mkdtemp(path);
  }
  ~EvalTest() override { fs::remove_all(directory_); }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  std::string Write(const std::string& name, const std::string& content) const {
    std::ofstream(Path(name), std::ios::binary) << content;
    return Path(name);
  }
  // Half of them right whatever is answered, half by chance of one letter.
  void WriteTask(int questions) const {
    std::string text;
    for (int i = 0; i < questions; ++i) {
      const json line = {{"id", absl::StrCat("q", i)},
                         {"group", i % 3 == 0 ? "third" : "other"},
                         {"prompt", absl::StrCat("The quick brown fox number ", i)},
                         {"regex", i % 2 == 0 ? "^" : "[aeiou]q|zz|th"}};
      text += line.dump() + "\n";
    }
    Write("task.jsonl", text);
  }
  std::vector<std::string> Arguments(const std::string& output, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {"eval",
                                          "--model",
                                          std::string(CAIRN_SOURCE_DIR) + "/tests/data/checkpoints/qwen2",
                                          "-i",
                                          Path("task.jsonl"),
                                          "-o",
                                          Path(output),
                                          "--kv-compression=rkv,streamingllm",
                                          "--kv-budget=16,25%",
                                          "--kv-buffer=8",
                                          "--dtype=float32",
                                          "--max-tokens=64",
                                          "--max-num-seqs=8",
                                          "--ignore-eos",
                                          "--apply-chat-template=false"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  json Report(const std::string& output) const { return json::parse(ReadAll(Path(output) + "/report.json")); }
  // What does not depend on the clock or the ranks.
  static json Timeless(json report) {
    report.erase("settings");
    for (json& result : report["results"]) {
      for (const char* key : {"seconds", "tokens_per_second", "peak_running", "preemptions", "kv_cache_bytes_per_rank",
                              "mean_kv_bytes", "peak_kv_bytes", "kv_bytes_share_of_full"}) {
        result.erase(key);
      }
    }
    return report;
  }

  std::string directory_;
};

TEST_F(EvalTest, SweepsAndReports) {
  WriteTask(20);
  const CommandResult result = RunCairn(0, Arguments("out", {"--output-json", Path("copy.json")}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("full cache"));
  EXPECT_THAT(result.out, HasSubstr("streamingllm"));
  EXPECT_THAT(result.out, HasSubstr("third"));
  const json report = Report("out");
  EXPECT_EQ(report, json::parse(ReadAll(Path("copy.json"))));
  ASSERT_EQ(report["results"].size(), 5u);
  const json &full = report["results"][0], &rkv = report["results"][1];
  EXPECT_EQ(full["setting"], "full");
  EXPECT_EQ(full["answers"], 20);
  EXPECT_GE(full["right"], 10);
  EXPECT_EQ(full["mean_answer_tokens"], 64);
  EXPECT_EQ(full["cut_by_length"], 20);
  EXPECT_GT(full["tokens_per_second"], 0);
  EXPECT_TRUE(full["against_full_cache"].is_null());
  EXPECT_GT(rkv["mean_compactions"], 0);
  EXPECT_LT(rkv["mean_kv_bytes"], full["mean_kv_bytes"]);
  // A quarter of the mean prompt + answer.
  EXPECT_EQ(report["results"][2]["compression"]["budget"], std::lround(report["mean_full_length"].get<double>() / 4));
  const json& paired = rkv["against_full_cache"];
  EXPECT_EQ(full["right"].get<size_t>() + paired["won"].size(), rkv["right"].get<size_t>() + paired["lost"].size());
  // The memory of the last queries is part of it.
  EXPECT_LE(rkv["kv_cache_bytes_per_rank"], full["kv_cache_bytes_per_rank"]);
  EXPECT_THAT(ReadAll(Path("out") + "/accuracy.svg"), HasSubstr("</svg>"));

  // Another run of it needs a word, and has nothing left to do.
  const CommandResult again = RunCairn(0, Arguments("out"));
  EXPECT_EQ(again.exit_code, 64);
  EXPECT_THAT(again.err, HasSubstr("--resume goes on with it"));
  const CommandResult resumed = RunCairn(0, Arguments("out", {"--resume"}));
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_EQ(resumed.out, result.out);
  EXPECT_THAT(RunCairn(0, Arguments("out", {"--resume", "--temperature=0.5"})).err, HasSubstr("temperature"));
  EXPECT_THAT(RunCairn(0, Arguments("out", {"--resume", "--kv-cache-dtype=fp8"})).err,
              HasSubstr("were made with kv_cache_dtype = \"auto\", now it is \"fp8\""));
  // A longer sweep takes what is there.
  const CommandResult longer = RunCairn(0, Arguments("out", {"--resume", "--kv-budget=16,24"}));
  EXPECT_EQ(longer.exit_code, 0) << longer.err;
  EXPECT_EQ(CountLines(Path("out") + "/answers/full.jsonl"), 20);
}

TEST_F(EvalTest, TheSameWhateverTheRanks) {
  WriteTask(16);
  const std::vector<std::string> sampled = {"--temperature=0.8", "--seeds=1,2"};
  ASSERT_EQ(RunCairn(0, Arguments("alone", sampled)).exit_code, 0);
  const json alone = Timeless(Report("alone"));
  EXPECT_EQ(alone["results"][0]["answers"], 32);
  const std::vector<std::pair<int, std::vector<std::string>>> worlds = {
      {2, {"-pp", "2"}}, {2, {"-dp", "2"}}, {4, {"-pp", "2", "-dp", "2"}}};
  for (const auto& [ranks, flags] : worlds) {
    std::vector<std::string> more = sampled;
    more.insert(more.end(), flags.begin(), flags.end());
    const std::string output = absl::StrCat("ranks", ranks, flags[0]);
    const CommandResult result = RunCairn(ranks, Arguments(output, more));
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(Timeless(Report(output)), alone) << ranks << flags[0];
  }
}

TEST_F(EvalTest, GoesOnAfterItWasKilled) {
  WriteTask(300);
  ASSERT_EQ(RunCairn(0, Arguments("whole")).exit_code, 0);
  int64_t before = 0;
  for (int round = 0; round < 3; ++round) {
    std::vector<std::string> more = {"-dp", "2"};
    if (round > 0) more.push_back("--resume");
    RunningCommand command(2, Arguments("killed", more));
    const auto answers = [&] {
      int64_t lines = 0;
      std::error_code error;
      for (const auto& entry : fs::directory_iterator(Path("killed") + "/answers", error)) {
        lines += CountLines(entry.path());
      }
      return lines;
    };
    const double begin = MonotonicSeconds();
    while (answers() < before + 40) {
      ASSERT_LT(MonotonicSeconds() - begin, 60) << command.ErrSoFar();
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    // Rank 0 writes; mpirun ends the rest.
    for (const pid_t pid : command.RankPids()) kill(pid, SIGKILL);
    EXPECT_NE(command.Wait().exit_code, 0);
    EXPECT_GE(answers(), before + 40);
    before = answers();
  }
  const CommandResult result = RunCairn(0, Arguments("killed", {"--resume"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(Timeless(Report("killed")), Timeless(Report("whole")));
  for (const auto& entry : fs::directory_iterator(Path("killed") + "/answers")) {
    EXPECT_EQ(CountLines(entry.path()), 300) << entry.path() << ": an answer was given twice, or never";
  }
}

TEST_F(EvalTest, AnInterruptIsAnEndInOrder) {
  WriteTask(2000);
  RunningCommand command(0, Arguments("out"));
  const double begin = MonotonicSeconds();
  while (CountLines(Path("out") + "/answers/full.jsonl") < 5) {
    ASSERT_LT(MonotonicSeconds() - begin, 60) << command.ErrSoFar();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  kill(command.pid(), SIGINT);
  const CommandResult result = command.Wait();
  EXPECT_EQ(result.exit_code, 130) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, HasSubstr("the same command with --resume goes on"));
  // What was answered is there, and is enough for a shorter evaluation.
  const CommandResult shorter = RunCairn(0, Arguments("out", {"--resume", "--num-questions=5"}));
  EXPECT_EQ(shorter.exit_code, 0) << shorter.err;
  EXPECT_EQ(Report("out")["results"][0]["answers"], 5);
}

TEST_F(EvalTest, ErrorsAreOneLineAndNameTheFlagOrTheLine) {
  WriteTask(2);
  Write("bad.jsonl", "{\"prompt\": \"p\", \"answer\": \"a\"}\n{\"prompt\": 5}\n");
  const struct {
    std::vector<std::string> more;
    int exit_code;
    const char* expected;
  } cases[] = {
      {{"-i", Path("bad.jsonl")}, 65, "bad.jsonl:2: field \"prompt\": expected a text"},
      {{"-i", Path("none.jsonl")}, 65, "none.jsonl"},
      {{"--kv-budget=16,x"}, 64, "--kv-budget=16,x: 'x'"},
      {{"--kv-compression=rkv,snapvk"}, 64, "--kv-compression=snapvk"},
      {{"--kv-buffer=4"}, 64, "--kv-buffer=4"},
      {{"--seeds=1,2"}, 64, "--seeds has 2 seeds, but at --temperature=0"},
      {{"--task=gsm"}, 64, "--task=gsm: must be one of"},
      {{"--prompt-template=Answer!"}, 64, "--prompt-template has no {prompt}"},
      {{"--num-questions=-1"}, 64, "--num-questions=-1"},
      {{"--apply-chat-template=maybe"}, 64, "--apply-chat-template=maybe"},
      {{"--output-json", "/nowhere/x.json"}, 74, "--output-json /nowhere/x.json"},
      {{"-o", "/proc/nowhere"}, 74, "--output-dir /proc/nowhere"},
      {{"-o", ""}, 64, "--output-dir (-o) is missing"},
      {{"--model", Path("nowhere")}, 65, "nowhere"},
      {{"--no-full-cache"}, 64, "--no-full-cache"},
  };
  for (const auto& c : cases) {
    const CommandResult result = RunCairn(0, Arguments("out", c.more));
    EXPECT_EQ(result.exit_code, c.exit_code) << c.expected << ": " << result.err;
    EXPECT_THAT(result.err, HasSubstr(c.expected));
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  }
  // Under mpirun the error of rank 0 alone ends them all.
  const CommandResult ranks = RunCairn(2, Arguments("out", {"-pp", "2", "-i", Path("bad.jsonl")}));
  EXPECT_EQ(ranks.exit_code, 65) << ranks.err;
  EXPECT_THAT(ranks.err, HasSubstr("bad.jsonl:2: "));
}

TEST_F(EvalTest, RequestsThatCannotRunAreCounted) {
  WriteTask(3);
  std::ofstream(Path("task.jsonl"), std::ios::app)
      << json({{"id", "long"}, {"prompt", std::string(5000, 'x')}, {"regex", "^"}}).dump() << "\n";
  const CommandResult result = RunCairn(0, Arguments("out", {"--max-model-len=128"}));
  EXPECT_EQ(result.exit_code, 10) << result.err;
  EXPECT_THAT(result.out, HasSubstr("had no answer and count as wrong"));
  EXPECT_EQ(Report("out")["results"][0]["failed"], 1);
}

TEST_F(EvalTest, TheShadowOfTheFullCacheIsTheSameOverRanks) {
  WriteTask(6);
  ASSERT_EQ(RunCairn(0, Arguments("alone", {"--shadow-full"})).exit_code, 0);
  const CommandResult ranked = RunCairn(4, Arguments("ranked", {"--shadow-full", "-tp", "2", "-pp", "2"}));
  ASSERT_EQ(ranked.exit_code, 0) << ranked.err;
  EXPECT_THAT(ranked.out, HasSubstr("of the attention mass"));
  EXPECT_THAT(ReadAll(Path("ranked") + "/shadow.svg"), HasSubstr("layer 3, KV head 1"));
  const json alone_results = Report("alone")["results"], ranked_results = Report("ranked")["results"];
  EXPECT_FALSE(alone_results[0].contains("shadow"));
  for (size_t i = 1; i < alone_results.size(); ++i) {
    const json &alone = alone_results[i]["shadow"], &other = ranked_results[i]["shadow"];
    EXPECT_EQ(alone["compactions"], other["compactions"]);
    EXPECT_EQ(alone["by_compaction"].size(), other["by_compaction"].size());
    EXPECT_GT(alone["by_compaction"].size(), 2u);
    for (int layer = 0; layer < 4; ++layer) {
      for (int head = 0; head < 2; ++head) {
        for (const char* what : {"mass_lost", "output_error"}) {
          const double loss = alone[what][layer][head];
          EXPECT_GT(loss, 0) << what;
          EXPECT_LT(loss, 1.5) << what;
          EXPECT_NEAR(loss, other[what][layer][head].get<double>(), 1e-4) << what;
        }
      }
    }
  }
  // The answers are those of a run without it.
  ASSERT_EQ(RunCairn(0, Arguments("plain")).exit_code, 0);
  json plain = Timeless(Report("plain")), alone = Timeless(Report("alone"));
  for (json& result : alone["results"]) result.erase("shadow");
  EXPECT_EQ(plain, alone);
  EXPECT_THAT(RunCairn(2, Arguments("dp", {"--shadow-full", "-dp", "2"})).err, HasSubstr("--shadow-full with"));
}

// The shipped model: what a full cache answers, and what recent tokens alone do not.
TEST_F(EvalTest, TheDemoModelOnItsHeldOutProblems) {
  const CommandResult result =
      RunCairn(0, {"eval", "--model", std::string(CAIRN_SOURCE_DIR) + "/models/demo", "--task=demo",
                   "--num-questions=3", "-o", Path("out"), "--max-num-seqs=4", "--max-model-len=1024",
                   "--kv-compression=streamingllm", "--kv-budget=10%", "--kv-buffer=32"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json report = Report("out");
  EXPECT_NEAR(report["mean_full_length"].get<double>(), 506, 2);
  EXPECT_EQ(report["results"][0]["right"], 3);
  EXPECT_EQ(report["results"][0]["cut_by_length"], 0);
  EXPECT_EQ(report["results"][1]["right"], 0);
  EXPECT_EQ(report["results"][1]["against_full_cache"]["lost"].size(), 3u);
  EXPECT_FALSE(report["oracle"].empty());
}

TEST_F(EvalTest, AConfigFileHoldsASweep) {
  WriteTask(4);
  const std::string config = Write("sweep.yaml",
                                   "num_questions: 2\ntemperature: 0\nkv_cache_compression_config:\n  algorithm: [rkv, "
                                   "snapkv]\n  budget: [16, 24]\n  buffer_size: 8\n");
  const CommandResult result = RunCairn(
      0, {"eval", "--config", config, "--model", std::string(CAIRN_SOURCE_DIR) + "/tests/data/checkpoints/qwen2", "-i",
          Path("task.jsonl"), "-o", Path("out"), "--max-tokens=32", "--apply-chat-template=false"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(Report("out")["results"].size(), 5u);
  EXPECT_EQ(Report("out")["questions"], 2);
}

// launcher/quickstart.sh, with fewer and shorter problems.
TEST_F(EvalTest, TheDemoModelThinksInACompressedCache) {
  const std::string source = CAIRN_SOURCE_DIR;
  const CommandResult result =
      RunCairn(4, {"eval", "--config", source + "/configs/runs/demo.yaml", "--model", source + "/models/demo",
                   "--lengths=500", "--num-questions=4", "-o", Path("out")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json results = Report("out")["results"];
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[0]["accuracy"], 1);
  EXPECT_GE(results[1]["accuracy"], 0.5);
  EXPECT_LT(results[1]["mean_kv_bytes"].get<double>(), 0.3 * results[0]["mean_kv_bytes"].get<double>());
}

}  // namespace
}  // namespace cairn
