// Reads the golden files of tests/data/compression (format: its README).
#ifndef CAIRN_TESTS_COMPRESSION_GOLDEN_H_
#define CAIRN_TESTS_COMPRESSION_GOLDEN_H_

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace cairn {

using Json = nlohmann::json;

inline Json ReadGolden(const std::string& name) {
  std::ifstream file(absl::StrCat(CAIRN_SOURCE_DIR, "/tests/data/compression/", name, ".json"));
  EXPECT_TRUE(file.good()) << name;
  Json golden = Json::parse(file);
  EXPECT_EQ(golden.at("format"), "kv-compression-golden/1");
  return golden;
}

// {"dtype", "shape", "base64"}: row-major elements.
template <typename T>
struct GoldenArray {
  std::vector<int64_t> shape;
  std::vector<T> values;

  int64_t dim(int i) const { return shape.at(i); }
  // Elements from one index of the first dimension to the next.
  int64_t stride() const { return dim(0) == 0 ? 0 : static_cast<int64_t>(values.size()) / dim(0); }
  GoldenArray operator[](int64_t i) const {
    return {{shape.begin() + 1, shape.end()}, {values.begin() + i * stride(), values.begin() + (i + 1) * stride()}};
  }
};

template <typename T>
GoldenArray<T> ReadArray(const Json& json) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  EXPECT_EQ(json.at("dtype"), sizeof(T) == 4 ? "f32" : "i64");
  GoldenArray<T> array;
  array.shape = json.at("shape").get<std::vector<int64_t>>();
  int64_t count = 1;
  for (int64_t dim : array.shape) count *= dim;
  std::string bytes;
  EXPECT_TRUE(absl::Base64Unescape(json.at("base64").get<std::string>(), &bytes));
  EXPECT_EQ(bytes.size(), count * sizeof(T));
  array.values.resize(count);
  std::memcpy(array.values.data(), bytes.data(), bytes.size());
  return array;
}

inline GoldenArray<float> Floats(const Json& json) { return ReadArray<float>(json); }

// Slots per KV head.
using Sets = std::vector<std::vector<int32_t>>;

inline std::vector<uint64_t> Fingerprints(const Json& json) {
  std::vector<uint64_t> fingerprints;
  for (const std::string text : json) {
    fingerprints.emplace_back();
    EXPECT_TRUE(absl::SimpleHexAtoi(text, &fingerprints.back())) << text;
  }
  return fingerprints;
}

}  // namespace cairn

#endif  // CAIRN_TESTS_COMPRESSION_GOLDEN_H_
