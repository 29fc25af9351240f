// UTF-8: reading, writing and mending. Everything past Tokenizer's door is valid UTF-8.
#ifndef CAIRN_ENGINE_TEXT_UTF8_H_
#define CAIRN_ENGINE_TEXT_UTF8_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace cairn {

// U+FFFD in UTF-8.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

// The code point that starts at text[*pos]; moves *pos past it. `text` must be valid UTF-8 and *pos inside it.
char32_t NextCodePoint(std::string_view text, size_t* pos);

// The code point that ends at text[end); end > 0. `text` must be valid UTF-8.
char32_t LastCodePoint(std::string_view text, size_t end);

void AppendUtf8(char32_t code_point, std::string* out);

bool IsValidUtf8(std::string_view bytes);

// Appends `bytes` to `out`, each maximal ill-formed part as one U+FFFD (Unicode 15, section 3.9, "substitution of
// maximal subparts": what Rust's and Python's lossy decoders do). With `at_end` false an incomplete sequence at the end
// is left alone, for more bytes to complete. Returns how many bytes were used.
size_t AppendLossyUtf8(std::string_view bytes, bool at_end, std::string* out);

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_UTF8_H_
