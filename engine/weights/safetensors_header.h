// The header of a safetensors file, parsed as hostile input.
//
// Layout (https://github.com/huggingface/safetensors, "Format"): 8 bytes little-endian header length N; N bytes of JSON
// {name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {...}}; the tensors' bytes, offsets counted
// from there.
#ifndef CAIRN_ENGINE_WEIGHTS_SAFETENSORS_HEADER_H_
#define CAIRN_ENGINE_WEIGHTS_SAFETENSORS_HEADER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace cairn {

inline constexpr int64_t kSafetensorsLengthBytes = 8;
// A thousand layers need about 2 MB. The format allows 100 MB, which as a parsed tree would be gigabytes.
inline constexpr int64_t kMaxSafetensorsHeaderBytes = 32 << 20;

struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // as written: F32, F16, BF16, or another type of the format, which nothing here reads
  std::vector<int64_t> shape;
  int64_t begin = 0, end = 0;  // bytes in the file
};

// The header's length N, from the file's first 8 bytes and its size. INVALID_ARGUMENT: too long, or past the end.
absl::StatusOr<int64_t> SafetensorsHeaderLength(const std::string& path, const uint8_t* first_bytes, int64_t file_size);

// The entries in file order. INVALID_ARGUMENT names file, tensor, expected and found: what is not JSON, a name given
// twice, an unknown type, a shape whose size overflows or differs from the offsets, offsets outside the file, tensors
// that overlap, bytes that belong to none (a file cut short or padded).
absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensorsHeader(const std::string& path, const std::string& json,
                                                                     int64_t file_size);

// "[128256, 4096]"
std::string ShapeText(const std::vector<int64_t>& shape);

}  // namespace cairn

#endif  // CAIRN_ENGINE_WEIGHTS_SAFETENSORS_HEADER_H_
