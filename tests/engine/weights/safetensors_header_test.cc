#include "engine/weights/safetensors_header.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cairn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<std::vector<SafetensorsEntry>> Parse(const std::string& json, int64_t data_bytes) {
  return ParseSafetensorsHeader("x", json, kSafetensorsLengthBytes + static_cast<int64_t>(json.size()) + data_bytes);
}

std::string Fault(const std::string& json, int64_t data_bytes) {
  const absl::Status status = Parse(json, data_bytes).status();
  EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

TEST(SafetensorsHeaderTest, GivesEntriesInFileOrder) {
  const std::string json =
      R"({"__metadata__": {"format": "pt"}, "b": {"dtype": "F32", "shape": [2, 3], "data_offsets": [2, 26]},)"
      R"( "a": {"dtype": "BF16", "shape": [], "data_offsets": [0, 2]}, "none": {"dtype": "F16", "shape": [0, 4],)"
      R"( "data_offsets": [26, 26]}}   )";  // writers pad with spaces
  const auto entries = Parse(json, 26);
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 3u);
  const int64_t data = kSafetensorsLengthBytes + static_cast<int64_t>(json.size());
  EXPECT_EQ((*entries)[0].name, "a");
  EXPECT_EQ((*entries)[0].begin, data);
  EXPECT_TRUE((*entries)[0].shape.empty());
  EXPECT_EQ((*entries)[1].name, "b");
  EXPECT_EQ((*entries)[1].dtype, "F32");
  EXPECT_THAT((*entries)[1].shape, ElementsAre(2, 3));
  EXPECT_EQ((*entries)[1].begin, data + 2);
  EXPECT_EQ((*entries)[1].end, data + 26);
  EXPECT_EQ((*entries)[2].name, "none");
}

TEST(SafetensorsHeaderTest, RefusesWhatDoesNotTileTheData) {
  const auto one = [](const std::string& shape, const std::string& offsets) {
    return R"({"a": {"dtype": "F32", "shape": )" + shape + R"(, "data_offsets": )" + offsets + "}}";
  };
  EXPECT_EQ(Fault(one("[2]", "[0, 8]"), 8), "");
  EXPECT_THAT(Fault(one("[2]", "[0, 8]"), 7),
              HasSubstr("tensor a ends at byte 8 of the data, but the file has only 7"));
  EXPECT_THAT(Fault(one("[2]", "[0, 8]"), 9), HasSubstr("1 bytes at the end belong to no tensor"));
  EXPECT_THAT(Fault(one("[2]", "[1, 9]"), 9), HasSubstr("1 bytes before tensor a belong to no tensor"));
  EXPECT_THAT(Fault(one("[3]", "[0, 8]"), 8), HasSubstr("F32 [3] takes 12 bytes, but its data_offsets are [0, 8]"));
  EXPECT_THAT(Fault(one("[2]", "[8, 0]"), 8), HasSubstr("data_offsets are [8, 0]"));
  EXPECT_THAT(Fault(one("[4294967296, 4294967296]", "[0, 0]"), 0), HasSubstr("size overflows"));
  EXPECT_THAT(Fault(one("[9223372036854775807]", "[0, 0]"), 0), HasSubstr("size overflows"));
  EXPECT_THAT(Fault(one("[2]", "[9223372036854775800, 9223372036854775808]"), 8), HasSubstr("tensor a must have"));
  EXPECT_THAT(Fault(one("[2]", "[9223372036854775792, 9223372036854775800]"), 8), HasSubstr("ends at byte"));
  EXPECT_THAT(Fault(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},)"
                    R"( "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}})",
                    12),
              HasSubstr("tensor b overlaps tensor a"));
}

TEST(SafetensorsHeaderTest, RefusesWhatIsNoEntry) {
  for (const char* entry : {
           "3",
           "{}",
           R"({"dtype": "F32", "shape": [2]})",
           R"({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]})",
           R"({"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]})",
           R"({"dtype": "F32", "shape": [[2]], "data_offsets": [0, 8]})",
           R"({"dtype": "F32", "shape": 2, "data_offsets": [0, 8]})",
           R"({"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 9]})",
           R"({"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]})",
           R"({"dtype": 7, "shape": [2], "data_offsets": [0, 8]})",
       })
    EXPECT_THAT(Fault(std::string(R"({"a": )") + entry + "}", 8), HasSubstr("x: tensor a must have")) << entry;
  EXPECT_THAT(Fault(R"({"a": {"dtype": "F31", "shape": [2], "data_offsets": [0, 8]}})", 8),
              HasSubstr("tensor a has the unknown dtype F31"));
}

TEST(SafetensorsHeaderTest, RefusesWhatIsNoHeader) {
  const std::string entry = R"({"dtype": "F32", "shape": [2], "data_offsets": [0, 8]})";
  EXPECT_THAT(Fault("{\"a\": " + entry + ", \"a\": " + entry + "}", 8), HasSubstr("names tensor a twice"));
  EXPECT_THAT(Fault(R"({"a": {"dtype": "F32", "dtype": "F16", "shape": [4], "data_offsets": [0, 8]}})", 8),
              HasSubstr("dtype twice"));
  EXPECT_THAT(Fault("", 0), HasSubstr("not valid JSON"));
  EXPECT_THAT(Fault("[]", 0), HasSubstr("must be a JSON object"));
  EXPECT_THAT(Fault("{\"a\": ", 0), HasSubstr("not valid JSON"));
  EXPECT_THAT(Fault(std::string("{\"\0\": 1}", 8), 0), HasSubstr("not valid JSON"));
  // A name must not write control characters to a terminal.
  EXPECT_EQ(Fault("{\"\\u001b[31m\": 1}", 0).find('\x1b'), std::string::npos);
}

TEST(SafetensorsHeaderTest, DeepNestingCostsNothing) {
  std::string deep;
  for (int i = 0; i < 1000000; ++i) deep += "{\"a\":";
  EXPECT_NE(Fault(deep, 0), "");
  EXPECT_NE(Fault("{\"a\": " + std::string(4000000, '[') + std::string(4000000, ']') + "}", 0), "");
}

TEST(SafetensorsHeaderTest, BoundsTheHeaderLength) {
  const auto length = [](uint64_t value, int64_t file_size) {
    uint8_t bytes[8];
    for (int i = 0; i < 8; ++i) bytes[i] = static_cast<uint8_t>(value >> (8 * i));
    return SafetensorsHeaderLength("x", bytes, file_size);
  };
  EXPECT_EQ(*length(100, 108), 100);
  EXPECT_THAT(length(101, 108).status().message(), HasSubstr("cut short"));
  EXPECT_THAT(length(UINT64_MAX, 108).status().message(), HasSubstr("not a safetensors file"));
  EXPECT_THAT(length(uint64_t{1} << 63, 108).status().message(), HasSubstr("not a safetensors file"));
  EXPECT_FALSE(length(static_cast<uint64_t>(kMaxSafetensorsHeaderBytes) + 1, INT64_MAX).ok());
}

}  // namespace
}  // namespace cairn
