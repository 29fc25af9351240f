#include "engine/config/model_fields.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace cairn {
namespace {

// Bounds an order of magnitude above any model known, low enough that no product of them overflows 64 bits.
constexpr int64_t kMaxVocab = 1 << 24;
constexpr int64_t kMaxHidden = 1 << 20;
constexpr int64_t kMaxIntermediate = 1 << 22;
constexpr int64_t kMaxLayers = 1 << 12;
constexpr int64_t kMaxHeads = 1 << 14;
constexpr int64_t kMaxHeadDim = 1 << 12;
constexpr int64_t kMaxPositions = std::numeric_limits<int32_t>::max();
constexpr double kMaxTheta = 1e15;

struct Family {
  const char* architecture;
  const char* model_type;
};
constexpr Family kFamilies[] = {
    {"LlamaForCausalLM", "llama"},
    {"MistralForCausalLM", "mistral"},
    {"Qwen2ForCausalLM", "qwen2"},
    {"Qwen3ForCausalLM", "qwen3"},
};

void ReadArchitecture(Fields& fields, ModelConfig& config) {
  std::string supported;
  for (const Family& family : kFamilies)
    absl::StrAppend(&supported, supported.empty() ? "" : ", ", family.architecture);
  const std::vector<std::string> architectures = fields.TextsOr("architectures", {});
  const std::string model_type = fields.TextOr("model_type", "");
  if (architectures.empty() && model_type.empty()) {
    fields.Fail(absl::StrCat("field architectures is absent; supported: one of ", supported));
    return;
  }
  for (const Family& family : kFamilies) {
    const bool named = architectures.empty() ? model_type == family.model_type
                                             : architectures.size() == 1 && architectures[0] == family.architecture;
    if (!named) continue;
    config.architecture = family.architecture;
    if (!model_type.empty() && model_type != family.model_type)
      fields.Refuse("model_type", absl::StrCat("\"", family.model_type, "\" for ", family.architecture));
    return;
  }
  fields.Refuse(architectures.empty() ? "model_type" : "architectures", absl::StrCat("one of ", supported));
}

void ReadSizes(Fields& fields, ModelConfig& config) {
  config.vocab_size = fields.Int("vocab_size", 1, kMaxVocab);
  config.hidden_size = fields.Int("hidden_size", 1, kMaxHidden);
  config.intermediate_size = fields.Int("intermediate_size", 1, kMaxIntermediate);
  config.num_layers = fields.Int("num_hidden_layers", 1, kMaxLayers);
  config.num_heads = fields.Int("num_attention_heads", 1, kMaxHeads);
  config.num_kv_heads = fields.IntOr("num_key_value_heads", config.num_heads, 1, kMaxHeads);
  config.max_position_embeddings = fields.Int("max_position_embeddings", 1, kMaxPositions);
  config.rms_norm_eps = static_cast<float>(fields.Number("rms_norm_eps", 1e-30, 1));
  if (!fields.ok()) return;
  if (config.num_heads % config.num_kv_heads != 0)
    fields.Refuse("num_key_value_heads", absl::StrCat("a divisor of num_attention_heads = ", config.num_heads));
  // Qwen3 alone has a default of its own.
  const int64_t default_head_dim =
      config.architecture == "Qwen3ForCausalLM" ? 128 : config.hidden_size / config.num_heads;
  if (!fields.Has("head_dim") && config.architecture != "Qwen3ForCausalLM" &&
      config.hidden_size % config.num_heads != 0) {
    fields.Refuse("hidden_size",
                  absl::StrCat("a multiple of num_attention_heads = ", config.num_heads, ", or head_dim given"));
  }
  config.head_dim = fields.IntOr("head_dim", default_head_dim, 2, kMaxHeadDim);
  if (config.head_dim % 2 != 0 || config.head_dim < 2)
    fields.Refuse("head_dim",
                  absl::StrCat("an even number (rotary embeddings turn pairs); here it is ", config.head_dim));
}

// Which terms the linears and the attention have is the family's affair; Llama and Qwen3 leave the biases to the
// config.
void ReadTerms(Fields& fields, ModelConfig& config) {
  const bool llama = config.architecture == "LlamaForCausalLM", qwen2 = config.architecture == "Qwen2ForCausalLM";
  const bool qwen3 = config.architecture == "Qwen3ForCausalLM";
  const bool attention_bias = fields.BoolOr("attention_bias", false);
  config.o_bias = (llama || qwen3) && attention_bias;
  config.qkv_bias = config.o_bias || qwen2;
  config.mlp_bias = fields.BoolOr("mlp_bias", false) && llama;
  config.qk_norm = qwen3;
  config.tie_word_embeddings = fields.BoolOr("tie_word_embeddings", false);
  const std::string activation = fields.TextOr("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") fields.Refuse("hidden_act", "silu");
  if (fields.BoolOr("use_mrope", false)) fields.Refuse("use_mrope", "false (text models)");
}

std::string TextOf(const nlohmann::json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

// E4M3 weights with scales of whole matrices or of rows, as vLLM writes them (fp8) or compressed-tensors does. Whatever
// it says of activations: they are quantized row by row as they come (kernels/ops/matmul.h).
bool IsFloat8(const nlohmann::json& quantization) {
  const std::string method = TextOf(quantization, "quant_method");
  if (method == "fp8")
    return !quantization.contains("weight_block_size") || quantization["weight_block_size"].is_null();
  const std::string format = TextOf(quantization, "format");
  if (method != "compressed-tensors" || (format != "float-quantized" && format != "naive-quantized")) return false;
  const auto groups = quantization.find("config_groups");
  if (groups == quantization.end() || !groups->is_object() || groups->empty()) return false;
  return std::all_of(groups->begin(), groups->end(), [](const nlohmann::json& group) {
    const auto weights = group.is_object() ? group.find("weights") : group.end();
    if (weights == group.end() || !weights->is_object()) return false;
    const std::string strategy = TextOf(*weights, "strategy");
    const auto bits = weights->find("num_bits");
    return TextOf(*weights, "type") == "float" && bits != weights->end() && *bits == 8 &&
           (strategy == "channel" || strategy == "tensor");
  });
}

void ReadQuantization(Fields& fields, ModelConfig& config) {
  const nlohmann::json* quantization = fields.ObjectOrNull("quantization_config");
  if (quantization == nullptr) return;
  config.float8_weights = IsFloat8(*quantization);
  if (config.float8_weights) return;
  fields.Refuse("quantization_config",
                "none (weights in float32, float16 or bfloat16), or E4M3 weights with a scale for each matrix or row: "
                "quant_method fp8 without weight_block_size, or compressed-tensors in the format float-quantized");
}

// The rope settings may be nested in rope_parameters (transformers 5), in rope_scaling (before), or absent.
void ReadRope(Fields& fields, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  rope.theta = fields.NumberOr("rope_theta", 10000, 1, kMaxTheta);
  if (fields.NumberOr("partial_rotary_factor", 1, 0, 1) != 1) fields.Refuse("partial_rotary_factor", "1");
  const char* name = fields.Has("rope_scaling") ? "rope_scaling" : "rope_parameters";
  const nlohmann::json* object = fields.ObjectOrNull(name);
  if (object == nullptr) return;
  Fields scaling(fields.file(), *object, fields.lines(), absl::StrCat(name, "."));
  for (const auto& [key, value] : object->items()) {
    if (value.is_object()) scaling.Refuse(key, "one rope for all layers, not one per layer type");
  }
  rope.theta = scaling.NumberOr("rope_theta", rope.theta, 1, kMaxTheta);
  if (scaling.NumberOr("partial_rotary_factor", 1, 0, 1) != 1) scaling.Refuse("partial_rotary_factor", "1");
  const char* type_field = scaling.Has("rope_type") ? "rope_type" : "type";
  const std::string type = scaling.TextOr(type_field, "default");
  if (type == "linear") {
    rope.scaling = RopeConfig::Scaling::kLinear;
    rope.factor = scaling.Number("factor", 1, 1e6);
  } else if (type == "llama3") {
    rope.scaling = RopeConfig::Scaling::kLlama3;
    rope.factor = scaling.Number("factor", 1, 1e6);
    rope.low_freq_factor = scaling.Number("low_freq_factor", 1e-6, 1e6);
    rope.high_freq_factor = scaling.Number("high_freq_factor", 1e-6, 1e6);
    rope.original_max_position_embeddings = scaling.Int("original_max_position_embeddings", 1, kMaxPositions);
    if (scaling.ok() && rope.high_freq_factor <= rope.low_freq_factor)
      scaling.Refuse("high_freq_factor", absl::StrCat("more than low_freq_factor = ", rope.low_freq_factor));
  } else if (type != "default") {
    scaling.Refuse(type_field, "default, linear, llama3");
  }
  if (!scaling.ok()) fields.Adopt(scaling.status());
}

// The window as the family's class in transformers computes it: Mistral's applies to every layer and is on by default,
// Qwen's has a switch and spares the first max_window_layers, Llama has none.
void ReadSlidingWindow(Fields& fields, ModelConfig& config) {
  const bool mistral = config.architecture == "MistralForCausalLM";
  const bool qwen = config.architecture == "Qwen2ForCausalLM" || config.architecture == "Qwen3ForCausalLM";
  int64_t window =
      fields.IntOr("sliding_window", mistral && !fields.HasNull("sliding_window") ? 4096 : 0, 1, kMaxPositions);
  if (qwen && !fields.BoolOr("use_sliding_window", false)) window = 0;
  if (!mistral && !qwen) window = 0;
  const std::vector<std::string> layer_types = fields.TextsOr("layer_types", {});
  if (!layer_types.empty()) {
    const auto full = std::count(layer_types.begin(), layer_types.end(), "full_attention");
    const auto sliding = std::count(layer_types.begin(), layer_types.end(), "sliding_attention");
    if (qwen && full == config.num_layers) window = 0;
    if ((window == 0 ? full : sliding) != config.num_layers ||
        static_cast<int64_t>(layer_types.size()) != config.num_layers) {
      fields.Refuse("layer_types", absl::StrCat("the same for all ", config.num_layers,
                                                " layers: ", window == 0 ? "full_attention" : "sliding_attention"));
    }
  } else if (qwen && window > 0) {
    const int64_t first = fields.IntOr("max_window_layers", 28, 0, kMaxLayers);
    if (first >= config.num_layers) window = 0;
    if (first > 0 && window > 0) {
      fields.Refuse("max_window_layers",
                    absl::StrCat("0 (every layer slides) or at least num_hidden_layers = ", config.num_layers,
                                 " (none does); layers of both kinds in one model are not"));
    }
  }
  config.sliding_window = window;
}

void ReadDType(Fields& fields, ModelConfig& config) {
  const char* field = fields.Has("dtype") ? "dtype" : "torch_dtype";
  const std::string text = fields.TextOr(field, "float32");  // transformers' own default
  const absl::string_view type = absl::StripPrefix(text, "torch.");
  if (type == "float32" || type == "float") {
    config.dtype = DType::kFloat32;
  } else if (type == "bfloat16") {
    config.dtype = DType::kBFloat16;
  } else if (type == "float16" || type == "half") {
    config.dtype = DType::kFloat16;
  } else {
    fields.Refuse(field, "float32, bfloat16, float16");
  }
}

}  // namespace

const std::vector<std::string>& ModelFieldNames() {
  static const auto& names = *new std::vector<std::string>{
      "architectures",
      "model_type",
      "vocab_size",
      "hidden_size",
      "intermediate_size",
      "num_hidden_layers",
      "num_attention_heads",
      "num_key_value_heads",
      "head_dim",
      "hidden_act",
      "rms_norm_eps",
      "max_position_embeddings",
      "rope_theta",
      "rope_scaling",
      "rope_parameters",
      "sliding_window",
      "use_sliding_window",
      "max_window_layers",
      "layer_types",
      "tie_word_embeddings",
      "attention_bias",
      "mlp_bias",
      "dtype",
      "torch_dtype",
      "bos_token_id",
      "eos_token_id",
  };
  return names;
}

const std::vector<std::string>& RopeFieldNames() {
  static const auto& names = *new std::vector<std::string>{
      "rope_type",
      "type",
      "rope_theta",
      "factor",
      "low_freq_factor",
      "high_freq_factor",
      "original_max_position_embeddings",
  };
  return names;
}

std::vector<int32_t> TokenIds(Fields& fields, const std::string& name) {
  const std::vector<int64_t> ids = fields.IntsOr(name, {}, 0, std::numeric_limits<int32_t>::max());
  return {ids.begin(), ids.end()};
}

absl::StatusOr<ModelConfig> ModelConfigFromFields(Fields& fields, const std::string& name) {
  ModelConfig config;
  config.name = name;
  ReadArchitecture(fields, config);
  if (fields.ok()) ReadSizes(fields, config);
  if (!fields.ok()) return fields.status();
  ReadTerms(fields, config);
  ReadQuantization(fields, config);
  ReadRope(fields, config);
  ReadSlidingWindow(fields, config);
  ReadDType(fields, config);
  const std::vector<int32_t> bos = TokenIds(fields, "bos_token_id");
  if (bos.size() == 1) config.bos_token_id = bos[0];
  if (bos.size() > 1) fields.Refuse("bos_token_id", "one integer");
  config.eos_token_ids = TokenIds(fields, "eos_token_id");
  if (!fields.ok()) return fields.status();
  return config;
}

}  // namespace cairn
