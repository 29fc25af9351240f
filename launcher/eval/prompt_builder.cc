#include "launcher/eval/prompt_builder.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "kernels/core/status_macros.h"
#include "launcher/eval/results.h"
#include "launcher/exit_codes.h"
#include "nlohmann/json.hpp"

namespace cairn {
namespace {

using nlohmann::ordered_json;

std::string Filled(const std::string& prompt_template, const std::string& prompt) {
  return absl::StrReplaceAll(prompt_template, {{"{prompt}", prompt}});
}

// What differs from the defaults of a request.
void AddSampling(const SamplingParams& sampling, ordered_json& body) {
  const SamplingParams standard;
  body["temperature"] = sampling.temperature;
  if (sampling.top_p != standard.top_p) body["top_p"] = sampling.top_p;
  if (sampling.top_k != standard.top_k) body["top_k"] = sampling.top_k;
  if (sampling.min_p != standard.min_p) body["min_p"] = sampling.min_p;
  if (sampling.min_tokens != standard.min_tokens) body["min_tokens"] = sampling.min_tokens;
  if (sampling.repetition_penalty != standard.repetition_penalty) {
    body["repetition_penalty"] = sampling.repetition_penalty;
  }
  if (sampling.presence_penalty != standard.presence_penalty) body["presence_penalty"] = sampling.presence_penalty;
  if (sampling.frequency_penalty != standard.frequency_penalty) body["frequency_penalty"] = sampling.frequency_penalty;
  if (!sampling.stop.empty()) body["stop"] = sampling.stop;
  if (sampling.ignore_eos) body["ignore_eos"] = true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PromptBuilder>> PromptBuilder::Create(const EvalOptions& options,
                                                                     const std::string& directory) {
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Load(directory));
  std::unique_ptr<PromptBuilder> builder(new PromptBuilder(options, std::move(tokenizer)));
  const bool known = builder->template_.family() != ChatTemplate::Family::kNone;
  if (options.chat == ChatTemplateUse::kOn && !known) {
    return UsageError(absl::StrCat("--apply-chat-template=true: ", directory,
                                   " has no chat template that is known here: false sends the prompts as they are"));
  }
  return builder;
}

bool PromptBuilder::uses_chat(bool task_is_for_chat) const {
  if (options_.chat != ChatTemplateUse::kAuto) return options_.chat == ChatTemplateUse::kOn;
  return task_is_for_chat && template_.family() != ChatTemplate::Family::kNone;
}

absl::StatusOr<int64_t> PromptBuilder::CountTokens(const std::string& prompt_template, const std::string& prompt,
                                                   bool chat) const {
  const std::string text = Filled(prompt_template, prompt);
  if (!chat) return static_cast<int64_t>(tokenizer_->Encode(text, /*add_special_tokens=*/true).size());
  std::vector<ChatMessage> messages;
  if (!options_.system.empty()) messages.push_back({"system", options_.system});
  messages.push_back({"user", text});
  CAIRN_ASSIGN_OR_RETURN(const std::string rendered, template_.Render(messages, options_.enable_thinking));
  return static_cast<int64_t>(tokenizer_->Encode(rendered, /*add_special_tokens=*/false).size());
}

std::string PromptBuilder::RequestLine(const Task& task, const Question& question, int64_t seed) const {
  const std::string prompt = Filled(task.prompt_template, question.prompt);
  ordered_json body;
  if (task.chat) {
    ordered_json messages = ordered_json::array();
    if (!options_.system.empty()) messages.push_back({{"role", "system"}, {"content", options_.system}});
    messages.push_back({{"role", "user"}, {"content", prompt}});
    body["messages"] = std::move(messages);
    if (!options_.enable_thinking) body["chat_template_kwargs"] = {{"enable_thinking", false}};
  } else {
    body["prompt"] = prompt;
  }
  std::optional<int32_t> max_tokens = options_.sampling.max_tokens;
  if (!max_tokens.has_value()) max_tokens = question.max_tokens.has_value() ? question.max_tokens : task.max_tokens;
  if (max_tokens.has_value()) body["max_tokens"] = *max_tokens;
  AddSampling(options_.sampling, body);
  body["seed"] = seed;
  const ordered_json line = {{"custom_id", AnswerId(question, seed)},
                             {"method", "POST"},
                             {"url", task.chat ? "/v1/chat/completions" : "/v1/completions"},
                             {"body", std::move(body)}};
  // A prompt of bytes that are not UTF-8 becomes what the tokenizer would make of it.
  return line.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace cairn
