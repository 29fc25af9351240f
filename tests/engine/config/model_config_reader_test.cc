#include "engine/config/model_config_reader.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/config/temp_model.h"

namespace cairn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

TEST(ModelConfigReaderTest, OldLlama2LeavesOutWhatCameLater) {
  const absl::StatusOr<ModelConfig> config = ReadModelConfig(CheckpointDir("llama2"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->name, "llama2");
  EXPECT_EQ(config->architecture, "LlamaForCausalLM");
  EXPECT_EQ(config->vocab_size, 299);
  EXPECT_EQ(config->hidden_size, 64);
  EXPECT_EQ(config->intermediate_size, 160);
  EXPECT_EQ(config->num_layers, 4);
  EXPECT_EQ(config->num_heads, 4);
  EXPECT_EQ(config->num_kv_heads, 4);  // absent: as many as query heads
  EXPECT_EQ(config->head_dim, 16);     // absent: hidden_size / heads
  EXPECT_EQ(config->rms_norm_eps, 1e-5f);
  EXPECT_EQ(config->rope.theta, 10000);
  EXPECT_EQ(config->rope.scaling, RopeConfig::Scaling::kNone);
  EXPECT_EQ(config->max_position_embeddings, 512);
  EXPECT_EQ(config->sliding_window, 0);
  EXPECT_FALSE(config->tie_word_embeddings || config->qkv_bias || config->o_bias || config->mlp_bias ||
               config->qk_norm);
  EXPECT_EQ(config->dtype, DType::kFloat32);
  EXPECT_EQ(config->bos_token_id, 1);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(2));
}

TEST(ModelConfigReaderTest, NewLlama3WithRopeParameters) {
  const absl::StatusOr<ModelConfig> config = ReadModelConfig(CheckpointDir("llama3"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->num_kv_heads, 2);
  EXPECT_EQ(config->rope.scaling, RopeConfig::Scaling::kLlama3);
  EXPECT_EQ(config->rope.theta, 500000);
  EXPECT_EQ(config->rope.factor, 8);
  EXPECT_EQ(config->rope.low_freq_factor, 1);
  EXPECT_EQ(config->rope.high_freq_factor, 4);
  EXPECT_EQ(config->rope.original_max_position_embeddings, 64);
  EXPECT_EQ(config->dtype, DType::kBFloat16);
}

TEST(ModelConfigReaderTest, MistralQwen2Qwen3) {
  const absl::StatusOr<ModelConfig> mistral = ReadModelConfig(CheckpointDir("mistral"));
  ASSERT_TRUE(mistral.ok()) << mistral.status();
  EXPECT_EQ(mistral->sliding_window, 24);
  EXPECT_EQ(mistral->dtype, DType::kFloat16);
  const absl::StatusOr<ModelConfig> qwen2 = ReadModelConfig(CheckpointDir("qwen2"));
  ASSERT_TRUE(qwen2.ok()) << qwen2.status();
  EXPECT_TRUE(qwen2->qkv_bias && qwen2->tie_word_embeddings);
  EXPECT_FALSE(qwen2->o_bias || qwen2->mlp_bias || qwen2->qk_norm);
  EXPECT_EQ(qwen2->head_dim, 8);
  EXPECT_EQ(qwen2->rope.theta, 1000000);
  EXPECT_THAT(qwen2->eos_token_ids, ElementsAre(4));
  const absl::StatusOr<ModelConfig> qwen3 = ReadModelConfig(CheckpointDir("qwen3"));
  ASSERT_TRUE(qwen3.ok()) << qwen3.status();
  EXPECT_TRUE(qwen3->qk_norm && qwen3->tie_word_embeddings);
  EXPECT_FALSE(qwen3->qkv_bias);
  EXPECT_EQ(qwen3->head_dim, 32);
  EXPECT_EQ(qwen3->sliding_window, 0);
}

// A model of `family` whose config.json has been changed.
template <typename Change>
absl::StatusOr<ModelConfig> Changed(const std::string& family, Change change) {
  const TempModel model(family);
  model.Edit("config.json", change);
  return ReadModelConfig(model.path());
}

TEST(ModelConfigReaderTest, SpellingsOfOldAndNewTransformersAgree) {
  const absl::StatusOr<ModelConfig> modern = ReadModelConfig(CheckpointDir("llama3"));
  for (const char* type_field : {"type", "rope_type"}) {
    const absl::StatusOr<ModelConfig> old = Changed("llama3", [&](Json& c) {
      c["torch_dtype"] = c["dtype"];
      c["rope_scaling"] = c["rope_parameters"];
      c["rope_theta"] = c["rope_parameters"]["rope_theta"];
      c["rope_scaling"].erase("rope_theta");
      c["rope_scaling"].erase("rope_type");
      c["rope_scaling"][type_field] = "llama3";
      c.erase("dtype");
      c.erase("rope_parameters");
    });
    ASSERT_TRUE(old.ok()) << old.status();
    EXPECT_EQ(old->dtype, modern->dtype);
    EXPECT_EQ(old->rope.theta, modern->rope.theta);
    EXPECT_EQ(old->rope.scaling, modern->rope.scaling);
    EXPECT_EQ(old->rope.factor, modern->rope.factor);
  }
}

TEST(ModelConfigReaderTest, HeadDimNullAndLinearScaling) {
  const absl::StatusOr<ModelConfig> config = Changed("llama3", [](Json& c) {
    c["head_dim"] = nullptr;
    c["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 2.0}, {"rope_theta", 10000}};
  });
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->rope.scaling, RopeConfig::Scaling::kLinear);
  EXPECT_EQ(config->rope.factor, 2);
}

TEST(ModelConfigReaderTest, Biases) {
  const absl::StatusOr<ModelConfig> llama =
      Changed("llama3", [](Json& c) { c["attention_bias"] = c["mlp_bias"] = true; });
  ASSERT_TRUE(llama.ok()) << llama.status();
  EXPECT_TRUE(llama->qkv_bias && llama->o_bias && llama->mlp_bias);
  const absl::StatusOr<ModelConfig> qwen3 = Changed("qwen3", [](Json& c) { c["attention_bias"] = true; });
  ASSERT_TRUE(qwen3.ok()) << qwen3.status();
  EXPECT_TRUE(qwen3->qkv_bias && qwen3->o_bias);
  EXPECT_FALSE(qwen3->mlp_bias);
}

// Window of a model with these fields, as transformers' class of the family computes it; -1 where it is refused.
template <typename Change>
int64_t Window(const std::string& family, Change change) {
  const absl::StatusOr<ModelConfig> config = Changed(family, change);
  return config.ok() ? config->sliding_window : -1;
}

TEST(ModelConfigReaderTest, WeightsInFloat8) {
  const auto float8_weights = [](const char* quantization) {
    const TempModel model("llama3");
    model.Edit("config.json",
               [&](nlohmann::json& config) { config["quantization_config"] = nlohmann::json::parse(quantization); });
    const absl::StatusOr<ModelConfig> config = ReadModelConfig(model.path());
    EXPECT_TRUE(config.ok()) << config.status();
    return config.ok() && config->float8_weights;
  };
  EXPECT_FALSE(ReadModelConfig(CheckpointDir("llama3"))->float8_weights);
  EXPECT_FALSE(float8_weights("null"));
  EXPECT_TRUE(float8_weights(R"({"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": null})"));
  EXPECT_TRUE(float8_weights(
      R"({"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"], "config_groups":
          {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}}})"));
}

TEST(ModelConfigReaderTest, SlidingWindows) {
  EXPECT_EQ(Window("mistral", [](Json& c) { c["sliding_window"] = nullptr; }), 0);
  EXPECT_EQ(Window("mistral", [](Json& c) { c.erase("sliding_window"); }), 4096);
  EXPECT_EQ(Window("llama3", [](Json& c) { c["sliding_window"] = 32; }), 0);
  const auto qwen = [](auto more) {
    return Window("qwen2", [&](Json& c) {
      c["sliding_window"] = 32;
      c.erase("layer_types");
      more(c);
    });
  };
  EXPECT_EQ(qwen([](Json&) {}), 0);                                     // use_sliding_window is false
  EXPECT_EQ(qwen([](Json& c) { c["use_sliding_window"] = true; }), 0);  // max_window_layers 28 spares all four
  EXPECT_EQ(qwen([](Json& c) { c["use_sliding_window"] = true, c["max_window_layers"] = 4; }), 0);
  EXPECT_EQ(qwen([](Json& c) { c["use_sliding_window"] = true, c["max_window_layers"] = 0; }), 32);
  EXPECT_EQ(qwen([](Json& c) { c["use_sliding_window"] = true, c["max_window_layers"] = 2; }), -1);
  EXPECT_EQ(qwen([](Json& c) {
              c["use_sliding_window"] = true;
              c["layer_types"] = std::vector<std::string>(4, "sliding_attention");
            }),
            32);
  EXPECT_EQ(qwen([](Json& c) {
              c["use_sliding_window"] = true;
              c["layer_types"] = {"full_attention", "sliding_attention", "full_attention", "sliding_attention"};
            }),
            -1);
  EXPECT_EQ(qwen([](Json& c) { c["layer_types"] = {"full_attention"}; }), -1);  // of four layers
}

TEST(ModelConfigReaderTest, GenerationConfigSaysWhatStops) {
  const TempModel model("llama3");
  model.Write("generation_config.json", R"({"eos_token_id": [7, 9]})");
  absl::StatusOr<ModelConfig> config = ReadModelConfig(model.path());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->eos_token_ids, ElementsAre(7, 9));
  model.Write("generation_config.json", R"({"temperature": 0.6})");
  config = ReadModelConfig(model.path());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->eos_token_ids, ElementsAre(2));
  model.Write("generation_config.json", R"({"eos_token_id": "</s>"})");
  EXPECT_THAT(ReadModelConfig(model.path()).status().message(), HasSubstr("generation_config.json: eos_token_id is"));
}

// What a newcomer reads when config.json is not what Cairn can run: the file, the field, its value, what is supported.
struct Refusal {
  const char* family;
  const char* patch;  // JSON merge patch: null removes a field
  std::vector<std::string> expected;
};

class RefusalTest : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusalTest, NamesFieldValueAndWhatIsSupported) {
  const TempModel model(GetParam().family);
  model.Edit("config.json", [](Json& c) { c.merge_patch(Json::parse(GetParam().patch)); });
  const absl::Status status = ReadModelConfig(model.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(status.message(), HasSubstr(model.File("config.json")));
  for (const std::string& part : GetParam().expected) EXPECT_THAT(status.message(), HasSubstr(part));
  EXPECT_EQ(status.message().find('\n'), absl::string_view::npos) << "one line";
}

INSTANTIATE_TEST_SUITE_P(
    All, RefusalTest,
    ::testing::Values(
        Refusal{"llama3", R"({"hidden_size": null})", {"hidden_size is absent", "integer from 1"}},
        Refusal{"llama3", R"({"rms_norm_eps": null})", {"rms_norm_eps is absent"}},
        Refusal{"llama3", R"({"max_position_embeddings": null})", {"max_position_embeddings is absent"}},
        Refusal{"llama3", R"({"num_hidden_layers": 0})", {"num_hidden_layers is 0", "1 to 4096"}},
        Refusal{"llama3", R"({"num_hidden_layers": -3})", {"num_hidden_layers is -3"}},
        Refusal{"llama3", R"({"vocab_size": 1e300})", {"vocab_size is 1e+300"}},
        Refusal{"llama3", R"({"vocab_size": 18446744073709551615})", {"vocab_size is 18446744073709551615"}},
        Refusal{"llama3", R"({"vocab_size": 4611686018427387904})", {"vocab_size is 4611686018427387904"}},
        Refusal{"llama3", R"({"hidden_size": "64"})", {"hidden_size is \"64\"", "an integer"}},
        Refusal{"llama3", R"({"hidden_size": 64.5})", {"hidden_size is 64.5"}},
        Refusal{"llama3", R"({"rms_norm_eps": -1})", {"rms_norm_eps is -1"}},
        Refusal{"llama3", R"({"rms_norm_eps": 0})", {"rms_norm_eps is 0"}},
        Refusal{"llama3", R"({"num_key_value_heads": 3})", {"num_key_value_heads is 3", "divisor", "4"}},
        Refusal{"llama3", R"({"head_dim": 15})", {"head_dim is 15", "even"}},
        Refusal{"llama2", R"({"hidden_size": 66})", {"hidden_size is 66", "num_attention_heads = 4", "head_dim"}},
        Refusal{"llama3", R"({"hidden_act": "gelu"})", {"hidden_act is \"gelu\"", "silu"}},
        Refusal{"llama3", R"({"architectures": ["GPT2LMHeadModel"]})", {"GPT2LMHeadModel", "Qwen3ForCausalLM"}},
        Refusal{"llama3", R"({"architectures": null, "model_type": null})", {"architectures is absent"}},
        Refusal{"llama3", R"({"model_type": "granite"})", {"model_type is \"granite\"", "llama"}},
        Refusal{"llama3", R"({"quantization_config": {"quant_method": "gptq"}})", {"quantization_config is", "gptq"}},
        Refusal{"llama3",
                R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}})",
                {"quantization_config is", "128", "without weight_block_size"}},
        Refusal{"llama3",
                R"({"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}})",
                {"quantization_config is", "pack-quantized", "float-quantized"}},
        Refusal{"llama3",
                R"({"quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized",
                    "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float", "strategy": "block"}}}}})",
                {"quantization_config is", "block"}},
        Refusal{"llama3", R"({"dtype": "int8"})", {"dtype is \"int8\"", "bfloat16"}},
        Refusal{"llama3",
                R"({"rope_parameters": {"rope_type": "yarn"}})",
                {"rope_parameters.rope_type is \"yarn\"", "default, linear, llama3"}},
        Refusal{"llama3",
                R"({"rope_parameters": null, "rope_scaling": {"type": "dynamic", "factor": 2.0}})",
                {"rope_scaling.type is \"dynamic\""}},
        Refusal{"llama3", R"({"rope_parameters": null, "rope_scaling": {"rope_type": "longrope"}})", {"longrope"}},
        Refusal{"llama3", R"({"rope_parameters": {"factor": null}})", {"rope_parameters.factor is absent"}},
        Refusal{"llama3", R"({"rope_parameters": {"factor": 0.5}})", {"rope_parameters.factor is 0.5"}},
        Refusal{
            "llama3", R"({"rope_parameters": {"high_freq_factor": 1.0}})", {"high_freq_factor is 1.0", "more than"}},
        Refusal{"llama3", R"({"rope_parameters": {"rope_theta": 0}})", {"rope_parameters.rope_theta is 0"}},
        Refusal{"llama3", R"({"rope_parameters": {"partial_rotary_factor": 0.5}})", {"partial_rotary_factor is 0.5"}},
        Refusal{"llama3",
                R"({"rope_parameters": {"full_attention": {"rope_type": "default"}}})",
                {"full_attention", "one rope for all layers"}},
        Refusal{"mistral", R"({"sliding_window": 0})", {"sliding_window is 0"}},
        Refusal{"qwen2", R"({"use_mrope": true})", {"use_mrope is true"}},
        Refusal{"llama3", R"({"eos_token_id": -1})", {"eos_token_id is -1"}},
        Refusal{"llama3", R"({"eos_token_id": [2, "x"]})", {"eos_token_id is [2,\"x\"]"}},
        Refusal{"llama3", R"({"bos_token_id": [1, 2]})", {"bos_token_id is [1,2]"}},
        Refusal{"llama3", R"({"tie_word_embeddings": "yes"})", {"tie_word_embeddings is \"yes\"", "true or false"}}));

TEST(ModelConfigReaderTest, FilesThatAreNotThereOrNotJson) {
  const TempModel model;
  EXPECT_EQ(ReadModelConfig(model.path()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(ReadModelConfig(model.path()).status().message(), HasSubstr("config.json"));
  for (const char* text : {"", "{", "[1]", "{\"vocab_size\": NaN}", "{\"vocab_size\": 1e999}", "\xff\xfe"}) {
    model.Write("config.json", text);
    const absl::Status status = ReadModelConfig(model.path()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(status.message(), HasSubstr(model.File("config.json"))) << text;
  }
  model.Write("config.json", std::string(1000000, '['));  // deep nesting must not overflow a stack
  EXPECT_FALSE(ReadModelConfig(model.path()).ok());
}

}  // namespace
}  // namespace cairn
