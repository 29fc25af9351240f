// Values to bytes and back, for what travels between ranks of one job (same binary, same byte order).
#ifndef CAIRN_ENGINE_SCHEDULER_WIRE_H_
#define CAIRN_ENGINE_SCHEDULER_WIRE_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/core/check.h"

namespace cairn {

class WireWriter {
 public:
  template <typename T>
  void Put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  template <typename T>
  void PutVector(const std::vector<T>& values) {
    static_assert(std::is_trivially_copyable_v<T>);
    Put<uint64_t>(values.size());
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }
  void PutString(const std::string& text) {
    Put<uint64_t>(text.size());
    bytes_.append(text);
  }
  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// A message that does not parse is a bug of ours: both ends are the same program.
class WireReader {
 public:
  explicit WireReader(const std::string& bytes) : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  template <typename T>
  T Get() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    std::memcpy(&value, Take(sizeof value), sizeof value);
    return value;
  }
  template <typename T>
  std::vector<T> GetVector() {
    static_assert(std::is_trivially_copyable_v<T>);
    std::vector<T> values(Get<uint64_t>());
    if (!values.empty()) std::memcpy(values.data(), Take(values.size() * sizeof(T)), values.size() * sizeof(T));
    return values;
  }
  std::string GetString() {
    const uint64_t size = Get<uint64_t>();
    return std::string(Take(size), size);
  }
  bool at_end() const { return at_ == end_; }

 private:
  const char* Take(uint64_t size) {
    CAIRN_CHECK(size <= static_cast<uint64_t>(end_ - at_), "message is ", size - (end_ - at_), " bytes short");
    const char* at = at_;
    at_ += size;
    return at;
  }

  const char* at_;
  const char* end_;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_SCHEDULER_WIRE_H_
