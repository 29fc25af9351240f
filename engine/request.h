// What goes into the engine and what comes out.
#ifndef CAIRN_ENGINE_REQUEST_H_
#define CAIRN_ENGINE_REQUEST_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/sampling_params.h"

namespace cairn {

struct Request {
  std::string id;  // unique among the running; with the seed it keys the random numbers (custom_id)
  std::vector<int32_t> prompt_ids = {};
  SamplingParams sampling = {};
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top = {};  // the `logprobs` most likely, best first
};

enum class FinishReason { kNone, kStop, kLength };

struct Completion {
  int32_t index = 0;               // 0 .. n-1
  std::vector<int32_t> token_ids;  // without the stop token's text, but with its id
  std::string text;                // up to the stop string
  FinishReason finish_reason = FinishReason::kNone;
  std::string stop_reason;  // the stop string or the stop token's id as text; "" for EOS and length
  std::vector<TokenLogprob> logprobs;
};

// What compression did for an answer, or for many.
struct CacheCounters {
  int64_t compactions = 0;
  int64_t evicted_tokens = 0;       // per KV head, the mean over layers
  int64_t blocks_freed = 0;         // by compactions, over all layers
  int64_t peak_kv_bytes = 0;        // all ranks of the replica, at the answer's largest
  int64_t full_cache_kv_bytes = 0;  // what it would have been without compression

  // Times that the full cache is larger, at the largest.
  double compression_ratio() const {
    return peak_kv_bytes > 0 ? static_cast<double>(full_cache_kv_bytes) / static_cast<double>(peak_kv_bytes) : 1;
  }
  CacheCounters& operator+=(const CacheCounters& other) {
    compactions += other.compactions;
    evicted_tokens += other.evicted_tokens;
    blocks_freed += other.blocks_freed;
    peak_kv_bytes += other.peak_kv_bytes;
    full_cache_kv_bytes += other.full_cache_kv_bytes;
    return *this;
  }
};

struct RequestOutput {
  std::string id;
  bool finished = false;  // all n answers
  int64_t prompt_tokens = 0;
  // While running: only answers that grew in this step, `text` and `token_ids` holding what is new. Finished: all,
  // whole.
  std::vector<Completion> completions;
  int64_t preemptions = 0;
  CacheCounters cache;                                                      // summed over the answers
  double arrival_seconds = 0, first_token_seconds = 0, finish_seconds = 0;  // on the engine's clock
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_REQUEST_H_
