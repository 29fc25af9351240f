#include "launcher/eval/grading.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "launcher/eval/answer_text.h"
#include "launcher/eval/math_answer.h"
#include "launcher/eval/math_expression.h"

namespace cairn {
namespace {

constexpr uint32_t kMatchLimit = 10'000'000;
constexpr size_t kLongestBareAnswer = 80;  // bytes
constexpr size_t kLongestFound = 200;

std::string Shortened(std::string text) {
  if (text.size() <= kLongestFound) return text;
  size_t end = kLongestFound;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // not within a character
  return text.substr(0, end) + "...";
}

template <typename Equal>
bool AnyOf(const std::vector<std::string>& answers, Equal equal) {
  return std::any_of(answers.begin(), answers.end(), equal);
}

Grade GradeNumber(const std::vector<std::string>& answers, const std::string& text) {
  if (const std::optional<std::string> boxed = LastBoxed(text)) {
    const auto equal = [&](const std::string& answer) { return MathEqual(*boxed, answer); };
    if (AnyOf(answers, equal)) return {true, *boxed};
    if (EvaluateMath(NormalizeMath(*boxed), 0).has_value()) return {false, *boxed};
    // Words around the number.
    if (const std::optional<std::string> number = LastNumber(*boxed)) {
      return {AnyOf(answers, [&](const std::string& answer) { return PlainNumber(answer) == number; }), *boxed};
    }
  }
  const std::optional<std::string> number = LastNumber(text);
  if (!number.has_value()) return {};
  return {AnyOf(answers, [&](const std::string& answer) { return PlainNumber(answer) == number; }), *number};
}

Grade GradeMath(const std::vector<std::string>& answers, const std::string& text) {
  std::optional<std::string> found = LastBoxed(text);
  if (!found.has_value() && text.size() <= kLongestBareAnswer && text.find('\n') == std::string::npos) found = text;
  if (!found.has_value()) return {};
  return {AnyOf(answers, [&](const std::string& answer) { return MathEqual(*found, answer); }), Shortened(*found)};
}

Grade GradeContains(const std::vector<std::string>& answers, const std::string& text) {
  const std::string lower = absl::AsciiStrToLower(text);
  const bool right = std::all_of(answers.begin(), answers.end(), [&](const std::string& answer) {
    return lower.find(absl::AsciiStrToLower(answer)) != std::string::npos;
  });
  return {right, Shortened(text)};
}

}  // namespace

absl::StatusOr<AnswerRegex> AnswerRegex::Compile(const std::string& pattern) {
  int error = 0;
  size_t offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (code == nullptr) {
    PCRE2_UCHAR text[256];
    pcre2_get_error_message(error, text, sizeof(text));
    return absl::InvalidArgumentError(
        absl::StrCat("the regular expression does not compile: ", reinterpret_cast<const char*>(text),
                     " (at character ", offset, ")"));
  }
  return AnswerRegex(std::shared_ptr<const void>(
      code, [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); }));
}

bool AnswerRegex::Matches(const std::string& text) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(code, nullptr), pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  pcre2_set_match_limit(context.get(), kMatchLimit);
  return pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0, data.get(), context.get()) >=
         0;
}

Grade GradeAnswer(const Expectation& expectation, std::string_view text) {
  const std::string answer = AfterThinking(text);
  switch (expectation.match) {
    case Match::kExact:
      return {AnyOf(expectation.answers, [&](const std::string& expected) { return Trim(expected) == answer; }),
              Shortened(answer)};
    case Match::kNumber:
      return GradeNumber(expectation.answers, answer);
    case Match::kMath:
      return GradeMath(expectation.answers, answer);
    case Match::kContains:
      return GradeContains(expectation.answers, answer);
    case Match::kRegex:
      return {expectation.regex->Matches(answer), Shortened(answer)};
  }
  return {};
}

}  // namespace cairn
