#include "launcher/topology.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launcher/byte_size.h"

namespace cairn {
std::string FormatTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const std::vector<std::string>& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t column = 0; column < row.size(); ++column)
      widths[column] = std::max(widths[column], row[column].size());
  }
  std::string table;
  for (const std::vector<std::string>& row : rows) {
    std::string line;
    for (size_t column = 0; column < row.size(); ++column) {
      absl::StrAppend(&line, row[column]);
      if (column + 1 < row.size()) line.append(widths[column] - row[column].size() + 2, ' ');
    }
    absl::StrAppend(&table, line, "\n");
  }
  return table;
}

std::string TopologyTable(const std::vector<RankInfo>& ranks) {
  std::vector<std::vector<std::string>> rows = {
      {"rank", "host", "device", "tp", "pp", "dp", "layers", "weights", "KV blocks", "KV cache", "threads"}};
  for (const RankInfo& rank : ranks) {
    rows.push_back({absl::StrCat(rank.world_rank), rank.host, rank.device, absl::StrCat(rank.at.tp),
                    absl::StrCat(rank.at.pp), absl::StrCat(rank.at.dp),
                    absl::StrCat(rank.layers.begin, "-", rank.layers.end - 1),
                    FormatBytes(static_cast<double>(rank.weight_bytes)), absl::StrCat(rank.kv_blocks),
                    FormatBytes(static_cast<double>(rank.kv_blocks) * static_cast<double>(rank.kv_block_bytes)),
                    absl::StrCat(rank.threads)});
  }
  return FormatTable(rows);
}

namespace {

// 1,234,567
std::string WithCommas(int64_t number) {
  std::string digits = absl::StrCat(number);
  for (size_t at = digits.size(); at > 3;) {
    at -= 3;
    digits.insert(at, 1, ',');
  }
  return digits;
}

}  // namespace

std::string KvCacheLines(const KvCapacity& capacity, const EngineOptions& options) {
  std::string lines =
      absl::StrFormat("%sKV cache size: %s tokens%s\nMaximum concurrency for %s tokens per request: %.2fx",
                      options.device == "cuda" ? "GPU " : "", WithCommas(capacity.tokens),
                      options.kv_cache_dtype == "auto" ? "" : absl::StrCat(" in ", options.kv_cache_dtype),
                      WithCommas(options.max_model_len), capacity.full_concurrency);
  if (const CompressionConfig& compression = options.compression; compression.enabled()) {
    absl::StrAppendFormat(&lines, ", compressed by %s to %d + %d: %.2fx", compression.algorithm, compression.budget,
                          compression.buffer, capacity.compressed_concurrency);
  }
  return absl::StrCat(lines, "\n");
}

}  // namespace cairn
