// How a request's tokens are chosen: vLLM's and OpenAI's fields with their meanings.
#ifndef CAIRN_ENGINE_SAMPLING_PARAMS_H_
#define CAIRN_ENGINE_SAMPLING_PARAMS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace cairn {

struct SamplingParams {
  int32_t n = 1;                      // answers per prompt
  std::optional<int32_t> max_tokens;  // none: up to the context limit
  int32_t min_tokens = 0;             // stop tokens and EOS are masked until then
  float temperature = 1.0f;           // 0: greedy
  float top_p = 1.0f;
  int32_t top_k = -1;  // -1 or 0: all
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;  // prompt and answer tokens
  float presence_penalty = 0.0f;    // answer tokens
  float frequency_penalty = 0.0f;
  std::optional<int64_t> seed;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;
  std::optional<int32_t> logprobs;  // top alternatives per token, 0: the chosen token alone

  // INVALID_ARGUMENT names the field, its value and the range.
  absl::Status Validate() const;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_SAMPLING_PARAMS_H_
