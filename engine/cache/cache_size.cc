#include "engine/cache/cache_size.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "compression/scorer.h"
#include "kernels/core/status_macros.h"

namespace cairn {

absl::StatusOr<DType> KvCacheType(const std::string& flag, DType activations) {
  if (flag == "auto") return activations;
  if (flag == "fp8" || flag == "fp8_e4m3") return DType::kFloat8E4M3;
  return absl::InvalidArgumentError(
      absl::StrCat("--kv-cache-dtype=", flag, ": allowed is auto (the activations' type) or fp8 (E4M3)"));
}

absl::StatusOr<CacheSize> SizeCache(const ModelConfig& config, const EngineOptions& options, const CacheLayers& layers,
                                    DType activations, int64_t max_length, int64_t budget_bytes) {
  CAIRN_ASSIGN_OR_RETURN(const DType dtype, KvCacheType(options.kv_cache_dtype, activations));
  const std::unique_ptr<Scorer> scorer =
      options.compression.enabled() ? MakeScorer(options.compression) : std::unique_ptr<Scorer>();
  const bool needs_queries = scorer != nullptr && (scorer->needs_queries() || options.shadow_full);
  CacheSize size = {.layout = {.kv_heads = static_cast<int>(layers.kv_heads()),
                               .head_dim = static_cast<int>(config.head_dim),
                               .block_size = options.block_size,
                               .dtype = dtype,
                               .num_scores = scorer != nullptr ? scorer->num_running_scores() : 0},
                    .rings = {.window = needs_queries ? options.compression.window : 0,
                              .heads = static_cast<int>(layers.query_heads()),
                              .head_dim = static_cast<int>(config.head_dim)}};
  size.ring_bytes =
      options.max_num_seqs * layers.size() * size.rings.floats_per_layer() * static_cast<int64_t>(sizeof(float));
  const int64_t block_bytes = static_cast<int64_t>(size.layout.block_bytes());
  const int64_t useful =
      (max_length + options.block_size - 1) / options.block_size * layers.size() * options.max_num_seqs;
  const int64_t affordable = std::max<int64_t>(0, budget_bytes - size.ring_bytes) / block_bytes;
  size.num_blocks = std::min({useful, affordable, int64_t{INT32_MAX}});
  if (size.num_blocks >= layers.size()) return size;
  return absl::ResourceExhaustedError(absl::StrCat(
      "the KV cache has ", budget_bytes, " bytes, less than one block of ", options.block_size,
      " tokens in each of this rank's ", layers.size() / layers.per_layer(), " layers (", layers.size() * block_bytes,
      " bytes",
      size.ring_bytes > 0
          ? absl::StrCat(" beside ", size.ring_bytes, " for the last queries of ", options.max_num_seqs, " sequences")
          : "",
      "): raise --kv-cache-memory-bytes or --gpu-memory-utilization"));
}

}  // namespace cairn
