#include "launcher/batch/request_body.h"

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"
#include "launcher/nearest_name.h"

namespace cairn {
namespace {

using nlohmann::json;

// A value in a message: short, whatever came in.
std::string Shown(const json& value) {
  std::string text = value.dump(-1, ' ', true);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

absl::Status Expected(const char* what, const json& found) {
  return absl::InvalidArgumentError(absl::StrCat("expected ", what, ", found ", Shown(found)));
}

// 5 and 5.0, as Python's validators take them.
absl::Status Read(const json& value, int64_t& out) {
  if (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) return Expected("a 64-bit integer", value);
  if (value.is_number_integer()) {
    out = value.get<int64_t>();
    return absl::OkStatus();
  }
  if (!value.is_number_float() || value != std::trunc(value.get<double>()) || std::abs(value.get<double>()) > 1e15) {
    return Expected("an integer", value);
  }
  out = static_cast<int64_t>(value.get<double>());
  return absl::OkStatus();
}

absl::Status Read(const json& value, int32_t& out) {
  int64_t wide = 0;
  CAIRN_RETURN_IF_ERROR(Read(value, wide));
  if (wide < INT32_MIN || wide > INT32_MAX) return Expected("a 32-bit integer", value);
  out = static_cast<int32_t>(wide);
  return absl::OkStatus();
}

absl::Status Read(const json& value, float& out) {
  if (!value.is_number()) return Expected("a number", value);
  out = value.get<float>();
  return absl::OkStatus();
}

absl::Status Read(const json& value, bool& out) {
  if (!value.is_boolean()) return Expected("true or false", value);
  out = value.get<bool>();
  return absl::OkStatus();
}

absl::Status Read(const json& value, std::string& out) {
  if (!value.is_string()) return Expected("a string", value);
  out = value.get<std::string>();
  return absl::OkStatus();
}

template <typename T>
absl::Status Read(const json& value, std::vector<T>& out) {
  if (!value.is_array()) return Expected("a list", value);
  out.resize(value.size());
  for (size_t i = 0; i < value.size(); ++i) CAIRN_RETURN_IF_ERROR(Read(value[i], out[i]));
  return absl::OkStatus();
}

template <typename T>
absl::Status Read(const json& value, std::optional<T>& out) {
  return Read(value, out.emplace());
}

absl::Status ReadStop(const json& value, BatchItem& item) {
  if (value.is_string()) return Read(value, item.sampling.stop.emplace_back());
  return Read(value, item.sampling.stop);
}

// Text, token ids, or a list of one of them.
absl::Status ReadPrompt(const json& value, BatchItem& item) {
  if (value.is_string()) return Read(value, item.prompt);
  if (!value.is_array() || value.empty()) return Expected("a text or a list of token ids", value);
  if (value[0].is_number()) return Read(value, item.prompt_ids);
  if (value.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat("it holds ", value.size(), " prompts: send one line for each"));
  }
  if (value[0].is_array() && (value[0].empty() || value[0][0].is_number())) return Read(value[0], item.prompt_ids);
  return Read(value[0], item.prompt);
}

// A string, or parts of type text, which are joined.
absl::Status ReadContent(const json& value, std::string& content) {
  if (value.is_string()) return Read(value, content);
  if (!value.is_array()) return Expected("a text or a list of {\"type\": \"text\"} parts", value);
  for (const json& part : value) {
    if (!part.is_object() || part.value("type", json()) != "text" || !part.contains("text")) {
      return absl::InvalidArgumentError(absl::StrCat("only parts of type text are supported, found ", Shown(part)));
    }
    std::string text;
    CAIRN_RETURN_IF_ERROR(Read(part["text"], text));
    absl::StrAppend(&content, content.empty() ? "" : "\n", text);
  }
  return absl::OkStatus();
}

absl::Status ReadMessage(const json& value, ChatMessage& message) {
  if (!value.is_object()) return Expected("an object with role and content", value);
  if (!value.contains("role") || !value.contains("content")) return Expected("role and content", value);
  CAIRN_RETURN_IF_ERROR(Read(value["role"], message.role));
  if (value.contains("tool_calls") && !value["tool_calls"].empty()) {
    return absl::UnimplementedError("tool_calls are not supported");
  }
  return ReadContent(value["content"], message.content);
}

absl::Status ReadMessages(const json& value, BatchItem& item) {
  if (!value.is_array() || value.empty()) return Expected("a list of messages", value);
  for (size_t i = 0; i < value.size(); ++i) {
    const absl::Status status = ReadMessage(value[i], item.messages.emplace_back());
    if (!status.ok())
      return absl::Status(status.code(), absl::StrCat("message ", i, ": ", std::string(status.message())));
  }
  return absl::OkStatus();
}

absl::Status ReadTemplateArguments(const json& value, BatchItem& item) {
  if (!value.is_object()) return Expected("an object", value);
  for (const auto& [name, argument] : value.items()) {
    if (name != "enable_thinking") {
      return absl::UnimplementedError(absl::StrCat(name, " is not supported; enable_thinking is"));
    }
    CAIRN_RETURN_IF_ERROR(Read(argument, item.enable_thinking));
  }
  return absl::OkStatus();
}

// Chat: a boolean, with the number in top_logprobs. Completions: the number.
absl::Status ReadLogprobs(const json& value, BatchItem& item) {
  if (item.endpoint == Endpoint::kCompletions) return Read(value, item.sampling.logprobs);
  bool wanted = false;
  CAIRN_RETURN_IF_ERROR(Read(value, wanted));
  if (wanted && !item.sampling.logprobs.has_value()) item.sampling.logprobs = 0;
  return absl::OkStatus();
}

struct Field {
  const char* name;
  absl::Status (*read)(const json& value, BatchItem& item);
  bool chat = true, completions = true;
};

// clang-format off
const Field kFields[] = {
    {"messages", ReadMessages, true, false},
    {"prompt", ReadPrompt, false, true},
    {"max_tokens", [](const json& v, BatchItem& i) { return Read(v, i.sampling.max_tokens); }},
    // After max_tokens, which it replaces.
    {"max_completion_tokens", [](const json& v, BatchItem& i) { return Read(v, i.sampling.max_tokens); }},
    {"min_tokens", [](const json& v, BatchItem& i) { return Read(v, i.sampling.min_tokens); }},
    {"n", [](const json& v, BatchItem& i) { return Read(v, i.sampling.n); }},
    {"temperature", [](const json& v, BatchItem& i) { return Read(v, i.sampling.temperature); }},
    {"top_p", [](const json& v, BatchItem& i) { return Read(v, i.sampling.top_p); }},
    {"top_k", [](const json& v, BatchItem& i) { return Read(v, i.sampling.top_k); }},
    {"min_p", [](const json& v, BatchItem& i) { return Read(v, i.sampling.min_p); }},
    {"repetition_penalty", [](const json& v, BatchItem& i) { return Read(v, i.sampling.repetition_penalty); }},
    {"presence_penalty", [](const json& v, BatchItem& i) { return Read(v, i.sampling.presence_penalty); }},
    {"frequency_penalty", [](const json& v, BatchItem& i) { return Read(v, i.sampling.frequency_penalty); }},
    {"seed", [](const json& v, BatchItem& i) { return Read(v, i.sampling.seed); }},
    {"stop", ReadStop},
    {"stop_token_ids", [](const json& v, BatchItem& i) { return Read(v, i.sampling.stop_token_ids); }},
    {"ignore_eos", [](const json& v, BatchItem& i) { return Read(v, i.sampling.ignore_eos); }},
    {"include_stop_str_in_output",
     [](const json& v, BatchItem& i) { return Read(v, i.sampling.include_stop_str_in_output); }},
    {"skip_special_tokens", [](const json& v, BatchItem& i) { return Read(v, i.sampling.skip_special_tokens); }},
    {"top_logprobs", [](const json& v, BatchItem& i) { return Read(v, i.sampling.logprobs); }, true, false},
    {"logprobs", ReadLogprobs},
    {"add_special_tokens", [](const json& v, BatchItem& i) { return Read(v, i.add_special_tokens); }},
    {"return_token_ids", [](const json& v, BatchItem& i) { return Read(v, i.return_token_ids); }},
    {"chat_template_kwargs", ReadTemplateArguments, true, false},
};

// Fields that do not change an answer here, whatever they say.
const char* const kIgnored[] = {"model", "user", "metadata", "store", "service_tier", "safety_identifier",
                                "prompt_cache_key", "stream_options", "parallel_tool_calls", "priority", "request_id",
                                "include_reasoning"};

// Fields that we do not support beyond these values, which ask for nothing. (null is always one of them.)
struct NeutralField {
  const char* name;
  std::vector<json> neutral;
};
const std::vector<NeutralField>& NeutralFields() {
  static const auto& fields = *new std::vector<NeutralField>{
      {"stream", {false}}, {"echo", {false}}, {"suffix", {""}}, {"use_beam_search", {false}},
      {"tools", {json::array()}}, {"tool_choice", {"none", "auto"}}, {"functions", {json::array()}},
      {"function_call", {"none", "auto"}}, {"response_format", {{{"type", "text"}}}},
      {"logit_bias", {json::object()}}, {"bad_words", {json::array()}}, {"allowed_token_ids", {}},
      {"length_penalty", {1}}, {"early_stopping", {false}}, {"spaces_between_special_tokens", {true}},
      {"add_generation_prompt", {true}}, {"continue_final_message", {false}}, {"chat_template", {}}, {"documents", {}},
      {"reasoning_effort", {}}, {"prompt_logprobs", {}}, {"truncate_prompt_tokens", {}}, {"audio", {}}, {"prediction", {}},
      {"modalities", {json::array({"text"})}}, {"web_search_options", {}}, {"structured_outputs", {}},
      {"guided_json", {}}, {"guided_regex", {}}, {"guided_choice", {}}, {"guided_grammar", {}},
      {"logits_processors", {}}, {"thinking_token_budget", {}}, {"verbosity", {}}, {"prompt_embeds", {}},
  };
  return fields;
}
// clang-format on

const Field* FindField(const std::string& name) {
  for (const Field& field : kFields) {
    if (name == field.name) return &field;
  }
  return nullptr;
}

const NeutralField* FindNeutral(const std::string& name) {
  for (const NeutralField& field : NeutralFields()) {
    if (name == field.name) return &field;
  }
  return nullptr;
}

bool IsIgnored(const std::string& name) {
  for (const char* ignored : kIgnored) {
    if (name == ignored) return true;
  }
  return false;
}

bool AppliesTo(const Field& field, Endpoint endpoint) {
  return endpoint == Endpoint::kChatCompletions ? field.chat : field.completions;
}

std::optional<ItemError> Error(const char* code, const std::string& field, absl::string_view message) {
  return ItemError{code, absl::StrCat("body.", field, ": ", message)};
}

// A field outside kFields.
std::optional<ItemError> CheckOtherField(const std::string& name, const json& value, const json& body) {
  if (IsIgnored(name) || value.is_null()) return std::nullopt;
  if (name == "best_of") {
    if (value == 1 || value == body.value("n", json(1))) return std::nullopt;
    return Error("unsupported_field", name, "choosing among more answers than n is not supported");
  }
  if (const NeutralField* field = FindNeutral(name)) {
    for (const json& neutral : field->neutral) {
      if (value == neutral) return std::nullopt;
    }
    return Error("unsupported_field", name,
                 absl::StrCat(Shown(value), " is not supported: leave the field out",
                              field->neutral.empty() ? "" : absl::StrCat(" or send ", Shown(field->neutral[0]))));
  }
  std::vector<std::string> names;
  for (const Field& field : kFields) names.push_back(field.name);
  const std::string nearest = NearestName(name, names);
  return Error("unknown_field", name.substr(0, 100),
               absl::StrCat("unknown field", nearest.empty() ? "" : absl::StrCat(", did you mean ", nearest, "?")));
}

}  // namespace

std::optional<ItemError> ReadRequestBody(const nlohmann::json& body, BatchItem& item) {
  item.add_special_tokens = item.endpoint == Endpoint::kCompletions;
  for (const auto& [name, value] : body.items()) {
    const Field* field = FindField(name);
    if (field == nullptr) {
      if (auto error = CheckOtherField(name, value, body)) return error;
    } else if (!AppliesTo(*field, item.endpoint)) {
      return Error("invalid_request", name,
                   item.endpoint == Endpoint::kChatCompletions ? "not a field of /v1/chat/completions"
                                                               : "not a field of /v1/completions");
    }
  }
  // In the table's order, not the line's: max_completion_tokens wins over max_tokens.
  for (const Field& field : kFields) {
    const auto found = body.find(field.name);
    if (found == body.end() || found->is_null()) continue;
    const absl::Status status = field.read(*found, item);
    if (absl::IsUnimplemented(status)) return Error("unsupported_field", field.name, status.message());
    if (!status.ok()) return Error("invalid_request", field.name, status.message());
  }
  const char* required = item.endpoint == Endpoint::kChatCompletions ? "messages" : "prompt";
  if (!body.contains(required) || body[required].is_null()) return Error("invalid_request", required, "it is missing");
  if (body.contains("top_logprobs") && body.value("logprobs", json(false)) != json(true) &&
      !body["top_logprobs"].is_null()) {
    return Error("invalid_request", "top_logprobs", "it needs \"logprobs\": true");
  }
  if (absl::Status valid = item.sampling.Validate(); !valid.ok()) {
    return ItemError{"invalid_request", absl::StrCat("body.", valid.message())};
  }
  return std::nullopt;
}

}  // namespace cairn
