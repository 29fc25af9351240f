#include "launcher/batch/batch_item.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cairn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ParsedItem ParseLine(const std::string& text) { return ParseBatchItem({.number = 7, .text = text, .too_long = false}); }

std::string Line(const std::string& endpoint, const std::string& body) {
  return R"({"custom_id": "a", "method": "POST", "url": "/v1/)" + endpoint + R"(", "body": )" + body + "}";
}

BatchItem Completion(const std::string& fields) {
  const ParsedItem parsed = ParseLine(Line("completions", R"({"prompt": "p")" + fields + "}"));
  EXPECT_FALSE(parsed.error.has_value()) << fields << ": " << parsed.error->message;
  return parsed.item;
}

BatchItem Chat(const std::string& fields) {
  const ParsedItem parsed =
      ParseLine(Line("chat/completions", R"({"messages": [{"role": "user", "content": "hi"}])" + fields + "}"));
  EXPECT_FALSE(parsed.error.has_value()) << fields << ": " << parsed.error->message;
  return parsed.item;
}

ItemError Error(const std::string& text) {
  const ParsedItem parsed = ParseLine(text);
  EXPECT_TRUE(parsed.error.has_value()) << text;
  return parsed.error.value_or(ItemError{});
}

ItemError CompletionError(const std::string& fields) {
  return Error(Line("completions", R"({"prompt": "p")" + fields + "}"));
}
ItemError ChatError(const std::string& fields) {
  return Error(Line("chat/completions", R"({"messages": [{"role": "user", "content": "hi"}])" + fields + "}"));
}

TEST(BatchItemTest, ReadsAllSamplingFields) {
  const BatchItem item = Completion(
      R"(, "max_tokens": 10, "min_tokens": 2, "n": 3, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1,
          "seed": -5, "repetition_penalty": 1.1, "presence_penalty": -1, "frequency_penalty": 0.25, "stop": ["x", "y"],
          "stop_token_ids": [1, 2], "ignore_eos": true, "include_stop_str_in_output": true,
          "skip_special_tokens": false, "logprobs": 4, "return_token_ids": true, "add_special_tokens": false)");
  EXPECT_EQ(item.line, 7);
  EXPECT_EQ(item.custom_id, "a");
  EXPECT_EQ(item.endpoint, Endpoint::kCompletions);
  EXPECT_EQ(item.prompt, "p");
  EXPECT_FALSE(item.add_special_tokens);
  EXPECT_TRUE(item.return_token_ids);
  const SamplingParams& s = item.sampling;
  EXPECT_EQ(s.max_tokens, 10);
  EXPECT_EQ(s.min_tokens, 2);
  EXPECT_EQ(s.n, 3);
  EXPECT_FLOAT_EQ(s.temperature, 0.5f);
  EXPECT_FLOAT_EQ(s.top_p, 0.9f);
  EXPECT_EQ(s.top_k, 40);
  EXPECT_FLOAT_EQ(s.min_p, 0.1f);
  EXPECT_EQ(s.seed, -5);
  EXPECT_FLOAT_EQ(s.repetition_penalty, 1.1f);
  EXPECT_FLOAT_EQ(s.presence_penalty, -1);
  EXPECT_FLOAT_EQ(s.frequency_penalty, 0.25f);
  EXPECT_THAT(s.stop, ElementsAre("x", "y"));
  EXPECT_THAT(s.stop_token_ids, ElementsAre(1, 2));
  EXPECT_TRUE(s.ignore_eos);
  EXPECT_TRUE(s.include_stop_str_in_output);
  EXPECT_FALSE(s.skip_special_tokens);
  EXPECT_EQ(s.logprobs, 4);
}

TEST(BatchItemTest, DefaultsAreOpenAis) {
  const BatchItem item = Completion("");
  EXPECT_FALSE(item.sampling.max_tokens.has_value());  // up to the context limit, unlike OpenAI's old 16
  EXPECT_EQ(item.sampling.temperature, 1);
  EXPECT_TRUE(item.add_special_tokens);
  EXPECT_FALSE(item.sampling.logprobs.has_value());
  EXPECT_FALSE(Chat("").add_special_tokens);
  EXPECT_TRUE(Chat("").enable_thinking);
}

TEST(BatchItemTest, PromptForms) {
  const auto prompt = [](const std::string& value) {
    const ParsedItem parsed = ParseLine(Line("completions", R"({"prompt": )" + value + "}"));
    EXPECT_FALSE(parsed.error.has_value()) << value;
    return parsed.item;
  };
  EXPECT_EQ(prompt(R"("text")").prompt, "text");
  EXPECT_EQ(prompt(R"(["text"])").prompt, "text");
  EXPECT_THAT(*prompt("[1, 2, 3]").prompt_ids, ElementsAre(1, 2, 3));
  EXPECT_THAT(*prompt("[[1, 2, 3]]").prompt_ids, ElementsAre(1, 2, 3));
  const auto error = [](const std::string& value) {
    return Error(Line("completions", R"({"prompt": )" + value + "}")).message;
  };
  EXPECT_THAT(error(R"(["a", "b"])"), HasSubstr("line 7: body.prompt: it holds 2 prompts"));
  EXPECT_THAT(error("[1, \"a\"]"), HasSubstr("body.prompt: expected an integer"));
  EXPECT_THAT(error("[1, 1.5]"), HasSubstr("expected an integer, found 1.5"));
  EXPECT_THAT(error("[3000000000]"), HasSubstr("32-bit"));
  EXPECT_THAT(error("[]"), HasSubstr("body.prompt"));
  EXPECT_THAT(error("{}"), HasSubstr("body.prompt"));
  EXPECT_THAT(error("null"), HasSubstr("body.prompt: it is missing"));
}

TEST(BatchItemTest, MessageForms) {
  const auto messages = [](const std::string& value) {
    const ParsedItem parsed = ParseLine(Line("chat/completions", R"({"messages": )" + value + "}"));
    EXPECT_FALSE(parsed.error.has_value()) << parsed.error->message;
    return parsed.item.messages;
  };
  const auto two = messages(R"([{"role": "system", "content": "s"}, {"role": "user", "content": "u", "name": "n"}])");
  ASSERT_EQ(two.size(), 2u);
  EXPECT_EQ(two[0].role, "system");
  EXPECT_EQ(two[1].content, "u");
  const auto parts = messages(
      R"([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "tool_calls": []}])");
  EXPECT_EQ(parts[0].content, "a\nb");
  const auto error = [](const std::string& value) {
    return Error(Line("chat/completions", R"({"messages": )" + value + "}"));
  };
  EXPECT_THAT(error(R"([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])").message,
              HasSubstr("message 0: only parts of type text"));
  EXPECT_THAT(error(R"([{"role": "user"}])").message, HasSubstr("message 0: expected role and content"));
  EXPECT_THAT(error(R"([{"role": "user", "content": null}])").message, HasSubstr("message 0: expected a text"));
  EXPECT_THAT(error("[]").message, HasSubstr("body.messages"));
  EXPECT_EQ(error(R"([{"role": "assistant", "content": "", "tool_calls": [{}]}])").code, "unsupported_field");
}

TEST(BatchItemTest, ChatFields) {
  EXPECT_EQ(Chat(R"(, "max_tokens": 5, "max_completion_tokens": 9)").sampling.max_tokens, 9);
  EXPECT_EQ(Chat(R"(, "max_completion_tokens": 9)").sampling.max_tokens, 9);
  EXPECT_EQ(Chat(R"(, "logprobs": true)").sampling.logprobs, 0);
  EXPECT_EQ(Chat(R"(, "logprobs": true, "top_logprobs": 5)").sampling.logprobs, 5);
  EXPECT_FALSE(Chat(R"(, "logprobs": false)").sampling.logprobs.has_value());
  EXPECT_FALSE(Chat(R"(, "chat_template_kwargs": {"enable_thinking": false})").enable_thinking);
  EXPECT_THAT(ChatError(R"(, "top_logprobs": 5)").message, HasSubstr("body.top_logprobs"));
  EXPECT_THAT(ChatError(R"(, "logprobs": 5)").message, HasSubstr("body.logprobs: expected true or false"));
  EXPECT_EQ(ChatError(R"(, "chat_template_kwargs": {"x": 1})").code, "unsupported_field");
  EXPECT_EQ(ChatError(R"(, "prompt": "x")").code, "invalid_request");
}

TEST(BatchItemTest, IgnoresAndAcceptsWhatAsksForNothing) {
  Completion(R"(, "model": "any", "user": "me", "stream": false, "stream_options": null, "echo": false, "suffix": null,
                 "best_of": 1, "logit_bias": {}, "seed": null, "stop": null, "tools": null)");
  Completion(R"(, "n": 2, "best_of": 2)");
  Chat(R"(, "response_format": {"type": "text"}, "tools": [], "tool_choice": "none", "metadata": {"a": "b"})");
  EXPECT_EQ(Completion(R"(, "max_tokens": 5.0)").sampling.max_tokens, 5);
  EXPECT_THAT(Completion(R"(, "stop": "end")").sampling.stop, ElementsAre("end"));
}

TEST(BatchItemTest, RefusesWhatWouldChangeTheAnswer) {
  for (const char* field :
       {R"("stream": true)", R"("echo": true)", R"("suffix": "x")", R"("best_of": 3)", R"("logit_bias": {"5": 1})",
        R"("response_format": {"type": "json_object"})", R"("tools": [{}])", R"("guided_json": {})",
        R"("truncate_prompt_tokens": 5)", R"("use_beam_search": true)"}) {
    const ItemError error = CompletionError(std::string(", ") + field);
    EXPECT_EQ(error.code, "unsupported_field") << field;
    const std::string quoted(field);
    EXPECT_THAT(error.message, HasSubstr("line 7: body." + quoted.substr(1, quoted.find('"', 1) - 1)));
  }
  EXPECT_EQ(CompletionError(R"(, "temprature": 0)").code, "unknown_field");
  EXPECT_THAT(CompletionError(R"(, "temprature": 0)").message, HasSubstr("did you mean temperature?"));
}

TEST(BatchItemTest, TypesAndRanges) {
  EXPECT_THAT(CompletionError(R"(, "temperature": "hot")").message,
              HasSubstr("body.temperature: expected a number, found \"hot\""));
  EXPECT_THAT(CompletionError(R"(, "temperature": -1)").message, HasSubstr("body.temperature is -1"));
  EXPECT_THAT(CompletionError(R"(, "n": 0)").message, HasSubstr("body.n is 0"));
  EXPECT_THAT(CompletionError(R"(, "max_tokens": 1e20)").message, HasSubstr("body.max_tokens"));
  EXPECT_THAT(CompletionError(R"(, "max_tokens": 5000000000)").message, HasSubstr("32-bit"));
  EXPECT_THAT(CompletionError(R"(, "seed": 18446744073709551615)").message, HasSubstr("64-bit"));
  EXPECT_THAT(CompletionError(R"(, "top_k": true)").message, HasSubstr("expected an integer"));
  EXPECT_THAT(CompletionError(R"(, "stop": [1])").message, HasSubstr("expected a string"));
  EXPECT_THAT(CompletionError(R"(, "logprobs": 21)").message, HasSubstr("body.logprobs is 21"));
  const std::string large = CompletionError(R"(, "seed": ")" + std::string(100000, 'x') + "\"").message;
  EXPECT_LT(large.size(), 200u);
}

TEST(BatchItemTest, EnvelopeErrors) {
  EXPECT_EQ(Error("").code, "invalid_json");
  EXPECT_EQ(Error("{").code, "invalid_json");
  EXPECT_EQ(Error("[1]").code, "invalid_json");
  EXPECT_EQ(Error("{\"a\": \"\xff\"}").code, "invalid_json");
  EXPECT_EQ(Error(R"({"custom_id": "\ud800"})").code, "invalid_json");
  EXPECT_THAT(Error("{\"a\": }").message, HasSubstr("line 7: parse error at line 1, column"));
  EXPECT_EQ(Error("{}").code, "missing_custom_id");
  EXPECT_EQ(Error(R"({"custom_id": 5})").code, "missing_custom_id");
  EXPECT_EQ(Error(R"({"custom_id": ""})").code, "missing_custom_id");
  EXPECT_EQ(Error(R"({"custom_id": ")" + std::string(600, 'i') + "\"}").code, "invalid_custom_id");
  EXPECT_EQ(Error(R"({"custom_id": "a"})").code, "invalid_method");
  EXPECT_EQ(Error(R"({"custom_id": "a", "method": "GET"})").code, "invalid_method");
  EXPECT_EQ(Error(R"({"custom_id": "a", "method": "POST", "url": "/v1/embeddings"})").code, "invalid_url");
  EXPECT_EQ(Error(R"({"custom_id": "a", "method": "POST", "url": "/v1/completions"})").code, "invalid_request");
  EXPECT_EQ(ParseLine(R"({"custom_id": "a", "method": "GET"})").item.custom_id, "a");
  EXPECT_EQ(ParseBatchItem({.number = 1, .text = "{", .too_long = true}).error->code, "line_too_long");
}

TEST(BatchItemTest, HostileJsonIsRefusedQuickly) {
  const std::string deep(1'000'000, '[');
  EXPECT_THAT(Error(deep).message, HasSubstr("nested deeper than 64"));
  std::string many = "[";
  for (int i = 0; i < 2'100'000; ++i) many += "0,";
  EXPECT_THAT(Error(many + "0]").message, HasSubstr("more than 2000000 values"));
}

}  // namespace
}  // namespace cairn
