// Real instruct models in the model's own chat template against Hugging Face transformers in float32, over ranks.
#include <gtest/gtest.h>

#include "engine/text/chat_template.h"
#include "tests/engine/engine_harness.h"

namespace cairn {
namespace {

struct RealModel {
  const char* name;
  std::vector<ParallelSizes> layouts;
};

class RealModelTest : public testing::TestWithParam<RealModel> {
 protected:
  void SetUp() override {
    shared_ = SharedDir();
    models_ = RealModelsDir();
    if (!shared_ || !models_) {
      GTEST_SKIP() << "needs ../shared (CAIRN_SHARED_DIR) and CAIRN_REAL_MODELS_DIR with " << GetParam().name
                   << " (tools/get_model.py); the real models are not checked";
    }
    directory_ = *models_ + "/" + GetParam().name;
    if (!std::filesystem::exists(directory_)) GTEST_SKIP() << directory_ << " is absent: not checked";
    golden_ = ReadJson(*shared_ + "/golden/real/" + GetParam().name + ".json");
  }

  EngineOptions Options(ParallelSizes sizes, const std::string& dtype) const {
    EngineOptions options = TestOptions(directory_, sizes);
    options.dtype = dtype;
    options.max_model_len = 1024;
    options.kv_cache_memory_bytes = 512 << 20;
    options.threads = sizes.world() == 1 ? 2 : 1;
    return options;
  }

  std::vector<Request> Requests() const {
    std::vector<Request> requests;
    for (const auto& c : golden_["cases"]) {
      requests.push_back(GreedyRequest(std::to_string(requests.size()), c["prompt_ids"].get<std::vector<int32_t>>(),
                                       static_cast<int32_t>(c["greedy_ids"].size())));
    }
    return requests;
  }

  std::optional<std::string> shared_, models_;
  std::string directory_;
  nlohmann::json golden_;
};

TEST_P(RealModelTest, MessagesRenderToThePromptIds) {
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(directory_);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (const auto& c : golden_["cases"]) {
    std::vector<ChatMessage> messages;
    for (const auto& m : c["messages"]) messages.push_back({m["role"], m["content"]});
    const absl::StatusOr<std::string> prompt = ChatTemplate::FromTokenizer(**tokenizer).Render(messages);
    ASSERT_TRUE(prompt.ok()) << prompt.status();
    EXPECT_EQ((*tokenizer)->Encode(*prompt, false), c["prompt_ids"].get<std::vector<int32_t>>());
  }
}

TEST_P(RealModelTest, GreedyTokensInFloat32OverRanks) {
  for (const ParallelSizes& sizes : GetParam().layouts) {
    const absl::StatusOr<HarnessResult> result = RunEngine(Options(sizes, "float32"), Requests());
    ASSERT_TRUE(result.ok()) << result.status();
    for (size_t i = 0; i < golden_["cases"].size(); ++i) {
      EXPECT_EQ(result->outputs.at(std::to_string(i)).completions[0].token_ids,
                golden_["cases"][i]["greedy_ids"].get<std::vector<int32_t>>())
          << GetParam().name << " tp " << sizes.tp << " pp " << sizes.pp << " case " << i << ", smallest top-2 gap "
          << golden_["cases"][i]["min_top2_gap"];
    }
  }
}

// In bf16 the ways part where two tokens are nearly equal, but the answers stay answers to the question: most begin
// with the same words, and each holds the words of a worked solution.
TEST_P(RealModelTest, Bfloat16AnswersReadAsWell) {
  const absl::StatusOr<HarnessResult> result = RunEngine(Options({1, 1, 1}, "bfloat16"), Requests());
  ASSERT_TRUE(result.ok()) << result.status();
  int same_start = 0;
  for (size_t i = 0; i < golden_["cases"].size(); ++i) {
    const auto want = golden_["cases"][i]["greedy_ids"].get<std::vector<int32_t>>();
    const auto& got = result->outputs.at(std::to_string(i)).completions[0];
    same_start += std::equal(want.begin(), want.begin() + 8, got.token_ids.begin());
    std::printf("%s bf16, case %zu: %s\n", GetParam().name, i, got.text.substr(0, 300).c_str());
  }
  EXPECT_GE(same_start * 2, static_cast<int>(golden_["cases"].size())) << "fewer than half begin as in float32";
}

INSTANTIATE_TEST_SUITE_P(Models, RealModelTest,
                         testing::Values(RealModel{"smollm2-135m", {{1, 1, 1}, {3, 1, 1}, {1, 2, 1}, {3, 2, 1}}},
                                         RealModel{"qwen2.5-coder-0.5b", {{1, 1, 1}, {2, 1, 1}, {1, 2, 1}, {2, 2, 1}}}),
                         [](const auto& info) {
                           return std::string(info.param.name).substr(0, 6) == "smollm" ? "SmolLM2" : "Qwen25Coder";
                         });

}  // namespace
}  // namespace cairn
