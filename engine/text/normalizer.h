// The "normalizer" of tokenizer.json: text to text, before it is split.
#ifndef CAIRN_ENGINE_TEXT_NORMALIZER_H_
#define CAIRN_ENGINE_TEXT_NORMALIZER_H_

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/json_field.h"
#include "engine/text/regex.h"

namespace cairn {

// Composes (NFC, NFKC) or decomposes (NFD, NFKD) as Hugging Face's normalizers do: Unicode 11. Linear in the text, also
// for long runs of combining marks. `text` must be valid UTF-8.
enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
std::string NormalizeUnicode(std::string_view text, NormalForm form);

class Normalizer {
 public:
  Normalizer() = default;  // leaves every text as it is

  // NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip, Sequence.
  static absl::StatusOr<Normalizer> FromJson(const JsonField& field);

  bool empty() const { return steps_.empty(); }
  std::string Normalize(std::string_view text, Regex::Scratch* scratch) const;

 private:
  struct Prepend {
    std::string prefix;
  };
  struct Replace {
    std::string text;  // what is replaced, where `pattern` is absent
    std::optional<Regex> pattern;
    std::string content;
  };
  struct Strip {
    bool left, right;
  };
  using Step = std::variant<NormalForm, Prepend, Replace, Strip>;

  absl::Status Add(const JsonField& field, int depth);

  std::vector<Step> steps_;
};

// "pattern" of Replace and Split: {"String": text} or {"Regex": pattern}. Exactly one of the two results is set.
struct TextPattern {
  std::string text;
  std::optional<Regex> regex;
};
absl::StatusOr<TextPattern> ReadTextPattern(const JsonField& field);

std::string ReplaceAll(std::string_view text, const std::string& from, const std::string& to);
std::string ReplaceAll(std::string_view text, const Regex& from, const std::string& to, Regex::Scratch* scratch);

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_NORMALIZER_H_
