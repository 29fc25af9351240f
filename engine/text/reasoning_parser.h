// Splits a reasoning model's answer into its thinking and its content, as vLLM's --reasoning-parser does.
#ifndef CAIRN_ENGINE_TEXT_REASONING_PARSER_H_
#define CAIRN_ENGINE_TEXT_REASONING_PARSER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/text/tokenizer.h"

namespace cairn {

enum class ReasoningFormat { kNone, kDeepSeekR1, kQwen3 };

absl::StatusOr<ReasoningFormat> ParseReasoningFormat(std::string_view name);  // none, deepseek_r1, qwen3

struct ReasoningSplit {
  bool has_reasoning = false;  // false: reasoning_content is null in the answer
  std::string reasoning_content;
  std::string content;
  int64_t reasoning_tokens = 0;
};

// `text` is the answer with special tokens kept or skipped (</think> is found either way when it is text; ids serve
// where the markers are special tokens), `ids` its tokens. deepseek_r1: no <think> needed (the template may have opened
// it); without </think> all is reasoning. qwen3: without </think>, all is content (as vLLM's qwen3 parser does).
ReasoningSplit SplitReasoning(ReasoningFormat format, const Tokenizer& tokenizer, std::string_view text,
                              absl::Span<const int32_t> ids);

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_REASONING_PARSER_H_
