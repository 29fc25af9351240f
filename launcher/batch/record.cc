#include "launcher/batch/record.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/core/check.h"
#include "launcher/batch/logprobs_json.h"
#include "nlohmann/json.hpp"

namespace cairn {
namespace {

// Keys in OpenAI's order, for people who read the file.
using nlohmann::ordered_json;

// What is not UTF-8 (a token that holds part of a character) is written as U+FFFD.
std::string Dump(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

// vLLM's stop_reason: the string, the token's id as a number, or null.
ordered_json StopReason(const SamplingParams& sampling, const Completion& completion) {
  const std::string& reason = completion.stop_reason;
  if (reason.empty()) return nullptr;
  if (std::find(sampling.stop.begin(), sampling.stop.end(), reason) != sampling.stop.end()) return reason;
  return std::stoll(reason);
}

ordered_json Message(const ReasoningSplit& split, bool with_reasoning) {
  ordered_json message = {{"role", "assistant"}};
  if (with_reasoning) {
    message["reasoning_content"] = split.has_reasoning ? ordered_json(split.reasoning_content) : ordered_json();
  }
  // An answer that never left its thinking has no content.
  const bool no_content = split.has_reasoning && split.content.empty();
  message["content"] = no_content ? ordered_json() : ordered_json(split.content);
  return message;
}

}  // namespace

struct RecordBuilder::Built {
  ordered_json choice;
  int64_t reasoning_tokens = 0;
};

RecordBuilder::Built RecordBuilder::Choice(const BatchItem& item, const std::vector<int32_t>& prompt_ids,
                                           const Completion& completion) const {
  CAIRN_CHECK(completion.finish_reason != FinishReason::kNone, "answer of ", item.custom_id, " is not finished");
  Built built{{{"index", completion.index}}};
  ordered_json& choice = built.choice;
  ordered_json logprobs;
  if (item.endpoint == Endpoint::kChatCompletions) {
    ReasoningSplit split;
    split.content = completion.text;
    const bool with_reasoning = reasoning_ != ReasoningFormat::kNone && tokenizer_ != nullptr;
    if (with_reasoning) split = SplitReasoning(reasoning_, *tokenizer_, completion.text, completion.token_ids);
    built.reasoning_tokens = split.reasoning_tokens;
    choice["message"] = Message(split, with_reasoning);
    if (item.sampling.logprobs.has_value()) logprobs = ChatLogprobs(tokenizer_, completion.logprobs);
  } else {
    choice["text"] = completion.text;
    if (item.sampling.logprobs.has_value()) logprobs = CompletionLogprobs(tokenizer_, completion.logprobs);
  }
  choice["logprobs"] = std::move(logprobs);
  choice["finish_reason"] = completion.finish_reason == FinishReason::kStop ? "stop" : "length";
  choice["stop_reason"] = StopReason(item.sampling, completion);
  if (item.return_token_ids) {
    choice["prompt_token_ids"] = prompt_ids;
    choice["token_ids"] = completion.token_ids;
  }
  return built;
}

Record RecordBuilder::Success(const BatchItem& item, const std::vector<int32_t>& prompt_ids,
                              const RequestOutput& output, int64_t created) const {
  Record record{.line = item.line, .ok = true, .counts = {}, .json = ""};
  RecordCounts& counts = record.counts;
  counts.prompt_tokens = output.prompt_tokens;
  ordered_json choices = ordered_json::array();
  for (const Completion& completion : output.completions) {
    Built built = Choice(item, prompt_ids, completion);
    choices.push_back(std::move(built.choice));
    counts.reasoning_tokens += built.reasoning_tokens;
    counts.completion_tokens += static_cast<int64_t>(completion.token_ids.size());
    counts.answers += 1;
    counts.answers_cut += completion.finish_reason == FinishReason::kLength;
  }
  ordered_json usage = {{"prompt_tokens", counts.prompt_tokens},
                        {"completion_tokens", counts.completion_tokens},
                        {"total_tokens", counts.prompt_tokens + counts.completion_tokens}};
  if (reasoning_ != ReasoningFormat::kNone) {
    usage["completion_tokens_details"] = {{"reasoning_tokens", counts.reasoning_tokens}};
  }
  const bool chat = item.endpoint == Endpoint::kChatCompletions;
  const std::string suffix = absl::StrFormat("%s%08x", run_id_, item.line);
  ordered_json body = {{"id", (chat ? "chatcmpl-" : "cmpl-") + suffix},
                       {"object", chat ? "chat.completion" : "text_completion"},
                       {"created", created},
                       {"model", model_},
                       {"choices", std::move(choices)},
                       {"usage", std::move(usage)}};
  // vLLM has a chat's prompt ids here; ours are beside every answer's ids too.
  if (item.return_token_ids) body["prompt_token_ids"] = prompt_ids;
  body["cairn"] = {{"preemptions", output.preemptions},
                   {"compactions", output.cache.compactions},
                   {"evicted_tokens", output.cache.evicted_tokens},
                   {"blocks_freed", output.cache.blocks_freed},
                   {"peak_kv_bytes", output.cache.peak_kv_bytes},
                   {"full_cache_kv_bytes", output.cache.full_cache_kv_bytes},
                   {"compression_ratio", output.cache.compression_ratio()},
                   {"first_token_seconds", output.first_token_seconds - output.arrival_seconds},
                   {"total_seconds", output.finish_seconds - output.arrival_seconds}};
  const ordered_json response = {{"status_code", 200}, {"request_id", "req_" + suffix}, {"body", std::move(body)}};
  record.json =
      Dump({{"id", "batch_req_" + suffix}, {"custom_id", item.custom_id}, {"response", response}, {"error", nullptr}});
  return record;
}

Record RecordBuilder::Failure(const BatchItem& item, const ItemError& error) const {
  const ordered_json custom_id = item.custom_id.empty() ? ordered_json() : ordered_json(item.custom_id);
  return {.line = item.line,
          .ok = false,
          .counts = {},
          .json = Dump({{"id", absl::StrFormat("batch_req_%s%08x", run_id_, item.line)},
                        {"custom_id", custom_id},
                        {"response", nullptr},
                        {"error", {{"code", error.code}, {"message", error.message}}}})};
}

}  // namespace cairn
