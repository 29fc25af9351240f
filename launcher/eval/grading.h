// Right or wrong: what a question expects, and what an answer says.
#ifndef CAIRN_LAUNCHER_EVAL_GRADING_H_
#define CAIRN_LAUNCHER_EVAL_GRADING_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace cairn {

// A regular expression of a task file (Perl's syntax, PCRE2), found anywhere in the answer.
class AnswerRegex {
 public:
  // INVALID_ARGUMENT says what is wrong and where.
  static absl::StatusOr<AnswerRegex> Compile(const std::string& pattern);
  // A pattern that exceeds PCRE2's limits on this text counts as no match.
  bool Matches(const std::string& text) const;

 private:
  explicit AnswerRegex(std::shared_ptr<const void> code) : code_(std::move(code)) {}
  std::shared_ptr<const void> code_;  // pcre2_code
};

// How the final text (what follows the thinking) is compared.
enum class Match {
  kExact,     // it is one of the answers
  kNumber,    // the boxed number, or else the last number, equals one of them
  kMath,      // what is boxed, or else a text of one short line, is equivalent to one of them
  kContains,  // all of the answers are in it, whatever their case
  kRegex,     // the expression matches in it
};

struct Expectation {
  Match match = Match::kExact;
  std::vector<std::string> answers = {};
  std::shared_ptr<const AnswerRegex> regex = {};  // kRegex
};

struct Grade {
  bool right = false;
  std::string found;  // what was taken for the answer; "" for none
};

Grade GradeAnswer(const Expectation& expectation, std::string_view text);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_EVAL_GRADING_H_
