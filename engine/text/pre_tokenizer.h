// The "pre_tokenizer" of tokenizer.json: cuts a text into the words that the model encodes one by one.
#ifndef CAIRN_ENGINE_TEXT_PRE_TOKENIZER_H_
#define CAIRN_ENGINE_TEXT_PRE_TOKENIZER_H_

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/json_field.h"
#include "engine/text/normalizer.h"
#include "engine/text/regex.h"

namespace cairn {

// What becomes of the matches of a Split, and of what lies between them.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

class PreTokenizer {
 public:
  class Scratch {
   public:
    Regex::Scratch regex;

   private:
    friend class PreTokenizer;
    struct Segment {
      size_t begin, end;
      bool is_match;
    };
    std::vector<std::string_view> words, next_words;
    std::vector<Segment> segments;
    std::deque<std::string> texts;  // words that are not part of the input any more
  };

  PreTokenizer() = default;  // the whole text is one word

  // Sequence, Split, ByteLevel (last), Digits, Punctuation, Metaspace.
  static absl::StatusOr<PreTokenizer> FromJson(const JsonField& field);

  // Whether words are meant as bytes: the vocabulary is written in the byte alphabet.
  bool byte_level() const { return byte_level_; }

  // The words of `text` (valid UTF-8, not empty), none empty; valid until the next call. `at_start`: the text is the
  // beginning of the input, for Metaspace.
  const std::vector<std::string_view>& Split(std::string_view text, bool at_start, Scratch* scratch) const;

 private:
  struct SplitStep {
    TextPattern pattern;
    SplitBehavior behavior;
    bool invert;
  };
  struct ClassStep {  // every character of a class is a match
    bool (*contains)(char32_t);
    SplitBehavior behavior;
  };
  struct MetaspaceStep {
    enum class Prepend { kAlways, kFirst, kNever };
    std::string replacement;
    Prepend prepend;
    bool split;
  };
  struct PrefixSpaceStep {};  // ByteLevel's add_prefix_space
  using Step = std::variant<SplitStep, ClassStep, MetaspaceStep, PrefixSpaceStep>;

  absl::Status Add(const JsonField& field, int depth);
  absl::Status AddSplit(const JsonField& field);
  absl::Status AddByteLevel(const JsonField& field);
  absl::Status AddMetaspace(const JsonField& field);

  void Apply(const SplitStep& step, std::string_view word, bool at_start, Scratch* scratch) const;
  void Apply(const ClassStep& step, std::string_view word, bool at_start, Scratch* scratch) const;
  void Apply(const MetaspaceStep& step, std::string_view word, bool at_start, Scratch* scratch) const;
  void Apply(const PrefixSpaceStep& step, std::string_view word, bool at_start, Scratch* scratch) const;

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_PRE_TOKENIZER_H_
