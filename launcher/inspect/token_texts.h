// Tokens as people read them, one by one.
#ifndef CAIRN_LAUNCHER_INSPECT_TOKEN_TEXTS_H_
#define CAIRN_LAUNCHER_INSPECT_TOKEN_TEXTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "engine/text/tokenizer.h"

namespace cairn {

struct TokenText {
  std::string text;      // valid UTF-8
  bool special = false;  // a special token: `text` is its name
};

// What each token adds to the text. A character that is divided over tokens belongs to the one that completes it, and
// the others are ""; bytes that make no character are U+FFFD.
std::vector<TokenText> TokenTexts(const Tokenizer& tokenizer, absl::Span<const int32_t> ids);

// The same for bytes at hand: how the characters fall to the tokens.
std::vector<std::string> CharactersOf(absl::Span<const std::string> token_bytes);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_INSPECT_TOKEN_TEXTS_H_
