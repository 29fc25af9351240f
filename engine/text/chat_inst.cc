// "[INST] question [/INST] answer</s>": Llama 2, and Mistral in its several versions, which differ in the spaces and in
// where the system prompt goes.
#include <algorithm>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/text/chat_format.h"

namespace cairn {
namespace {

using Kind = JinjaSource::Term::Kind;

// A content between two texts.
struct Around {
  std::string before, after;
  bool strips = false;

  std::string operator()(std::string_view system, std::string_view content) const {
    std::string whole = absl::StrCat(std::string(system), std::string(content));
    return absl::StrCat(before, strips ? std::string(PythonStrip(whole)) : whole, after);
  }
};

struct Inst final : ChatFormat {
  enum class System { kNone, kFirstQuestion, kLastQuestion, kOwnMessage };

  ChatTemplate::Family of = ChatTemplate::Family::kMistral;
  std::string bos, eos;
  bool bos_each_question = false;  // else once, at the start
  bool alternates = false;         // user, assistant, user ... is enforced
  System system = System::kNone;
  std::string system_before, system_after;  // around the system prompt, before the question
  Around question, answer;
  std::string after_eos;

  ChatTemplate::Family family() const override { return of; }
  absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages, bool enable_thinking) const override;
  absl::Status CheckOrder(const std::vector<ChatMessage>& messages) const;
};

absl::Status Inst::CheckOrder(const std::vector<ChatMessage>& messages) const {
  if (system == System::kOwnMessage) return absl::OkStatus();
  const size_t first = messages[0].role == "system" ? 1 : 0;
  if (first == 1 && system == System::kNone) {
    return absl::InvalidArgumentError("messages[0].role: this model's chat template takes no system message");
  }
  for (size_t i = first; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    const char* expected = (i - first) % 2 == 0 ? "user" : "assistant";
    if (role == "system" || (alternates && role != expected)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "messages[", i, "].role: expected ", expected, ", found ", role,
          " (this model's chat template alternates user and assistant, with an optional system message first)"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Inst::Render(const std::vector<ChatMessage>& messages, bool) const {
  if (absl::Status order = CheckOrder(messages); !order.ok()) return order;
  std::string text = bos_each_question ? "" : bos;
  const bool merges_system = messages[0].role == "system" && system != System::kOwnMessage;
  const std::string prompt = merges_system ? absl::StrCat(system_before, messages[0].content, system_after) : "";
  const size_t first = merges_system ? 1 : 0;
  for (size_t i = first; i < messages.size(); ++i) {
    const std::string& content = messages[i].content;
    if (messages[i].role == "system") {
      absl::StrAppend(&text, system_before, content, system_after);
    } else if (messages[i].role == "assistant") {
      absl::StrAppend(&text, answer("", content), eos, after_eos);
    } else {
      const bool takes_system = system == System::kLastQuestion ? i + 1 == messages.size() : i == first;
      absl::StrAppend(&text, bos_each_question ? bos : "", question(takes_system ? prompt : "", content));
    }
  }
  return text;
}

bool KnowsEveryLiteral(const JinjaSource& source) {
  return std::all_of(source.literals().begin(), source.literals().end(), [](std::string_view literal) {
    auto mentions = [&](const char* text) { return literal.find(text) != std::string_view::npos; };
    return IsNameOrToolText(literal) || mentions("roles must alternate") || mentions("roles are supported") ||
           ConsistsOf(literal,
                      {"[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", " ", "\n"});
  });
}

// "before" + content + "after", each text may be absent; `rest` is what follows. nullopt where the terms are others.
std::optional<Around> ReadAround(const JinjaSource::Concatenation& terms, size_t begin, size_t* rest) {
  Around around;
  size_t i = begin;
  if (i < terms.size() && terms[i].kind == Kind::kLiteral) around.before = terms[i++].text;
  if (i == terms.size() || terms[i].kind != Kind::kContent) return std::nullopt;
  around.strips = terms[i++].stripped;
  if (i < terms.size() && terms[i].kind == Kind::kLiteral) around.after = terms[i++].text;
  *rest = i;
  return around;
}

bool Mentions(const std::string& text, const char* mark) { return text.find(mark) != std::string::npos; }

// bos? "[INST] " content " [/INST]"
bool ReadQuestion(const JinjaSource& source, Inst* format) {
  for (const auto& terms : source.outputs()) {
    const size_t begin = terms.front().kind == Kind::kBos ? 1 : 0;
    size_t rest = 0;
    const std::optional<Around> around = ReadAround(terms, begin, &rest);
    if (!around || rest != terms.size() || !Mentions(around->before, "[INST]")) continue;
    format->question = *around;
    format->bos_each_question = begin == 1;
    return Mentions(around->after, "[/INST]");
  }
  return false;
}

// " " content eos " "
bool ReadAnswer(const JinjaSource& source, Inst* format) {
  for (const auto& terms : source.outputs()) {
    size_t rest = 0;
    const std::optional<Around> around = ReadAround(terms, 0, &rest);
    if (!around || rest == terms.size() || terms[rest].kind != Kind::kEos) continue;
    format->answer = *around;
    if (rest + 2 == terms.size() && terms.back().kind == Kind::kLiteral) {
      format->after_eos = terms.back().text;
      return true;
    }
    return rest + 1 == terms.size();
  }
  return false;
}

// Llama 2 wraps the system prompt into the content of the first message.
bool ReadLlama2System(const JinjaSource& source, Inst* format) {
  for (const auto& terms : source.assigned()) {
    const bool fits = terms.size() == 4 && terms[0].kind == Kind::kLiteral && terms[1].kind == Kind::kSystem &&
                      terms[2].kind == Kind::kLiteral && terms[3] == JinjaContent();
    if (!fits) continue;
    format->system = Inst::System::kFirstQuestion;
    format->system_before = terms[0].text;
    format->system_after = terms[2].text;
    return source.Says("ifloop.index0==0andsystem_message!=false\n") && source.Says("setsystem_message=false\n") &&
           !source.Says("USE_DEFAULT_PROMPT");
  }
  return false;
}

bool ReadMistralSystem(const JinjaSource& source, Inst* format) {
  for (const auto& terms : source.outputs()) {
    size_t rest = 0;
    const std::optional<Around> around = ReadAround(terms, 0, &rest);
    if (around && Mentions(around->before, "[SYSTEM_PROMPT]")) {
      format->system = Inst::System::kOwnMessage;
      format->system_before = around->before;
      format->system_after = around->after;
      return rest == terms.size() && !around->strips;
    }
    // "[INST] " system "\n\n" content "[/INST]"
    if (terms.size() != 5 || terms[1].kind != Kind::kSystem) continue;
    format->system_after = terms[2].text;
    const bool first = source.Says("ifloop.firstandsystem_messageisdefined\n");
    const bool last = source.Says("ifloop.lastandsystem_messageisdefined\n");
    format->system = first ? Inst::System::kFirstQuestion : Inst::System::kLastQuestion;
    return first != last && terms[0] == JinjaLiteral(format->question.before) && terms[3] == JinjaContent() &&
           terms[4] == JinjaLiteral(format->question.after) && !format->question.strips;
  }
  return !source.Says("system_message");
}

}  // namespace

std::unique_ptr<ChatFormat> RecognizeInst(const JinjaSource& source, const ChatTokens& tokens) {
  auto format = std::make_unique<Inst>();
  format->bos = tokens.bos;
  format->eos = tokens.eos;
  if (!KnowsEveryLiteral(source) || !ReadQuestion(source, format.get()) || !ReadAnswer(source, format.get())) {
    return nullptr;
  }
  const bool is_llama_2 = std::any_of(source.literals().begin(), source.literals().end(),
                                      [](const std::string& literal) { return Mentions(literal, "<<SYS>>"); });
  format->of = is_llama_2 ? ChatTemplate::Family::kLlama2 : ChatTemplate::Family::kMistral;
  if (!(is_llama_2 ? ReadLlama2System(source, format.get()) : ReadMistralSystem(source, format.get()))) return nullptr;
  const bool bos_once = source.Outputs({JinjaTerm(Kind::kBos)});
  if (bos_once == format->bos_each_question) return nullptr;
  if (source.Says("macro") || source.Says("strftime")) return nullptr;
  format->alternates = source.Says("(loop.index0%2==0)") || source.Says("(ns.index%2==0)");
  return format;
}

}  // namespace cairn
