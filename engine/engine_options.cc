#include "engine/engine_options.h"

#include "absl/strings/str_cat.h"
#include "engine/cache/cache_size.h"
#include "engine/weights/quantization.h"
#include "kernels/core/status_macros.h"
#include "parallel/comm/device_groups.h"

namespace cairn {
namespace {

template <typename T>
absl::Status Bad(const char* flag, const T& value, const char* allowed) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, "=", value, ": allowed is ", allowed));
}

}  // namespace

absl::Status EngineOptions::Validate() const {
  if (model.empty()) {
    return absl::InvalidArgumentError("--model is missing: give the directory of a Hugging Face checkpoint");
  }
  if (dtype != "auto" && dtype != "float32" && dtype != "bfloat16" && dtype != "float16") {
    return Bad("dtype", dtype, "auto, float32, bfloat16 or float16");
  }
  if (device != "auto" && device != "cpu" && device != "cuda") return Bad("device", device, "auto, cpu or cuda");
  if (shadow_full && device == "cuda") {
    return absl::InvalidArgumentError("--shadow-full measures on CPUs alone: use --device=cpu");
  }
  CAIRN_RETURN_IF_ERROR(ParseQuantization(quantization).status());
  CAIRN_RETURN_IF_ERROR(KvCacheType(kv_cache_dtype, DType::kFloat32).status());
  if (parallel.tp < 1) return Bad("tensor-parallel-size", parallel.tp, "at least 1");
  if (parallel.pp < 1) return Bad("pipeline-parallel-size", parallel.pp, "at least 1");
  if (parallel.dp < 1) return Bad("data-parallel-size", parallel.dp, "at least 1");
  CAIRN_RETURN_IF_ERROR(ParseDeviceComm(comm).status());
  if (max_model_len < 0) return Bad("max-model-len", max_model_len, "at least 1, or 0 for the model's own");
  if (max_num_seqs < 1) return Bad("max-num-seqs", max_num_seqs, "at least 1");
  if (max_num_batched_tokens < max_num_seqs) {
    return Bad("max-num-batched-tokens", max_num_batched_tokens,
               absl::StrCat("at least --max-num-seqs (", max_num_seqs, "), a token for each running sequence").c_str());
  }
  if (!(gpu_memory_utilization > 0 && gpu_memory_utilization <= 1)) {
    return Bad("gpu-memory-utilization", gpu_memory_utilization, "above 0, at most 1");
  }
  if (kv_cache_memory_bytes < 0) return Bad("kv-cache-memory-bytes", kv_cache_memory_bytes, "at least 0");
  if (block_size < 1 || block_size > 1024) return Bad("block-size", block_size, "1 to 1024");
  CAIRN_RETURN_IF_ERROR(compression.Validate());
  if (threads < 0 || threads > 1024) return Bad("threads", threads, "0 (cores / ranks on the host) to 1024");
  if (!(distributed_timeout_seconds > 0)) {
    return Bad("distributed-timeout-seconds", distributed_timeout_seconds, "above 0");
  }
  return absl::OkStatus();
}

}  // namespace cairn
