#include "launcher/inspect/inspect_report.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace cairn {
namespace {

using nlohmann::ordered_json;

ordered_json CompressionJson(const CompressionConfig& config) {
  return {{"algorithm", config.algorithm}, {"schedule", config.schedule},
          {"scope", config.scope},         {"budget", config.budget},
          {"buffer", config.buffer},       {"window", config.window},
          {"num_sinks", config.num_sinks}, {"recent_ratio", config.recent_ratio}};
}

ordered_json CountersJson(const CacheCounters& counters) {
  return {{"compactions", counters.compactions},
          {"evicted_tokens", counters.evicted_tokens},
          {"blocks_freed", counters.blocks_freed},
          {"peak_kv_bytes", counters.peak_kv_bytes},
          {"full_cache_kv_bytes", counters.full_cache_kv_bytes},
          {"compression_ratio", counters.compression_ratio()}};
}

// {"logical_length": .., "kept": [layers][kv_heads][ranges][begin, end]}: straight to text, because a long answer has
// millions of ranges.
void AppendState(const KeepHistory& history, int event, int64_t length, std::string& json) {
  absl::StrAppend(&json, "{\"logical_length\":", length, ",\"kept\":[");
  for (int64_t layer = 0; layer < history.num_layers(); ++layer) {
    absl::StrAppend(&json, layer == 0 ? "[" : ",[");
    for (int64_t head = 0; head < history.kv_heads(); ++head) {
      absl::StrAppend(&json, head == 0 ? "[" : ",[");
      const char* separator = "";
      for (const PositionRange& range : RangesOf(history.KeptPositions(layer, head, event, length))) {
        absl::StrAppend(&json, separator, "[", range.begin, ",", range.end, "]");
        separator = ",";
      }
      json.push_back(']');
    }
    json.push_back(']');
  }
  json += "]}";
}

// evicted_at of all (layer, head, position) in this order, base64 of bytes; of little-endian pairs of them where there
// are more than 255 events. (65,535 of them are more than any context has room for.)
ordered_json EvictedAtJson(const KeepHistory& history, int64_t positions) {
  const int width = history.num_events() < 256 ? 1 : 2;
  std::string bytes;
  bytes.reserve(static_cast<size_t>(history.num_layers() * history.kv_heads() * positions * width));
  for (int64_t layer = 0; layer < history.num_layers(); ++layer) {
    for (int64_t head = 0; head < history.kv_heads(); ++head) {
      for (int64_t position = 0; position < positions; ++position) {
        const int32_t event = std::min(history.evicted_at(layer, head, position), 0xffff);
        bytes.push_back(static_cast<char>(event & 0xff));
        if (width == 2) bytes.push_back(static_cast<char>(event >> 8));
      }
    }
  }
  return {{"bytes", width}, {"base64", absl::Base64Escape(bytes)}};
}

}  // namespace

int64_t InspectReport::HeldBy(int64_t position) const {
  if (position >= final_length()) return 0;
  int64_t held = 0;
  for (int64_t layer = 0; layer < history.num_layers(); ++layer) {
    for (int64_t head = 0; head < history.kv_heads(); ++head) held += history.evicted_at(layer, head, position) == 0;
  }
  return held;
}

double InspectReport::MeanHeld() const {
  int64_t held = 0;
  for (int64_t position = 0; position < final_length(); ++position) held += HeldBy(position);
  return static_cast<double>(held) / static_cast<double>(history.num_layers() * history.kv_heads());
}

std::string DumpJson(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', /*ensure_ascii=*/false, ordered_json::error_handler_t::replace);
}

std::string ReportJson(const InspectReport& report) {
  ordered_json json = {{"cairn_inspect", 1},
                       {"model", report.model},
                       {"layers", report.history.num_layers()},
                       {"kv_heads", report.history.kv_heads()},
                       {"prompt_tokens", report.prompt_tokens},
                       {"answer_tokens", report.answer_tokens()},
                       {"finish_reason", report.finish_reason},
                       {"compression", CompressionJson(report.compression)},
                       {"budgets", report.budgets},
                       {"counters", CountersJson(report.counters)}};
  ordered_json& tokens = json["tokens"] = ordered_json::array();
  for (int64_t position = 0; position < static_cast<int64_t>(report.tokens.size()); ++position) {
    tokens.push_back({{"position", position},
                      {"id", report.token_ids[position]},
                      {"text", report.tokens[position].text},
                      {"special", report.tokens[position].special},
                      {"part", position < report.prompt_tokens ? "prompt" : "answer"},
                      {"held_by", report.HeldBy(position)}});
  }
  ordered_json& flags = json["settings"] = ordered_json::object();
  for (const auto& [name, value] : report.settings) flags[name] = value;
  std::string text = DumpJson(json);
  text.back() = ',';  // for the brace
  text += "\"events\":[";
  for (int event = 1; event <= report.history.num_events(); ++event) {
    if (event > 1) text.push_back(',');
    AppendState(report.history, event, report.history.logical_length(event), text);
  }
  text += "],\"final\":";
  AppendState(report.history, report.history.num_events(), report.final_length(), text);
  text.push_back('}');
  return text;
}

ordered_json PageData(const InspectReport& report) {
  ordered_json texts = ordered_json::array(), special = ordered_json::array(), events = ordered_json::array();
  for (size_t position = 0; position < report.tokens.size(); ++position) {
    texts.push_back(report.tokens[position].text);
    if (report.tokens[position].special) special.push_back(position);
  }
  for (int event = 1; event <= report.history.num_events(); ++event) {
    events.push_back(report.history.logical_length(event));
  }
  return {{"model", report.model},
          {"layers", report.history.num_layers()},
          {"kv_heads", report.history.kv_heads()},
          {"prompt_tokens", report.prompt_tokens},
          {"finish_reason", report.finish_reason},
          {"compression", CompressionJson(report.compression)},
          {"budgets", report.budgets},
          {"counters", CountersJson(report.counters)},
          {"ids", report.token_ids},
          {"texts", std::move(texts)},
          {"special", std::move(special)},
          {"events", std::move(events)},
          {"final_length", report.final_length()},
          {"evicted_at", EvictedAtJson(report.history, report.final_length())}};
}

}  // namespace cairn
