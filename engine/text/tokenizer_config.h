// tokenizer_config.json and chat_template.jinja: what a model says of its tokens and of its chat format.
#ifndef CAIRN_ENGINE_TEXT_TOKENIZER_CONFIG_H_
#define CAIRN_ENGINE_TEXT_TOKENIZER_CONFIG_H_

#include <string>

#include "absl/status/statusor.h"

namespace cairn {

struct TokenizerConfig {
  std::string bos_token, eos_token;  // "" where absent
  bool add_bos_token = false;
  bool add_eos_token = false;
  std::string chat_template;  // "" where absent
};

// Both files may be absent. The template is chat_template.jinja where there is one, else the config's "chat_template":
// a string, or a list of {name, template} of which "default" is taken.
absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::string& directory);

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_TOKENIZER_CONFIG_H_
