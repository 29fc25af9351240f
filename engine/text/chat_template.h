// Chat messages to prompt text. Templates are recognised by family from their source, not interpreted: each family's
// rendering is written out here and checked against the real templates.
#ifndef CAIRN_ENGINE_TEXT_CHAT_TEMPLATE_H_
#define CAIRN_ENGINE_TEXT_CHAT_TEMPLATE_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer.h"

namespace cairn {

struct ChatMessage {
  std::string role;  // system, user, assistant (tool is refused with a message)
  std::string content;
};

struct ChatFormat;

class ChatTemplate {
 public:
  enum class Family { kNone, kChatMl, kLlama3, kLlama2, kMistral, kDeepSeekR1 };

  // Recognises the tokenizer's template and takes from its source what differs between models of a family (the default
  // system prompt of a ChatML model, Qwen3's thinking switch ...). A template that says anything which its family's
  // rendering here does not account for is not recognised. kNone: an unknown or absent template.
  static ChatTemplate FromTokenizer(const Tokenizer& tokenizer);
  // The same of a template's source and the tokens that it calls bos_token and eos_token.
  static ChatTemplate FromSource(std::string_view source, const std::string& bos_token, const std::string& eos_token);

  Family family() const;

  // The prompt that ends where the assistant's answer begins (add_generation_prompt). It holds special tokens as text,
  // BOS included where the template writes it: encode with add_special_tokens = false. INVALID_ARGUMENT on an
  // unrecognised template (says to send `prompt` instead), an unknown role, or an order of roles that the template
  // refuses. `enable_thinking` false closes the thinking block at once where the family has one (Qwen3).
  absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages, bool enable_thinking = true) const;

 private:
  std::shared_ptr<const ChatFormat> format_;  // null: kNone
  bool has_source_ = false;                   // there is a template, recognised or not
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_CHAT_TEMPLATE_H_
