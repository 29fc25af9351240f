// What a request asks for is what it gets: counts, ends, texts, errors.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/engine_harness.h"

namespace cairn {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class EngineTest : public testing::Test {
 protected:
  static std::unique_ptr<Engine> Make(int64_t max_model_len = 0) {
    EngineOptions options = TestOptions(CheckpointDir("llama3"));
    options.max_model_len = max_model_len;
    absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::CreateLocal(options);
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }
  // The finished output, and all streamed pieces of answer 0 put together.
  static RequestOutput Finish(Engine& engine, Request request, std::string* streamed = nullptr) {
    EXPECT_TRUE(engine.Add(request).ok());
    RequestOutput last;
    while (engine.HasWork()) {
      auto outputs = engine.Step();
      for (RequestOutput& output : *outputs) {
        if (streamed != nullptr && !output.finished) {
          for (const Completion& piece : output.completions) *streamed += piece.index == 0 ? piece.text : "";
        }
        if (output.finished) last = std::move(output);
      }
    }
    return last;
  }
};

TEST_F(EngineTest, TextIsTheDecodedTokensAndStreamsWhole) {
  auto engine = Make();
  std::string streamed;
  const RequestOutput output = Finish(*engine, GreedyRequest("a", {1, 2, 3, 4, 5}, 40), &streamed);
  const Completion& answer = output.completions.at(0);
  EXPECT_EQ(answer.text, engine->tokenizer()->Decode(answer.token_ids, true));
  EXPECT_EQ(answer.text.rfind(streamed, 0), 0u) << "what was streamed must begin the text";
  EXPECT_FALSE(streamed.empty());
  EXPECT_EQ(output.prompt_tokens, 5);
  EXPECT_GT(output.cache.peak_kv_bytes, 0);
}

TEST_F(EngineTest, StopStringAcrossTokenBorders) {
  auto engine = Make();
  const Request request = GreedyRequest("a", {1, 2, 3, 4, 5}, 40);
  const Completion whole = Finish(*engine, request).completions[0];
  // Every substring of a few bytes, at every place, wherever it first occurs.
  for (size_t at = 0; at + 4 < whole.text.size() && at < 60; at += 3) {
    Request stopped = request;
    stopped.sampling.stop = {"never in there \x01", whole.text.substr(at, 4)};
    const size_t cut = whole.text.find(stopped.sampling.stop[1]);
    std::string streamed;
    Completion answer = Finish(*engine, stopped, &streamed).completions[0];
    EXPECT_EQ(answer.text, whole.text.substr(0, cut));
    EXPECT_EQ(answer.finish_reason, FinishReason::kStop);
    EXPECT_EQ(answer.stop_reason, stopped.sampling.stop[1]);
    EXPECT_LE(streamed.size(), answer.text.size()) << "part of the stop string was streamed";
    EXPECT_EQ(answer.text.rfind(streamed, 0), 0u);
    stopped.sampling.include_stop_str_in_output = true;
    EXPECT_EQ(Finish(*engine, stopped).completions[0].text, whole.text.substr(0, cut + 4));
  }
}

TEST_F(EngineTest, StopTokensEosAndMinTokens) {
  auto engine = Make();
  Request request = GreedyRequest("a", {1, 2, 3, 4, 5}, 30);
  const std::vector<int32_t> free_run = Finish(*engine, request).completions[0].token_ids;
  const int32_t stop = free_run[10];
  const size_t first = std::find(free_run.begin(), free_run.end(), stop) - free_run.begin();
  request.sampling.stop_token_ids = {stop};
  Completion answer = Finish(*engine, request).completions[0];
  EXPECT_EQ(answer.token_ids.size(), first + 1);
  EXPECT_EQ(answer.finish_reason, FinishReason::kStop);
  EXPECT_EQ(answer.stop_reason, std::to_string(stop));
  EXPECT_EQ(answer.text, engine->tokenizer()->Decode(absl::MakeSpan(free_run.data(), first), true));
  request.sampling.min_tokens = static_cast<int32_t>(first) + 5;
  answer = Finish(*engine, request).completions[0];
  EXPECT_GE(answer.token_ids.size(), first + 5);
  EXPECT_EQ(std::count(answer.token_ids.begin(), answer.token_ids.begin() + first + 5, stop), 0);
}

TEST_F(EngineTest, SeveralAnswersDifferAndRepeat) {
  auto engine = Make();
  Request request = GreedyRequest("many", {9, 8, 7}, 12);
  request.sampling.temperature = 1;
  request.sampling.n = 4;
  const RequestOutput first = Finish(*engine, request);
  ASSERT_EQ(first.completions.size(), 4u);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(first.completions[i].index, i);
  EXPECT_NE(first.completions[0].token_ids, first.completions[1].token_ids);
  const RequestOutput again = Finish(*engine, request);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(first.completions[i].token_ids, again.completions[i].token_ids);
  request.sampling.seed = 1234;
  EXPECT_NE(Finish(*engine, request).completions[0].token_ids, first.completions[0].token_ids);
}

TEST_F(EngineTest, WithoutMaxTokensTheContextIsTheLimit) {
  auto engine = Make(24);
  Request request = GreedyRequest("a", {1, 2, 3, 4}, 1);
  request.sampling.max_tokens.reset();
  const Completion answer = Finish(*engine, request).completions[0];
  EXPECT_EQ(answer.token_ids.size(), 20u);
  EXPECT_EQ(answer.finish_reason, FinishReason::kLength);
}

TEST_F(EngineTest, ImpossibleRequestsAreRefusedWithTheNumbers) {
  auto engine = Make(24);
  absl::Status status = engine->Add(GreedyRequest("a", std::vector<int32_t>(20, 3), 10));
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("20"), HasSubstr("10"), HasSubstr("6 more"), HasSubstr("24")));
  EXPECT_THAT(std::string(engine->Add(GreedyRequest("a", {}, 1)).message()), HasSubstr("empty"));
  EXPECT_THAT(std::string(engine->Add(GreedyRequest("a", {100000}, 1)).message()), HasSubstr("100000"));
  Request bad = GreedyRequest("a", {1}, 1);
  bad.sampling.top_p = 1.5f;
  EXPECT_THAT(std::string(engine->Add(bad).message()), AllOf(HasSubstr("top_p"), HasSubstr("1.5")));
  EXPECT_TRUE(engine->Add(GreedyRequest("a", {1}, 1)).ok());
  EXPECT_EQ(engine->Add(GreedyRequest("a", {1}, 1)).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(engine->num_unfinished(), 1);
}

TEST_F(EngineTest, CancelledRequestsLeaveNothingBehind) {
  auto engine = Make();
  ASSERT_TRUE(engine->Add(GreedyRequest("stays", {1, 2}, 20)).ok());
  ASSERT_TRUE(engine->Add(GreedyRequest("goes", {1, 2}, 200)).ok());
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(engine->Step().ok());
  ASSERT_TRUE(engine->Cancel("goes").ok());
  EXPECT_EQ(engine->Cancel("unknown").code(), absl::StatusCode::kNotFound);
  int finished = 0;
  while (engine->HasWork()) {
    const auto outputs = engine->Step();
    for (const RequestOutput& output : *outputs) {
      EXPECT_EQ(output.id, "stays");
      finished += output.finished;
    }
  }
  EXPECT_EQ(finished, 1);
  EXPECT_EQ(engine->num_running(), 0);
}

TEST(EngineStartTest, ErrorsReachEveryRank) {
  EngineOptions options = TestOptions(CheckpointDir("llama3"), {1, 2, 1});
  options.pp_layer_partition = "3,3";
  std::vector<absl::Status> statuses = RunThreadRanks(2, [&](ControlChannel& world) -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(ProcessGroups groups, MakeProcessGroups(&world, options.parallel));
    return Engine::Create(options, std::move(groups)).status();
  });
  for (const absl::Status& status : statuses) EXPECT_THAT(std::string(status.message()), HasSubstr("3,3"));
  options = TestOptions("/nowhere");
  EXPECT_THAT(std::string(Engine::CreateLocal(options).status().message()), HasSubstr("/nowhere"));
  options = TestOptions(CheckpointDir("llama3"));
  options.max_model_len = 100;
  options.kv_cache_memory_bytes = 20000;
  EXPECT_THAT(std::string(Engine::CreateLocal(options).status().message()), HasSubstr("--max-model-len"));
  options.kv_cache_memory_bytes = 100;
  EXPECT_THAT(std::string(Engine::CreateLocal(options).status().message()), HasSubstr("--kv-cache-memory-bytes"));
  options = TestOptions(CheckpointDir("llama3"));
  options.parallel.tp = 3;
  statuses = RunThreadRanks(3, [&](ControlChannel& world) -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(ProcessGroups groups, MakeProcessGroups(&world, options.parallel));
    return Engine::Create(options, std::move(groups)).status();
  });
  for (const absl::Status& status : statuses) EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
}

TEST(EngineDummyTest, DummyWeightsAreTheSameModelOnEverySharding) {
  EngineOptions options = TestOptions(std::string(CAIRN_SOURCE_DIR) + "/configs/models/tiny-llama.yaml");
  options.load_format = LoadFormat::kDummy;
  const std::vector<Request> requests = {GreedyRequest("a", {1, 2, 3}, 8)};
  const absl::StatusOr<HarnessResult> one = RunEngine(options, requests);
  ASSERT_TRUE(one.ok()) << one.status();
  options.parallel = {2, 2, 1};
  const absl::StatusOr<HarnessResult> four = RunEngine(options, requests);
  ASSERT_TRUE(four.ok()) << four.status();
  EXPECT_EQ(one->outputs.at("a").completions[0].token_ids, four->outputs.at("a").completions[0].token_ids);
}

}  // namespace
}  // namespace cairn
