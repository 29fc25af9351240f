// The settings of an engine, the same on every rank.
#ifndef CAIRN_ENGINE_ENGINE_OPTIONS_H_
#define CAIRN_ENGINE_ENGINE_OPTIONS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "compression/compression_config.h"
#include "parallel/comm/process_groups.h"

namespace cairn {

enum class LoadFormat { kAuto, kSafetensors, kDummy };

struct EngineOptions {
  std::string model;      // directory of a checkpoint, or with kDummy a YAML shape (path, or name in configs/models)
  std::string tokenizer;  // directory; "" = the model's. A dummy model needs none (token ids in, token ids out)
  std::string dtype = "auto";           // auto (as stored), float32, bfloat16, float16
  std::string quantization = "none";    // of the linear layers' weights: none, int8, fp8
  std::string kv_cache_dtype = "auto";  // of keys and values: auto (the activations'), fp8 (engine/cache/cache_size.h)
  LoadFormat load_format = LoadFormat::kAuto;
  std::string device = "auto";  // auto (cuda where every rank has a GPU, else cpu), cpu, cuda
  ParallelSizes parallel;
  std::string comm = "auto";  // between GPUs: auto, mpi, nccl
  std::string pp_layer_partition = "auto";
  int64_t max_model_len = 0;  // prompt + answer; 0 = the model's
  int32_t max_num_seqs = 64;
  int32_t max_num_batched_tokens = 512;  // per step: decode tokens first, the rest for prompt chunks
  // On a GPU: the share of its memory that weights, activations and cache may take. On CPU: the cache's share of the
  // memory that is free once the weights are loaded.
  double gpu_memory_utilization = 0.9;
  int64_t kv_cache_memory_bytes = 0;  // per rank; 0 = from the utilization
  int32_t block_size = 16;
  bool enforce_eager = false;  // on a GPU: give every decode step's ops anew instead of replaying recorded ones
  CompressionConfig compression;
  int64_t seed = 0;     // for requests without their own, and for dummy weights
  int32_t threads = 0;  // per rank; 0 = cores / ranks on this host
  double distributed_timeout_seconds = 600;
  bool record_evictions = false;  // Engine::TakeEvictions
  bool shadow_full = false;       // keep the full cache beside it and measure the loss in TakeEvictions; CPU, slow
  bool show_progress = false;     // load progress on stderr (rank 0)

  // INVALID_ARGUMENT names the flag, its value and what is allowed.
  absl::Status Validate() const;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_ENGINE_OPTIONS_H_
