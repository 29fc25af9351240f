// GPT-2's alphabet of printable stand-ins for the 256 bytes, in which byte-level vocabularies are written ("Ġ" is a
// space).
#ifndef CAIRN_ENGINE_TEXT_BYTE_ALPHABET_H_
#define CAIRN_ENGINE_TEXT_BYTE_ALPHABET_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace cairn {

// The character that stands for a byte, in UTF-8.
const std::string& ByteCharacter(uint8_t byte);

// Appends the bytes that a byte-level token stands for; a token with any character outside the alphabet stands for
// itself.
void AppendByteLevelToken(std::string_view token, std::string* bytes);

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_BYTE_ALPHABET_H_
