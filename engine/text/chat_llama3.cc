// Llama 3: "<|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>". From 3.1 on a system message with two dates
// comes first, always.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/text/chat_format.h"

namespace cairn {
namespace {

constexpr char kAssistant[] = "<|start_header_id|>assistant<|end_header_id|>\n\n";
constexpr std::string_view kKnowledge = "Cutting Knowledge Date: ", kToday = "Today Date: ";

struct Llama3 final : ChatFormat {
  std::string bos;
  bool strips = false;  // contents lose the white space around them
  std::string dates;    // of 3.1's system message; "" in Llama 3

  ChatTemplate::Family family() const override { return ChatTemplate::Family::kLlama3; }
  absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages, bool enable_thinking) const override;

  std::string Message(std::string_view role, std::string_view before, std::string_view content) const {
    return absl::StrCat("<|start_header_id|>", std::string(role), "<|end_header_id|>\n\n", std::string(before),
                        std::string(strips ? PythonStrip(content) : content), "<|eot_id|>");
  }
};

absl::StatusOr<std::string> Llama3::Render(const std::vector<ChatMessage>& messages, bool) const {
  std::string text = bos;
  size_t next = 0;
  if (!dates.empty()) {
    const bool has_system = messages[0].role == "system";
    text += Message("system", dates, has_system ? std::string_view(messages[0].content) : "");
    next = has_system ? 1 : 0;
  }
  for (; next < messages.size(); ++next) text += Message(messages[next].role, "", messages[next].content);
  return text + kAssistant;
}

bool KnowsEveryLiteral(const JinjaSource& source, const std::string& date) {
  return std::all_of(source.literals().begin(), source.literals().end(), [&](std::string_view literal) {
    if (literal.substr(0, kKnowledge.size()) == kKnowledge || literal == kToday || literal == date) return true;
    return literal == "%d %b %Y" || IsNameOrToolText(literal) ||
           ConsistsOf(literal,
                      {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "\n", "system", "user", "assistant"});
  });
}

// The lines before the system prompt, and whether they are those of 3.1.
bool ReadDates(const JinjaSource& source, const std::string& date, std::string* dates) {
  using Kind = JinjaSource::Term::Kind;
  const auto& literals = source.literals();
  const auto knowledge = std::find_if(literals.begin(), literals.end(), [](std::string_view literal) {
    return literal.substr(0, kKnowledge.size()) == kKnowledge && literal.back() == '\n';
  });
  if (knowledge == literals.end() || date.empty() || !source.Outputs({JinjaLiteral(*knowledge)})) return false;
  const JinjaSource::Concatenation today = {JinjaLiteral(std::string(kToday)), JinjaTerm(Kind::kOther),
                                            JinjaLiteral("\n\n")};
  *dates = absl::StrCat(*knowledge, std::string(kToday), date, "\n\n");
  return source.Outputs(today) && source.Says("setsystem_message=messages[0]['content']|trim\n") &&
         source.Outputs({JinjaTerm(Kind::kSystem)});
}

}  // namespace

std::unique_ptr<ChatFormat> RecognizeLlama3(const JinjaSource& source, const ChatTokens& tokens) {
  using Kind = JinjaSource::Term::Kind;
  auto format = std::make_unique<Llama3>();
  format->bos = tokens.bos;
  auto message = [](bool strips) -> JinjaSource::Concatenation {
    return {JinjaLiteral("<|start_header_id|>"), JinjaTerm(Kind::kRole), JinjaLiteral("<|end_header_id|>\n\n"),
            JinjaContent(strips), JinjaLiteral("<|eot_id|>")};
  };
  const auto& assigned = source.assigned();
  // A template with today's date asks for it; the fixed date that it falls back on keeps prompts reproducible.
  const std::string date = source.AssignedLiteral("date_string");
  if (!KnowsEveryLiteral(source, date) || source.Says("macro") || !source.HasLiteral(kAssistant)) return nullptr;
  const bool is_llama_3 = std::any_of(assigned.begin(), assigned.end(), [&](const JinjaSource::Concatenation& right) {
    format->strips = right == message(true);
    return format->strips || right == message(false);
  });
  if (is_llama_3) {
    const bool bos_first = source.Says("ifloop.index0==0\nsetcontent=bos_token+content\n");
    return bos_first && date.empty() ? std::move(format) : nullptr;
  }
  format->strips = source.Outputs(message(true));
  if (!format->strips && !source.Outputs(message(false))) return nullptr;
  if (source.outputs().front() != JinjaSource::Concatenation{JinjaTerm(Kind::kBos)}) return nullptr;
  if (!ReadDates(source, date, &format->dates)) return nullptr;
  return format;
}

}  // namespace cairn
