#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/config/model_config_reader.h"
#include "engine/engine.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/core/status_macros.h"
#include "launcher/doctor_checks.h"
#include "launcher/doctor_report.h"
#include "parallel/comm/thread_channel.h"

namespace cairn {
namespace {

using ::testing::HasSubstr;

std::string Checkpoint(const std::string& family) {
  return std::string(CAIRN_SOURCE_DIR) + "/tests/data/checkpoints/" + family;
}

EngineOptions Options(const std::string& family) {
  EngineOptions options;
  options.model = Checkpoint(family);
  return options;
}

TEST(DoctorCoresTest, WarnsOfWhatSlowsAHostDown) {
  const auto fix = [](int ranks, int bound, int online, int threads) {
    const std::vector<Finding> findings = CheckCores(ranks, bound, online, threads);
    EXPECT_EQ(findings[0].verdict == Verdict::kOk, findings[0].fix.empty());
    return findings[0].fix;
  };
  EXPECT_EQ(fix(1, 16, 16, 0), "");
  EXPECT_EQ(fix(4, 4, 16, 0), "");   // --map-by slot:PE=4
  EXPECT_EQ(fix(4, 16, 16, 0), "");  // unbound: 4 threads each
  EXPECT_THAT(fix(4, 1, 2, 0), HasSubstr("start at most 2 ranks"));
  EXPECT_THAT(fix(2, 1, 16, 0), HasSubstr("--map-by slot:PE=8"));  // mpirun's default: bound to a core each
  EXPECT_THAT(fix(2, 1, 16, 4), HasSubstr("--bind-to none, or --map-by slot:PE=4"));
  EXPECT_THAT(fix(4, 16, 16, 8), HasSubstr("--threads=4"));
}

TEST(DoctorModelTest, ReadsHeadersAndSaysWhatIsMissing) {
  std::optional<ModelConfig> config;
  const std::vector<Finding> good = CheckModelFiles(Options("qwen2"), config);
  ASSERT_TRUE(config.has_value());
  ASSERT_EQ(good.size(), 3u);
  for (const Finding& finding : good) EXPECT_EQ(finding.verdict, Verdict::kOk) << finding.detail;
  const std::vector<Finding> no_template = CheckModelFiles(Options("llama2"), config);
  EXPECT_EQ(no_template[1].check, "tokenizer");
  EXPECT_EQ(no_template[1].verdict, Verdict::kWarn);
  config.reset();
  const std::vector<Finding> none = CheckModelFiles(Options("no-such"), config);
  EXPECT_FALSE(config.has_value());
  ASSERT_EQ(none.size(), 1u);
  EXPECT_EQ(none[0].verdict, Verdict::kFail);
}

TEST(DoctorShardsTest, NamesSizesThatWork) {
  const ModelConfig config = *ReadModelConfig(Checkpoint("qwen2"));
  const auto verdict = [&](int tp, int pp, const std::string& partition) {
    EngineOptions options;
    options.parallel = {.tp = tp, .pp = pp, .dp = 1};
    options.pp_layer_partition = partition;
    std::vector<Range> stages;
    const std::vector<Finding> findings = CheckShards(options, config, stages);
    EXPECT_EQ(findings[0].verdict == Verdict::kOk, static_cast<int>(stages.size()) == pp);
    return findings[0].verdict;
  };
  EXPECT_EQ(verdict(1, 1, "auto"), Verdict::kOk);
  EXPECT_EQ(verdict(4, 3, "auto"), Verdict::kOk);
  EXPECT_EQ(verdict(2, 2, "3,1"), Verdict::kOk);
  EXPECT_EQ(verdict(3, 1, "auto"), Verdict::kFail);
  EXPECT_EQ(verdict(1, 5, "auto"), Verdict::kFail);
  EXPECT_EQ(verdict(1, 2, "3,2"), Verdict::kFail);
}

TEST(DoctorMemoryTest, FailsWithoutRoomAndWarnsOfShortRoom) {
  const ModelConfig config = *ReadModelConfig(Checkpoint("qwen2"));
  const auto finding = [&](int64_t available) {
    return CheckMemory(Options("qwen2"), config, {0, 4}, {}, {Device(), available})[0];
  };
  EXPECT_EQ(finding(int64_t{1} << 30).verdict, Verdict::kOk);
  EXPECT_EQ(finding(300'000).verdict, Verdict::kFail);
  // Weights of 372 KiB; a token takes 4 layers x 2 heads x 8 x 2 x 2 bytes, a sequence of 512 tokens half a MiB.
  const Finding tight = finding(500'000);
  EXPECT_EQ(tight.verdict, Verdict::kWarn);
  EXPECT_THAT(tight.fix, HasSubstr("--max-model-len="));
  EXPECT_THAT(tight.fix, HasSubstr("--kv-cache-dtype=fp8"));
  EngineOptions fp8 = Options("qwen2");
  fp8.kv_cache_dtype = "fp8";  // half of it is there
  EXPECT_EQ(CheckMemory(fp8, config, {0, 4}, {}, {Device(), 500'000})[0].verdict, Verdict::kOk);
}

// The estimate is what the engine then holds.
TEST(DoctorMemoryTest, WeightBytesAreThoseOfTheEngine) {
  const struct {
    const char* family;
    ParallelSizes sizes;
    const char* dtype;
    const char* quantization = "none";
  } cases[] = {{"qwen2", {1, 1, 1}, "float32"},          {"qwen2", {4, 1, 1}, "bfloat16"},
               {"llama3", {2, 2, 1}, "float32"},         {"qwen3", {1, 3, 1}, "bfloat16"},
               {"llama2", {2, 1, 1}, "float16"},         {"mistral", {1, 2, 1}, "auto"},
               {"llama3", {2, 1, 1}, "auto", "fp8"},     {"qwen3", {1, 2, 1}, "float32", "fp8"},
               {"llama2", {1, 1, 1}, "bfloat16", "int8"}};
  for (const auto& c : cases) {
    const ModelConfig config = *ReadModelConfig(Checkpoint(c.family));
    const std::vector<absl::Status> statuses =
        RunThreadRanks(c.sizes.world(), [&](ControlChannel& world) -> absl::Status {
          EngineOptions options = Options(c.family);
          options.dtype = c.dtype;
          options.quantization = c.quantization;
          options.parallel = c.sizes;
          options.kv_cache_memory_bytes = 1 << 20;
          CAIRN_ASSIGN_OR_RETURN(ProcessGroups groups, MakeProcessGroups(&world, c.sizes));
          CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, Engine::Create(options, std::move(groups)));
          if (world.rank() != 0) return absl::OkStatus();
          const DType compute = engine->options().dtype == "float32"    ? DType::kFloat32
                                : engine->options().dtype == "bfloat16" ? DType::kBFloat16
                                                                        : DType::kFloat16;
          for (const RankInfo& rank : engine->ranks()) {
            // The engine pads the rows of a matrix to whole panels, which shows in models as small as these.
            const int64_t estimate =
                WeightBytes(config, rank.layers, rank.at, c.sizes, compute, *ParseQuantization(c.quantization));
            EXPECT_LE(estimate, rank.weight_bytes) << c.family << " rank " << rank.world_rank;
            EXPECT_GE(static_cast<double>(estimate), 0.95 * static_cast<double>(rank.weight_bytes))
                << c.family << " rank " << rank.world_rank;
          }
          return absl::OkStatus();
        });
    for (const absl::Status& status : statuses) EXPECT_TRUE(status.ok()) << c.family << ": " << status;
  }
}

TEST(DoctorGroupsTest, TimesAndChecksEveryGroup) {
  const ParallelSizes sizes = {.tp = 2, .pp = 2, .dp = 1};
  const std::vector<absl::Status> statuses = RunThreadRanks(4, [&](ControlChannel& world) -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(ProcessGroups groups, MakeProcessGroups(&world, sizes));
    const std::vector<Finding> findings = CheckGroups(groups);
    for (const Finding& finding : findings) EXPECT_EQ(finding.verdict, Verdict::kOk) << finding.detail;
    EXPECT_EQ(findings.size(), world.rank() == 0 ? 2u : 0u);
    for (const Finding& finding : findings) EXPECT_THAT(finding.detail, HasSubstr(" us for 16 KiB"));
    return absl::OkStatus();
  });
  for (const absl::Status& status : statuses) EXPECT_TRUE(status.ok()) << status;
}

TEST(DoctorReportTest, EqualFindingsBecomeOneLine) {
  const Finding same = {"binary", Verdict::kOk, "cairn", "", false};
  const auto memory = [](const char* detail) { return Finding{"memory", Verdict::kWarn, detail, "buy some", false}; };
  const std::vector<std::string> hosts = {"a", "a", "b", "b"};
  const std::vector<ReportLine> lines =
      MergeFindings({{same, memory("4"), {"tp", Verdict::kFail, "late", "wait", true}},
                     {same, memory("5")},
                     {same, memory("4")},
                     DecodeFindings(EncodeFindings({same, memory("4")}))},
                    hosts);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0].where, "all ranks");
  EXPECT_EQ(lines[1].finding.detail, "4");
  EXPECT_EQ(lines[1].where, "ranks 0,2-3 (a .. b)");
  EXPECT_EQ(lines[2].finding.detail, "5");
  EXPECT_EQ(lines[2].where, "rank 1 (a)");
  EXPECT_EQ(lines[3].finding.check, "tp");
  EXPECT_EQ(ReportExitCode(lines), 70);
  EXPECT_THAT(ReportTable(lines), HasSubstr("fix: buy some"));
  const nlohmann::ordered_json json = ReportJson(lines);
  EXPECT_EQ(json["ok"], false);
  EXPECT_EQ(json["checks"][3]["verdict"], "fail");
}

TEST(DoctorReportTest, ExitCodes) {
  const auto code = [](Verdict verdict, bool among_ranks) {
    return ReportExitCode({{{"check", verdict, "", "", among_ranks}, "here"}});
  };
  EXPECT_EQ(code(Verdict::kOk, true), 0);
  EXPECT_EQ(code(Verdict::kWarn, true), 0);
  EXPECT_EQ(code(Verdict::kFail, false), 65);
  EXPECT_EQ(code(Verdict::kFail, true), 70);
}

}  // namespace
}  // namespace cairn
