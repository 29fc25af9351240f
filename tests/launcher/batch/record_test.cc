#include "launcher/batch/record.h"

#include <limits>
#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace cairn {
namespace {

using nlohmann::json;

// Without a tokenizer, a token's text is its id: enough for the shape of a record.
const RecordBuilder kRecords(nullptr, "some-model", ReasoningFormat::kNone, "run");

BatchItem Item(Endpoint endpoint) {
  BatchItem item;
  item.line = 3;
  item.custom_id = "id-3";
  item.endpoint = endpoint;
  return item;
}

RequestOutput Output() {
  RequestOutput output;
  output.id = "id-3";
  output.finished = true;
  output.prompt_tokens = 4;
  output.preemptions = 1;
  output.cache.peak_kv_bytes = 4096;
  output.arrival_seconds = 1;
  output.first_token_seconds = 1.5;
  output.finish_seconds = 3;
  Completion first, second;
  first.text = "hello";
  first.token_ids = {5, 6};
  first.finish_reason = FinishReason::kStop;
  first.logprobs = {{5, -0.5f, {{5, -0.5f}, {9, -1.5f}}}, {6, -2.0f, {{8, -std::numeric_limits<float>::infinity()}}}};
  second.index = 1;
  second.text = "wor\xff";  // not UTF-8
  second.token_ids = {7};
  second.finish_reason = FinishReason::kLength;
  output.completions = {first, second};
  return output;
}

TEST(RecordTest, Chat) {
  const Record record = kRecords.Success(Item(Endpoint::kChatCompletions), {1, 2, 3, 4}, Output(), 1700000000);
  EXPECT_TRUE(record.ok);
  EXPECT_EQ(record.line, 3);
  EXPECT_EQ(record.counts.prompt_tokens, 4);
  EXPECT_EQ(record.counts.completion_tokens, 3);
  EXPECT_EQ(record.counts.answers, 2);
  EXPECT_EQ(record.counts.answers_cut, 1);
  EXPECT_EQ(record.json.find('\n'), std::string::npos);
  const json line = json::parse(record.json);
  EXPECT_EQ(line["id"], "batch_req_run00000003");
  EXPECT_EQ(line["custom_id"], "id-3");
  EXPECT_TRUE(line["error"].is_null());
  EXPECT_EQ(line["response"]["status_code"], 200);
  EXPECT_EQ(line["response"]["request_id"], "req_run00000003");
  const json& body = line["response"]["body"];
  EXPECT_EQ(body["id"], "chatcmpl-run00000003");
  EXPECT_EQ(body["object"], "chat.completion");
  EXPECT_EQ(body["created"], 1700000000);
  EXPECT_EQ(body["model"], "some-model");
  EXPECT_EQ(body["usage"], json::parse(R"({"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7})"));
  ASSERT_EQ(body["choices"].size(), 2u);
  EXPECT_EQ(body["choices"][0], json::parse(R"({"index": 0, "message": {"role": "assistant", "content": "hello"},
      "logprobs": null, "finish_reason": "stop", "stop_reason": null})"));
  EXPECT_EQ(body["choices"][1]["message"]["content"], "wor\xef\xbf\xbd");
  EXPECT_EQ(body["choices"][1]["finish_reason"], "length");
  EXPECT_EQ(body["cairn"]["preemptions"], 1);
  EXPECT_EQ(body["cairn"]["peak_kv_bytes"], 4096);
  EXPECT_EQ(body["cairn"]["first_token_seconds"], 0.5);
  EXPECT_EQ(body["cairn"]["total_seconds"], 2.0);
  EXPECT_FALSE(body.contains("prompt_token_ids"));
}

TEST(RecordTest, CompletionWithIdsAndLogprobs) {
  BatchItem item = Item(Endpoint::kCompletions);
  item.return_token_ids = true;
  item.sampling.logprobs = 2;
  const json body = json::parse(kRecords.Success(item, {1, 2, 3, 4}, Output(), 0).json)["response"]["body"];
  EXPECT_EQ(body["id"], "cmpl-run00000003");
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_EQ(body["prompt_token_ids"], json::parse("[1, 2, 3, 4]"));
  const json& choice = body["choices"][0];
  EXPECT_EQ(choice["text"], "hello");
  EXPECT_EQ(choice["token_ids"], json::parse("[5, 6]"));
  EXPECT_EQ(choice["prompt_token_ids"], json::parse("[1, 2, 3, 4]"));
  EXPECT_EQ(choice["logprobs"], json::parse(R"({"tokens": ["5", "6"], "token_logprobs": [-0.5, -2.0],
      "top_logprobs": [{"5": -0.5, "9": -1.5}, {"8": -9999.0, "6": -2.0}], "text_offset": [0, 1]})"));
}

TEST(RecordTest, ChatLogprobs) {
  BatchItem item = Item(Endpoint::kChatCompletions);
  item.sampling.logprobs = 2;
  const json body = json::parse(kRecords.Success(item, {}, Output(), 0).json)["response"]["body"];
  EXPECT_EQ(body["choices"][0]["logprobs"]["content"][0], json::parse(R"({"token": "5", "logprob": -0.5, "bytes": [53],
      "top_logprobs": [{"token": "5", "logprob": -0.5, "bytes": [53]}, {"token": "9", "logprob": -1.5, "bytes": [57]}]})"));
}

std::unique_ptr<Tokenizer> TinyTokenizer() {
  return *Tokenizer::Load(std::string(CAIRN_SOURCE_DIR) + "/tests/data/checkpoints/qwen3");
}

TEST(RecordTest, ReasoningIsSplitFromTheAnswer) {
  const std::unique_ptr<Tokenizer> tokenizer = TinyTokenizer();
  const RecordBuilder records(tokenizer.get(), "m", ReasoningFormat::kDeepSeekR1, "run");
  RequestOutput output = Output();
  output.completions.resize(1);
  Completion& completion = output.completions[0];
  const auto body = [&](Endpoint endpoint, const std::string& text) {
    completion.text = text;
    completion.token_ids = tokenizer->Encode(text, false);
    completion.logprobs.clear();
    return json::parse(records.Success(Item(endpoint), {}, output, 0).json)["response"]["body"];
  };
  const json chat = body(Endpoint::kChatCompletions, "two and two</think>Four.");
  EXPECT_EQ(chat["choices"][0]["message"]["reasoning_content"], "two and two");
  EXPECT_EQ(chat["choices"][0]["message"]["content"], "Four.");
  EXPECT_EQ(chat["usage"]["completion_tokens_details"]["reasoning_tokens"],
            tokenizer->Encode("two and two", false).size());
  const json unfinished = body(Endpoint::kChatCompletions, "two and");
  EXPECT_EQ(unfinished["choices"][0]["message"]["reasoning_content"], "two and");
  EXPECT_TRUE(unfinished["choices"][0]["message"]["content"].is_null());
  EXPECT_EQ(body(Endpoint::kCompletions, "two</think>Four.")["choices"][0]["text"], "two</think>Four.");
}

TEST(RecordTest, LogprobsSpellTheTokens) {
  const std::unique_ptr<Tokenizer> tokenizer = TinyTokenizer();
  const RecordBuilder records(tokenizer.get(), "m", ReasoningFormat::kNone, "run");
  RequestOutput output = Output();
  output.completions.resize(1);
  output.completions[0].logprobs.clear();
  for (int32_t id : tokenizer->Encode("a \xc3\xa9", false)) output.completions[0].logprobs.push_back({id, -1, {}});
  BatchItem item = Item(Endpoint::kChatCompletions);
  item.sampling.logprobs = 0;
  const json body = json::parse(records.Success(item, {}, output, 0).json)["response"]["body"];
  std::string bytes;
  for (const json& token : body["choices"][0]["logprobs"]["content"]) {
    for (const json& byte : token["bytes"]) bytes += static_cast<char>(byte.get<int>());
  }
  EXPECT_EQ(bytes, "a \xc3\xa9");
}

TEST(RecordTest, StopReasonIsTextOrTokenId) {
  BatchItem item = Item(Endpoint::kCompletions);
  item.sampling.stop = {"END", "42"};
  RequestOutput output = Output();
  const auto reason = [&](const std::string& text) {
    output.completions[0].stop_reason = text;
    return json::parse(kRecords.Success(item, {}, output, 0).json)["response"]["body"]["choices"][0]["stop_reason"];
  };
  EXPECT_EQ(reason("END"), "END");
  EXPECT_EQ(reason("42"), "42");
  EXPECT_EQ(reason("7"), 7);
  EXPECT_TRUE(reason("").is_null());
}

TEST(RecordTest, Failure) {
  const Record record = kRecords.Failure(Item(Endpoint::kCompletions), {"some_code", "line 3: some text"});
  EXPECT_FALSE(record.ok);
  EXPECT_EQ(json::parse(record.json), json::parse(R"({"id": "batch_req_run00000003", "custom_id": "id-3",
      "response": null, "error": {"code": "some_code", "message": "line 3: some text"}})"));
  BatchItem nameless;
  nameless.line = 9;
  EXPECT_TRUE(json::parse(kRecords.Failure(nameless, {"invalid_json", "x"}).json)["custom_id"].is_null());
}

}  // namespace
}  // namespace cairn
