#include "launcher/batch/result_writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"
#include "launcher/exit_codes.h"

namespace cairn {
namespace {

constexpr std::chrono::seconds kSyncInterval(1);

absl::Status OutputError(std::string message) {
  return WithExitCode(absl::UnavailableError(std::move(message)), kExitOutput);
}

absl::Status OpenFailed(const std::string& path, const std::string& flag, int error) {
  std::string remedy;
  if (error == ENOENT) {
    const size_t slash = path.rfind('/');
    remedy = absl::StrCat(": create its directory ", path.substr(0, slash == std::string::npos ? 0 : slash), " first");
  }
  return OutputError(absl::StrCat(flag, " ", path, ": ", std::strerror(error), remedy));
}

}  // namespace

absl::StatusOr<std::unique_ptr<LineFile>> LineFile::Open(const std::string& path, const std::string& flag,
                                                         bool overwrite, int input_fd) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0) return OpenFailed(path, flag, errno);
  std::unique_ptr<LineFile> file(new LineFile(path, fd));
  struct stat output = {}, input = {};
  if (fstat(fd, &output) != 0) return OpenFailed(path, flag, errno);
  file->regular_ = S_ISREG(output.st_mode);
  if (!file->regular_) return file;
  if (input_fd >= 0 && fstat(input_fd, &input) == 0 && input.st_dev == output.st_dev && input.st_ino == output.st_ino) {
    return UsageError(absl::StrCat(flag, " ", path, " is the input file: results would destroy the requests"));
  }
  // Where the file system has no locks, nothing can be said.
  if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return UsageError(
        absl::StrCat(flag, " ", path, ": another running job (or another flag of this one) writes to it"));
  }
  if (output.st_size > 0 && !overwrite) {
    return UsageError(absl::StrCat(flag, " ", path, " holds ", output.st_size,
                                   " bytes already: choose another file, or give --overwrite to replace it"));
  }
  return file;
}

LineFile::~LineFile() {
  if (fd_ >= 0) close(fd_);
}

absl::Status LineFile::Begin() {
  if (regular_ && ftruncate(fd_, 0) != 0) return Failed("emptying", errno);
  return absl::OkStatus();
}

absl::Status LineFile::Continue(int64_t bytes) {
  if (regular_ && ftruncate(fd_, bytes) != 0) return Failed("continuing", errno);
  bytes_ = bytes;
  return absl::OkStatus();
}

absl::Status LineFile::Failed(const char* operation, int error) {
  // A part of a line would spoil the file for its readers.
  if (regular_ && ftruncate(fd_, bytes_) != 0) {
    return OutputError(
        absl::StrCat(operation, " ", path_, ": ", std::strerror(error), "; its last line is incomplete"));
  }
  return OutputError(
      absl::StrCat(operation, " ", path_, ": ", std::strerror(error), "; lines written before: ", lines_));
}

absl::Status LineFile::Write(const std::string& line) {
  const std::string whole = line + "\n";
  for (size_t at = 0; at < whole.size();) {
    const ssize_t written = write(fd_, whole.data() + at, whole.size() - at);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return Failed("writing to", written < 0 ? errno : EIO);
    at += static_cast<size_t>(written);
  }
  bytes_ += static_cast<int64_t>(whole.size());
  ++lines_;
  ++unsynced_lines_;
  return absl::OkStatus();
}

absl::Status LineFile::Sync() {
  last_sync_ = std::chrono::steady_clock::now();
  if (unsynced_lines_ == 0 || !regular_) return absl::OkStatus();
  // A failed fsync is final: the system may have dropped the pages, and trying again would report success.
  if (fdatasync(fd_) != 0) {
    return OutputError(absl::StrCat("writing ", path_, " to the disk: ", std::strerror(errno), "; its last ",
                                    unsynced_lines_, " results may be lost"));
  }
  unsynced_lines_ = 0;
  return absl::OkStatus();
}

absl::Status LineFile::SyncIfDue() {
  if (std::chrono::steady_clock::now() - last_sync_ < kSyncInterval) return absl::OkStatus();
  return Sync();
}

absl::Status LineFile::WriteAll(const std::string& content) {
  CAIRN_RETURN_IF_ERROR(Begin());
  CAIRN_RETURN_IF_ERROR(Write(content));
  return Close();
}

absl::Status LineFile::Close() {
  CAIRN_RETURN_IF_ERROR(Sync());
  const int fd = std::exchange(fd_, -1);
  if (close(fd) != 0) return OutputError(absl::StrCat("closing ", path_, ": ", std::strerror(errno)));
  return absl::OkStatus();
}

}  // namespace cairn
