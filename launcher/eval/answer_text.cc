#include "launcher/eval/answer_text.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace cairn {
namespace {

bool IsWordCharacter(char c) { return absl::ascii_isalnum(c) || c == '_'; }

// The end of the group that text[open] == '{' opens, the closing brace included; npos where it never closes. An escaped
// brace (\{) is a character.
size_t GroupEnd(std::string_view text, size_t open) {
  int depth = 0;
  for (size_t i = open; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '{') {
      ++depth;
    } else if (text[i] == '}' && --depth == 0) {
      return i + 1;
    }
  }
  return std::string_view::npos;
}

// What the \boxed that ends at `at` holds.
std::optional<std::string> BoxedAt(std::string_view text, size_t at) {
  while (at < text.size() && text[at] == ' ') ++at;
  if (at < text.size() && text[at] == '{') {
    const size_t end = GroupEnd(text, at);
    if (end == std::string_view::npos) return std::nullopt;
    return Trim(text.substr(at + 1, end - at - 2));
  }
  const size_t end = std::min(text.find_first_of(" \t\r\n$.,;", at), text.size());
  if (end == at || !IsWordCharacter(text[at])) return std::nullopt;
  return std::string(text.substr(at, end - at));
}

// Without leading zeros, and without trailing ones after a point.
std::string Shortened(bool negative, const std::string& whole, std::string fraction) {
  const std::string digits = whole.substr(std::min(whole.find_first_not_of('0'), whole.size()));
  while (!fraction.empty() && fraction.back() == '0') fraction.pop_back();
  const bool is_zero = digits.empty() && fraction.empty();
  return absl::StrCat(negative && !is_zero ? "-" : "", digits.empty() ? "0" : digits, fraction.empty() ? "" : ".",
                      fraction);
}

}  // namespace

std::string Trim(std::string_view text) {
  return std::string(absl::StripAsciiWhitespace(absl::string_view(text.data(), text.size())));
}

std::string AfterThinking(std::string_view text) {
  constexpr std::string_view kEnd = "</think>";
  const size_t at = text.rfind(kEnd);
  return Trim(at == std::string_view::npos ? text : text.substr(at + kEnd.size()));
}

std::optional<std::string> LastBoxed(std::string_view text) {
  std::optional<std::string> last;
  for (size_t at = 0; (at = text.find('\\', at)) != std::string_view::npos; ++at) {
    for (const std::string_view name : {std::string_view("\\boxed"), std::string_view("\\fbox")}) {
      if (text.substr(at, name.size()) != name) continue;
      if (std::optional<std::string> found = BoxedAt(text, at + name.size())) last = std::move(found);
    }
  }
  return last;
}

std::optional<std::string> LastNumber(std::string_view text) {
  std::optional<std::string> last;
  for (size_t i = 0; i < text.size();) {
    const bool starts =
        absl::ascii_isdigit(text[i]) || (text[i] == '.' && i + 1 < text.size() && absl::ascii_isdigit(text[i + 1]));
    if (!starts) {
      ++i;
      continue;
    }
    const bool minus = i > 0 && text[i - 1] == '-' &&
                       (i == 1 || (!IsWordCharacter(text[i - 2]) && text[i - 2] != ')' && text[i - 2] != '}'));
    std::string whole, fraction;
    while (i < text.size()) {
      if (absl::ascii_isdigit(text[i])) {
        whole.push_back(text[i++]);
      } else if (text[i] == ',' && i + 1 < text.size() && absl::ascii_isdigit(text[i + 1]) && !whole.empty()) {
        ++i;
      } else if (text.substr(i, 3) == "{,}" && i + 3 < text.size() && absl::ascii_isdigit(text[i + 3])) {
        i += 3;
      } else {
        break;
      }
    }
    if (i + 1 < text.size() && text[i] == '.' && absl::ascii_isdigit(text[i + 1])) {
      for (++i; i < text.size() && absl::ascii_isdigit(text[i]); ++i) fraction.push_back(text[i]);
    }
    last = Shortened(minus, whole, std::move(fraction));
  }
  return last;
}

std::optional<std::string> PlainNumber(std::string_view text) {
  bool negative = false;
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  const size_t point = text.find('.');
  const std::string_view whole_part = text.substr(0, point);
  std::string whole, fraction(point == std::string_view::npos ? std::string_view() : text.substr(point + 1));
  const bool grouped = whole_part.find(',') != std::string_view::npos;
  for (size_t i = 0; i < whole_part.size(); ++i) {
    const size_t to_end = whole_part.size() - i;
    // Of 1,234,567 every fourth character from the end is a comma, and the first is none.
    if (grouped && to_end % 4 == 0) {
      if (whole_part[i] != ',' || i == 0) return std::nullopt;
      continue;
    }
    whole.push_back(whole_part[i]);
  }
  if (whole.empty() && fraction.empty()) return std::nullopt;
  if (!std::all_of(whole.begin(), whole.end(), absl::ascii_isdigit) ||
      !std::all_of(fraction.begin(), fraction.end(), absl::ascii_isdigit)) {
    return std::nullopt;
  }
  return Shortened(negative, whole, std::move(fraction));
}

}  // namespace cairn
