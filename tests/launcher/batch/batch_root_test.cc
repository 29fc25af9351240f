// Dealing and collecting over a fake engine: every line has one record, whatever is in the file and however many
// replicas.
#include "launcher/batch/batch_root.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "fake_engine.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/core/status_macros.h"
#include "launcher/batch/summary.h"
#include "launcher/exit_codes.h"
#include "nlohmann/json.hpp"
#include "parallel/comm/thread_channel.h"
#include "tests/launcher/temp_path.h"

namespace cairn {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

const RecordBuilder kRecords(nullptr, "fake", ReasoningFormat::kNone, "run");

std::string Item(const std::string& id, int tokens, int n = 1, int first_token = 1) {
  std::vector<int> ids(tokens, 1);
  if (tokens > 0) ids[0] = first_token;
  return absl::StrCat(R"({"custom_id": ")", id, R"(", "method": "POST", "url": "/v1/completions", "body": {"n": )", n,
                      R"(, "prompt": [)", absl::StrJoin(ids, ","), "]}}\n");
}

// A job over `replicas` thread ranks, each a replica with a FakeEngine.
struct Batch {
  explicit Batch(const std::string& input_text, int replicas = 1) : input(input_text), engines(replicas) {
    for (auto& engine : engines) engine = std::make_unique<FakeEngine>();
    for (const std::string& path : {OutputPath(), ErrorsPath()}) std::filesystem::remove(path);
  }

  static std::string OutputPath() { return TempPath("batch_root_test.out.jsonl"); }
  static std::string ErrorsPath() { return TempPath("batch_root_test.errors.jsonl"); }

  absl::Status RunRoot(ControlChannel& world) {
    const std::string path = TempPath("batch_root_test.in.jsonl");
    std::ofstream(path) << input;
    CAIRN_ASSIGN_OR_RETURN(const auto reader, LineReader::Open(path));
    CAIRN_ASSIGN_OR_RETURN(const auto results, LineFile::Open(output, "-o", false, -1));
    std::unique_ptr<LineFile> errors;
    if (separate_errors) {
      CAIRN_ASSIGN_OR_RETURN(errors, LineFile::Open(ErrorsPath(), "--errors-file", false, -1));
    }
    ReplicaWorker worker(*engines[0], nullptr, kRecords);
    std::vector<int> leaders;
    for (int rank = 1; rank < world.size(); ++rank) leaders.push_back(rank);
    BatchRoot root({.reader = *reader,
                    .results = *results,
                    .errors = errors != nullptr ? *errors : *results,
                    .records = kRecords,
                    .worker = worker,
                    .world = world,
                    .other_leaders = leaders,
                    .replica_capacity = capacity,
                    .timeout_seconds = timeout_seconds,
                    .should_stop = [&] { return stop_after >= 0 && steps >= stop_after; },
                    .on_progress = [&](const BatchTotals&) { ++steps; }});
    const absl::Status status = root.Run();
    totals = root.totals();
    return status;
  }

  std::vector<absl::Status> Run() {
    return RunThreadRanks(static_cast<int>(engines.size()), [&](ControlChannel& world) -> absl::Status {
      if (world.rank() == 0) return RunRoot(world);
      if (silent_leaders) {
        std::this_thread::sleep_for(std::chrono::milliseconds(500));
        return absl::OkStatus();
      }
      ReplicaWorker worker(*engines[world.rank()], nullptr, kRecords);
      return ServeItems(world, worker, 0.001);
    });
  }

  static std::vector<json> Records(const std::string& path) {
    std::vector<json> records;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) records.push_back(json::parse(line));
    return records;
  }

  std::string input, output = OutputPath();
  std::vector<std::unique_ptr<FakeEngine>> engines;
  bool separate_errors = false, silent_leaders = false;
  int64_t capacity = 6;
  double timeout_seconds = 60;
  int stop_after = -1, steps = 0;
  BatchTotals totals;
};

void ExpectOk(const std::vector<absl::Status>& statuses) {
  for (const absl::Status& status : statuses) EXPECT_TRUE(status.ok()) << status;
}

TEST(BatchRootTest, EveryLineHasOneRecordInTheOrderInWhichTheyFinish) {
  Batch batch(Item("slow", 9) + Item("fast", 2) + "\n" + "not json\n" + Item("fast", 1) + Item("long", 101) +
              Item("empty-prompt", 0) + Item("two", 3, 2) + R"({"custom_id": "get", "method": "GET"})" + "\n" +
              Item("last", 1));
  ExpectOk(batch.Run());
  std::map<std::string, json> by_id;
  std::vector<std::string> order;
  for (const json& record : Batch::Records(batch.output)) {
    const std::string id = record["custom_id"].is_null() ? "null" : record["custom_id"].get<std::string>();
    if (!record["response"].is_null()) order.push_back(id);
    EXPECT_TRUE(by_id.emplace(record["response"].is_null() && id == "fast" ? "fast again" : id, record).second)
        << record;
  }
  EXPECT_EQ(by_id.size(), 9u);
  EXPECT_THAT(order, ::testing::ElementsAre("last", "fast", "two", "slow"));
  EXPECT_EQ(by_id["fast"]["response"]["body"]["choices"][0]["text"], "answer to fast");
  EXPECT_EQ(by_id["two"]["response"]["body"]["choices"].size(), 2u);
  EXPECT_EQ(by_id["fast again"]["error"]["code"], "duplicate_custom_id");
  EXPECT_THAT(by_id["fast again"]["error"]["message"].get<std::string>(), HasSubstr("line 5"));
  EXPECT_EQ(by_id["long"]["error"]["code"], "context_length_exceeded");
  EXPECT_EQ(by_id["long"]["error"]["message"], "line 6: too long by far");
  EXPECT_EQ(by_id["empty-prompt"]["error"]["code"], "invalid_request");
  EXPECT_EQ(by_id["get"]["error"]["code"], "invalid_method");
  EXPECT_EQ(by_id["null"]["error"]["code"], "invalid_json");
  EXPECT_EQ(batch.totals.ok, 4);
  EXPECT_EQ(batch.totals.failed, 5);
  EXPECT_EQ(batch.totals.counts.answers, 5);
  EXPECT_FALSE(batch.totals.interrupted);
}

TEST(BatchRootTest, FailedItemsGoToTheErrorsFile) {
  Batch batch(Item("a", 1) + "{\n" + Item("b", 101));
  batch.separate_errors = true;
  ExpectOk(batch.Run());
  EXPECT_EQ(Batch::Records(batch.output).size(), 1u);
  const std::vector<json> errors = Batch::Records(Batch::ErrorsPath());
  ASSERT_EQ(errors.size(), 2u);
  EXPECT_EQ(errors[0]["error"]["code"], "invalid_json");
  EXPECT_EQ(errors[1]["custom_id"], "b");
}

TEST(BatchRootTest, MemoryIsBoundedByCapacityNotByTheFile) {
  std::string input;
  for (int i = 0; i < 2000; ++i) input += Item(absl::StrCat("id", i), 1 + i % 5);
  Batch batch(input);
  ExpectOk(batch.Run());
  EXPECT_EQ(batch.totals.ok, 2000);
  EXPECT_EQ(batch.engines[0]->most_unfinished(), batch.capacity);
}

TEST(BatchRootTest, ReplicasShareOneQueue) {
  std::string input;
  for (int i = 0; i < 300; ++i) input += Item(absl::StrCat("id", i), 1 + i % 7) + (i % 10 ? "" : "bad\n");
  Batch batch(input, 3);
  ExpectOk(batch.Run());
  std::set<std::string> ids;
  for (const json& record : Batch::Records(batch.output)) {
    if (record["response"].is_null()) continue;
    EXPECT_TRUE(ids.insert(record["custom_id"].get<std::string>()).second);
  }
  EXPECT_EQ(ids.size(), 300u);
  EXPECT_EQ(batch.totals.failed, 30);
  int64_t generated = 0;
  for (const auto& engine : batch.engines) {
    EXPECT_GT(engine->added(), 0);
    EXPECT_LE(engine->most_unfinished(), batch.capacity);
    generated += engine->stats().generated_tokens;
  }
  EXPECT_EQ(batch.totals.generated_tokens(), generated);  // the others' last word has come
}

TEST(BatchRootTest, AShortFileIsSpreadOverAllReplicas) {
  Batch batch(Item("a", 5) + Item("b", 5) + Item("c", 5) + Item("d", 5) + Item("e", 5) + Item("f", 5), 3);
  ExpectOk(batch.Run());
  for (const auto& engine : batch.engines) EXPECT_EQ(engine->added(), 2);
}

TEST(BatchRootTest, AnItemWithMoreAnswersThanCapacityStillRuns) {
  Batch batch(Item("many", 2, 100) + Item("b", 1), 2);
  ExpectOk(batch.Run());
  EXPECT_EQ(batch.totals.ok, 2);
  EXPECT_EQ(batch.totals.counts.answers, 101);
}

TEST(BatchRootTest, RefusalsOnAnotherReplicaComeBack) {
  Batch batch(Item("a", 50) + Item("too-long", 101) + Item("c", 1), 2);  // a to rank 0, the next to rank 1
  ExpectOk(batch.Run());
  EXPECT_EQ(batch.totals.ok, 2);
  EXPECT_EQ(batch.totals.failed, 1);
}

TEST(BatchRootTest, AFullDiskEndsTheJobAndNothingIsReportedDone) {
  Batch batch(Item("a", 1) + Item("b", 1));
  batch.output = "/dev/full";
  const absl::Status status = batch.Run()[0];
  EXPECT_EQ(ExitCodeOf(status), kExitOutput);
  EXPECT_EQ(batch.totals.ok, 0);
}

TEST(BatchRootTest, StopsWhenAskedAndKeepsWhatIsWritten) {
  std::string input;
  for (int i = 0; i < 100; ++i) input += Item(absl::StrCat("id", i), 1 + i % 3);
  Batch batch(input, 2);
  batch.stop_after = 5;
  ExpectOk(batch.Run());
  EXPECT_TRUE(batch.totals.interrupted);
  EXPECT_LT(batch.totals.ok, 100);
  EXPECT_EQ(static_cast<int64_t>(Batch::Records(batch.output).size()), batch.totals.ok);
  for (const auto& engine : batch.engines) EXPECT_FALSE(engine->HasWork());
}

TEST(BatchRootTest, ABrokenEngineIsTheJobsError) {
  Batch batch(Item("a", 3) + Item("poison", 3, 1, FakeEngine::kPoison));
  const absl::Status status = batch.Run()[0];
  EXPECT_EQ(ExitCodeOf(status), kExitRankFailed);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the fake engine broke"));
}

TEST(BatchRootTest, ABrokenEngineOnAnotherReplicaIsReportedThere) {
  Batch batch(Item("a", 90) + Item("poison", 3, 1, FakeEngine::kPoison), 2);
  const std::vector<absl::Status> statuses = batch.Run();
  EXPECT_THAT(std::string(statuses[1].message()), HasSubstr("the fake engine broke"));
  EXPECT_FALSE(statuses[0].ok());  // aborted, not left waiting
}

TEST(BatchRootTest, ASilentReplicaIsGivenUp) {
  Batch batch(Item("a", 1) + Item("b", 1), 2);
  batch.silent_leaders = true;
  batch.timeout_seconds = 0.2;
  const absl::Status status = batch.Run()[0];
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("led by rank 1 has work and was silent"));
}

TEST(BatchRootTest, SummaryCountsWhatWasWritten) {
  Batch batch(Item("a", 2) + Item("b", 3) + "bad\n");
  ExpectOk(batch.Run());
  const BatchSummary summary{.totals = batch.totals,
                             .load_seconds = 1,
                             .elapsed_seconds = 2,
                             .kv_cache_tokens = 4096,
                             .kv_cache_dtype = "fp8"};
  const nlohmann::ordered_json json = SummaryJson(summary, {{"dtype", "float32"}});
  EXPECT_EQ(json["completed"], 2);
  EXPECT_EQ(json["failed"], 1);
  EXPECT_EQ(json["prompt_tokens"], 5);
  EXPECT_EQ(json["generated_tokens"], 5);
  EXPECT_EQ(json["tokens_per_second"], 5.0);
  EXPECT_EQ(json["share_finish_reason_length"], 1.0);
  EXPECT_EQ(json["settings"]["dtype"], "float32");
  const std::string text = SummaryText(summary);
  EXPECT_THAT(text, HasSubstr("Done: 2 requests ok, 1 failed in 2.0 s"));
  EXPECT_THAT(text, HasSubstr("2.5 generated tokens/s"));
  EXPECT_THAT(text, HasSubstr("% of 4096 tokens in fp8 in use"));
  EXPECT_EQ(json["kv_cache_tokens"], 4096);
  EXPECT_THAT(text, HasSubstr("2 of 2 answers (100 %)"));
}

}  // namespace
}  // namespace cairn
