// The launcher's small parts: sizes, names, exit codes, progress, tables.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "launcher/byte_size.h"
#include "launcher/exit_codes.h"
#include "launcher/nearest_name.h"
#include "launcher/progress.h"
#include "launcher/topology.h"

namespace cairn {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

int64_t Bytes(const std::string& text) {
  ByteSize size;
  std::string error;
  return AbslParseFlag(text, &size, &error) ? size.bytes : -1;
}

TEST(ByteSizeTest, ParsesWhatPeopleWrite) {
  EXPECT_EQ(Bytes("0"), 0);
  EXPECT_EQ(Bytes("1073741824"), 1073741824);
  EXPECT_EQ(Bytes("512M"), 512 << 20);
  EXPECT_EQ(Bytes("512m"), 512 << 20);
  EXPECT_EQ(Bytes("2GiB"), int64_t{2} << 30);
  EXPECT_EQ(Bytes("1.5 GiB"), int64_t{3} << 29);
  EXPECT_EQ(Bytes("2GB"), 2'000'000'000);
  EXPECT_EQ(Bytes("3kB"), 3000);
  EXPECT_EQ(Bytes("100B"), 100);
  EXPECT_EQ(Bytes("1T"), int64_t{1} << 40);
}

TEST(ByteSizeTest, RefusesTheRest) {
  for (const char* text : {"", "GiB", "12iB", "-1", "-1G", "1.5", "1e30G", "two", "2Gi", "nanG", "9999999T"}) {
    EXPECT_EQ(Bytes(text), -1) << text;
  }
}

TEST(ByteSizeTest, Formats) {
  EXPECT_EQ(FormatBytes(640), "640 B");
  EXPECT_EQ(FormatBytes(1536), "1.50 KiB");
  EXPECT_EQ(FormatBytes(5.0 * (int64_t{1} << 40)), "5.00 TiB");
}

TEST(NearestNameTest, FindsTypingErrors) {
  const std::vector<std::string> names = {"temperature", "top_p", "top_k", "seed"};
  EXPECT_EQ(NearestName("temprature", names), "temperature");
  EXPECT_EQ(NearestName("tmeperature", names), "temperature");
  EXPECT_EQ(NearestName("topk", names), "top_k");
  EXPECT_EQ(NearestName("sede", names), "seed");
  EXPECT_EQ(NearestName("frequency", names), "");
  EXPECT_EQ(NearestName(std::string(100000, 't'), names), "");
}

TEST(ExitCodesTest, FromKindAndFromPayload) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("x")), 65);
  EXPECT_EQ(ExitCodeOf(absl::ResourceExhaustedError("x")), 65);
  EXPECT_EQ(ExitCodeOf(absl::DeadlineExceededError("x")), 70);
  EXPECT_EQ(ExitCodeOf(absl::InternalError("x")), 70);
  EXPECT_EQ(ExitCodeOf(UsageError("x")), 64);
  EXPECT_EQ(ExitCodeOf(WithExitCode(absl::UnavailableError("x"), kExitOutput)), 74);
  EXPECT_TRUE(WithExitCode(absl::OkStatus(), kExitOutput).ok());
}

TEST(ProgressTest, Durations) {
  EXPECT_EQ(FormatDuration(0.24), "0.2 s");
  EXPECT_EQ(FormatDuration(9.96), "10 s");
  EXPECT_EQ(FormatDuration(41.4), "41 s");
  EXPECT_EQ(FormatDuration(185), "3:05");
  EXPECT_EQ(FormatDuration(7385), "2:03:05");
}

TEST(ProgressTest, BarShowsShareRateAndTimeLeft) {
  const ProgressState state{
      .done = 30, .failed = 2, .total = 120, .generated_tokens = 900, .finished_tokens = 900, .running = 12};
  const std::string bar = ProgressBar(state, 10, 90.04);
  EXPECT_EQ(bar, "30/120 [######..................] 90.0 tokens/s, 12 running, 2 failed, 30 s left");
  EXPECT_THAT(ProgressBar({.done = 3, .failed = 0, .total = {}, .generated_tokens = 1, .running = 1}, 1, 1),
              Not(HasSubstr("[")));
}

TEST(ProgressTest, TimeLeftCountsWhatRunningAnswersHaveAlready) {
  // 100 answers side by side, the short ones done. (Counts and time of a run that took 49 s more; its tokens are
  // guessed.)
  ProgressState wave{.done = 24, .total = 100, .generated_tokens = 25320, .finished_tokens = 4800, .running = 76};
  EXPECT_THAT(ProgressBar(wave, 135, 196), HasSubstr(", 55 s left"));
  // Round after round of 10: what runs is expected to become as long as what is done.
  ProgressState rounds{.done = 50, .total = 100, .generated_tokens = 5500, .finished_tokens = 5000, .running = 10};
  EXPECT_THAT(ProgressBar(rounds, 55, 100), HasSubstr(", 45 s left"));
  rounds.done_before = 40;  // by an earlier run, whose tokens are not counted
  EXPECT_THAT(ProgressBar(rounds, 55, 100), HasSubstr(", 4:05 left"));
  // Without any token.
  ProgressState failed{.done = 50, .failed = 50, .total = 100, .running = 0};
  EXPECT_THAT(ProgressBar(failed, 10, 0), HasSubstr(", 10 s left"));
}

TEST(ProgressTest, LinesComeEarlyThenEveryTenSeconds) {
  std::vector<std::string> printed;
  Progress progress(Progress::Style::kLines, [&](const std::string& text) { printed.push_back(text); });
  ProgressState state{.done = 0, .failed = 0, .total = 10, .generated_tokens = 0, .running = 4};
  for (int tenths = 0; tenths <= 205; ++tenths) {
    state.generated_tokens = 10 * tenths;
    state.done = tenths / 25;
    progress.Update(state, 100 + tenths / 10.0);
  }
  ASSERT_EQ(printed.size(), 2u);
  EXPECT_THAT(printed[0], HasSubstr("0/10 requests done after 1.0 s, 100.0 tokens/s"));
  EXPECT_THAT(printed[1], HasSubstr("4/10 requests done after 11 s, 100.0 tokens/s"));
  progress.Finish(state, 121);
  EXPECT_THAT(printed.back(), HasSubstr("8/10 requests done after 21 s"));
}

TEST(ProgressTest, QuietPrintsNothingAndTheBarEndsItsLine) {
  std::string printed;
  const auto print = [&](const std::string& text) { printed += text; };
  Progress quiet(Progress::Style::kNone, print);
  quiet.Update({}, 0);
  quiet.Update({}, 100);
  quiet.Finish({}, 200);
  EXPECT_EQ(printed, "");
  Progress bar(Progress::Style::kBar, print);
  bar.Update({}, 0);
  bar.Update({}, 0.1);
  EXPECT_EQ(printed, "");
  bar.Update({}, 0.3);
  EXPECT_THAT(printed, HasSubstr("\r"));
  bar.Finish({}, 0.4);
  EXPECT_EQ(printed.back(), '\n');
}

TEST(TopologyTest, ColumnsAreAligned) {
  EXPECT_EQ(FormatTable({{"a", "long", "c"}, {"xyz", "b", "d"}}), "a    long  c\nxyz  b     d\n");
}

TEST(KvCacheLinesTest, SayWhatVllmSaysAndTheCompressedFigure) {
  const KvCapacity capacity = {.tokens = 1234567, .full_concurrency = 301.408, .compressed_concurrency = 1071.6};
  EngineOptions options;
  options.device = "cuda";
  options.max_model_len = 4096;
  EXPECT_EQ(KvCacheLines(capacity, options),
            "GPU KV cache size: 1,234,567 tokens\nMaximum concurrency for 4,096 tokens per request: 301.41x\n");
  options.device = "cpu";
  options.max_model_len = 512;
  options.compression.algorithm = "rkv";
  options.compression.budget = 1024;
  options.compression.buffer = 128;
  EXPECT_EQ(
      KvCacheLines(capacity, options),
      "KV cache size: 1,234,567 tokens\nMaximum concurrency for 512 tokens per request: 301.41x, compressed by rkv "
      "to 1024 + 128: 1071.60x\n");
  options.compression = {};
  options.kv_cache_dtype = "fp8";
  EXPECT_EQ(KvCacheLines(capacity, options),
            "KV cache size: 1,234,567 tokens in fp8\nMaximum concurrency for 512 tokens per request: 301.41x\n");
}

}  // namespace
}  // namespace cairn
