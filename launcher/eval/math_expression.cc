#include "launcher/eval/math_expression.h"

#include <cmath>
#include <cstdlib>
#include <string>

#include "absl/strings/ascii.h"
#include "engine/runner/philox.h"

namespace cairn {
namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxLength = 1000;

// Recursive descent; the first thing that is not understood ends it.
class Parser {
 public:
  Parser(std::string_view text, int point) : text_(text), point_(point) {}

  std::optional<double> Run() {
    const double value = Sum(0);
    if (failed_ || at_ != text_.size() || !std::isfinite(value)) return std::nullopt;
    return value;
  }

 private:
  double Fail() {
    failed_ = true;
    at_ = text_.size();
    return 0;
  }
  bool Peek(char c) const { return at_ < text_.size() && text_[at_] == c; }
  bool Take(std::string_view what) {
    if (text_.substr(at_, what.size()) != what) return false;
    at_ += what.size();
    return true;
  }
  // \pi, not the beginning of \pine.
  bool TakeCommand(std::string_view name) {
    const size_t end = at_ + name.size();
    if (end < text_.size() && absl::ascii_isalpha(text_[end]) && absl::ascii_isalpha(name.back())) return false;
    return Take(name);
  }

  double Sum(int depth) {
    if (depth > kMaxDepth) return Fail();
    double value = Product(depth);
    while (!failed_) {
      if (Take("+")) {
        value += Product(depth);
      } else if (Take("-")) {
        value -= Product(depth);
      } else {
        break;
      }
    }
    return value;
  }

  bool StartsFactor() const {
    if (at_ >= text_.size()) return false;
    const char c = text_[at_];
    if (c == '\\') {
      for (const std::string_view command : {"\\frac", "\\sqrt", "\\pi"}) {
        if (text_.substr(at_, command.size()) == command) return true;
      }
      return false;
    }
    return absl::ascii_isdigit(c) || absl::ascii_isalpha(c) || c == '(' || c == '{' || c == '.';
  }

  double Product(int depth) {
    double value = Signed(depth);
    while (!failed_) {
      if (Take("*")) {
        value *= Signed(depth);
      } else if (Take("/")) {
        value /= Signed(depth);
      } else if (StartsFactor()) {
        value *= Power(depth);
      } else {
        break;
      }
    }
    return value;
  }

  double Signed(int depth) {
    if (++depth > kMaxDepth) return Fail();
    if (Take("-")) return -Signed(depth);
    if (Take("+")) return Signed(depth);
    return Power(depth);
  }

  double Power(int depth) {
    const double base = Atom(depth);
    if (failed_ || !Take("^")) return base;
    return std::pow(base, Argument(depth, /*sign=*/true));
  }

  // {...}, or the one character that TeX takes without braces.
  double Argument(int depth, bool sign = false) {
    if (++depth > kMaxDepth) return Fail();
    if (Peek('{')) return Group('{', '}', depth);
    if (sign && Take("-")) return -Argument(depth);
    if (at_ >= text_.size()) return Fail();
    if (absl::ascii_isdigit(text_[at_])) return text_[at_++] - '0';
    if (absl::ascii_isalpha(text_[at_])) return Letter();
    if (TakeCommand("\\pi")) return M_PI;
    if (Peek('(')) return Group('(', ')', depth);
    return Fail();
  }

  double Group(char open, char close, int depth) {
    if (!Take(std::string(1, open))) return Fail();
    const double value = Sum(depth + 1);
    return Take(std::string(1, close)) ? value : Fail();
  }

  double Letter() {
    const char letter = text_[at_++];
    // A word is no product of its letters.
    size_t run = 1;
    for (size_t i = at_; i < text_.size() && absl::ascii_isalpha(text_[i]); ++i) ++run;
    for (size_t i = at_ - 1; i > 0 && absl::ascii_isalpha(text_[i - 1]); --i) ++run;
    if (run > 3) return Fail();
    return 0.5 + PhiloxUniform(0, static_cast<uint64_t>(letter), 0, static_cast<uint32_t>(point_));
  }

  double Number(int depth) {
    const size_t begin = at_;
    bool whole = true;
    while (at_ < text_.size() && (absl::ascii_isdigit(text_[at_]) || (text_[at_] == '.' && whole)))
      whole &= text_[at_++] != '.';
    const std::string digits(text_.substr(begin, at_ - begin));
    if (digits == ".") return Fail();
    const double value = std::strtod(digits.c_str(), nullptr);
    const bool at_start =
        begin == 0 || !(absl::ascii_isdigit(text_[begin - 1]) || absl::ascii_isalpha(text_[begin - 1]) ||
                        text_[begin - 1] == ')' || text_[begin - 1] == '}');
    // A mixed number: whole, then a fraction of plain numbers.
    if (whole && at_start && text_.substr(at_, 6) == "\\frac{" && at_ + 6 < text_.size() &&
        absl::ascii_isdigit(text_[at_ + 6])) {
      return value + Atom(depth + 1);
    }
    return value;
  }

  double Atom(int depth) {
    if (failed_ || ++depth > kMaxDepth || at_ >= text_.size()) return Fail();
    if (absl::ascii_isdigit(text_[at_]) || text_[at_] == '.') return Number(depth);
    if (absl::ascii_isalpha(text_[at_])) return Letter();
    if (Peek('(')) return Group('(', ')', depth);
    if (Peek('{')) return Group('{', '}', depth);
    if (TakeCommand("\\pi")) return M_PI;
    if (TakeCommand("\\frac")) {
      const double numerator = Argument(depth);
      return numerator / Argument(depth);
    }
    if (TakeCommand("\\sqrt")) {
      double degree = 2;
      if (Peek('[')) degree = Group('[', ']', depth);
      const double radicand = Argument(depth);
      return degree == 2 ? std::sqrt(radicand) : degree == 3 ? std::cbrt(radicand) : std::pow(radicand, 1 / degree);
    }
    return Fail();
  }

  std::string_view text_;
  int point_;
  size_t at_ = 0;
  bool failed_ = false;
};

}  // namespace

std::optional<double> EvaluateMath(std::string_view text, int point) {
  if (text.empty() || text.size() > kMaxLength) return std::nullopt;
  return Parser(text, point).Run();
}

}  // namespace cairn
