#include "launcher/one_prompt.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iostream>
#include <iterator>
#include <string>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "engine/text/chat_template.h"
#include "kernels/core/status_macros.h"
#include "launcher/exit_codes.h"
#include "launcher/flags.h"

namespace cairn {
namespace {

std::string FlagOrStdin(const std::string& value) {
  if (value != "-") return value;
  return std::string(std::istreambuf_iterator<char>(std::cin), {});
}

}  // namespace

absl::Status CheckOnePromptFlags(const EngineOptions& options) {
  const bool prompt = !absl::GetFlag(FLAGS_prompt).empty(), chat = !absl::GetFlag(FLAGS_chat).empty();
  if (prompt == chat) return UsageError("give one of --prompt (text to continue) and --chat (a user's message)");
  if (prompt && !absl::GetFlag(FLAGS_system).empty()) return UsageError("--system belongs to --chat");
  if (options.parallel.dp != 1) {
    return UsageError(absl::StrCat("--data-parallel-size=", options.parallel.dp,
                                   ": one prompt needs one copy of the model; use -tp and -pp, or run-batch"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> PromptIdsFromFlags(const Tokenizer* tokenizer) {
  if (tokenizer == nullptr) {
    return absl::InvalidArgumentError("this model has no tokenizer: give --tokenizer the directory of one");
  }
  if (const std::string prompt = absl::GetFlag(FLAGS_prompt); !prompt.empty()) {
    return tokenizer->Encode(FlagOrStdin(prompt), /*add_special_tokens=*/true);
  }
  std::vector<ChatMessage> messages;
  if (const std::string system = absl::GetFlag(FLAGS_system); !system.empty()) messages.push_back({"system", system});
  messages.push_back({"user", FlagOrStdin(absl::GetFlag(FLAGS_chat))});
  CAIRN_ASSIGN_OR_RETURN(
      const std::string text,
      ChatTemplate::FromTokenizer(*tokenizer).Render(messages, absl::GetFlag(FLAGS_enable_thinking)));
  return tokenizer->Encode(text, /*add_special_tokens=*/false);
}

absl::Status WriteToStdout(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      return WithExitCode(absl::UnavailableError(absl::StrCat("standard output: ", std::strerror(errno))), kExitOutput);
    }
    text.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

}  // namespace cairn
