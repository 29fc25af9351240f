// Oniguruma (Ruby syntax) to PCRE2, for the constructs that tokenizer patterns use.
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/text/regex.h"
#include "engine/text/unicode_class.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

constexpr char kSpaceItems[] =
    "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}";

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (pos_ < in_.size()) CAIRN_RETURN_IF_ERROR(Next());
    return std::move(out_);
  }

 private:
  struct Group {
    bool ignores_case;
    bool has_repeat = false;
  };

  absl::Status Unsupported(std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("regular expression \"", std::string(in_), "\": ", std::string(what),
                                                   " at byte ", pos_, " is not supported"));
  }
  bool At(std::string_view text) const { return in_.substr(pos_, text.size()) == text; }
  void Copy(size_t count) {
    out_.append(in_, pos_, count);
    pos_ += count;
  }

  absl::Status Next() {
    switch (in_[pos_]) {
      case '\\':
        return Escape(/*in_class=*/false);
      case '[':
        return Class();
      case '(':
        return OpenGroup();
      case ')':
        return CloseGroup();
      case '^':
      case '$':
        return Unsupported("an anchor");
      case '*':
      case '+':
      case '{':
        MarkRepeat();
        return Quantifier();
      default:
        Copy(1);
        return absl::OkStatus();
    }
  }

  absl::Status OpenGroup() {
    const bool outer_ignores_case = !groups_.empty() && groups_.back().ignores_case;
    static constexpr std::string_view kKinds[] = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    for (std::string_view kind : kKinds) {
      if (!At(kind)) continue;
      groups_.push_back({outer_ignores_case || kind == "(?i:"});
      Copy(kind.size());
      return absl::OkStatus();
    }
    if (At("(?") || At("(*")) return Unsupported("this kind of group");
    groups_.push_back({outer_ignores_case});
    Copy(1);
    return absl::OkStatus();
  }

  // A repeat of a group that repeats inside can take exponential time to fail.
  absl::Status CloseGroup() {
    if (groups_.empty()) return Unsupported("an unmatched )");
    const bool has_repeat = groups_.back().has_repeat;
    groups_.pop_back();
    if (has_repeat) MarkRepeat();
    Copy(1);
    if (has_repeat && (At("*") || At("+") || At("{"))) return Unsupported("a repeated group with a repeat inside");
    return absl::OkStatus();
  }

  void MarkRepeat() {
    if (!groups_.empty()) groups_.back().has_repeat = true;
  }

  absl::Status Quantifier() {
    if (in_[pos_] != '{') {
      Copy(1);
      return absl::OkStatus();
    }
    const size_t close = in_.find('}', pos_);
    if (close == std::string_view::npos) return Unsupported("an unmatched {");
    const std::string_view inside = in_.substr(pos_ + 1, close - pos_ - 1);
    const bool legal =
        !inside.empty() && inside.find_first_not_of("0123456789,") == std::string_view::npos && inside.front() != ',';
    if (!legal) return Unsupported("this use of {");
    Copy(close + 1 - pos_);
    // Possessive in PCRE2, a repeat of the repeat in Ruby.
    if (At("+")) return Unsupported("{...}+");
    return absl::OkStatus();
  }

  absl::Status Class() {
    Copy(1);
    if (At("^")) Copy(1);
    if (At("]")) return Unsupported("an empty class");
    while (!At("]")) {
      if (pos_ == in_.size()) return Unsupported("an unmatched [");
      if (At("[")) return Unsupported("a class inside a class");
      if (At("&&")) return Unsupported("an intersection of classes");
      if (At("\\")) {
        CAIRN_RETURN_IF_ERROR(Escape(/*in_class=*/true));
      } else {
        Copy(1);
      }
    }
    Copy(1);
    return absl::OkStatus();
  }

  absl::Status Escape(bool in_class) {
    if (pos_ + 1 == in_.size()) return Unsupported("a lone \\");
    const char kind = in_[pos_ + 1];
    switch (kind) {
      case 's':
      case 'S':
        return Members(kSpaceItems, kind == 'S', in_class, 2);
      case 'd':
      case 'D':
        return Category("Nd", kind == 'D', in_class, 2);
      case 'p':
      case 'P':
        return Property(in_class);
      case 'r':
      case 'n':
      case 't':
      case 'f':
      case 'v':  // 0x0B alone in Oniguruma; every vertical space in PCRE2
        if (kind == 'v') {
          out_ += "\\x0B";
          pos_ += 2;
        } else {
          Copy(2);
        }
        return absl::OkStatus();
      default:
        break;
    }
    const auto byte = static_cast<unsigned char>(kind);
    const bool punctuation = byte < 0x80 && !std::isalnum(byte) && byte > ' ';
    if (!punctuation && kind != ' ') return Unsupported(absl::StrCat("\\", std::string(1, kind)));
    Copy(2);
    return absl::OkStatus();
  }

  absl::Status Property(bool in_class) {
    const size_t close = in_.find('}', pos_);
    if (pos_ + 2 >= in_.size() || in_[pos_ + 2] != '{' || close == std::string_view::npos) {
      return Unsupported("\\p without {...}");
    }
    std::string_view name = in_.substr(pos_ + 3, close - pos_ - 3);
    bool negated = in_[pos_ + 1] == 'P';
    if (!name.empty() && name.front() == '^') {
      negated = !negated;
      name.remove_prefix(1);
    }
    return Category(name, negated, in_class, close + 1 - pos_);
  }

  absl::Status Category(std::string_view name, bool negated, bool in_class, size_t length) {
    const auto additions = CategoryAdditions(name);
    if (!additions) return Unsupported(absl::StrCat("property \"", std::string(name), "\""));
    if (!groups_.empty() && groups_.back().ignores_case) return Unsupported("a property inside (?i:...)");
    // The ASCII members of the two common ones, which PCRE2 then finds in a bitmap.
    std::string items = name == "L" ? "A-Za-z" : name == "N" || name == "Nd" ? "0-9" : "";
    absl::StrAppend(&items, "\\p{", std::string(name), "}");
    for (const CodePointRange& range : *additions) {
      items +=
          absl::StrFormat("\\x{%X}-\\x{%X}", static_cast<uint32_t>(range.first), static_cast<uint32_t>(range.last));
    }
    return Members(items, negated, in_class, length);
  }

  // Writes a class of these members in place of `length` bytes of the pattern.
  absl::Status Members(std::string_view items, bool negated, bool in_class, size_t length) {
    if (in_class && negated) return Unsupported("a negated set inside a class");
    if (!in_class) out_ += negated ? "[^" : "[";
    out_.append(items);
    if (!in_class) out_ += ']';
    pos_ += length;
    return absl::OkStatus();
  }

  std::string_view in_;
  size_t pos_ = 0;
  std::string out_;
  std::vector<Group> groups_;
};

}  // namespace

absl::StatusOr<std::string> TranslateRegex(std::string_view pattern) { return Translator(pattern).Run(); }

}  // namespace cairn
