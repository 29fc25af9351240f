// The readers: questions and what is expected of them, bad files named by line.
#include "launcher/eval/task.h"

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "launcher/exit_codes.h"
#include "tests/launcher/temp_path.h"

namespace cairn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

std::string Write(const std::string& content) {
  const std::string path = TempPath("task_test.jsonl");
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

TaskOptions Options(const std::string& name, const std::string& content) {
  TaskOptions options;
  options.name = name;
  options.file = Write(content);
  return options;
}

TEST(TaskFileTest, ReadsEveryField) {
  const absl::StatusOr<Task> task = ReadTask(Options("file", R"({"prompt": "2 + 2?", "answer": 4, "match": "number"}
{"id": "b", "group": "g", "prompt": "Say yes.", "regex": "^yes", "max_tokens": 7}

{"prompt": "Capital?", "answer": ["Paris", "paris"]}
)"));
  ASSERT_TRUE(task.ok()) << task.status();
  ASSERT_THAT(task->questions, SizeIs(3));
  EXPECT_EQ(task->questions[0].id, "line-1");
  EXPECT_EQ(task->questions[0].expected.match, Match::kNumber);
  EXPECT_THAT(task->questions[0].expected.answers, ElementsAre("4"));
  EXPECT_EQ(task->questions[1].id, "b");
  EXPECT_EQ(task->questions[1].group, "g");
  EXPECT_EQ(task->questions[1].max_tokens, 7);
  EXPECT_TRUE(task->questions[1].expected.regex->Matches("yes!"));
  EXPECT_EQ(task->questions[2].id, "line-4");
  EXPECT_EQ(task->questions[2].expected.match, Match::kExact);
}

TEST(TaskFileTest, BadLinesAreNamed) {
  const std::string good = "{\"prompt\": \"p\", \"answer\": \"a\"}\n";
  const struct {
    const char* line;
    const char* expected;
  } cases[] = {
      {"{\"prompt\": \"p\"", ":2: "},
      {"[1]", ":2: expected a JSON object"},
      {R"({"answer": "a"})", ":2: field \"prompt\" is missing"},
      {R"({"prompt": "", "answer": "a"})", ":2: field \"prompt\" is empty"},
      {R"({"prompt": 5, "answer": "a"})", ":2: field \"prompt\": expected a text"},
      {R"({"prompt": "p"})", ":2: give one of the fields \"answer\" and \"regex\""},
      {R"({"prompt": "p", "answer": "a", "regex": "a"})", ":2: give one of"},
      {R"({"prompt": "p", "answer": null})", ":2: field \"answer\": expected a text, a number"},
      {R"({"prompt": "p", "answer": []})", ":2: field \"answer\": the list is empty"},
      {R"({"prompt": "p", "regex": "(a"})", ":2: field \"regex\": the regular expression does not compile"},
      {R"({"prompt": "p", "answer": "a", "match": "fuzzy"})", ":2: field \"match\" is \"fuzzy\""},
      {R"({"prompt": "p", "regex": "a", "match": "exact"})", ":2: field \"match\" belongs to \"answer\""},
      {R"({"prompt": "p", "answer": "a", "max_tokens": 0})", ":2: field \"max_tokens\""},
      {R"({"promt": "p", "answer": "a"})", ":2: unknown field \"promt\", did you mean \"prompt\"?"},
  };
  for (const auto& c : cases) {
    const absl::Status status = ReadTask(Options("file", absl::StrCat(good, c.line, "\n"))).status();
    EXPECT_EQ(ExitCodeOf(status), kExitBadInput) << c.line;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.expected));
  }
  EXPECT_THAT(std::string(ReadTask(Options("file", R"({"id": "a", "prompt": "p", "answer": "a"}
{"id": "a", "prompt": "q", "answer": "a"})"))
                              .status()
                              .message()),
              HasSubstr("two questions have the id 'a'"));
}

TEST(TaskTest, NamesAndFlags) {
  TaskOptions options;
  options.name = "gsm8";
  EXPECT_THAT(std::string(ReadTask(options).status().message()), HasSubstr("did you mean gsm8k?"));
  options.name = "gsm8k";
  EXPECT_THAT(std::string(ReadTask(options).status().message()), HasSubstr("--task=gsm8k needs --input-file"));
  options.file = "/nowhere/test.jsonl";
  EXPECT_THAT(std::string(ReadTask(options).status().message()), HasSubstr("/nowhere/test.jsonl"));
  options.lengths = {5};
  EXPECT_THAT(std::string(ReadTask(options).status().message()), HasSubstr("--lengths belongs to"));
  options = Options("file", "{\"prompt\": \"p\", \"answer\": \"a\"}\n");
  options.first_question = 1;
  EXPECT_THAT(std::string(ReadTask(options).status().message()), HasSubstr("no question"));
}

TEST(MathTasksTest, Gsm8k) {
  const std::string lines = R"({"question": "Ducks?", "answer": "16 - 3 = <<16-3=13>>13\n#### 1,318"}
{"question": "B?", "answer": "#### 5"}
{"question": "C?", "answer": "#### -2.50"}
)";
  TaskOptions options = Options("gsm8k", lines);
  const absl::StatusOr<Task> task = ReadTask(options);
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_THAT(task->questions[0].expected.answers, ElementsAre("1318"));
  EXPECT_THAT(task->questions[2].expected.answers, ElementsAre("-2.5"));
  EXPECT_TRUE(task->chat);
  EXPECT_THAT(task->prompt_template, HasSubstr("\\boxed{}"));
  options.first_question = 1;
  options.num_questions = 1;
  const absl::StatusOr<Task> second = ReadTask(options);
  ASSERT_THAT(second->questions, SizeIs(1));
  EXPECT_EQ(second->questions[0].id, "gsm8k-1");
  EXPECT_EQ(second->source_hash, task->source_hash);
  EXPECT_THAT(std::string(ReadTask(Options("gsm8k", R"({"question": "q", "answer": "5"})")).status().message()),
              HasSubstr(":1: field \"answer\" has no number after"));
  EXPECT_THAT(std::string(ReadTask(Options("gsm8k", R"({"question": "q", "answer": "#### x"})")).status().message()),
              HasSubstr("is no number"));
}

TEST(MathTasksTest, Math500AndAime) {
  const absl::StatusOr<Task> math = ReadTask(Options(
      "math500", R"({"problem": "p", "solution": "s", "answer": "\\frac{1}{2}", "level": 2, "unique_id": "x"})"));
  ASSERT_TRUE(math.ok()) << math.status();
  EXPECT_EQ(math->questions[0].group, "level 2");
  EXPECT_TRUE(GradeAnswer(math->questions[0].expected, "\\boxed{0.5}").right);
  const absl::StatusOr<Task> aime = ReadTask(Options("aime", R"({"ID": "2024-I-1", "Problem": "p", "Answer": 25}
{"problem": "q", "answer": "025"})"));
  ASSERT_TRUE(aime.ok()) << aime.status();
  EXPECT_TRUE(GradeAnswer(aime->questions[1].expected, "so \\boxed{25}").right);
  EXPECT_TRUE(GradeAnswer(aime->questions[0].expected, "so \\boxed{025}").right);
  EXPECT_FALSE(GradeAnswer(aime->questions[0].expected,
                           "the last number is 25, which I found after a long search in "
                           "which every other candidate was excluded")
                   .right);
  EXPECT_THAT(std::string(ReadTask(Options("aime", R"({"problem": "q", "answer": "1000"})")).status().message()),
              HasSubstr("from 0 to 999"));
}

TEST(DemoTaskTest, LengthsOfTheFile) {
  const std::string line =
      R"({"id": "demo-%-#", "prompt": "p<think>", "answer": "#a1", "length": %, "tokens": 506, "prompt_tokens": 38})";
  std::string lines;
  for (const char* length : {"500", "1000"}) {
    for (const char* index : {"0", "1", "2"}) {
      std::string text = line;
      for (size_t at; (at = text.find('%')) != std::string::npos;) text.replace(at, 1, length);
      text.replace(text.find('#'), 1, index);
      absl::StrAppend(&lines, text, "\n");
    }
  }
  TaskOptions options = Options("demo", lines);
  EXPECT_THAT(ReadTask(options)->questions, SizeIs(3));  // 500 alone
  options.lengths = {1000, 500};
  options.num_questions = 2;
  options.first_question = 1;
  const absl::StatusOr<Task> task = ReadTask(options);
  ASSERT_THAT(task->questions, SizeIs(4));
  EXPECT_EQ(task->questions[0].id, "demo-500-1");
  EXPECT_EQ(task->questions[0].max_tokens, 585);
  EXPECT_FALSE(task->chat);
  options.lengths = {700};
  EXPECT_THAT(std::string(ReadTask(options).status().message()), HasSubstr("--lengths=700: "));
}

// One token a word.
absl::StatusOr<int64_t> CountWords(const std::string& text) {
  int64_t words = 0;
  bool inside = false;
  for (const char c : text) {
    const bool space = c == ' ' || c == '\n';
    words += !space && !inside;
    inside = !space;
  }
  return words;
}

TEST(NeedleTest, LengthsDepthsAndSeeds) {
  TaskOptions options;
  options.name = "needle";
  options.lengths = {200, 400};
  options.depths = {0, 50, 100};
  options.num_questions = 2;
  options.count_tokens = CountWords;
  const absl::StatusOr<Task> task = ReadTask(options);
  ASSERT_TRUE(task.ok()) << task.status();
  ASSERT_THAT(task->questions, SizeIs(12));
  for (const Question& question : task->questions) {
    const int64_t length = question.id.find("needle-200-") == 0 ? 200 : 400;
    const int64_t tokens = *CountWords(question.prompt);
    EXPECT_LE(tokens, length);
    EXPECT_GT(tokens, length - 20);  // a sentence is shorter
    ASSERT_THAT(question.expected.answers, SizeIs(1));
    const size_t at = question.prompt.find(question.expected.answers[0]);
    ASSERT_NE(at, std::string::npos);
    EXPECT_EQ(question.prompt.find(question.expected.answers[0], at + 1), std::string::npos);
    const double place = static_cast<double>(at) / static_cast<double>(question.prompt.size());
    if (question.group.find("depth 0 ") != std::string::npos) {
      EXPECT_LT(place, 0.25) << question.id;
    }
    if (question.group.find("depth 50 ") != std::string::npos) {
      EXPECT_NEAR(place, 0.5, 0.12) << question.id;
    }
    if (question.group.find("depth 100 ") != std::string::npos) {
      EXPECT_GT(place, 0.75) << question.id;
    }
  }
  EXPECT_NE(task->questions[0].prompt, task->questions[1].prompt);
  EXPECT_EQ(ReadTask(options)->questions[3].prompt, task->questions[3].prompt);
  options.seed = 1;
  EXPECT_NE(ReadTask(options)->questions[3].prompt, task->questions[3].prompt);
  EXPECT_NE(ReadTask(options)->source_hash, task->source_hash);
  options.depths = {101};
  EXPECT_THAT(std::string(ReadTask(options).status().message()), HasSubstr("--depths=101"));
  options.depths = {};
  options.lengths = {10};
  EXPECT_THAT(std::string(ReadTask(options).status().message()), HasSubstr("--lengths=10: the question alone has"));
}

TEST(NeedleTest, InATextOfOnesOwn) {
  std::string text;
  for (int i = 0; i < 40; ++i) absl::StrAppend(&text, "This is sentence number word", i, "\nof a long story. ");
  TaskOptions options = Options("needle", text);
  options.lengths = {150};
  options.count_tokens = CountWords;
  const absl::StatusOr<Task> task = ReadTask(options);
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_THAT(task->questions[0].prompt, HasSubstr("This is sentence number word"));
  EXPECT_THAT(task->questions[0].prompt, StartsWith("Some special magic numbers"));
  EXPECT_LE(*CountWords(task->questions[0].prompt), 150);
}

}  // namespace
}  // namespace cairn
