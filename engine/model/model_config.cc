#include "engine/model/model_config.h"

#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "kernels/core/check.h"

namespace cairn {
namespace {

// Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between blended. In float32 and in
// transformers' order of operations (modeling_rope_utils.py; torch divides a number by a tensor as reciprocal times
// number), since one last bit here is an angle of 1e-2 at position 100,000.
float ScaleLlama3(float frequency, const RopeConfig& rope) {
  const float factor = static_cast<float>(rope.factor);
  const float context = static_cast<float>(rope.original_max_position_embeddings);
  const float low = static_cast<float>(rope.low_freq_factor);
  const float wavelength = (1.0f / frequency) * static_cast<float>(2 * std::numbers::pi);
  if (wavelength >
      static_cast<float>(static_cast<double>(rope.original_max_position_embeddings) / rope.low_freq_factor))
    return frequency / factor;
  if (wavelength <
      static_cast<float>(static_cast<double>(rope.original_max_position_embeddings) / rope.high_freq_factor))
    return frequency;
  const float span = static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
  const float smooth = ((1.0f / wavelength) * context - low) / span;
  return (1.0f - smooth) * frequency / factor + smooth * frequency;
}

class SpecList {
 public:
  void Add(std::string name, std::vector<int64_t> shape) { specs_.push_back({std::move(name), std::move(shape)}); }
  // A linear [out, in] and, where it has one, its bias [out].
  void AddLinear(const std::string& name, int64_t out, int64_t in, bool bias) {
    Add(name + ".weight", {out, in});
    if (bias) Add(name + ".bias", {out});
  }
  std::vector<TensorSpec> Take() { return std::move(specs_); }

 private:
  std::vector<TensorSpec> specs_;
};

void AddLayer(const ModelConfig& c, int64_t layer, SpecList& specs) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  const int64_t q_size = c.num_heads * c.head_dim, kv_size = c.num_kv_heads * c.head_dim;
  specs.Add(prefix + "input_layernorm.weight", {c.hidden_size});
  specs.AddLinear(attention + "q_proj", q_size, c.hidden_size, c.qkv_bias);
  specs.AddLinear(attention + "k_proj", kv_size, c.hidden_size, c.qkv_bias);
  specs.AddLinear(attention + "v_proj", kv_size, c.hidden_size, c.qkv_bias);
  specs.AddLinear(attention + "o_proj", c.hidden_size, q_size, c.o_bias);
  if (c.qk_norm) {
    specs.Add(attention + "q_norm.weight", {c.head_dim});
    specs.Add(attention + "k_norm.weight", {c.head_dim});
  }
  specs.Add(prefix + "post_attention_layernorm.weight", {c.hidden_size});
  specs.AddLinear(mlp + "gate_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
  specs.AddLinear(mlp + "up_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
  specs.AddLinear(mlp + "down_proj", c.hidden_size, c.intermediate_size, c.mlp_bias);
}

}  // namespace

std::vector<float> RopeInverseFrequencies(const RopeConfig& rope, int64_t head_dim) {
  CAIRN_CHECK(head_dim > 0 && head_dim % 2 == 0, "head_dim ", head_dim);
  std::vector<float> frequencies(head_dim / 2);
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    float frequency = 1.0f / std::pow(static_cast<float>(rope.theta), exponent);
    if (rope.scaling == RopeConfig::Scaling::kLinear) frequency /= static_cast<float>(rope.factor);
    if (rope.scaling == RopeConfig::Scaling::kLlama3) frequency = ScaleLlama3(frequency, rope);
    frequencies[i] = frequency;
  }
  return frequencies;
}

std::vector<TensorSpec> ExpectedTensors(const ModelConfig& config) {
  SpecList specs;
  specs.Add("model.embed_tokens.weight", {config.vocab_size, config.hidden_size});
  for (int64_t layer = 0; layer < config.num_layers; ++layer) AddLayer(config, layer, specs);
  specs.Add("model.norm.weight", {config.hidden_size});
  if (!config.tie_word_embeddings) specs.Add("lm_head.weight", {config.vocab_size, config.hidden_size});
  return specs.Take();
}

int64_t NumParameters(const ModelConfig& config) {
  int64_t total = 0;
  for (const TensorSpec& spec : ExpectedTensors(config)) {
    int64_t elements = 1;
    for (int64_t dim : spec.shape) elements *= dim;
    total += elements;
  }
  return total;
}

}  // namespace cairn
