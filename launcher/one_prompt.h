// What the subcommands that answer a single prompt share: its flags, its tokens, its answer on standard output.
#ifndef CAIRN_LAUNCHER_ONE_PROMPT_H_
#define CAIRN_LAUNCHER_ONE_PROMPT_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine_options.h"
#include "engine/text/tokenizer.h"

namespace cairn {

// Exit code 64 where --prompt and --chat are both given or both missing, or where the job has several replicas.
absl::Status CheckOnePromptFlags(const EngineOptions& options);

// The tokens of --prompt, or of --chat in the model's template; `-` reads standard input. `tokenizer` may be null:
// INVALID_ARGUMENT.
absl::StatusOr<std::vector<int32_t>> PromptIdsFromFlags(const Tokenizer* tokenizer);

// Exit code 74 where it cannot be written.
absl::Status WriteToStdout(std::string_view text);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_ONE_PROMPT_H_
