#include "launcher/eval/math_answer.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "launcher/eval/answer_text.h"
#include "launcher/eval/math_expression.h"

namespace cairn {
namespace {

constexpr double kTolerance = 1e-9;
constexpr int kPoints = 4;
constexpr int kMaxParts = 64;

// In this order: \$ goes before $.
constexpr std::pair<std::string_view, std::string_view> kSpellings[] = {{"\\!", ""},
                                                                        {"\\,", ""},
                                                                        {"\\;", ""},
                                                                        {"\\:", ""},
                                                                        {"\\ ", " "},
                                                                        {"~", " "},
                                                                        {"\\quad", " "},
                                                                        {"\\left", ""},
                                                                        {"\\right", ""},
                                                                        {"\\bigl", ""},
                                                                        {"\\bigr", ""},
                                                                        {"\\big", ""},
                                                                        {"\\displaystyle", ""},
                                                                        {"\\$", ""},
                                                                        {"$", ""},
                                                                        {"\\%", ""},
                                                                        {"%", ""},
                                                                        {"^{\\circ}", ""},
                                                                        {"^\\circ", ""},
                                                                        {"\\degree", ""},
                                                                        {"°", ""},
                                                                        {"−", "-"},
                                                                        {"{,}", ","},
                                                                        {"\\dfrac", "\\frac"},
                                                                        {"\\tfrac", "\\frac"},
                                                                        {"\\cfrac", "\\frac"},
                                                                        {"\\leq", "\\le"},
                                                                        {"\\geq", "\\ge"},
                                                                        {"\\neq", "\\ne"},
                                                                        {"\\lbrace", "\\{"},
                                                                        {"\\rbrace", "\\}"},
                                                                        {"\\cdot", "*"},
                                                                        {"\\times", "*"},
                                                                        {"\\div", "/"},
                                                                        {"\\pi", "{\\pi}"}};

// Replaces each `from`, a command or a mark; a command is not the beginning of a longer one.
void ReplaceAll(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos;) {
    const size_t end = at + from.size();
    if (from[0] == '\\' && absl::ascii_isalpha(from.back()) && end < text.size() && absl::ascii_isalpha(text[end])) {
      at = end;
      continue;
    }
    text.replace(at, from.size(), to);
    at += to.size();
  }
}

// Where the group that opens at `open` closes, or npos.
size_t Closing(const std::string& text, size_t open) {
  int depth = 0;
  for (size_t i = open; i < text.size(); ++i) {
    depth += text[i] == '{' ? 1 : text[i] == '}' ? -1 : 0;
    if (depth == 0) return i;
  }
  return std::string::npos;
}

// \text{...} after a number is its unit; elsewhere it is the answer itself.
void UnwrapText(std::string& text) {
  for (const std::string_view name : {"\\text", "\\mbox", "\\mathrm", "\\textbf", "\\mathbf", "\\operatorname"}) {
    const std::string open = std::string(name) + "{";
    for (size_t at; (at = text.find(open)) != std::string::npos;) {
      const size_t brace = at + open.size() - 1, close = Closing(text, brace);
      if (close == std::string::npos) break;
      const std::string before = Trim(std::string_view(text).substr(0, at));
      const std::string inside = text.substr(brace + 1, close - brace - 1);
      const bool is_unit =
          !before.empty() && (absl::ascii_isdigit(before.back()) || before.back() == '}' || before.back() == ')');
      const bool joins = Trim(inside) == "and" || Trim(inside) == "or";
      const std::string instead = joins ? "," : is_unit ? "" : inside;
      std::string after = text.substr(close + 1);
      // The unit's exponent goes with it: 5\text{ cm}^2.
      if (is_unit && !joins && after.size() >= 2 && after[0] == '^' && (after[1] == '2' || after[1] == '3')) {
        after.erase(0, 2);
      } else if (is_unit && !joins && (after.rfind("^{2}", 0) == 0 || after.rfind("^{3}", 0) == 0)) {
        after.erase(0, 4);
      }
      text = text.substr(0, at) + instead + after;
    }
  }
}

// "5 cm", "12 miles per hour", "3.5 m/s": a number, a space, and words without digits.
void DropPlainUnit(std::string& text) {
  size_t i = 0;
  while (i < text.size() && (absl::ascii_isdigit(text[i]) || text[i] == '.' || text[i] == ',' || text[i] == '-')) ++i;
  if (i == 0 || i >= text.size() || text[i] != ' ') return;
  const std::string words = Trim(std::string_view(text).substr(i));
  if (words.size() < 2 || !absl::ascii_isalpha(words[0]) || !absl::ascii_isalpha(words[1])) return;
  for (size_t j = 0; j < words.size(); ++j) {
    const bool exponent = j + 2 == words.size() && words[j] == '^';
    if (exponent && (words[j + 1] == '2' || words[j + 1] == '3')) break;
    if (!absl::ascii_isalpha(words[j]) && words[j] != ' ' && words[j] != '/' && words[j] != '.') return;
  }
  if (words.rfind("or ", 0) == 0 || words.rfind("and ", 0) == 0) return;
  text.resize(i);
}

// \frac12, \frac1{72}, \sqrt3: braces around what TeX takes without them.
void AddBraces(std::string& text, std::string_view command, int arguments) {
  for (size_t at = 0; (at = text.find(command, at)) != std::string::npos;) {
    at += command.size();
    if (command == "\\sqrt" && at < text.size() && text[at] == '[') {
      at = text.find(']', at);
      if (at == std::string::npos) return;
      ++at;
    }
    size_t place = at;
    for (int k = 0; k < arguments && place < text.size(); ++k) {
      if (text[place] == '{') {
        const size_t close = Closing(text, place);
        if (close == std::string::npos) return;
        place = close + 1;
      } else if (absl::ascii_isdigit(text[place]) || absl::ascii_isalpha(text[place])) {
        text.replace(place, 1, std::string("{") + text[place] + "}");
        place += 3;
      } else {
        break;
      }
    }
  }
}

// x^{2} and x_{8}: a single character needs no braces.
void DropScriptBraces(std::string& text) {
  for (size_t i = 0; i + 3 < text.size(); ++i) {
    if ((text[i] == '^' || text[i] == '_') && text[i + 1] == '{' && text[i + 3] == '}') {
      text = text.substr(0, i + 1) + text[i + 2] + text.substr(i + 4);
    }
  }
}

// The parts between commas that no bracket encloses.
std::vector<std::string> SplitParts(std::string_view text) {
  std::vector<std::string> parts(1);
  int depth = 0;
  for (const char c : text) {
    depth += c == '(' || c == '[' || c == '{' ? 1 : c == ')' || c == ']' || c == '}' ? -1 : 0;
    if (c == ',' && depth == 0) {
      parts.emplace_back();
    } else {
      parts.back().push_back(c);
    }
  }
  return parts;
}

bool IsOpen(char c) { return c == '(' || c == '['; }
bool IsClosed(char c) { return c == ')' || c == ']'; }

bool NormalizedEqual(const std::string& a, const std::string& b, int depth);

// A tuple or an interval: "(", parts, "]".
struct Bracketed {
  char open = 0, close = 0;
  std::vector<std::string> parts;
};

std::optional<Bracketed> AsBracketed(const std::string& text) {
  if (text.size() < 2 || !IsOpen(text.front()) || !IsClosed(text.back())) return std::nullopt;
  Bracketed result = {text.front(), text.back(), SplitParts(std::string_view(text).substr(1, text.size() - 2))};
  if (result.parts.size() < 2) return std::nullopt;
  return result;
}

bool PartsEqual(const std::vector<std::string>& a, const std::vector<std::string>& b, bool ordered, int depth) {
  if (a.size() != b.size() || a.size() > kMaxParts) return false;
  std::vector<bool> taken(b.size(), false);
  for (size_t i = 0; i < a.size(); ++i) {
    bool found = false;
    for (size_t j = ordered ? i : 0; j < (ordered ? i + 1 : b.size()) && !found; ++j) {
      if (!taken[j] && NormalizedEqual(a[i], b[j], depth)) found = taken[j] = true;
    }
    if (!found) return false;
  }
  return true;
}

// The inside of \{...\}, which has no order.
std::string WithoutSetBraces(const std::string& text) {
  if (text.size() > 4 && text.rfind("\\{", 0) == 0 && text.substr(text.size() - 2) == "\\}") {
    return text.substr(2, text.size() - 4);
  }
  return text;
}

// Of "x=5" the 5: a name on the left says nothing.
std::string WithoutName(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || text.find('=', equals + 1) != std::string::npos) return text;
  const std::string left = text.substr(0, equals);
  const bool is_name = (left.size() == 1 && absl::ascii_isalpha(left[0])) || left == "\\theta" ||
                       (left.size() == 4 && left[1] == '(' && absl::ascii_isalpha(left[0]) &&
                        absl::ascii_isalpha(left[2]) && left[3] == ')');
  return is_name ? text.substr(equals + 1) : text;
}

bool ValuesEqual(const std::string& a, const std::string& b) {
  for (int point = 0; point < kPoints; ++point) {
    const std::optional<double> x = EvaluateMath(a, point), y = EvaluateMath(b, point);
    if (!x.has_value() || !y.has_value()) return false;
    if (std::abs(*x - *y) > kTolerance * std::max(1.0, std::max(std::abs(*x), std::abs(*y)))) return false;
  }
  return true;
}

bool NormalizedEqual(const std::string& left, const std::string& right, int depth) {
  if (left == right) return true;
  if (depth > 8 || left.empty() || right.empty()) return false;
  const std::string a = WithoutName(left), b = WithoutName(right);
  if (a == b) return true;
  const std::optional<std::string> number_a = PlainNumber(a), number_b = PlainNumber(b);
  if (number_a.has_value() && number_b.has_value()) return number_a == number_b;
  // Words: Even and even. One letter is a name, of which x and X are two.
  const auto is_word = [](const std::string& s) {
    return s.size() > 1 && std::all_of(s.begin(), s.end(), absl::ascii_isalpha);
  };
  if (is_word(a) && is_word(b) && absl::AsciiStrToLower(a) == absl::AsciiStrToLower(b)) return true;
  const std::optional<Bracketed> list_a = AsBracketed(a), list_b = AsBracketed(b);
  if (list_a.has_value() != list_b.has_value()) return false;
  if (list_a.has_value()) {
    return list_a->open == list_b->open && list_a->close == list_b->close &&
           PartsEqual(list_a->parts, list_b->parts, /*ordered=*/true, depth + 1);
  }
  const std::vector<std::string> set_a = SplitParts(WithoutSetBraces(a)), set_b = SplitParts(WithoutSetBraces(b));
  if (set_a.size() > 1 || set_b.size() > 1) return PartsEqual(set_a, set_b, /*ordered=*/false, depth + 1);
  const size_t equals_a = a.find('='), equals_b = b.find('=');
  if (equals_a != std::string::npos && equals_b != std::string::npos) {
    return ValuesEqual(a.substr(0, equals_a), b.substr(0, equals_b)) &&
           ValuesEqual(a.substr(equals_a + 1), b.substr(equals_b + 1));
  }
  return ValuesEqual(a, b);
}

// (C) is C.
std::string WithoutChoiceParentheses(const std::string& text) {
  return text.size() == 3 && text[0] == '(' && absl::ascii_isalpha(text[1]) && text[2] == ')' ? text.substr(1, 1)
                                                                                              : text;
}

}  // namespace

std::string NormalizeMath(std::string_view answer) {
  std::string text = Trim(answer);
  for (const auto& [open, close] :
       {std::pair<std::string, std::string>("$$", "$$"), {"$", "$"}, {"\\(", "\\)"}, {"\\[", "\\]"}}) {
    if (text.size() >= open.size() + close.size() && text.rfind(open, 0) == 0 &&
        text.substr(text.size() - close.size()) == close) {
      text = Trim(std::string_view(text).substr(open.size(), text.size() - open.size() - close.size()));
    }
  }
  for (const auto& [from, to] : kSpellings) ReplaceAll(text, from, to);
  UnwrapText(text);
  text = Trim(text);
  while (!text.empty() && (text.back() == '.' || text.back() == ',')) text.pop_back();
  DropPlainUnit(text);
  text.erase(std::remove_if(text.begin(), text.end(), absl::ascii_isspace), text.end());
  AddBraces(text, "\\frac", 2);
  AddBraces(text, "\\sqrt", 1);
  DropScriptBraces(text);
  text = WithoutChoiceParentheses(text);
  if (std::optional<std::string> number = PlainNumber(text)) return *std::move(number);
  return text;
}

bool MathEqual(std::string_view a, std::string_view b) {
  return NormalizedEqual(NormalizeMath(a), NormalizeMath(b), 0);
}

}  // namespace cairn
