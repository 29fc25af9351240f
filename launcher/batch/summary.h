// What a batch came to: for people on stderr, for machines as JSON.
#ifndef CAIRN_LAUNCHER_BATCH_SUMMARY_H_
#define CAIRN_LAUNCHER_BATCH_SUMMARY_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "launcher/batch/batch_root.h"
#include "nlohmann/json.hpp"

namespace cairn {

struct BatchSummary {
  BatchTotals totals;
  double load_seconds = 0, elapsed_seconds = 0;  // until the model was ready; from there to the last record
  int64_t kv_cache_tokens = 0;                   // that a replica has room for (KvCapacity), and as what
  std::string kv_cache_dtype = "auto";
};

std::string SummaryText(const BatchSummary& summary);

// The same facts, with the keys of `vllm bench throughput` for those that it has. `settings`: flag names and values.
nlohmann::ordered_json SummaryJson(const BatchSummary& summary,
                                   const std::vector<std::pair<std::string, std::string>>& settings);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_BATCH_SUMMARY_H_
