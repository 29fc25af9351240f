#include "engine/text/byte_alphabet.h"

#include <array>

#include "engine/text/utf8.h"

namespace cairn {
namespace {

struct Alphabet {
  std::array<std::string, 256> characters;
  std::array<int16_t, 0x144> bytes;  // by code point; -1 outside the alphabet

  // Printable Latin-1 stands for itself; the other 68 bytes, in order, are U+0100 to U+0143 (GPT-2's encoder.py).
  Alphabet() {
    bytes.fill(-1);
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool itself = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
      const char32_t character = itself ? static_cast<char32_t>(byte) : next++;
      AppendUtf8(character, &characters[byte]);
      bytes[character] = static_cast<int16_t>(byte);
    }
  }
};

const Alphabet& ByteAlphabet() {
  static const Alphabet alphabet;
  return alphabet;
}

}  // namespace

const std::string& ByteCharacter(uint8_t byte) { return ByteAlphabet().characters[byte]; }

void AppendByteLevelToken(std::string_view token, std::string* bytes) {
  const Alphabet& alphabet = ByteAlphabet();
  const size_t before = bytes->size();
  for (size_t pos = 0; pos < token.size();) {
    const char32_t c = NextCodePoint(token, &pos);
    if (c >= alphabet.bytes.size() || alphabet.bytes[c] < 0) {
      bytes->resize(before);
      bytes->append(token);
      return;
    }
    bytes->push_back(static_cast<char>(alphabet.bytes[c]));
  }
}

}  // namespace cairn
