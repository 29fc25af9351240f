#include "engine/text/reasoning_parser.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace cairn {
namespace {

constexpr std::string_view kStart = "<think>", kEnd = "</think>";

// Where the thinking ends among the ids: tokens before `end` belong to it, but for the marker at `start`.
struct ThinkingIds {
  int64_t start = -1;  // index of <think>, -1 where there is none
  int64_t end = -1;    // index of </think>, -1 where there is none or it is no token of its own
};

ThinkingIds FindMarkers(const Tokenizer& tokenizer, absl::Span<const int32_t> ids) {
  ThinkingIds found;
  const int32_t start = tokenizer.TokenToId(kStart), end = tokenizer.TokenToId(kEnd);
  for (size_t i = 0; i < ids.size() && found.end < 0; ++i) {
    if (start >= 0 && ids[i] == start && found.start < 0) found.start = static_cast<int64_t>(i);
    if (end >= 0 && ids[i] == end) found.end = static_cast<int64_t>(i);
  }
  return found;
}

// Without marker tokens: how many tokens it takes to write text[0, size), fewer where `size` falls inside one.
int64_t TokensOf(const Tokenizer& tokenizer, absl::Span<const int32_t> ids, size_t size) {
  IncrementalDetokenizer detokenizer(tokenizer, /*skip_special_tokens=*/false);
  size_t written = 0;
  int64_t tokens = 0;
  for (int32_t id : ids) {
    written += detokenizer.Add(id).size();
    if (written > size) break;
    ++tokens;
  }
  return tokens;
}

// For a text without special tokens, where the markers are special: it splits where the tokens before </think> end.
// (The text may stop before the tokens do, at a stop string.)
ReasoningSplit SplitAtToken(const Tokenizer& tokenizer, std::string_view text, absl::Span<const int32_t> ids,
                            const ThinkingIds& markers) {
  ReasoningSplit split;
  const size_t begin = markers.start + 1, end = markers.end;
  const size_t thinking_ends = tokenizer.Decode(ids.first(end), /*skip_special_tokens=*/true).size();
  split.has_reasoning = true;
  split.reasoning_content = tokenizer.Decode(ids.subspan(begin, end - begin), /*skip_special_tokens=*/true);
  split.content = std::string(text.substr(std::min(thinking_ends, text.size())));
  split.reasoning_tokens = static_cast<int64_t>(end - begin);
  return split;
}

}  // namespace

absl::StatusOr<ReasoningFormat> ParseReasoningFormat(std::string_view name) {
  if (name == "none" || name.empty()) return ReasoningFormat::kNone;
  if (name == "deepseek_r1") return ReasoningFormat::kDeepSeekR1;
  if (name == "qwen3") return ReasoningFormat::kQwen3;
  return absl::InvalidArgumentError(
      absl::StrCat("unknown reasoning parser \"", std::string(name), "\" (expected none, deepseek_r1 or qwen3)"));
}

ReasoningSplit SplitReasoning(ReasoningFormat format, const Tokenizer& tokenizer, std::string_view text,
                              absl::Span<const int32_t> ids) {
  ReasoningSplit split;
  split.content = std::string(text);
  if (format == ReasoningFormat::kNone) return split;

  const ThinkingIds markers = FindMarkers(tokenizer, ids);
  const size_t end = text.find(kEnd);
  if (end == std::string_view::npos && markers.end >= 0) return SplitAtToken(tokenizer, text, ids, markers);
  if (end == std::string_view::npos && format == ReasoningFormat::kQwen3) return split;

  // The opening marker may have been written by the chat template; what stands before it is dropped, as vLLM does. One
  // that the answer itself mentions, after the thinking, is left alone (vLLM would cut the text there).
  const size_t start = text.find(kStart);
  const bool opens = start != std::string_view::npos && (end == std::string_view::npos || start < end);
  const size_t begin = opens ? start + kStart.size() : 0;
  split.has_reasoning = true;
  split.reasoning_content = std::string(text.substr(begin, end == std::string_view::npos ? end : end - begin));
  split.content = end == std::string_view::npos ? "" : std::string(text.substr(end + kEnd.size()));

  const auto total = static_cast<int64_t>(ids.size());
  if (markers.end >= 0 || (end == std::string_view::npos && (markers.start >= 0 || !opens))) {
    split.reasoning_tokens = (markers.end >= 0 ? markers.end : total) - (markers.start + 1);
  } else {
    const int64_t before_end = end == std::string_view::npos ? total : TokensOf(tokenizer, ids, end);
    split.reasoning_tokens = before_end - (opens ? TokensOf(tokenizer, ids, begin) : 0);
  }
  return split;
}

}  // namespace cairn
