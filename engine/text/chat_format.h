// One family of chat templates: how it is recognised, and how it renders.
#ifndef CAIRN_ENGINE_TEXT_CHAT_FORMAT_H_
#define CAIRN_ENGINE_TEXT_CHAT_FORMAT_H_

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/chat_template.h"
#include "engine/text/jinja_source.h"

namespace cairn {

struct ChatFormat {
  virtual ~ChatFormat() = default;
  virtual ChatTemplate::Family family() const = 0;
  // `messages`: not empty, roles system, user and assistant only.
  virtual absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages, bool enable_thinking) const = 0;
};

struct ChatTokens {
  std::string bos, eos;
};

// Each returns null where the template is not of its family, or is of it with something added that it does not know.
std::unique_ptr<ChatFormat> RecognizeChatMl(const JinjaSource& source, const ChatTokens& tokens);
std::unique_ptr<ChatFormat> RecognizeLlama3(const JinjaSource& source, const ChatTokens& tokens);
std::unique_ptr<ChatFormat> RecognizeInst(const JinjaSource& source, const ChatTokens& tokens);  // Llama 2, Mistral
std::unique_ptr<ChatFormat> RecognizeDeepSeekR1(const JinjaSource& source, const ChatTokens& tokens);

// ---- for the families ----

// Whether a literal is nothing but these marks, one after another.
bool ConsistsOf(std::string_view literal, std::initializer_list<std::string_view> marks);
// Names of roles and fields, and the texts that templates write for tools, which are never sent here.
bool IsNameOrToolText(std::string_view literal);

// Python's str.strip, lstrip(chars), rstrip(chars) and s.split(separator)[-1].
std::string_view PythonStrip(std::string_view text);
std::string_view StripNewlinesLeft(std::string_view text);
std::string_view StripNewlinesRight(std::string_view text);
std::string_view AfterLast(std::string_view text, std::string_view separator);

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_CHAT_FORMAT_H_
