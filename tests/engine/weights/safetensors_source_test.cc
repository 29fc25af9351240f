#include <cstring>
#include <random>

#include "engine/config/model_config_reader.h"
#include "engine/weights/weight_source.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/config/temp_model.h"
#include "tests/engine/weights/safetensors_file_builder.h"

namespace cairn {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr char kFile[] = "model.safetensors";
constexpr char kNorm[] = "model.norm.weight";

absl::StatusOr<std::unique_ptr<WeightSource>> OpenModel(const std::string& directory) {
  const absl::StatusOr<ModelConfig> config = ReadModelConfig(directory);
  if (!config.ok()) return config.status();
  return OpenSafetensors(directory, *config);
}

std::string FaultOf(const TempModel& model) { return std::string(OpenModel(model.path()).status().message()); }

// Every tensor of every committed checkpoint: whole, then random rows and columns of it.
TEST(SafetensorsSourceTest, SlicesAreThoseOfTheWhole) {
  std::mt19937 random(7);
  const auto range = [&](int64_t n) {
    const int64_t a = static_cast<int64_t>(random() % (n + 1)), b = static_cast<int64_t>(random() % (n + 1));
    return Range{std::min(a, b), std::max(a, b)};
  };
  for (const char* family : {"llama2", "llama3", "mistral", "qwen2", "qwen3"}) {
    const std::string directory = CheckpointDir(family);
    const absl::StatusOr<ModelConfig> config = ReadModelConfig(directory);
    ASSERT_TRUE(config.ok()) << config.status();
    const absl::StatusOr<std::unique_ptr<WeightSource>> source = OpenSafetensors(directory, *config);
    ASSERT_TRUE(source.ok()) << source.status();
    int64_t bytes_read = 0;
    for (const TensorSpec& spec : ExpectedTensors(*config)) {
      const absl::StatusOr<DType> type = (*source)->TypeOf(spec.name);
      ASSERT_TRUE(type.ok()) << type.status();
      EXPECT_EQ(*type, config->dtype);
      const int64_t rows = spec.shape.size() == 2 ? spec.shape[0] : 1, columns = spec.shape.back();
      const int64_t element = static_cast<int64_t>(DTypeSize(*type));
      std::string whole(rows * columns * element, '\0');
      ASSERT_TRUE((*source)->Read(spec.name, spec.shape, {0, rows}, {0, columns}, whole.data()).ok());
      bytes_read += rows * columns * element;
      for (int i = 0; i < 8; ++i) {
        const Range r = range(rows), c = i == 0 ? Range{0, columns} : range(columns);
        std::string slice(r.size() * c.size() * element, '\0');
        ASSERT_TRUE((*source)->Read(spec.name, spec.shape, r, c, slice.data()).ok());
        bytes_read += static_cast<int64_t>(slice.size());
        for (int64_t row = 0; row < r.size(); ++row)
          ASSERT_EQ(slice.compare(row * c.size() * element, c.size() * element, whole,
                                  ((r.begin + row) * columns + c.begin) * element, c.size() * element),
                    0)
              << family << " " << spec.name << " row " << r.begin + row << " columns " << c.begin << ".." << c.end;
      }
    }
    EXPECT_EQ((*source)->bytes_read(), bytes_read) << "exactly the bytes that were asked for";
  }
}

// The bytes are the right ones: against the file, found by its header alone.
TEST(SafetensorsSourceTest, ReadsTheBytesTheHeaderNames) {
  const SafetensorsParts parts(ReadText(CheckpointDir("llama2") + "/" + kFile));
  const auto source = OpenModel(CheckpointDir("llama2"));
  ASSERT_TRUE(source.ok()) << source.status();
  for (const auto& [name, entry] : parts.header.items()) {
    if (name == "__metadata__") continue;
    const std::vector<int64_t> shape = entry["shape"];
    const int64_t rows = shape.size() == 2 ? shape[0] : 1;
    const int64_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
    std::string found(end - begin, '\0');
    ASSERT_TRUE((*source)->Read(name, shape, {0, rows}, {0, shape.back()}, found.data()).ok());
    EXPECT_EQ(found, parts.data.substr(begin, end - begin)) << name;
  }
}

TEST(SafetensorsSourceTest, WrongNamesAndShapesAreErrors) {
  const auto source = OpenModel(CheckpointDir("llama2"));
  ASSERT_TRUE(source.ok()) << source.status();
  float value;
  EXPECT_EQ((*source)->TypeOf("nobody").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT((*source)->Read(kNorm, {65}, {0, 1}, {0, 1}, &value).message(), HasSubstr("has shape [64], not [65]"));
}

// llama2 with its one file changed.
template <typename Change>
std::string ChangedFile(Change change) {
  const TempModel model("llama2");
  SafetensorsParts parts(ReadText(model.File(kFile)));
  change(parts);
  model.Write(kFile, parts.Bytes());
  return FaultOf(model);
}

// Adds a tensor of F32 at the end.
void AddTensor(SafetensorsParts& parts, const std::string& name, const std::vector<int64_t>& shape) {
  int64_t bytes = 4;
  for (int64_t dim : shape) bytes *= dim;
  const int64_t begin = static_cast<int64_t>(parts.data.size());
  parts.header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, begin + bytes}}};
  parts.data.append(bytes, '\1');
}

TEST(SafetensorsSourceTest, MissingExtraAndMisshapenTensors) {
  EXPECT_EQ(ChangedFile([](SafetensorsParts&) {}), "");
  EXPECT_THAT(ChangedFile([](SafetensorsParts& parts) {
                parts.header["model.norms.weight"] = parts.header[kNorm];
                parts.header.erase(kNorm);
              }),
              AllOf(HasSubstr("missing: model.norm.weight [64]"), HasSubstr("not expected: model.norms.weight [64]"),
                    HasSubstr("LlamaForCausalLM"), HasSubstr("model.safetensors")));
  EXPECT_THAT(ChangedFile([](SafetensorsParts& parts) { AddTensor(parts, "model.layers.4.mlp.up_proj.weight", {2}); }),
              HasSubstr("not expected: model.layers.4.mlp.up_proj.weight [2]"));
  EXPECT_THAT(ChangedFile([](SafetensorsParts& parts) {
                Json& shape = parts.header["model.layers.1.mlp.down_proj.weight"]["shape"];
                std::swap(shape[0], shape[1]);
              }),
              AllOf(HasSubstr("model.safetensors: tensor model.layers.1.mlp.down_proj.weight has shape [160, 64]"),
                    HasSubstr("asks for [64, 160]")));
  EXPECT_THAT(ChangedFile([](SafetensorsParts& parts) { parts.header[kNorm]["dtype"] = "I32"; }),
              AllOf(HasSubstr(kNorm), HasSubstr("of type I32; supported: F32, F16, BF16")));
}

TEST(SafetensorsSourceTest, ToleratesWhatChangesNothing) {
  EXPECT_EQ(ChangedFile(
                [](SafetensorsParts& parts) { AddTensor(parts, "model.layers.0.self_attn.rotary_emb.inv_freq", {8}); }),
            "");
  const TempModel tied("qwen3");
  SafetensorsParts parts(ReadText(tied.File(kFile)));
  AddTensor(parts, "lm_head.weight", {301, 64});
  tied.Write(kFile, parts.Bytes());
  EXPECT_EQ(FaultOf(tied), "");
}

TEST(SafetensorsSourceTest, DamagedFiles) {
  const TempModel model("llama2");
  const std::string bytes = ReadText(model.File(kFile));
  model.Write(kFile, bytes.substr(0, bytes.size() / 2));
  EXPECT_THAT(FaultOf(model), AllOf(HasSubstr(kFile), HasSubstr("cut short")));
  model.Write(kFile, bytes.substr(0, 100));
  EXPECT_THAT(FaultOf(model), HasSubstr("cut short"));
  model.Write(kFile, "");
  EXPECT_THAT(FaultOf(model), HasSubstr("cut short"));
  model.Write(kFile, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
  EXPECT_THAT(FaultOf(model), HasSubstr("not a safetensors file"));
  std::filesystem::remove(model.File(kFile));
  EXPECT_THAT(FaultOf(model), AllOf(HasSubstr(model.path()), HasSubstr("holds neither model.safetensors nor")));
  std::filesystem::create_directory(model.File(kFile));
  EXPECT_THAT(FaultOf(model), HasSubstr("not a regular file"));
}

TEST(SafetensorsSourceTest, AFileCutAfterOpeningIsAnError) {
  const TempModel model("llama2");
  const auto source = OpenModel(model.path());
  ASSERT_TRUE(source.ok()) << source.status();
  std::filesystem::resize_file(model.File(kFile), std::filesystem::file_size(model.File(kFile)) / 2);
  int failures = 0;
  const absl::StatusOr<ModelConfig> config = ReadModelConfig(model.path());
  for (const TensorSpec& spec : ExpectedTensors(*config)) {
    std::vector<float> out(64 * 299);
    const int64_t rows = spec.shape.size() == 2 ? spec.shape[0] : 1;
    const absl::Status status = (*source)->Read(spec.name, spec.shape, {0, rows}, {0, spec.shape.back()}, out.data());
    if (status.ok()) continue;
    ++failures;
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(model.File(kFile)), HasSubstr("was cut")));
  }
  EXPECT_GT(failures, 10);
}

constexpr char kIndex[] = "model.safetensors.index.json";
constexpr char kShard[] = "model-00002-of-00004.safetensors";

TEST(ShardedSafetensorsTest, MissingShard) {
  const TempModel model("qwen2");
  std::filesystem::remove(model.File(kShard));
  EXPECT_THAT(FaultOf(model), AllOf(HasSubstr(kIndex), HasSubstr(kShard), HasSubstr("not there")));
}

TEST(ShardedSafetensorsTest, IndexAndShardsDisagree) {
  const TempModel model("qwen2");
  const Json index = model.ReadJson(kIndex);
  const std::string other = "model-00001-of-00004.safetensors";
  const auto changed = [&](auto change) {
    Json copy = index;
    change(copy["weight_map"]);
    model.Write(kIndex, copy.dump());
    return FaultOf(model);
  };
  ASSERT_NE(index["weight_map"][kNorm], other);
  EXPECT_THAT(changed([&](Json& map) { map[kNorm] = other; }),
              AllOf(HasSubstr(kNorm), HasSubstr("places in " + other)));
  EXPECT_THAT(changed([&](Json& map) { map.erase(kNorm); }), AllOf(HasSubstr(kNorm), HasSubstr("does not list")));
  EXPECT_THAT(changed([&](Json& map) { map["phantom"] = other; }),
              AllOf(HasSubstr("phantom"), HasSubstr("does not hold it")));
}

TEST(ShardedSafetensorsTest, TheIndexNamesFilesBesideIt) {
  const TempModel model("qwen2");
  const std::vector<Json> names = {"../" + std::string(kShard),
                                   "/etc/passwd",
                                   "a/b.safetensors",
                                   "..",
                                   "",
                                   "passwd",
                                   Json::array({"x"}),
                                   7,
                                   nullptr,
                                   std::string("a\0b.safetensors", 15)};
  for (const Json& name : names) {
    model.Edit(kIndex, [&](Json& index) { index["weight_map"][kNorm] = name; });
    EXPECT_THAT(FaultOf(model), AllOf(HasSubstr(kNorm), HasSubstr("must be the name of a .safetensors file"))) << name;
  }
  for (const char* text : {"{}", "{\"weight_map\": {}}", "{\"weight_map\": []}", "[]", ""}) {
    model.Write(kIndex, text);
    EXPECT_THAT(FaultOf(model), HasSubstr(kIndex)) << text;
  }
}

}  // namespace
}  // namespace cairn
