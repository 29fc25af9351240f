#include "engine/weights/safetensors_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"

namespace cairn {

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer. It means nothing to a regular file.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const std::string why = absl::StrCat(path, ": ", std::strerror(errno));
    return errno == ENOENT ? absl::NotFoundError(why) : absl::InvalidArgumentError(why);
  }
  SafetensorsFile file(path, fd);
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  if (info.st_size < kSafetensorsLengthBytes)
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", info.st_size, " bytes, too short for a safetensors file: it is cut short"));
  uint8_t first_bytes[kSafetensorsLengthBytes];
  CAIRN_RETURN_IF_ERROR(file.ReadAt(0, kSafetensorsLengthBytes, first_bytes));
  CAIRN_ASSIGN_OR_RETURN(const int64_t length, SafetensorsHeaderLength(path, first_bytes, info.st_size));
  std::string json(static_cast<size_t>(length), '\0');
  CAIRN_RETURN_IF_ERROR(file.ReadAt(kSafetensorsLengthBytes, length, json.data()));
  CAIRN_ASSIGN_OR_RETURN(file.entries_, ParseSafetensorsHeader(path, json, info.st_size));
  return file;
}

SafetensorsFile::SafetensorsFile(SafetensorsFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), entries_(std::move(other.entries_)) {}

SafetensorsFile::~SafetensorsFile() {
  if (fd_ >= 0) close(fd_);
}

absl::Status SafetensorsFile::ReadAt(int64_t offset, int64_t bytes, void* out) const {
  constexpr int64_t kMaxRead = 1 << 30;  // Linux reads at most 2 GiB at once
  char* to = static_cast<char*>(out);
  while (bytes > 0) {
    const ssize_t got = pread(fd_, to, static_cast<size_t>(std::min(bytes, kMaxRead)), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::DataLossError(absl::StrCat(path_, ": read at byte ", offset, ": ", std::strerror(errno)));
    if (got == 0)
      return absl::DataLossError(absl::StrCat(path_, ": ends at byte ", offset, ", ", bytes,
                                              " bytes short: the file was cut while it was being read"));
    to += got;
    offset += got;
    bytes -= got;
  }
  return absl::OkStatus();
}

}  // namespace cairn
