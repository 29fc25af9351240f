// A question as a request: the prompt template, the chat, the sampling.
#ifndef CAIRN_LAUNCHER_EVAL_PROMPT_BUILDER_H_
#define CAIRN_LAUNCHER_EVAL_PROMPT_BUILDER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "launcher/eval/eval_flags.h"
#include "launcher/eval/task.h"

namespace cairn {

class PromptBuilder {
 public:
  // `directory`: of the tokenizer. Errors name it, or --apply-chat-template where the model's template is not known.
  static absl::StatusOr<std::unique_ptr<PromptBuilder>> Create(const EvalOptions& options,
                                                               const std::string& directory);

  bool uses_chat(bool task_is_for_chat) const;
  // Tokens of the request whose question this is, in a chat or not.
  absl::StatusOr<int64_t> CountTokens(const std::string& prompt_template, const std::string& prompt, bool chat) const;
  // A line for `cairn run-batch`.
  std::string RequestLine(const Task& task, const Question& question, int64_t seed) const;

 private:
  PromptBuilder(const EvalOptions& options, std::unique_ptr<Tokenizer> tokenizer)
      : options_(options), tokenizer_(std::move(tokenizer)), template_(ChatTemplate::FromTokenizer(*tokenizer_)) {}

  EvalOptions options_;
  std::unique_ptr<Tokenizer> tokenizer_;
  ChatTemplate template_;
};

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_EVAL_PROMPT_BUILDER_H_
