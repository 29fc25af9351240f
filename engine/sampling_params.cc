#include "engine/sampling_params.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace cairn {
namespace {

template <typename T>
absl::Status Bad(const char* field, T value, const char* allowed) {
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, ", allowed: ", allowed));
}

}  // namespace

absl::Status SamplingParams::Validate() const {
  // Written so that a NaN fails every range.
  if (n < 1 || n > 128) return Bad("n", n, "1 to 128");
  if (max_tokens.has_value() && *max_tokens < 1) return Bad("max_tokens", *max_tokens, "at least 1");
  if (min_tokens < 0) return Bad("min_tokens", min_tokens, "at least 0");
  if (max_tokens.has_value() && min_tokens > *max_tokens) return Bad("min_tokens", min_tokens, "at most max_tokens");
  if (!(temperature >= 0 && temperature <= 100)) return Bad("temperature", temperature, "0 (greedy) to 100");
  if (!(top_p > 0 && top_p <= 1)) return Bad("top_p", top_p, "above 0, at most 1");
  if (top_k < -1) return Bad("top_k", top_k, "-1 or 0 (all), or at least 1");
  if (!(min_p >= 0 && min_p <= 1)) return Bad("min_p", min_p, "0 to 1");
  if (!(repetition_penalty > 0 && std::isfinite(repetition_penalty))) {
    return Bad("repetition_penalty", repetition_penalty, "above 0");
  }
  if (!(presence_penalty >= -2 && presence_penalty <= 2)) return Bad("presence_penalty", presence_penalty, "-2 to 2");
  if (!(frequency_penalty >= -2 && frequency_penalty <= 2))
    return Bad("frequency_penalty", frequency_penalty, "-2 to 2");
  if (logprobs.has_value() && (*logprobs < 0 || *logprobs > 20)) return Bad("logprobs", *logprobs, "0 to 20");
  for (const std::string& text : stop) {
    if (text.empty())
      return absl::InvalidArgumentError("stop holds an empty string, which would end every answer at once");
  }
  for (int32_t id : stop_token_ids) {
    if (id < 0) return Bad("stop_token_ids", id, "token ids, at least 0");
  }
  return absl::OkStatus();
}

}  // namespace cairn
