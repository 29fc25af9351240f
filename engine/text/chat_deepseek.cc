// DeepSeek-R1 and its distillates: "<｜User｜>question<｜Assistant｜>answer<｜end▁of▁sentence｜>".
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/text/chat_format.h"

namespace cairn {
namespace {

using Kind = JinjaSource::Term::Kind;

constexpr char kUser[] = "<｜User｜>", kAssistant[] = "<｜Assistant｜>", kEnd[] = "<｜end▁of▁sentence｜>";

struct DeepSeekR1 final : ChatFormat {
  std::string bos;
  bool joins_systems = false;  // several system messages are joined; else the last one counts
  std::string generation;      // newer templates open the thinking themselves

  ChatTemplate::Family family() const override { return ChatTemplate::Family::kDeepSeekR1; }
  absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages, bool enable_thinking) const override;
};

absl::StatusOr<std::string> DeepSeekR1::Render(const std::vector<ChatMessage>& messages, bool) const {
  std::string system;
  bool any_system = false;
  for (const ChatMessage& message : messages) {
    if (message.role != "system") continue;
    system = joins_systems && any_system ? absl::StrCat(system, "\n\n", message.content) : message.content;
    any_system = true;
  }
  std::string text = absl::StrCat(bos, system);
  for (const ChatMessage& message : messages) {
    if (message.role == "user") {
      absl::StrAppend(&text, kUser, message.content);
    } else if (message.role == "assistant") {
      absl::StrAppend(&text, kAssistant, std::string(AfterLast(message.content, "</think>")), kEnd);
    }
  }
  return text + generation;
}

bool KnowsEveryLiteral(const JinjaSource& source) {
  return std::all_of(source.literals().begin(), source.literals().end(), [](const std::string& literal) {
    return ConsistsOf(literal, {kUser, kAssistant, kEnd, "<think>", "</think>", "\n"}) || IsNameOrToolText(literal);
  });
}

}  // namespace

std::unique_ptr<ChatFormat> RecognizeDeepSeekR1(const JinjaSource& source, const ChatTokens& tokens) {
  const JinjaSource::Concatenation question = {JinjaLiteral(kUser), JinjaContent()};
  const JinjaSource::Concatenation answer = {JinjaLiteral(kAssistant), JinjaContent(), JinjaLiteral(kEnd)};
  if (!source.Outputs(question) || !source.Outputs(answer) || !source.Outputs({JinjaTerm(Kind::kBos)}) ||
      !source.Outputs({JinjaTerm(Kind::kSystem)}) || !KnowsEveryLiteral(source)) {
    return nullptr;
  }
  if (source.Says("thinking") || source.Says("macro") || source.Says("is_last_user") || source.Says("eos_token")) {
    return nullptr;
  }
  if (!source.Says("if'</think>'incontent\nsetcontent=content.split('</think>')[-1]\n")) return nullptr;
  auto format = std::make_unique<DeepSeekR1>();
  format->bos = tokens.bos;
  format->joins_systems = source.Says("ns.system_prompt+'\n\n'+message['content']");
  if (!format->joins_systems && !source.Says("setns.system_prompt=message['content']\n")) return nullptr;
  const std::string opened = absl::StrCat(kAssistant, "<think>\n");
  const bool opens_thinking = source.Outputs({JinjaLiteral(opened)});
  if (!opens_thinking && !source.Outputs({JinjaLiteral(kAssistant)})) return nullptr;
  format->generation = opens_thinking ? opened : kAssistant;
  return format;
}

}  // namespace cairn
