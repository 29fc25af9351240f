// From records to figures, the directory that keeps them, and what is drawn of them.
#include "launcher/eval/results.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "launcher/eval/eval_directory.h"
#include "launcher/eval/plot.h"
#include "launcher/eval/report.h"
#include "launcher/eval/svg.h"
#include "launcher/exit_codes.h"
#include "tests/launcher/temp_path.h"

namespace cairn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

Task FourQuestions() {
  Task task{.name = "test", .source = "made up"};
  for (int i = 0; i < 4; ++i) {
    task.questions.push_back({.id = absl::StrCat("q", i),
                              .group = i < 2 ? "first" : "second",
                              .prompt = "p",
                              .expected = {.match = Match::kNumber, .answers = {"5"}},
                              .max_tokens = std::nullopt});
  }
  return task;
}

json Record(const std::string& id, const std::string& text, int64_t kv, bool cut = false) {
  return {{"custom_id", id},
          {"response",
           {{"body",
             {{"choices", {{{"text", text}, {"finish_reason", cut ? "length" : "stop"}}}},
              {"usage", {{"prompt_tokens", 10}, {"completion_tokens", 30}}},
              {"cairn", {{"peak_kv_bytes", kv}, {"full_cache_kv_bytes", 4000}, {"compactions", 2}}}}}}},
          {"error", nullptr}};
}

AnswerSet Answers(const Task& task, const std::vector<std::string>& texts, int64_t kv) {
  AnswerSet answers;
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string id = AnswerId(task.questions[i], 0);
    answers[id] = *GradeRecord(Record(id, texts[i], kv, texts[i].empty()), task.questions[i]);
  }
  return answers;
}

CompressionConfig Rkv() {
  CompressionConfig config;
  config.algorithm = "rkv";
  config.budget = 20;
  return config;
}

EvalReport SmallReport() {
  const Task task = FourQuestions();
  const AnswerSet full = Answers(task, {"5", "5", "5", "4"}, 4000), mine = Answers(task, {"5", "4", "", "5"}, 1000);
  const std::vector<EvalSession> sessions = {
      {.setting = "full", .seconds = 2, .generated_tokens = 120, .peak_running = 4},
      {.setting = "full", .seconds = 2, .generated_tokens = 40}};
  EvalReport report = {.task = "test", .source = "made <up>", .model = "m&m", .num_questions = 4, .seeds = {0}};
  report.mean_full_length = 40;
  report.settings = {Summarize({}, task, {0}, full, &full, 40, sessions),
                     Summarize(Rkv(), task, {0}, mine, &full, 40, sessions)};
  return report;
}

TEST(ResultsTest, Figures) {
  const EvalReport report = SmallReport();
  const SettingResult &full = report.settings[0], &rkv = report.settings[1];
  EXPECT_EQ(full.accuracy.right, 3);
  EXPECT_EQ(full.accuracy.total, 4);
  EXPECT_FALSE(full.against_full.has_value());
  EXPECT_DOUBLE_EQ(full.tokens_per_second, 40);
  EXPECT_DOUBLE_EQ(*full.kept_share, 1);
  EXPECT_EQ(rkv.accuracy.right, 2);
  EXPECT_EQ(rkv.cut, 1);
  EXPECT_DOUBLE_EQ(rkv.mean_kv_bytes, 1000);
  EXPECT_DOUBLE_EQ(rkv.kept_kv_share, 0.25);
  EXPECT_DOUBLE_EQ(*rkv.kept_share, 0.5);
  EXPECT_EQ(rkv.seconds, 0);
  ASSERT_TRUE(rkv.against_full.has_value());
  EXPECT_THAT(rkv.against_full->lost, ElementsAre("q1/seed-0", "q2/seed-0"));
  EXPECT_THAT(rkv.against_full->won, ElementsAre("q3/seed-0"));
  EXPECT_DOUBLE_EQ(*rkv.against_full->share, 2.0 / 3);
  EXPECT_DOUBLE_EQ(rkv.against_full->p_value, 1);
  EXPECT_EQ(rkv.groups.at("first").right, 1);
  EXPECT_EQ(rkv.groups.at("second").total, 2);
}

TEST(ResultsTest, RequestsThatFailedCountAsWrong) {
  const Task task = FourQuestions();
  const json record = {{"custom_id", "q0/seed-0"}, {"response", nullptr}, {"error", {{"message", "too long"}}}};
  const absl::StatusOr<GradedAnswer> graded = GradeRecord(record, task.questions[0]);
  ASSERT_TRUE(graded.ok()) << graded.status();
  EXPECT_FALSE(graded->right);
  const SettingResult result = Summarize({}, task, {0}, {{"q0/seed-0", *graded}}, nullptr, std::nullopt, {});
  EXPECT_EQ(result.failed, 1);
  EXPECT_EQ(result.accuracy.total, 1);
  EXPECT_FALSE(GradeRecord({{"custom_id", "q0/seed-0"}}, task.questions[0]).ok());
}

TEST(ResultsTest, MeanLengthIsOfAnswersAlone) {
  EXPECT_EQ(MeanLength({}), 0);
  EXPECT_EQ(MeanLength({{"failed", {}}}), 0);
  EXPECT_EQ(MeanLength({{"a", {.answered = true, .found = "", .prompt_tokens = 3, .answer_tokens = 4}},
                        {"b", {.answered = true, .found = "", .prompt_tokens = 1, .answer_tokens = 1}},
                        {"failed", {}}}),
            4.5);
}

TEST(ReportTest, TableAndJson) {
  const EvalReport report = SmallReport();
  const std::string table = EvalReportTable(report);
  EXPECT_THAT(table, HasSubstr("full cache  -"));
  EXPECT_THAT(table, HasSubstr("75.0 (30.1 to 95.4)"));
  EXPECT_THAT(table, HasSubstr("accuracy %"));
  const ordered_json parsed = EvalReportJson(report);
  EXPECT_EQ(parsed["results"][1]["against_full_cache"]["lost"][0], "q1/seed-0");
  EXPECT_EQ(parsed["results"][1]["compression"]["budget"], 20);
  EXPECT_EQ(parsed["results"][1]["groups"]["first"]["right"], 1);
  EXPECT_TRUE(parsed["results"][1]["tokens_per_second"].is_null());
}

TEST(PlotTest, OneLineAMethodAndNothingFromOutside) {
  const std::string svg = AccuracyPlot(SmallReport());
  EXPECT_THAT(svg, HasSubstr("<svg xmlns=\"http://www.w3.org/2000/svg\""));
  EXPECT_THAT(svg, HasSubstr("m&amp;m"));
  EXPECT_THAT(svg, HasSubstr("rkv, budget 20: 50.0 %"));
  EXPECT_THAT(svg, Not(HasSubstr("href")));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
  EvalReport report = SmallReport();
  report.oracle = {{0.1, 0.98, {0.9, 1}}};
  EXPECT_THAT(AccuracyPlot(report), HasSubstr("oracle, 10 % kept: 98.0 % (90.0 to 100.0)"));
  // The full cache alone, and no setting at all.
  report.settings.resize(1);
  EXPECT_THAT(AccuracyPlot(report), Not(HasSubstr("nan")));
  report.settings.clear();
  report.oracle.clear();
  EXPECT_THAT(AccuracyPlot(report), Not(HasSubstr("nan")));
  EXPECT_EQ(XmlEscape("<a & \"b\">\n"), "&lt;a &amp; &quot;b&quot;&gt; ");
}

class EvalDirectoryTest : public ::testing::Test {
 protected:
  EvalDirectoryTest() : path_(TempPath("eval_directory_test")) { fs::remove_all(path_); }
  ~EvalDirectoryTest() override { fs::remove_all(path_); }
  absl::StatusOr<std::unique_ptr<EvalDirectory>> Open(const ordered_json& manifest, bool resume = false,
                                                      bool overwrite = false) {
    return EvalDirectory::Open(path_, manifest, resume, overwrite);
  }
  void Append(const std::string& name, const std::string& text) {
    std::ofstream(absl::StrCat(path_, "/", name), std::ios::binary | std::ios::app) << text;
  }
  std::string path_;
};

const ordered_json kManifest = {{"model", "m"}, {"temperature", 0.5}};

TEST_F(EvalDirectoryTest, ResumesWhatIsWholeAndCutsWhatIsTorn) {
  {
    const auto directory = Open(kManifest);
    ASSERT_TRUE(directory.ok()) << directory.status();
    ASSERT_TRUE((*directory)->AddSession({.setting = "full", .seconds = 1.5, .kv_cache_bytes = 77}).ok());
    const auto file = (*directory)->OpenAnswers("full", 0);
    ASSERT_TRUE((*file)->Write("{\"a\": 1}").ok());
    ASSERT_TRUE((*file)->Close().ok());
  }
  Append("answers/full.jsonl", "{\"a\": 2, \"tor");
  Append("sessions.jsonl", "{\"set");
  const auto directory = Open(kManifest, /*resume=*/true);
  ASSERT_TRUE(directory.ok()) << directory.status();
  ASSERT_THAT((*directory)->sessions(), SizeIs(1));
  EXPECT_EQ((*directory)->sessions()[0].kv_cache_bytes, 77);
  auto answers = (*directory)->ReadAnswers("full");
  ASSERT_THAT(answers->records, SizeIs(1));
  const auto file = (*directory)->OpenAnswers("full", answers->bytes);
  ASSERT_TRUE((*file)->Write("{\"a\": 3}").ok());
  ASSERT_TRUE((*file)->Close().ok());
  ASSERT_TRUE((*directory)->AddSession({.setting = "full", .seconds = 2}).ok());
  answers = (*directory)->ReadAnswers("full");
  ASSERT_THAT(answers->records, SizeIs(2));
  EXPECT_EQ(answers->records[1]["a"], 3);
  std::ifstream sessions(absl::StrCat(path_, "/sessions.jsonl"));
  EXPECT_EQ(std::count(std::istreambuf_iterator<char>(sessions), {}, '\n'), 2);
}

TEST_F(EvalDirectoryTest, RefusesWhatItMustNotMix) {
  { ASSERT_TRUE(Open(kManifest).ok()); }
  EXPECT_THAT(std::string(Open(kManifest).status().message()), HasSubstr("--resume goes on with it"));
  ordered_json other = kManifest;
  other["temperature"] = 0.7;
  const absl::Status mixed = Open(other, /*resume=*/true).status();
  EXPECT_EQ(ExitCodeOf(mixed), kExitUsage);
  EXPECT_THAT(std::string(mixed.message()), HasSubstr("temperature = 0.5, now it is 0.7"));
  Append("answers/full.jsonl", "{\"a\": 1}\nnot json\n{\"a\": 2}\n");
  {
    const auto directory = Open(kManifest, /*resume=*/true);
    const absl::Status damaged = (*directory)->ReadAnswers("full").status();
    EXPECT_EQ(ExitCodeOf(damaged), kExitBadInput);
    EXPECT_THAT(std::string(damaged.message()), HasSubstr("answers/full.jsonl:2: not a record"));
    EXPECT_THAT(std::string(Open(kManifest, /*resume=*/true).status().message()), HasSubstr("another running job"));
  }
  const auto anew = Open(other, false, /*overwrite=*/true);
  ASSERT_TRUE(anew.ok()) << anew.status();
  EXPECT_THAT((*anew)->ReadAnswers("full")->records, SizeIs(0));
}

}  // namespace
}  // namespace cairn
