#include "engine/text/chat_format.h"

#include <algorithm>

#include "engine/text/unicode_class.h"
#include "engine/text/utf8.h"

namespace cairn {
namespace {

// Python's str.isspace takes the four information separators too.
bool IsPythonSpace(char32_t c) { return IsUnicodeSpace(c) || (c >= 0x1C && c <= 0x1F); }

}  // namespace

bool ConsistsOf(std::string_view literal, std::initializer_list<std::string_view> marks) {
  while (!literal.empty()) {
    const auto mark =
        std::find_if(marks.begin(), marks.end(), [&](std::string_view m) { return literal.substr(0, m.size()) == m; });
    if (mark == marks.end()) return false;
    literal.remove_prefix(mark->size());
  }
  return true;
}

bool IsNameOrToolText(std::string_view literal) {
  static constexpr std::string_view kNames[] = {"system", "user", "assistant", "role",    "content",
                                                "type",   "name", "id",        "equalto", "return"};
  if (std::find(std::begin(kNames), std::end(kNames), literal) != std::end(kNames)) return true;
  static constexpr std::string_view kToolWords[] = {
      "tool",       "Tool",      "TOOL",   "function", "ipython",          "python_tag", "eom_id",   "arguments",
      "parameters", "variables", ".call(", "call_id",  "code_interpreter", "```json",    "\"name\"", "\"id\""};
  for (std::string_view word : kToolWords) {
    if (literal.find(word) != std::string_view::npos) return true;
  }
  // Punctuation between a call's parts.
  return std::none_of(literal.begin(), literal.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x80 || (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z');
  });
}

std::string_view PythonStrip(std::string_view text) {
  while (!text.empty()) {
    size_t length = 0;
    if (!IsPythonSpace(NextCodePoint(text, &length))) break;
    text.remove_prefix(length);
  }
  while (!text.empty()) {
    const char32_t last = LastCodePoint(text, text.size());
    if (!IsPythonSpace(last)) break;
    text.remove_suffix(last < 0x80 ? 1 : last < 0x800 ? 2 : 3);
  }
  return text;
}

std::string_view StripNewlinesLeft(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of('\n'), text.size()));
}

std::string_view StripNewlinesRight(std::string_view text) { return text.substr(0, text.find_last_not_of('\n') + 1); }

std::string_view AfterLast(std::string_view text, std::string_view separator) {
  const size_t last = text.rfind(separator);
  return last == std::string_view::npos ? text : text.substr(last + separator.size());
}

}  // namespace cairn
