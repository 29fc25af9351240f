#include "launcher/batch/line_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"
#include "launcher/exit_codes.h"

namespace cairn {
namespace {

constexpr size_t kBufferBytes = 256 << 10;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

bool IsBlank(std::string_view text) { return text.find_first_not_of(" \t\r") == std::string_view::npos; }

absl::Status FileError(const std::string& path, const std::string& what) {
  return WithExitCode(absl::InvalidArgumentError(absl::StrCat("input file ", path, ": ", what)), kExitBadInput);
}

}  // namespace

absl::StatusOr<std::unique_ptr<LineReader>> LineReader::Open(const std::string& path, size_t max_line_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FileError(path, std::strerror(errno));
  struct stat info = {};
  if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size == 0) {
    close(fd);
    return FileError(path, "it is empty");
  }
  std::unique_ptr<LineReader> reader(new LineReader(path, fd, max_line_bytes));
  // A directory opens and does not read.
  CAIRN_RETURN_IF_ERROR(reader->Fill());
  if (reader->buffer_.compare(0, kByteOrderMark.size(), kByteOrderMark) == 0) reader->at_ = kByteOrderMark.size();
  return reader;
}

LineReader::LineReader(std::string path, int fd, size_t max_line_bytes)
    : path_(std::move(path)), fd_(fd), max_line_bytes_(max_line_bytes) {}

LineReader::~LineReader() { close(fd_); }

absl::Status LineReader::Fill() {
  buffer_.resize(kBufferBytes);
  at_ = 0;
  ssize_t got;
  do {
    got = read(fd_, buffer_.data(), buffer_.size());
  } while (got < 0 && errno == EINTR);
  const int error = errno;
  buffer_.resize(got > 0 ? static_cast<size_t>(got) : 0);
  end_of_file_ = got == 0;
  return got < 0 ? FileError(path_, std::strerror(error)) : absl::OkStatus();
}

// False at the end of the file.
absl::StatusOr<bool> LineReader::ReadLine(InputLine& line) {
  bool begun = false;
  while (true) {
    if (at_ == buffer_.size() && !end_of_file_) CAIRN_RETURN_IF_ERROR(Fill());
    if (at_ == buffer_.size()) break;
    begun = true;
    const size_t newline = buffer_.find('\n', at_);
    const size_t end = newline == std::string::npos ? buffer_.size() : newline;
    const size_t room = max_line_bytes_ - line.text.size();
    line.too_long |= end - at_ > room;
    line.text.append(buffer_, at_, std::min(end - at_, room));
    at_ = newline == std::string::npos ? end : end + 1;
    if (newline != std::string::npos) break;
  }
  if (!line.text.empty() && line.text.back() == '\r') line.text.pop_back();
  return begun;
}

absl::StatusOr<std::optional<InputLine>> LineReader::Next() {
  while (true) {
    InputLine line;
    CAIRN_ASSIGN_OR_RETURN(const bool found, ReadLine(line));
    if (!found) return std::nullopt;
    line.number = ++number_;
    if (line.too_long || !IsBlank(line.text)) return line;
  }
}

std::optional<int64_t> CountLines(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  struct stat info = {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return std::nullopt;
  }
  std::string buffer(1 << 20, '\0');
  int64_t lines = 0;
  bool blank = true;
  ssize_t got;
  while ((got = read(fd, buffer.data(), buffer.size())) > 0) {
    const std::string_view piece(buffer.data(), static_cast<size_t>(got));
    for (size_t at = 0; at < piece.size();) {
      const size_t newline = piece.find('\n', at);
      const size_t end = std::min(newline, piece.size());
      if (blank) blank = IsBlank(piece.substr(at, end - at));
      if (newline == std::string_view::npos) break;
      lines += !blank;
      blank = true;
      at = newline + 1;
    }
  }
  close(fd);
  return lines + !blank;
}

}  // namespace cairn
