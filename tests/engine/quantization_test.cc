// --quantization fp8 through the whole engine, on CPU, and checkpoints that are in E4M3.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/core/dtype.h"
#include "kernels/core/float8.h"
#include "tests/engine/engine_harness.h"
#include "tests/engine/weights/safetensors_file_builder.h"

namespace cairn {
namespace {

EngineOptions Options(const std::string& family, const std::string& quantization, ParallelSizes sizes = {}) {
  EngineOptions options = TestOptions(CheckpointDir(family), sizes);
  options.quantization = quantization;
  options.max_num_seqs = 8;
  return options;
}

std::vector<Request> Requests() {
  std::vector<Request> requests;
  for (int i = 0; i < 6; ++i) {
    std::vector<int32_t> prompt;
    for (int j = 0; j < 5 + 4 * i; ++j) prompt.push_back(3 + (i * 37 + j * 11) % 280);
    requests.push_back(GreedyRequest(absl::StrCat("r", i), prompt, 16));
    requests.back().sampling.logprobs = 0;
  }
  return requests;
}

double FirstLogprob(const HarnessResult& result, int i) {
  return result.outputs.at(absl::StrCat("r", i)).completions[0].logprobs.at(0).logprob;
}

// In E4M3 a weight and an activation each lose at most a sixteenth of their value, and errors of a sum of many terms
// cancel: a layer's output is off by some per cent, and so are the logits. In int8 weights alone lose at most a 254th
// of their row's largest.
TEST(QuantizationTest, AnswersAreNearThoseOfTheWholeWeights) {
  for (const char* family : {"llama3", "qwen3"}) {
    const HarnessResult whole = Answer(Options(family, "none"), Requests());
    for (const auto& [name, most] : {std::pair<const char*, double>{"fp8", 0.3}, {"int8", 0.15}}) {
      const HarnessResult quantized = Answer(Options(family, name), Requests());
      double difference = 0;
      for (int i = 0; i < 6; ++i) difference += std::abs(FirstLogprob(whole, i) - FirstLogprob(quantized, i)) / 6;
      EXPECT_GT(difference, 0) << family << " " << name << ": nothing was quantized";
      EXPECT_LT(difference, most) << family << " " << name;
    }
  }
}

TEST(QuantizationTest, StagesAndBatchesChangeNoBit) {
  const HarnessResult one = Answer(Options("qwen3", "fp8"), Requests());
  EngineOptions alone = Options("qwen3", "fp8", {1, 2, 1});
  alone.max_num_seqs = 1;
  for (const EngineOptions& options : {Options("qwen3", "fp8", {1, 3, 1}), alone}) {
    const HarnessResult other = Answer(options, Requests());
    for (const auto& [id, output] : one.outputs) {
      EXPECT_EQ(output.completions[0].token_ids, other.outputs.at(id).completions[0].token_ids) << id;
      for (size_t t = 0; t < output.completions[0].logprobs.size(); ++t) {
        EXPECT_EQ(output.completions[0].logprobs[t].logprob, other.outputs.at(id).completions[0].logprobs[t].logprob);
      }
    }
  }
}

// Row-parallel shards have scales of their own (kernels/ops/matmul.h): near, not equal.
TEST(QuantizationTest, TensorParallelIsNear) {
  const HarnessResult one = Answer(Options("llama3", "fp8"), Requests()),
                      two = Answer(Options("llama3", "fp8", {2, 1, 1}), Requests());
  for (int i = 0; i < 6; ++i) EXPECT_NEAR(FirstLogprob(one, i), FirstLogprob(two, i), 0.5) << i;
}

// The llama3 checkpoint (bf16) with its linear layers in E4M3: what `--quantization fp8` makes of it, as a file.
class Float8Checkpoint {
 public:
  enum class Scales { kRows, kColumn, kMatrix, kNone };  // [N], [N, 1], a number, missing

  explicit Float8Checkpoint(Scales scales) : model_("llama3") {
    const SafetensorsParts old(ReadText(model_.File("model.safetensors")));
    for (const auto& [name, entry] : old.header.items()) {
      if (name == "__metadata__") continue;
      const int64_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
      const std::string data = old.data.substr(begin, end - begin);
      if (absl::EndsWith(name, "_proj.weight")) {
        AddQuantized(name, entry["shape"][0], entry["shape"][1], data, scales);
      } else {
        Add(name, entry["dtype"], entry["shape"], data);
      }
    }
    model_.Write("model.safetensors", SafetensorsBytes(header_.dump(), data_));
    model_.Edit("config.json", [](nlohmann::json& config) {
      config["quantization_config"] = {{"quant_method", "fp8"}, {"activation_scheme", "dynamic"}};
    });
  }

  const std::string& path() const { return model_.path(); }

 private:
  void Add(const std::string& name, const std::string& dtype, const nlohmann::json& shape, const std::string& data) {
    header_[name] = {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {data_.size(), data_.size() + data.size()}}};
    data_ += data;
  }

  void AddQuantized(const std::string& name, int64_t rows, int64_t columns, const std::string& data, Scales kind) {
    std::vector<float> values;
    for (int64_t i = 0; i < rows * columns; ++i) {
      uint16_t bits;
      std::memcpy(&bits, data.data() + 2 * i, sizeof(bits));
      values.push_back(BFloat16ToFloat(bits));
    }
    const float largest = MaxMagnitude(values.data(), rows * columns);
    std::string codes, scales;
    for (int64_t row = 0; row < rows; ++row) {
      const float* const from = values.data() + row * columns;
      const Float8Scale scale = Float8ScaleFor(kind == Scales::kMatrix ? largest : MaxMagnitude(from, columns));
      for (int64_t k = 0; k < columns; ++k) {
        codes.push_back(static_cast<char>(FloatToFloat8E4M3(from[k] * scale.inverse)));
      }
      if (kind != Scales::kMatrix || row == 0) {
        scales.append(reinterpret_cast<const char*>(&scale.scale), sizeof(float));
      }
    }
    Add(name, "F8_E4M3", {rows, columns}, codes);
    const nlohmann::json shape = kind == Scales::kRows     ? nlohmann::json({rows})
                                 : kind == Scales::kColumn ? nlohmann::json({rows, 1})
                                                           : nlohmann::json::array();
    if (kind != Scales::kNone) Add(name + "_scale", "F32", shape, scales);
  }

  TempModel model_;
  std::string data_;
  nlohmann::json header_;
};

TEST(QuantizationTest, ACheckpointInFloat8IsWhatQuantizingAtLoadingGives) {
  const HarnessResult made = Answer(Options("llama3", "fp8"), Requests());
  for (const auto scales : {Float8Checkpoint::Scales::kRows, Float8Checkpoint::Scales::kColumn}) {
    const Float8Checkpoint checkpoint(scales);
    EngineOptions options = Options("llama3", "none");
    options.model = checkpoint.path();
    const HarnessResult taken = Answer(options, Requests());
    for (const auto& [id, output] : made.outputs) {
      EXPECT_EQ(output.completions[0].token_ids, taken.outputs.at(id).completions[0].token_ids) << id;
      EXPECT_EQ(output.completions[0].logprobs[0].logprob, taken.outputs.at(id).completions[0].logprobs[0].logprob);
    }
  }
}

TEST(QuantizationTest, AScaleForTheWholeMatrix) {
  const HarnessResult whole = Answer(Options("llama3", "none"), Requests());
  const Float8Checkpoint checkpoint(Float8Checkpoint::Scales::kMatrix);
  EngineOptions options = Options("llama3", "none", {2, 1, 1});
  options.model = checkpoint.path();
  const HarnessResult taken = Answer(options, Requests());
  double difference = 0;
  for (int i = 0; i < 6; ++i) difference += std::abs(FirstLogprob(whole, i) - FirstLogprob(taken, i)) / 6;
  EXPECT_LT(difference, 0.65);
}

TEST(QuantizationTest, AMatrixWithoutItsScaleIsRefused) {
  const Float8Checkpoint checkpoint(Float8Checkpoint::Scales::kNone);
  EngineOptions options = Options("llama3", "none");
  options.model = checkpoint.path();
  const absl::StatusOr<HarnessResult> result = RunEngine(options, {});
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.status().message().find("without a model.layers.0.self_attn.q_proj.weight_scale"),
            absl::string_view::npos)
      << result.status();
}

TEST(QuantizationTest, AnUnknownNameIsRefused) {
  const absl::StatusOr<HarnessResult> result = RunEngine(Options("llama3", "int3"), {});
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.status().message().find("--quantization=int3: allowed is none, int8 or fp8"),
            absl::string_view::npos)
      << result.status();
}

}  // namespace
}  // namespace cairn
