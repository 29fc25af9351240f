// Results to files: whole lines, each on its way to the disk before it counts as done.
#ifndef CAIRN_LAUNCHER_BATCH_RESULT_WRITER_H_
#define CAIRN_LAUNCHER_BATCH_RESULT_WRITER_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace cairn {

// One file of lines. Errors are exit code 74 (64 for one that must not be overwritten) and name the file.
class LineFile {
 public:
  // Opens `path` (created if need be, then not yet emptied) for this process alone. A file that has content is refused
  // unless `overwrite`; so is the one that `input_fd` reads.
  static absl::StatusOr<std::unique_ptr<LineFile>> Open(const std::string& path, const std::string& flag,
                                                        bool overwrite, int input_fd);
  ~LineFile();
  LineFile(const LineFile&) = delete;
  LineFile& operator=(const LineFile&) = delete;

  // Empties a file that is to be overwritten: at the last moment, when the job is about to produce something.
  absl::Status Begin();
  // Of a file that is to be continued: keeps its first `bytes` bytes (whole lines), drops the rest.
  absl::Status Continue(int64_t bytes);
  // Hands the whole line and its newline to the system. After a failure (disk full, closed pipe) a regular file is cut
  // back to its last whole line, and the error says how many lines it has.
  absl::Status Write(const std::string& line);
  // A file that is one piece: Begin, Write and Close.
  absl::Status WriteAll(const std::string& content);
  // Waits until what was written is on the disk. Once in a second is enough: a power failure loses no more than that.
  absl::Status SyncIfDue();
  absl::Status Close();

 private:
  LineFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  absl::Status Sync();
  absl::Status Failed(const char* operation, int error);

  std::string path_;
  int fd_;
  bool regular_ = false;
  int64_t lines_ = 0, bytes_ = 0;
  int64_t unsynced_lines_ = 0;
  std::chrono::steady_clock::time_point last_sync_ = std::chrono::steady_clock::now();
};

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_BATCH_RESULT_WRITER_H_
