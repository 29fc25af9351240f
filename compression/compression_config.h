// What the user asks of KV compression; the same on every rank. Names and defaults: COMPRESSION section 10.
#ifndef CAIRN_COMPRESSION_COMPRESSION_CONFIG_H_
#define CAIRN_COMPRESSION_COMPRESSION_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace cairn {

// Who shares a kept set: nobody; all KV heads of a layer; all heads of all layers.
enum class KeepScope { kHead, kLayer, kSequence };

struct CompressionConfig {
  std::string algorithm = "none";     // a name of compression/registry.cc
  std::string schedule = "uniform";   // or pyramid (arXiv 2406.02069), or weighted
  std::string scope = "head";         // head, layer, sequence
  int32_t budget = 1024;              // slots per KV head and layer after a compaction, the window included (mean)
  int32_t buffer = 128;               // tokens decoded between compactions
  int32_t window = 8;                 // last queries that score, last slots that stay
  double recent_ratio = 0;            // of a layer's slots, for its last tokens; the window at least
  double beta = 20;                   // slope of the pyramid
  std::vector<double> layer_weights;  // weighted: each layer's share of the slots beyond the windows, to six decimals
  std::vector<double> head_weights;   // or each KV head's, layer by layer
  double mix_lambda = 0.1;            // R-KV: weight of importance against redundancy
  double similarity_threshold = 0.5;  // R-KV: cosine above which two keys are near-duplicates
  int32_t kernel_size = 7;            // of the pooling over neighbours; odd
  std::string pooling = "max";        // SnapKV: max or avg
  std::string group_reduce = "mean";  // SnapKV: mean, max or sum over the queries of a KV head
  std::string variant = "code";       // R-KV: redundancy as in the published code, or as in the paper
  int32_t num_sinks = 4;              // StreamingLLM: first slots that stay
  double gamma = 0.8;                 // G-KV: decay of the running score
  bool gkv_redundancy = false;        // G-KV: with R-KV's redundancy term
  bool prefill = true;                // compress a long prompt once, after its last chunk
  bool decode = true;            // compress every `buffer` decoded tokens; off: the prompt alone (SnapKV as published)
  bool bounded_prefill = false;  // count prompt tokens like decoded ones: a long prompt never holds more than
                                 // budget + buffer slots (an approximation: later chunks attend the survivors)

  bool enabled() const { return algorithm != "none"; }
  // Whether the KV heads of a layer may keep different numbers of slots.
  bool by_head() const { return enabled() && schedule == "weighted" && !head_weights.empty(); }
  KeepScope keep_scope() const;
  // The last slots of `budget` that stay.
  int32_t RecentSlots(int32_t budget) const;
  // INVALID_ARGUMENT names the flag (--kv-...), its value and what is allowed.
  absl::Status Validate() const;
  // What only the model can say: a weight for each of its layers, or of their KV heads.
  absl::Status ValidateFor(int64_t num_layers, int64_t num_kv_heads) const;
};

}  // namespace cairn

#endif  // CAIRN_COMPRESSION_COMPRESSION_CONFIG_H_
