#include "engine/text/utf8.h"

#include <cstdint>

namespace cairn {
namespace {

struct Sequence {
  size_t length;    // bytes of the sequence, or of its maximal well-formed beginning
  bool valid;       // a whole character
  bool incomplete;  // a good beginning, cut off by the end of the text
};

uint8_t Byte(std::string_view s, size_t i) { return static_cast<uint8_t>(s[i]); }

// Table 3-7 of the Unicode standard: the second byte's range depends on the first, which rules out overlong forms,
// surrogates and what lies past U+10FFFF.
Sequence Classify(std::string_view s, size_t pos) {
  const uint8_t first = Byte(s, pos);
  if (first < 0x80) return {1, true, false};
  size_t length = 0;
  uint8_t low = 0x80, high = 0xBF;
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
  } else if ((first & 0xF0) == 0xE0) {
    length = 3;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
  } else {
    return {1, false, false};
  }
  for (size_t i = 1; i < length; ++i) {
    if (pos + i == s.size()) return {i, false, true};
    const uint8_t byte = Byte(s, pos + i);
    if (byte < low || byte > high) return {i, false, false};
    low = 0x80;
    high = 0xBF;
  }
  return {length, true, false};
}

}  // namespace

char32_t NextCodePoint(std::string_view text, size_t* pos) {
  const uint8_t first = Byte(text, *pos);
  if (first < 0x80) {
    ++*pos;
    return first;
  }
  const size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  char32_t code_point = first & (0x7F >> length);
  for (size_t i = 1; i < length; ++i) code_point = code_point << 6 | (Byte(text, *pos + i) & 0x3F);
  *pos += length;
  return code_point;
}

char32_t LastCodePoint(std::string_view text, size_t end) {
  size_t pos = end - 1;
  while (pos > 0 && (Byte(text, pos) & 0xC0) == 0x80) --pos;
  return NextCodePoint(text, &pos);
}

void AppendUtf8(char32_t c, std::string* out) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
    return;
  }
  if (c < 0x800) {
    out->push_back(static_cast<char>(0xC0 | c >> 6));
  } else {
    if (c < 0x10000) {
      out->push_back(static_cast<char>(0xE0 | c >> 12));
    } else {
      out->push_back(static_cast<char>(0xF0 | c >> 18));
      out->push_back(static_cast<char>(0x80 | (c >> 12 & 0x3F)));
    }
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
  }
  out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
}

bool IsValidUtf8(std::string_view bytes) {
  for (size_t pos = 0; pos < bytes.size();) {
    const Sequence sequence = Classify(bytes, pos);
    if (!sequence.valid) return false;
    pos += sequence.length;
  }
  return true;
}

size_t AppendLossyUtf8(std::string_view bytes, bool at_end, std::string* out) {
  size_t pos = 0, copied = 0;
  while (pos < bytes.size()) {
    const Sequence sequence = Classify(bytes, pos);
    if (!sequence.valid) {
      out->append(bytes, copied, pos - copied);
      if (sequence.incomplete && !at_end) return pos;
      out->append(kReplacementCharacter);
      copied = pos + sequence.length;
    }
    pos += sequence.length;
  }
  out->append(bytes, copied, pos - copied);
  return pos;
}

}  // namespace cairn
