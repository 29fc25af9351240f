// ChatML: "<|im_start|>role\ncontent<|im_end|>\n" for each message. Qwen2, Qwen2.5, Qwen3, QwQ, SmolLM2, MiniMind and
// many others; they differ in the system prompt that they begin with by themselves, and in what becomes of the
// thinking.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/text/chat_format.h"

namespace cairn {
namespace {

constexpr char kAssistant[] = "<|im_start|>assistant\n";
constexpr char kSystemBegin[] = "<|im_start|>system\n";
constexpr char kMessageEnd[] = "<|im_end|>\n";
constexpr char kEmptyThinking[] = "<think>\n\n</think>\n\n";

enum class Thinking {
  kNone,    // contents are written as they are
  kQwen3,   // earlier answers lose their thinking, answers after the last question get a block
  kQwq,     // every answer but the last message loses its thinking
  kAlways,  // every answer gets a block (MiniMind)
};

struct ChatMl final : ChatFormat {
  std::string default_system;  // "": none
  bool writes_bos = false;
  std::string bos;
  Thinking thinking = Thinking::kNone;
  std::string generation;  // what the prompt ends with
  std::string generation_no_thinking;

  ChatTemplate::Family family() const override { return ChatTemplate::Family::kChatMl; }
  absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages, bool enable_thinking) const override;
  std::string RenderAnswer(const std::string& content, bool after_question, bool is_last) const;
};

// Qwen3's split of an answer that carries its thinking.
struct Answer {
  std::string_view reasoning, content;
};
Answer SplitAnswer(std::string_view text) {
  const size_t end = text.find("</think>");
  if (end == std::string_view::npos) return {"", text};
  const std::string_view before = StripNewlinesRight(text.substr(0, end));
  return {StripNewlinesLeft(AfterLast(before, "<think>")), StripNewlinesLeft(AfterLast(text, "</think>"))};
}

std::string WithBlock(const Answer& answer) {
  return absl::StrCat("<think>\n", std::string(StripNewlinesRight(StripNewlinesLeft(answer.reasoning))),
                      "\n</think>\n\n", std::string(StripNewlinesLeft(answer.content)));
}

std::string ChatMl::RenderAnswer(const std::string& content, bool after_question, bool is_last) const {
  switch (thinking) {
    case Thinking::kNone:
      return content;
    case Thinking::kQwq:
      return is_last ? content : std::string(StripNewlinesLeft(AfterLast(content, "</think>")));
    case Thinking::kAlways:
      return WithBlock(SplitAnswer(content));
    case Thinking::kQwen3:
      break;
  }
  const Answer answer = SplitAnswer(content);
  const bool keeps_block = after_question && (is_last || !answer.reasoning.empty());
  return keeps_block ? WithBlock(answer) : std::string(answer.content);
}

bool StartsWith(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }
bool EndsWith(std::string_view text, std::string_view suffix) {
  return text.size() >= suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
}

// The index of the last message in which the user asks something. Tool results are sent in the user's name; without any
// question it is the last message.
size_t LastQuestion(const std::vector<ChatMessage>& messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    const std::string_view content = messages[i].content;
    const bool is_tool_result = StartsWith(content, "<tool_response>") && EndsWith(content, "</tool_response>");
    if (messages[i].role == "user" && !is_tool_result) return i;
  }
  return messages.size() - 1;
}

absl::StatusOr<std::string> ChatMl::Render(const std::vector<ChatMessage>& messages, bool enable_thinking) const {
  std::string text = writes_bos ? bos : "";
  if (messages[0].role != "system" && !default_system.empty()) {
    absl::StrAppend(&text, kSystemBegin, default_system, kMessageEnd);
  }
  const size_t last_question = LastQuestion(messages);
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    const bool is_answer = message.role == "assistant";
    absl::StrAppend(
        &text, "<|im_start|>", message.role, "\n",
        is_answer ? RenderAnswer(message.content, i > last_question, i + 1 == messages.size()) : message.content,
        kMessageEnd);
  }
  return text + (enable_thinking ? generation : generation_no_thinking);
}

// The system prompt of its own, where the template has one: a literal that is a whole system message. False where there
// are several, or where it does not depend on the first message's role.
bool ReadDefaultSystem(const JinjaSource& source, std::string* system) {
  for (const std::string& literal : source.literals()) {
    if (!StartsWith(literal, kSystemBegin) || !EndsWith(literal, kMessageEnd)) continue;
    const size_t begin = sizeof(kSystemBegin) - 1;
    const std::string text = literal.substr(begin, literal.size() - begin - (sizeof(kMessageEnd) - 1));
    if (text.empty() || text.find("<|im_") != std::string::npos || (!system->empty() && *system != text)) return false;
    *system = text;
  }
  if (system->empty()) return true;
  return source.Says("ifloop.firstandmessages[0]['role']!='system'") ||
         source.Says("ifmessages[0]['role']=='system'") || source.Says("ifmessages[0].role=='system'") ||
         source.Says("ifmessages[0]['role']!='system'");
}

// Nothing but a message's parts, tools, and the two ways of writing the default system prompt.
bool KnowsEveryLiteral(const JinjaSource& source, const std::string& default_system) {
  const std::string message = absl::StrCat(kSystemBegin, default_system, kMessageEnd);
  return std::all_of(source.literals().begin(), source.literals().end(), [&](const std::string& literal) {
    if (literal.empty() || literal == message || (!default_system.empty() && literal == default_system)) return true;
    return ConsistsOf(literal,
                      {"<|im_start|>", "<|im_end|>", "<think>", "</think>", "\n", "system", "user", "assistant"}) ||
           IsNameOrToolText(literal);
  });
}

bool SaysAny(const JinjaSource& source, std::initializer_list<const char*> codes) {
  return std::any_of(codes.begin(), codes.end(), [&](const char* code) { return source.Says(code); });
}

// Which of the known treatments of thinking the template has. False: another one.
bool ReadThinking(const JinjaSource& source, ChatMl* format) {
  const std::string thinking_assistant = absl::StrCat(kAssistant, "<think>\n");
  const bool opens_thinking = source.HasLiteral(thinking_assistant);
  format->generation = format->generation_no_thinking = opens_thinking ? thinking_assistant : kAssistant;
  if (!opens_thinking && !source.HasLiteral(kAssistant)) return false;
  const bool any = std::any_of(source.literals().begin(), source.literals().end(),
                               [](const std::string& literal) { return literal.find("think>") != std::string::npos; });
  if (!any) {
    format->thinking = Thinking::kNone;
    return !SaysAny(source, {"|trim", "strip(", "split(", "thinking", "reasoning", "namespace("});
  }
  const bool has_switch = source.HasLiteral(kEmptyThinking);
  if (source.Says("ifopen_thinkingisdefinedandopen_thinkingistrue") && has_switch && source.Says("iftrue\n") &&
      !source.Says("enable_thinking")) {
    // The switch is off unless the caller turns it on under its own name.
    format->thinking = Thinking::kAlways;
    format->generation += kEmptyThinking;
    format->generation_no_thinking = format->generation;
    return true;
  }
  if (source.Says("ifloop.index0>ns.last_query_index\n") &&
      source.Says("ifloop.lastor(notloop.lastandreasoning_content)\n")) {
    format->thinking = Thinking::kQwen3;
    if (!has_switch) return !source.Says("enable_thinking");
    if (opens_thinking || !source.Says("ifenable_thinkingisdefinedandenable_thinkingisfalse\n")) return false;
    format->generation_no_thinking += kEmptyThinking;
    return true;
  }
  if (source.Says("ifnotloop.last\nsetcontent=message.content.split('</think>')[-1].lstrip('\n')\n")) {
    format->thinking = Thinking::kQwq;
    return !source.Says("enable_thinking");
  }
  return false;
}

}  // namespace

std::unique_ptr<ChatFormat> RecognizeChatMl(const JinjaSource& source, const ChatTokens& tokens) {
  using Kind = JinjaSource::Term::Kind;
  const JinjaSource::Concatenation message = {JinjaLiteral("<|im_start|>"), JinjaTerm(Kind::kRole), JinjaLiteral("\n"),
                                              JinjaContent(), JinjaLiteral(kMessageEnd)};
  if (!source.Outputs(message)) return nullptr;
  auto format = std::make_unique<ChatMl>();
  if (!ReadDefaultSystem(source, &format->default_system) || !KnowsEveryLiteral(source, format->default_system) ||
      !ReadThinking(source, format.get())) {
    return nullptr;
  }
  if (!source.Says("ifadd_generation_prompt") ||
      SaysAny(source, {"macro", "eos_token", "raise_exception", "strftime"})) {
    return nullptr;
  }
  format->writes_bos = source.Says("bos_token");
  if (format->writes_bos && source.outputs().front() != JinjaSource::Concatenation{JinjaTerm(Kind::kBos)})
    return nullptr;
  format->bos = tokens.bos;
  return format;
}

}  // namespace cairn
