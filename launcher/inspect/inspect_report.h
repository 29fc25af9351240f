// What `cairn inspect` found, and its two forms: the JSON file (docs/inspect.md) and the data of the page.
#ifndef CAIRN_LAUNCHER_INSPECT_INSPECT_REPORT_H_
#define CAIRN_LAUNCHER_INSPECT_INSPECT_REPORT_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "compression/compression_config.h"
#include "engine/request.h"
#include "launcher/inspect/keep_history.h"
#include "launcher/inspect/token_texts.h"
#include "nlohmann/json.hpp"

namespace cairn {

struct InspectReport {
  std::string model;
  std::vector<std::pair<std::string, std::string>> settings = {};  // flag names and values
  CompressionConfig compression = {};
  std::vector<int32_t> budgets = {};  // of every layer, or KV head
  std::vector<int32_t> token_ids = {};
  std::vector<TokenText> tokens = {};  // of the prompt, then of the answer
  int64_t prompt_tokens = 0;
  std::string finish_reason = {};  // stop, length or interrupted
  CacheCounters counters = {};
  KeepHistory history;

  int64_t answer_tokens() const { return static_cast<int64_t>(tokens.size()) - prompt_tokens; }
  // Tokens fed in all: the last one of the answer was sampled, and never went through the model.
  int64_t final_length() const { return static_cast<int64_t>(tokens.size()) - 1; }
  // (layer, KV head) pairs that hold the token at the end.
  int64_t HeldBy(int64_t position) const;
  // Slots that a KV head of a layer holds at the end, mean over all.
  double MeanHeld() const;
};

// Bytes that are not UTF-8 (in a model's path, say) become U+FFFD.
std::string DumpJson(const nlohmann::ordered_json& json);

// The file of --output-json.
std::string ReportJson(const InspectReport& report);

// The same facts as the page reads them; its size does not grow with the number of events.
nlohmann::ordered_json PageData(const InspectReport& report);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_INSPECT_INSPECT_REPORT_H_
