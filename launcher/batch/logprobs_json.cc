#include "launcher/batch/logprobs_json.h"

#include <algorithm>
#include <cstdint>
#include <string>

namespace cairn {
namespace {

using nlohmann::ordered_json;

float Finite(float logprob) { return std::max(logprob, -9999.0f); }

// The token's bytes; a special token's are its name.
std::string Bytes(const Tokenizer* tokenizer, int32_t id) {
  if (tokenizer == nullptr) return std::to_string(id);
  return tokenizer->IsSpecial(id) ? tokenizer->IdToToken(id) : tokenizer->TokenBytes(id);
}

ordered_json ChatToken(const Tokenizer* tokenizer, int32_t id, float logprob) {
  const std::string bytes = Bytes(tokenizer, id);
  ordered_json list = ordered_json::array();
  for (const char byte : bytes) list.push_back(static_cast<uint8_t>(byte));
  // A part of a character stays as it is here and becomes U+FFFD when the record is written.
  return {{"token", bytes}, {"logprob", Finite(logprob)}, {"bytes", std::move(list)}};
}

int64_t NumCharacters(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char byte) { return (byte & 0xc0) != 0x80; });
}

}  // namespace

ordered_json ChatLogprobs(const Tokenizer* tokenizer, const std::vector<TokenLogprob>& logprobs) {
  ordered_json content = ordered_json::array();
  for (const TokenLogprob& token : logprobs) {
    ordered_json entry = ChatToken(tokenizer, token.token, token.logprob);
    ordered_json& top = entry["top_logprobs"] = ordered_json::array();
    for (const auto& [id, logprob] : token.top) top.push_back(ChatToken(tokenizer, id, logprob));
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}};
}

ordered_json CompletionLogprobs(const Tokenizer* tokenizer, const std::vector<TokenLogprob>& logprobs) {
  ordered_json tokens = ordered_json::array(), token_logprobs = ordered_json::array(), tops = ordered_json::array(),
               offsets = ordered_json::array();
  int64_t offset = 0;
  for (const TokenLogprob& token : logprobs) {
    const std::string bytes = Bytes(tokenizer, token.token);
    ordered_json top = ordered_json::object();
    // Two ids may share a text: the likelier one keeps the key.
    for (const auto& [id, logprob] : token.top) top.emplace(Bytes(tokenizer, id), Finite(logprob));
    top.emplace(bytes, Finite(token.logprob));
    tokens.push_back(bytes);
    token_logprobs.push_back(Finite(token.logprob));
    tops.push_back(std::move(top));
    offsets.push_back(offset);
    offset += NumCharacters(bytes);
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(token_logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

}  // namespace cairn
