#include "engine/text/tokenizer_config.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/text/json_field.h"
#include "engine/text/tokenizer_file.h"
#include "engine/text/utf8.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

// "<s>", or {"content": "<s>", ...} as older transformers wrote it.
absl::StatusOr<std::string> ReadToken(const JsonField& config, const char* name) {
  CAIRN_ASSIGN_OR_RETURN(const std::optional<JsonField> token, config.Find(name));
  if (!token) return std::string();
  return token->is_object() ? token->String("content") : token->String();
}

absl::StatusOr<std::string> ReadTemplate(const JsonField& config) {
  CAIRN_ASSIGN_OR_RETURN(const std::optional<JsonField> field, config.Find("chat_template"));
  if (!field) return std::string();
  if (!field->is_array()) return field->String();
  CAIRN_ASSIGN_OR_RETURN(const std::vector<JsonField> items, field->Items());
  for (const JsonField& item : items) {
    CAIRN_ASSIGN_OR_RETURN(const std::string name, item.String("name"));
    if (name == "default") return item.String("template");
  }
  return std::string();
}

// nullopt where the file is not there.
absl::StatusOr<std::optional<std::string>> ReadIfPresent(const std::string& path) {
  absl::StatusOr<std::string> text = ReadTextFile(path);
  if (absl::IsNotFound(text.status())) return std::optional<std::string>();
  if (!text.ok()) return text.status();
  return std::optional<std::string>(*std::move(text));
}

}  // namespace

absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::string& directory) {
  TokenizerConfig config;
  const std::string path = absl::StrCat(directory, "/tokenizer_config.json");
  CAIRN_ASSIGN_OR_RETURN(const std::optional<std::string> text, ReadIfPresent(path));
  if (text) {
    nlohmann::json json;
    try {
      json = nlohmann::json::parse(*text);
    } catch (const nlohmann::json::exception& error) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.what()));
    }
    const JsonField root(path, json);
    CAIRN_ASSIGN_OR_RETURN(config.bos_token, ReadToken(root, "bos_token"));
    CAIRN_ASSIGN_OR_RETURN(config.eos_token, ReadToken(root, "eos_token"));
    CAIRN_ASSIGN_OR_RETURN(config.add_bos_token, root.Bool("add_bos_token", false));
    CAIRN_ASSIGN_OR_RETURN(config.add_eos_token, root.Bool("add_eos_token", false));
    CAIRN_ASSIGN_OR_RETURN(config.chat_template, ReadTemplate(root));
  }
  const std::string template_path = absl::StrCat(directory, "/chat_template.jinja");
  CAIRN_ASSIGN_OR_RETURN(const std::optional<std::string> chat_template, ReadIfPresent(template_path));
  if (chat_template) {
    if (!IsValidUtf8(*chat_template)) return absl::InvalidArgumentError(absl::StrCat(template_path, ": not UTF-8"));
    config.chat_template = *chat_template;
  }
  return config;
}

}  // namespace cairn
