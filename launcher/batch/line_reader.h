// A file of any size, one line at a time.
#ifndef CAIRN_LAUNCHER_BATCH_LINE_READER_H_
#define CAIRN_LAUNCHER_BATCH_LINE_READER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace cairn {

struct InputLine {
  int64_t number = 0;  // 1-based, blank lines counted
  std::string text;    // without its end (LF or CRLF); the beginning of it where it is too long
  bool too_long = false;
};

class LineReader {
 public:
  static constexpr size_t kMaxLineBytes = 16 << 20;

  // Errors (exit code 65) name the file and what is wrong with it. A byte order mark is skipped. Lines end at LF alone:
  // other separators of Unicode are text.
  static absl::StatusOr<std::unique_ptr<LineReader>> Open(const std::string& path,
                                                          size_t max_line_bytes = kMaxLineBytes);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // The next line that is not blank, none at the end. Holds one buffer and one line in memory, whatever the file.
  absl::StatusOr<std::optional<InputLine>> Next();

  int fd() const { return fd_; }

 private:
  LineReader(std::string path, int fd, size_t max_line_bytes);
  absl::Status Fill();
  absl::StatusOr<bool> ReadLine(InputLine& line);

  std::string path_;
  int fd_;
  size_t max_line_bytes_;
  std::string buffer_;  // buffer_[at_, size) is not consumed
  size_t at_ = 0;
  bool end_of_file_ = false;
  int64_t number_ = 0;
};

// Lines that are not blank, for a progress bar; none where the file can be read only once (a pipe).
std::optional<int64_t> CountLines(const std::string& path);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_BATCH_LINE_READER_H_
