// The shape of a model, as config.json (or configs/models/*.yaml) gives it.
#ifndef CAIRN_ENGINE_MODEL_MODEL_CONFIG_H_
#define CAIRN_ENGINE_MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/dtype.h"

namespace cairn {

struct RopeConfig {
  enum class Scaling { kNone, kLinear, kLlama3 };
  double theta = 10000;
  Scaling scaling = Scaling::kNone;
  double factor = 1;
  // kLlama3 (Llama 3.1):
  double low_freq_factor = 1, high_freq_factor = 4;
  int64_t original_max_position_embeddings = 0;
};

// Inverse frequencies [head_dim / 2] in float32, scaled as Hugging Face transformers does.
std::vector<float> RopeInverseFrequencies(const RopeConfig& rope, int64_t head_dim);

struct ModelConfig {
  std::string name;          // directory or YAML name, for messages
  std::string architecture;  // LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0;
  int64_t num_layers = 0, num_heads = 0, num_kv_heads = 0, head_dim = 0;
  float rms_norm_eps = 1e-6f;
  RopeConfig rope;
  int64_t max_position_embeddings = 0;
  int64_t sliding_window = 0;  // 0: none
  bool tie_word_embeddings = false;
  bool qkv_bias = false;  // biases on q, k, v
  bool o_bias = false;    // and on the output projection (Llama's attention_bias)
  bool mlp_bias = false;
  bool qk_norm = false;            // Qwen3: RMSNorm per head on q and k
  DType dtype = DType::kBFloat16;  // as stored (torch_dtype / dtype)
  // Linear layers are stored in E4M3, each with a scale, or one for each row, beside it (quantization_config).
  bool float8_weights = false;
  int32_t bos_token_id = -1;
  std::vector<int32_t> eos_token_ids;  // generation_config.json's, else config.json's
};

// Every tensor a checkpoint of this model has, with its shape: what the loader expects, and nothing else may be there.
struct TensorSpec {
  std::string name;
  std::vector<int64_t> shape;
};
std::vector<TensorSpec> ExpectedTensors(const ModelConfig& config);

// Parameters of the whole model (tied weights once).
int64_t NumParameters(const ModelConfig& config);

}  // namespace cairn

#endif  // CAIRN_ENGINE_MODEL_MODEL_CONFIG_H_
