// How much cache one rank has: arithmetic from the model's shape and the settings, for the engine and for plans.
#ifndef CAIRN_ENGINE_CACHE_CACHE_SIZE_H_
#define CAIRN_ENGINE_CACHE_CACHE_SIZE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "engine/cache/cache_layers.h"
#include "engine/cache/kv_cache.h"
#include "engine/engine_options.h"
#include "engine/model/model_config.h"
#include "kernels/core/dtype.h"

namespace cairn {

// What --kv-cache-dtype says of keys and values: auto is the activations' type; fp8 (or fp8_e4m3) is E4M3 without a
// scale, of numbers up to 448, beyond which they are 448. INVALID_ARGUMENT lists the names.
absl::StatusOr<DType> KvCacheType(const std::string& flag, DType activations);

struct CacheSize {
  KvBlockLayout layout;
  QueryRingLayout rings;
  int64_t ring_bytes = 0;  // of all sequences and layers
  int64_t num_blocks = 0;
};

// For `layers` in `budget_bytes` of memory, under activations of a type; no more blocks than
// max_num_seqs sequences of `max_length` tokens could use. RESOURCE_EXHAUSTED where not even a block per layer fits.
absl::StatusOr<CacheSize> SizeCache(const ModelConfig& config, const EngineOptions& options, const CacheLayers& layers,
                                    DType activations, int64_t max_length, int64_t budget_bytes);

}  // namespace cairn

#endif  // CAIRN_ENGINE_CACHE_CACHE_SIZE_H_
