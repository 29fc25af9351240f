// One line of a batch file: OpenAI's request object with vLLM's further sampling fields, checked.
#ifndef CAIRN_LAUNCHER_BATCH_BATCH_ITEM_H_
#define CAIRN_LAUNCHER_BATCH_BATCH_ITEM_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/sampling_params.h"
#include "engine/text/chat_template.h"
#include "launcher/batch/line_reader.h"

namespace cairn {

enum class Endpoint { kChatCompletions, kCompletions };

struct BatchItem {
  int64_t line = 0;
  std::string custom_id;
  Endpoint endpoint = Endpoint::kCompletions;

  std::vector<ChatMessage> messages;               // chat completions
  std::string prompt;                              // completions: text,
  std::optional<std::vector<int32_t>> prompt_ids;  // or token ids
  bool add_special_tokens = true;                  // BOS in front of a text; false for chat, whose template writes it
  bool enable_thinking = true;
  bool return_token_ids = false;
  SamplingParams sampling;
};

// What a failed item's record says.
struct ItemError {
  std::string code;     // invalid_json, duplicate_custom_id, unknown_field, context_length_exceeded ...
  std::string message;  // names the line and the field
};

struct ParsedItem {
  BatchItem item;  // with an error: line, and custom_id where it could be read
  std::optional<ItemError> error;
};

// Never fails as a whole. A field that would change the answer and is not supported is an error, not ignored; null is
// the same as absent.
ParsedItem ParseBatchItem(const InputLine& line);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_BATCH_BATCH_ITEM_H_
