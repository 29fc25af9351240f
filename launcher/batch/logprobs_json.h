// Log-probabilities as OpenAI's two endpoints write them.
#ifndef CAIRN_LAUNCHER_BATCH_LOGPROBS_JSON_H_
#define CAIRN_LAUNCHER_BATCH_LOGPROBS_JSON_H_

#include <vector>

#include "engine/request.h"
#include "engine/text/tokenizer.h"
#include "nlohmann/json.hpp"

namespace cairn {

// {"content": [{"token", "logprob", "bytes", "top_logprobs": [{"token", "logprob", "bytes"}]}]}. Without a tokenizer a
// token is its id as text. An impossible token (-inf) is -9999, as in vLLM.
nlohmann::ordered_json ChatLogprobs(const Tokenizer* tokenizer, const std::vector<TokenLogprob>& logprobs);

// {"tokens", "token_logprobs", "top_logprobs": [{token: logprob}], "text_offset"}. The chosen token is always among the
// top ones. Offsets count characters of the tokens one after the other.
nlohmann::ordered_json CompletionLogprobs(const Tokenizer* tokenizer, const std::vector<TokenLogprob>& logprobs);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_BATCH_LOGPROBS_JSON_H_
