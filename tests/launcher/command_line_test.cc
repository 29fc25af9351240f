#include "launcher/command_line.h"

#include <fstream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/reflection.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "launcher/exit_codes.h"
#include "launcher/flags.h"
#include "tests/launcher/temp_path.h"

ABSL_DECLARE_FLAG(std::string, model);
ABSL_DECLARE_FLAG(int32_t, tensor_parallel_size);
ABSL_DECLARE_FLAG(int32_t, max_num_seqs);
ABSL_DECLARE_FLAG(float, temperature);

namespace cairn {
namespace {

using ::testing::HasSubstr;

const std::vector<Subcommand> kAll = {
    {"run-batch",
     "-i in -o out",
     "answers a file",
     {&kBatchFlags, &kModelFlags, &kParallelFlags, &kMemoryFlags, &kCompressionFlags, &kReportFlags, &kConfigFlags},
     nullptr},
    {"generate",
     "--chat TEXT",
     "answers a prompt",
     {&kPromptFlags, &kSamplingFlags, &kModelFlags, &kConfigFlags},
     nullptr},
};

// Flags are global: each test starts from the defaults and leaves them behind.
class CommandLineTest : public ::testing::Test {
 protected:
  absl::StatusOr<CommandLine> Parse(const std::vector<std::string>& arguments, int subcommand = 0) {
    return ParseCommandLine(arguments, kAll[subcommand], kAll);
  }
  std::string Error(const std::vector<std::string>& arguments, int subcommand = 0) {
    const absl::StatusOr<CommandLine> parsed = Parse(arguments, subcommand);
    EXPECT_FALSE(parsed.ok());
    EXPECT_EQ(ExitCodeOf(parsed.status()), kExitUsage);
    return std::string(parsed.status().message());
  }
  std::string WriteConfig(const std::string& text) {
    const std::string path = TempPath("command_line_test.yaml");
    std::ofstream(path) << text;
    return path;
  }

  absl::FlagSaver saver_;
};

TEST_F(CommandLineTest, AcceptsEverySpelling) {
  const absl::StatusOr<CommandLine> parsed =
      Parse({"--model", "dir", "-tp", "2", "--max_num_seqs=7", "--input-file=in", "-o", "out", "--overwrite"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(absl::GetFlag(FLAGS_model), "dir");
  EXPECT_EQ(absl::GetFlag(FLAGS_tensor_parallel_size), 2);
  EXPECT_EQ(absl::GetFlag(FLAGS_max_num_seqs), 7);
  EXPECT_EQ(absl::GetFlag(FLAGS_input_file), "in");
  EXPECT_EQ(absl::GetFlag(FLAGS_output_file), "out");
  EXPECT_TRUE(absl::GetFlag(FLAGS_overwrite));
  EXPECT_TRUE(parsed->given.contains("tensor_parallel_size"));
  EXPECT_FALSE(parsed->help);
}

TEST_F(CommandLineTest, TheLastOneWins) {
  ASSERT_TRUE(Parse({"-tp", "2", "--tensor-parallel-size=4", "--overwrite", "--no-overwrite"}).ok());
  EXPECT_EQ(absl::GetFlag(FLAGS_tensor_parallel_size), 4);
  EXPECT_FALSE(absl::GetFlag(FLAGS_overwrite));
}

TEST_F(CommandLineTest, BooleansTakeValuesOnlyAfterEquals) {
  ASSERT_TRUE(Parse({"--overwrite=true", "--quiet=false"}).ok());
  EXPECT_TRUE(absl::GetFlag(FLAGS_overwrite));
  EXPECT_FALSE(absl::GetFlag(FLAGS_quiet));
  EXPECT_THAT(Error({"--overwrite", "true"}), HasSubstr("unexpected argument 'true' after --overwrite"));
  EXPECT_THAT(Error({"--overwrite=maybe"}), HasSubstr("--overwrite='maybe': expected true or false"));
}

TEST_F(CommandLineTest, NegativeNumbersAndDashesAreValues) {
  ASSERT_TRUE(Parse({"--chat", "-", "--temperature", "-1", "--prompt=--x"}, 1).ok());
  EXPECT_EQ(absl::GetFlag(FLAGS_chat), "-");
  EXPECT_EQ(absl::GetFlag(FLAGS_temperature), -1);
  EXPECT_EQ(absl::GetFlag(FLAGS_prompt), "--x");
}

TEST_F(CommandLineTest, UnknownFlagsNameTheNearest) {
  EXPECT_THAT(Error({"--max-num-seq", "3"}), HasSubstr("unknown flag --max-num-seq, did you mean --max-num-seqs?"));
  EXPECT_THAT(Error({"--modle=x"}), HasSubstr("did you mean --model?"));
  EXPECT_THAT(Error({"--no-modle"}), HasSubstr("unknown flag --no-modle"));
  const std::string far = Error({"--zzzzzzzzzzz"});
  EXPECT_THAT(far, HasSubstr("unknown flag --zzzzzzzzzzz; `cairn run-batch --help`"));
}

TEST_F(CommandLineTest, AFlagOfAnotherSubcommandSaysWhose) {
  EXPECT_THAT(Error({"--prompt", "x"}), HasSubstr("--prompt is a flag of `cairn generate`, not of `cairn run-batch`"));
}

TEST_F(CommandLineTest, MissingAndBadValues) {
  EXPECT_THAT(Error({"--model"}), HasSubstr("--model needs a value"));
  EXPECT_THAT(Error({"--model", "--dtype", "float32"}), HasSubstr("--model needs a value"));
  EXPECT_THAT(Error({"-tp", "two"}), HasSubstr("-tp='two': expected a whole number of 32 bits"));
  EXPECT_THAT(Error({"-tp=99999999999"}), HasSubstr("-tp='99999999999'"));
  EXPECT_THAT(Error({"--kv-cache-memory-bytes=2 GiBs"}), HasSubstr("expected bytes such as 2GiB"));
  EXPECT_THAT(Error({"--no-model"}), HasSubstr("unknown flag --no-model"));
  EXPECT_THAT(Error({"in.jsonl"}), HasSubstr("unexpected argument 'in.jsonl'"));
}

TEST_F(CommandLineTest, ConfigFillsWhatNoFlagGave) {
  const std::string path = WriteConfig("model: from-file\ntensor-parallel-size: 4\nmax_num_seqs: 9\noverwrite: true\n");
  const absl::StatusOr<CommandLine> parsed = Parse({"-tp", "2"});
  ASSERT_TRUE(parsed.ok());
  const absl::Status applied = ApplyConfigFile(path, *parsed, kAll);
  ASSERT_TRUE(applied.ok()) << applied;
  EXPECT_EQ(absl::GetFlag(FLAGS_model), "from-file");
  EXPECT_EQ(absl::GetFlag(FLAGS_tensor_parallel_size), 2);
  EXPECT_EQ(absl::GetFlag(FLAGS_max_num_seqs), 9);
  EXPECT_TRUE(absl::GetFlag(FLAGS_overwrite));
}

TEST_F(CommandLineTest, ConfigErrorsNameFileAndLine) {
  const absl::StatusOr<CommandLine> parsed = Parse({});
  ASSERT_TRUE(parsed.ok());
  const auto error = [&](const std::string& text) {
    const absl::Status status = ApplyConfigFile(WriteConfig(text), *parsed, kAll);
    EXPECT_EQ(ExitCodeOf(status), kExitUsage);
    return std::string(status.message());
  };
  EXPECT_THAT(error("model: x\nmax_num_seqz: 3\n"),
              HasSubstr("command_line_test.yaml:2: unknown key max_num_seqz, did you mean max_num_seqs?"));
  EXPECT_THAT(error("max_num_seqs: many\n"), HasSubstr("command_line_test.yaml:1: max_num_seqs: 'many'"));
  EXPECT_THAT(error("config: other.yaml\n"), HasSubstr("cannot name another"));
  EXPECT_THAT(std::string(ApplyConfigFile("/no/such.yaml", *parsed, kAll).message()), HasSubstr("/no/such.yaml"));
}

TEST_F(CommandLineTest, ConfigHasABlockForCompression) {
  const absl::StatusOr<CommandLine> parsed = Parse({"--kv-budget", "64"});
  ASSERT_TRUE(parsed.ok());
  const auto apply = [&](const std::string& text) {
    return ApplyConfigFile(WriteConfig("kv_cache_compression_config:\n" + text), *parsed, kAll);
  };
  const absl::Status applied = apply(
      "  algorithm: rkv\n  budget: 128\n  buffer-size: 32\n  window_size: 4\n  schedule: pyramid\n  beta: 10\n"
      "  scope: layer\n  mix_lambda: 0.2\n  similarity_threshold: 0.6\n  kernel_size: 5\n  num_sinks: 2\n"
      "  prefill: false\n  recent_ratio: 0.1\n");
  ASSERT_TRUE(applied.ok()) << applied;
  const CompressionConfig config = UncheckedEngineOptionsFromFlags()->compression;
  EXPECT_EQ(config.algorithm, "rkv");
  EXPECT_EQ(config.budget, 64);  // the flag wins
  EXPECT_EQ(config.buffer, 32);
  EXPECT_EQ(config.window, 4);
  EXPECT_EQ(config.schedule, "pyramid");
  EXPECT_EQ(config.beta, 10);
  EXPECT_EQ(config.scope, "layer");
  EXPECT_EQ(config.mix_lambda, 0.2);
  EXPECT_EQ(config.similarity_threshold, 0.6);
  EXPECT_EQ(config.kernel_size, 5);
  EXPECT_EQ(config.num_sinks, 2);
  EXPECT_EQ(config.recent_ratio, 0.1);
  EXPECT_FALSE(config.prefill);
  EXPECT_THAT(std::string(apply("  budgett: 3\n").message()),
              HasSubstr("unknown key kv_cache_compression_config.budgett"));
  EXPECT_THAT(std::string(apply("  algorithm: rkv\nkv_compression: rkv\n").message()),
              HasSubstr("says again what kv_cache_compression_config.algorithm has said"));
}

TEST_F(CommandLineTest, ConfigMayHoldKeysOfOtherSubcommands) {
  const absl::StatusOr<CommandLine> parsed = Parse({});
  ASSERT_TRUE(parsed.ok());
  EXPECT_TRUE(ApplyConfigFile(WriteConfig("temperature: 0.5\nmodel: m\n"), *parsed, kAll).ok());
  EXPECT_EQ(absl::GetFlag(FLAGS_temperature), 1.0f);
}

TEST_F(CommandLineTest, HelpListsEveryFlagWithItsDefault) {
  EXPECT_TRUE(Parse({"-tp", "2", "--help"})->help);
  const std::string help = SubcommandHelp(kAll[0]);
  for (const FlagGroup* group : kAll[0].groups) {
    EXPECT_THAT(help, HasSubstr(group->title));
    for (const FlagEntry& entry : group->flags) EXPECT_THAT(help, HasSubstr("--" + FlagSpelling(entry.name)));
  }
  EXPECT_THAT(help, HasSubstr("-tp, --tensor-parallel-size N"));
  EXPECT_THAT(help, HasSubstr("[64]"));
  EXPECT_THAT(CommandHelp(kAll), HasSubstr("cairn run-batch   answers a file"));
}

TEST_F(CommandLineTest, OptionsFromFlags) {
  ASSERT_TRUE(Parse({"--model=m", "-tp=2", "-pp", "3", "--kv-cache-memory-bytes=1.5GiB", "--load-format=dummy"}).ok());
  const absl::StatusOr<EngineOptions> options = EngineOptionsFromFlags();
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->parallel.tp, 2);
  EXPECT_EQ(options->parallel.pp, 3);
  EXPECT_EQ(options->kv_cache_memory_bytes, int64_t{3} << 29);
  EXPECT_EQ(options->load_format, LoadFormat::kDummy);
  ASSERT_TRUE(Parse({"--load-format=gguf"}).ok());
  EXPECT_EQ(ExitCodeOf(EngineOptionsFromFlags().status()), kExitUsage);
  ASSERT_TRUE(Parse({"--load-format=auto", "--block-size=0"}).ok());
  EXPECT_THAT(std::string(EngineOptionsFromFlags().status().message()), HasSubstr("--block-size=0"));
}

}  // namespace
}  // namespace cairn
