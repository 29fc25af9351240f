// Regular expressions of tokenizer.json. They are written for Oniguruma (Ruby syntax, Unicode 16); here they run on
// PCRE2.
#ifndef CAIRN_ENGINE_TEXT_REGEX_H_
#define CAIRN_ENGINE_TEXT_REGEX_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace cairn {

// Rewrites an Oniguruma pattern so that PCRE2 takes it in the same sense: \s, \d and \p{...} become classes with
// Oniguruma's members. Takes what the tokenizers' patterns use (literals, classes, groups, (?i:...), look-around,
// quantifiers, alternatives); INVALID_ARGUMENT names anything else, and repeated groups, which could backtrack for
// ever.
absl::StatusOr<std::string> TranslateRegex(std::string_view pattern);

class Regex {
 public:
  // A translated and compiled pattern; patterns that match the empty string are refused. INVALID_ARGUMENT says why.
  static absl::StatusOr<Regex> Compile(std::string_view pattern);

  // What matching needs besides the pattern, made at the first match; one per thread at a time.
  class Scratch {
   public:
    Scratch();
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

   private:
    friend class Regex;
    struct State;
    std::unique_ptr<State> state_;
  };

  // The first match in text[from, end): its bounds in *begin, *end. False where there is none. `text` must be valid
  // UTF-8, `from` at a character. A pattern that exceeds PCRE2's limits on this text counts as no match, and says so on
  // stderr once.
  bool Find(std::string_view text, size_t from, Scratch* scratch, size_t* begin, size_t* end) const;

 private:
  explicit Regex(std::shared_ptr<const void> code) : code_(std::move(code)) {}
  std::shared_ptr<const void> code_;  // pcre2_code
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_REGEX_H_
