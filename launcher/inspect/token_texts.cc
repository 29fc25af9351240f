#include "launcher/inspect/token_texts.h"

#include "engine/text/utf8.h"

namespace cairn {

std::vector<std::string> CharactersOf(absl::Span<const std::string> token_bytes) {
  std::vector<std::string> texts(token_bytes.size());
  std::string pending;  // of a character that is not complete
  for (size_t i = 0; i < token_bytes.size(); ++i) {
    pending += token_bytes[i];
    const bool at_end = i + 1 == token_bytes.size();
    pending.erase(0, AppendLossyUtf8(pending, at_end, &texts[i]));
  }
  return texts;
}

std::vector<TokenText> TokenTexts(const Tokenizer& tokenizer, absl::Span<const int32_t> ids) {
  std::vector<TokenText> tokens(ids.size());
  std::vector<std::string> bytes(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    tokens[i].special = tokenizer.IsSpecial(ids[i]);
    bytes[i] = tokens[i].special ? tokenizer.IdToToken(ids[i]) : tokenizer.TokenBytes(ids[i]);
  }
  const std::vector<std::string> texts = CharactersOf(bytes);
  for (size_t i = 0; i < ids.size(); ++i) tokens[i].text = texts[i];
  return tokens;
}

}  // namespace cairn
