// Builds safetensors files, right or wrong, byte by byte.
#ifndef CAIRN_TESTS_ENGINE_WEIGHTS_SAFETENSORS_FILE_BUILDER_H_
#define CAIRN_TESTS_ENGINE_WEIGHTS_SAFETENSORS_FILE_BUILDER_H_

#include <cstdint>
#include <string>

#include "nlohmann/json.hpp"

namespace cairn {

inline std::string LittleEndian64(uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
  return bytes;
}

inline std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  return LittleEndian64(header.size()) + header + data;
}

// A file's header as JSON, and its data, for changing one of them.
struct SafetensorsParts {
  nlohmann::json header;
  std::string data;

  explicit SafetensorsParts(const std::string& bytes) {
    uint64_t length = 0;
    for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<uint8_t>(bytes[i]);
    header = nlohmann::json::parse(bytes.substr(8, length));
    data = bytes.substr(8 + length);
  }
  std::string Bytes() const { return SafetensorsBytes(header.dump(), data); }
};

}  // namespace cairn

#endif  // CAIRN_TESTS_ENGINE_WEIGHTS_SAFETENSORS_FILE_BUILDER_H_
