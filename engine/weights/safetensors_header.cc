#include "engine/weights/safetensors_header.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/core/status_macros.h"
#include "nlohmann/json.hpp"

namespace cairn {
namespace {

using Json = nlohmann::json;

template <typename... Parts>
absl::Status Bad(const std::string& path, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", parts...));
}

// Names come from the file: shown with control characters escaped, and cut.
std::string Quoted(const std::string& name) { return absl::StrCat("tensor ", absl::CHexEscape(name.substr(0, 200))); }

// Bytes per element of the format's types, 0 where it is none of them.
int64_t ElementBytes(const std::string& dtype) {
  static const auto& sizes = *new std::map<std::string, int64_t>{
      {"BOOL", 1}, {"U8", 1},   {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"F8_E8M0", 1}, {"I16", 2}, {"U16", 2},
      {"F16", 2},  {"BF16", 2}, {"I32", 4}, {"U32", 4},     {"F32", 4},     {"F64", 8},     {"I64", 8}, {"U64", 8}};
  const auto it = sizes.find(dtype);
  return it == sizes.end() ? 0 : it->second;
}

// The parser keeps the last of two equal keys; here that would hide a tensor. Values nested deeper than any the format
// has (the numbers of a shape) are dropped as they are read, so that millions of brackets do not become a tree.
absl::StatusOr<Json> ParseWithUniqueKeys(const std::string& path, const std::string& text) {
  constexpr int kMaxDepth = 3;
  std::array<std::set<std::string>, kMaxDepth + 1> seen;  // keys of the object open at each depth
  std::string repeated;
  const Json::parser_callback_t note_keys = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > kMaxDepth) return false;
    if (event == Json::parse_event_t::object_start && depth < kMaxDepth) seen[depth + 1].clear();
    if (event == Json::parse_event_t::key && !seen[depth].insert(value.get<std::string>()).second && repeated.empty())
      repeated = value.get<std::string>();
    return true;
  };
  Json header;
  try {
    header = Json::parse(text, note_keys);
  } catch (const Json::exception& e) {
    return Bad(path, "the header is not valid JSON: ", absl::CHexEscape(absl::string_view(e.what()).substr(0, 300)));
  }
  if (!repeated.empty()) return Bad(path, "the header names ", Quoted(repeated), " twice");
  if (!header.is_object()) return Bad(path, "the header must be a JSON object");
  return header;
}

// A list of `count` (any number where negative) integers in [0, 2^63).
bool ReadSizes(const Json& value, int count, std::vector<int64_t>& sizes) {
  if (!value.is_array() || (count >= 0 && value.size() != static_cast<size_t>(count))) return false;
  for (const Json& item : value) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return false;
    sizes.push_back(static_cast<int64_t>(item.get<uint64_t>()));
  }
  return true;
}

absl::StatusOr<SafetensorsEntry> ParseEntry(const std::string& path, const std::string& name, const Json& value,
                                            int64_t data_begin, int64_t file_size) {
  SafetensorsEntry entry;
  entry.name = name;
  std::vector<int64_t> offsets;
  if (!value.is_object() || !value.contains("dtype") || !value["dtype"].is_string() || !value.contains("shape") ||
      !ReadSizes(value["shape"], -1, entry.shape) || !value.contains("data_offsets") ||
      !ReadSizes(value["data_offsets"], 2, offsets))
    return Bad(path, Quoted(name), " must have dtype (text), shape (sizes) and data_offsets (two numbers)");
  entry.dtype = value["dtype"].get<std::string>();
  int64_t bytes = ElementBytes(entry.dtype);
  if (bytes == 0)
    return Bad(path, Quoted(name), " has the unknown dtype ", absl::CHexEscape(entry.dtype.substr(0, 40)));
  for (int64_t dim : entry.shape) {
    if (__builtin_mul_overflow(bytes, dim, &bytes))
      return Bad(path, Quoted(name), " has shape ", ShapeText(entry.shape), ", whose size overflows");
  }
  const int64_t data_size = file_size - data_begin;
  if (offsets[0] > offsets[1] || offsets[1] - offsets[0] != bytes)
    return Bad(path, Quoted(name), ": ", entry.dtype, " ", ShapeText(entry.shape), " takes ", bytes,
               " bytes, but its data_offsets are ", ShapeText(offsets));
  if (offsets[1] > data_size)
    return Bad(path, Quoted(name), " ends at byte ", offsets[1], " of the data, but the file has only ", data_size,
               ": it is cut short; download or copy it again");
  entry.begin = data_begin + offsets[0];
  entry.end = data_begin + offsets[1];
  return entry;
}

// Sorted entries must tile the data exactly.
absl::Status CheckTiling(const std::string& path, const std::vector<SafetensorsEntry>& entries, int64_t data_begin,
                         int64_t file_size) {
  int64_t at = data_begin;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].begin < at) return Bad(path, Quoted(entries[i].name), " overlaps ", Quoted(entries[i - 1].name));
    if (entries[i].begin > at)
      return Bad(path, entries[i].begin - at, " bytes before ", Quoted(entries[i].name), " belong to no tensor");
    at = entries[i].end;
  }
  if (at != file_size) return Bad(path, file_size - at, " bytes at the end belong to no tensor");
  return absl::OkStatus();
}

}  // namespace

std::string ShapeText(const std::vector<int64_t>& shape) {
  constexpr size_t kMaxShown = 8;
  const auto end = shape.begin() + static_cast<std::ptrdiff_t>(std::min(shape.size(), kMaxShown));
  return absl::StrCat("[", absl::StrJoin(shape.begin(), end, ", "), shape.size() > kMaxShown ? ", ...]" : "]");
}

absl::StatusOr<int64_t> SafetensorsHeaderLength(const std::string& path, const uint8_t* first_bytes,
                                                int64_t file_size) {
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | first_bytes[i];
  if (length > static_cast<uint64_t>(kMaxSafetensorsHeaderBytes))
    return Bad(path, "header of ", length, " bytes, at most ", kMaxSafetensorsHeaderBytes,
               " are supported: not a safetensors file, or damaged");
  if (static_cast<int64_t>(length) > file_size - kSafetensorsLengthBytes)
    return Bad(path, "header of ", length, " bytes, but the file has only ", file_size, ": it is cut short");
  return static_cast<int64_t>(length);
}

absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensorsHeader(const std::string& path, const std::string& json,
                                                                     int64_t file_size) {
  const int64_t data_begin = kSafetensorsLengthBytes + static_cast<int64_t>(json.size());
  CAIRN_ASSIGN_OR_RETURN(const Json header, ParseWithUniqueKeys(path, json));
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") continue;
    CAIRN_ASSIGN_OR_RETURN(SafetensorsEntry entry, ParseEntry(path, name, value, data_begin, file_size));
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  CAIRN_RETURN_IF_ERROR(CheckTiling(path, entries, data_begin, file_size));
  return entries;
}

}  // namespace cairn
