#include "engine/text/chat_template.h"

#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/text/chat_format.h"
#include "engine/text/jinja_source.h"
#include "engine/text/utf8.h"

namespace cairn {
namespace {

constexpr char kKnown[] = "ChatML and Qwen, Llama 2, Llama 3, Mistral, DeepSeek-R1";

absl::Status CheckMessages(const std::vector<ChatMessage>& messages) {
  if (messages.empty()) return absl::InvalidArgumentError("messages: expected at least one message, found none");
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    if (role == "system" || role == "user" || role == "assistant") continue;
    const bool is_tool = role == "tool" || role == "function";
    return absl::InvalidArgumentError(absl::StrCat("messages[", i, "].role: \"", role, "\" is ",
                                                   is_tool ? "not supported" : "unknown",
                                                   " (expected system, user or assistant)"));
  }
  return absl::OkStatus();
}

// What Jinja makes of bytes that are not UTF-8 is nothing; here they become U+FFFD, as everywhere.
std::vector<ChatMessage> Mended(const std::vector<ChatMessage>& messages) {
  std::vector<ChatMessage> result = messages;
  for (ChatMessage& message : result) {
    if (IsValidUtf8(message.content)) continue;
    std::string mended;
    AppendLossyUtf8(message.content, /*at_end=*/true, &mended);
    message.content = std::move(mended);
  }
  return result;
}

}  // namespace

ChatTemplate ChatTemplate::FromTokenizer(const Tokenizer& tokenizer) {
  return FromSource(tokenizer.chat_template(), tokenizer.bos_token(), tokenizer.eos_token());
}

ChatTemplate ChatTemplate::FromSource(std::string_view source, const std::string& bos_token,
                                      const std::string& eos_token) {
  ChatTemplate result;
  result.has_source_ = !source.empty();
  const std::optional<JinjaSource> jinja = JinjaSource::Parse(source);
  // The families write everything in {{ ... }}; text besides it, be it a line break, is something else.
  if (!jinja || jinja->has_text() || jinja->outputs().empty()) return result;
  const ChatTokens tokens{bos_token, eos_token};
  for (auto recognize : {&RecognizeChatMl, &RecognizeLlama3, &RecognizeInst, &RecognizeDeepSeekR1}) {
    result.format_ = recognize(*jinja, tokens);
    if (result.format_ != nullptr) break;
  }
  return result;
}

ChatTemplate::Family ChatTemplate::family() const { return format_ == nullptr ? Family::kNone : format_->family(); }

absl::StatusOr<std::string> ChatTemplate::Render(const std::vector<ChatMessage>& messages, bool enable_thinking) const {
  if (format_ == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "messages: the model ", has_source_ ? "has a chat template of an unrecognised family" : "has no chat template",
        " (recognised: ", kKnown, "); send the whole text as \"prompt\" to /v1/completions instead"));
  }
  if (absl::Status status = CheckMessages(messages); !status.ok()) return status;
  return format_->Render(Mended(messages), enable_thinking);
}

}  // namespace cairn
