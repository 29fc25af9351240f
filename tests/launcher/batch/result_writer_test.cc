#include "launcher/batch/result_writer.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "launcher/exit_codes.h"
#include "tests/launcher/temp_path.h"

namespace cairn {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class LineFileTest : public ::testing::Test {
 protected:
  LineFileTest() : path_(TempPath("line_file_test.jsonl")) { fs::remove(path_); }
  std::string Content() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  absl::Status OpenError(const std::string& path, bool overwrite = false, int input_fd = -1) {
    return LineFile::Open(path, "--output-file", overwrite, input_fd).status();
  }

  std::string path_;
};

TEST_F(LineFileTest, WritesWholeLines) {
  auto file = LineFile::Open(path_, "--output-file", false, -1);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE((*file)->Begin().ok());
  ASSERT_TRUE((*file)->Write("one").ok());
  EXPECT_EQ(Content(), "one\n");  // there at once, not at the end
  ASSERT_TRUE((*file)->Write(std::string(3 << 20, 'x')).ok());
  ASSERT_TRUE((*file)->SyncIfDue().ok());
  ASSERT_TRUE((*file)->Close().ok());
  EXPECT_EQ(Content().size(), 4u + (3 << 20) + 1);
}

TEST_F(LineFileTest, RefusesContentUnlessOverwrite) {
  std::ofstream(path_) << "old\n";
  const absl::Status refused = OpenError(path_);
  EXPECT_EQ(ExitCodeOf(refused), kExitUsage);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("holds 4 bytes already"));
  auto file = LineFile::Open(path_, "--output-file", true, -1);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(Content(), "old\n");  // until the job begins
  ASSERT_TRUE((*file)->Begin().ok());
  ASSERT_TRUE((*file)->Write("new").ok());
  EXPECT_EQ(Content(), "new\n");
}

TEST_F(LineFileTest, RefusesTheInputFileUnderAnyName) {
  std::ofstream(path_) << "requests\n";
  const std::string link = path_ + ".link";
  fs::remove(link);
  fs::create_symlink(path_, link);
  const int fd = open(path_.c_str(), O_RDONLY);
  for (const std::string& name : {path_, link}) {
    const absl::Status refused = OpenError(name, /*overwrite=*/true, fd);
    EXPECT_EQ(ExitCodeOf(refused), kExitUsage);
    EXPECT_THAT(std::string(refused.message()), HasSubstr("is the input file"));
  }
  close(fd);
}

TEST_F(LineFileTest, RefusesASecondWriter) {
  const auto first = LineFile::Open(path_, "--output-file", false, -1);
  ASSERT_TRUE(first.ok());
  const absl::Status second = OpenError(path_);
  EXPECT_EQ(ExitCodeOf(second), kExitUsage);
  EXPECT_THAT(std::string(second.message()), HasSubstr("another running job"));
}

TEST_F(LineFileTest, NamesAMissingDirectory) {
  const absl::Status status = OpenError("/no/such/dir/out.jsonl");
  EXPECT_EQ(ExitCodeOf(status), kExitOutput);
  EXPECT_THAT(std::string(status.message()), HasSubstr("create its directory /no/such/dir first"));
}

TEST_F(LineFileTest, FullDisk) {
  auto file = LineFile::Open("/dev/full", "--output-file", false, -1);
  ASSERT_TRUE(file.ok()) << file.status();
  const absl::Status status = (*file)->Write("x");
  EXPECT_EQ(ExitCodeOf(status), kExitOutput);
  EXPECT_THAT(std::string(status.message()), HasSubstr("writing to /dev/full: No space left on device"));
}

// A short write first, then the error: what a file system does when it runs full.
TEST_F(LineFileTest, CutsBackToTheLastWholeLine) {
  auto file = LineFile::Open(path_, "--output-file", false, -1);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE((*file)->Write(std::string(99, 'a')).ok());
  rlimit old = {};
  getrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {.rlim_cur = 150, .rlim_max = old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const absl::Status status = (*file)->Write(std::string(99, 'b'));
  setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_EQ(ExitCodeOf(status), kExitOutput);
  EXPECT_THAT(std::string(status.message()), HasSubstr("lines written before: 1"));
  EXPECT_EQ(Content(), std::string(99, 'a') + "\n");
}

TEST_F(LineFileTest, ClosedPipe) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  signal(SIGPIPE, SIG_IGN);
  auto file = LineFile::Open("/dev/fd/" + std::to_string(ends[1]), "--output-file", false, -1);
  ASSERT_TRUE(file.ok()) << file.status();
  close(ends[0]);
  EXPECT_EQ(ExitCodeOf((*file)->Write("x")), kExitOutput);
  close(ends[1]);
}

}  // namespace
}  // namespace cairn
