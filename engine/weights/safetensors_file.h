// One open safetensors file.
#ifndef CAIRN_ENGINE_WEIGHTS_SAFETENSORS_FILE_H_
#define CAIRN_ENGINE_WEIGHTS_SAFETENSORS_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/weights/safetensors_header.h"

namespace cairn {

class SafetensorsFile {
 public:
  // Opens it and reads its header. NOT_FOUND, or INVALID_ARGUMENT as ParseSafetensorsHeader.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);
  SafetensorsFile(SafetensorsFile&& other) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) = delete;
  ~SafetensorsFile();

  const std::string& path() const { return path_; }
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }

  // Exactly [offset, offset + bytes) of the file. DATA_LOSS where the file has become shorter, or the disk fails.
  absl::Status ReadAt(int64_t offset, int64_t bytes, void* out) const;

 private:
  SafetensorsFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::string path_;
  int fd_ = -1;
  std::vector<SafetensorsEntry> entries_;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_WEIGHTS_SAFETENSORS_FILE_H_
