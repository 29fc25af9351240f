// WeightSource over the safetensors files of a directory.
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/config/json_file.h"
#include "engine/weights/safetensors_file.h"
#include "engine/weights/weight_source.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian and read as they are");

constexpr int64_t kMaxIndexBytes = 64 << 20;
constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";

struct Location {
  const SafetensorsFile* file;
  const SafetensorsEntry* entry;
};
using TensorMap = std::map<std::string, Location>;
using FileMap = std::map<std::string, SafetensorsFile>;  // by name in the directory

bool ReadableType(const std::string& dtype, DType& type) {
  if (dtype == "F32") type = DType::kFloat32;
  if (dtype == "BF16") type = DType::kBFloat16;
  if (dtype == "F16") type = DType::kFloat16;
  if (dtype == "F8_E4M3") type = DType::kFloat8E4M3;
  return dtype == "F32" || dtype == "BF16" || dtype == "F16" || dtype == "F8_E4M3";
}

bool IsFloat8(const SafetensorsEntry& entry) { return entry.dtype == "F8_E4M3"; }

// What stands beside a linear layer's weights in E4M3, and what is not needed of such a checkpoint.
bool IsFloat8Scale(const std::string& name) {
  for (const char* end : {"_proj.weight_scale", "_proj.input_scale", "_proj.output_scale", ".k_scale", ".v_scale"}) {
    if (absl::EndsWith(name, end)) return true;
  }
  return false;
}

// What older converters left in checkpoints, and a copy of tied weights: neither changes the answer. Scales are looked
// for where they are needed.
bool IsTolerated(const std::string& name, const ModelConfig& config) {
  return absl::EndsWith(name, ".rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight") ||
         (config.float8_weights && IsFloat8Scale(name));
}

// The tensor map of model.safetensors.index.json: name to shard file.
absl::StatusOr<std::map<std::string, std::string>> ReadIndex(const std::string& path) {
  CAIRN_ASSIGN_OR_RETURN(const nlohmann::json index, ReadJsonFile(path, kMaxIndexBytes));
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object() || map->empty())
    return absl::InvalidArgumentError(absl::StrCat(path, ": field weight_map must be an object of tensor: file"));
  std::map<std::string, std::string> shards;
  for (const auto& [name, file] : map->items()) {
    // A shard lies beside its index; anything else would let a checkpoint read the machine's other files.
    const bool is_plain_name = file.is_string() && absl::EndsWith(file.get<std::string>(), ".safetensors") &&
                               file.get<std::string>().find_first_of(std::string("/\\\0", 3)) == std::string::npos;
    if (!is_plain_name)
      return absl::InvalidArgumentError(absl::StrCat(path, ": weight_map gives tensor ", name, " the file ",
                                                     file.dump().substr(0, 200),
                                                     ", which must be the name of a .safetensors file beside it"));
    shards[name] = file.get<std::string>();
  }
  return shards;
}

class TensorCollector {
 public:
  TensorCollector(std::string directory, const ModelConfig& config)
      : directory_(std::move(directory)), config_(config) {}

  absl::Status Open() {
    absl::StatusOr<SafetensorsFile> single = SafetensorsFile::Open(absl::StrCat(directory_, "/", kSingleFile));
    if (single.ok()) {
      const SafetensorsFile& file = files_.emplace(kSingleFile, std::move(*single)).first->second;
      for (const SafetensorsEntry& entry : file.entries()) tensors_[entry.name] = {&file, &entry};
      return absl::OkStatus();
    }
    if (!absl::IsNotFound(single.status())) return single.status();
    const std::string index_path = absl::StrCat(directory_, "/", kIndexFile);
    absl::StatusOr<std::map<std::string, std::string>> index = ReadIndex(index_path);
    if (absl::IsNotFound(index.status()))
      return absl::NotFoundError(absl::StrCat(directory_, ": holds neither ", kSingleFile, " nor ", kIndexFile,
                                              "; weights in other formats (.bin, .gguf) must be converted first"));
    if (!index.ok()) return index.status();
    return OpenShards(index_path, *index);
  }

  // Compares with the tensors that the model must have.
  absl::Status Check() {
    const std::vector<TensorSpec> expected = ExpectedTensors(config_);
    std::vector<std::string> missing, extra;
    std::map<std::string, bool> known;
    for (const TensorSpec& spec : expected) {
      known[spec.name] = true;
      const auto it = tensors_.find(spec.name);
      if (it == tensors_.end()) {
        missing.push_back(absl::StrCat(spec.name, " ", ShapeText(spec.shape)));
      } else {
        CAIRN_RETURN_IF_ERROR(CheckTensor(it->second, spec.shape));
      }
    }
    for (const auto& [name, location] : tensors_) {
      if (!known.contains(name) && !IsTolerated(name, config_))
        extra.push_back(absl::StrCat(name, " ", ShapeText(location.entry->shape), " in ", location.file->path()));
    }
    if (missing.empty() && extra.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(directory_, ": the tensors are not those of ", config_.architecture,
                                                   " as config.json describes it (", config_.num_layers, " layers, ",
                                                   expected.size(), " tensors; found ", tensors_.size(), ")",
                                                   Listed("; missing: ", missing), Listed("; not expected: ", extra)));
  }

  FileMap TakeFiles() { return std::move(files_); }
  TensorMap TakeTensors() { return std::move(tensors_); }

 private:
  absl::Status OpenShards(const std::string& index_path, const std::map<std::string, std::string>& index) {
    for (const auto& [name, file_name] : index) {
      if (files_.contains(file_name)) continue;
      absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(absl::StrCat(directory_, "/", file_name));
      if (absl::IsNotFound(file.status()))
        return absl::NotFoundError(absl::StrCat(index_path, ": tensor ", name, " is in ", file_name,
                                                ", which is not there; download the missing file"));
      if (!file.ok()) return file.status();
      files_.emplace(file_name, std::move(*file));
    }
    for (const auto& [file_name, file] : files_) {
      for (const SafetensorsEntry& entry : file.entries()) {
        const auto place = index.find(entry.name);
        if (place != index.end() && place->second == file_name) {
          tensors_[entry.name] = {&file, &entry};
        } else if (!IsTolerated(entry.name, config_)) {
          return absl::InvalidArgumentError(
              absl::StrCat(file.path(), ": holds tensor ", entry.name, ", which ", kIndexFile,
                           place == index.end() ? " does not list" : " places in " + place->second));
        }
      }
    }
    for (const auto& [name, file_name] : index) {
      if (!tensors_.contains(name))
        return absl::InvalidArgumentError(
            absl::StrCat(index_path, ": places tensor ", name, " in ", file_name, ", which does not hold it"));
    }
    return absl::OkStatus();
  }

  absl::Status CheckTensor(const Location& location, const std::vector<int64_t>& shape) const {
    const SafetensorsEntry& entry = *location.entry;
    DType type;
    if (entry.shape != shape)
      return absl::InvalidArgumentError(absl::StrCat(location.file->path(), ": tensor ", entry.name, " has shape ",
                                                     ShapeText(entry.shape), "; config.json asks for ",
                                                     ShapeText(shape)));
    if (ReadableType(entry.dtype, type) && !IsFloat8(entry)) return absl::OkStatus();
    if (IsFloat8(entry) && config_.float8_weights && absl::EndsWith(entry.name, "_proj.weight")) {
      return CheckScale(location);
    }
    return absl::InvalidArgumentError(
        absl::StrCat(location.file->path(), ": tensor ", entry.name, " is of type ", entry.dtype,
                     "; supported: F32, F16, BF16, and F8_E4M3 for linear layers where config.json has a "
                     "quantization_config"));
  }

  absl::Status CheckScale(const Location& weight) const {
    const SafetensorsEntry& entry = *weight.entry;
    const auto scale = tensors_.find(absl::StrCat(entry.name, "_scale"));
    if (scale == tensors_.end()) {
      return absl::InvalidArgumentError(absl::StrCat(weight.file->path(), ": tensor ", entry.name,
                                                     " is in F8_E4M3 without a ", entry.name, "_scale"));
    }
    const SafetensorsEntry& found = *scale->second.entry;
    DType type;
    const int64_t rows = entry.shape[0];
    if (IsScaleShape(found.shape, rows) && ReadableType(found.dtype, type) && !IsFloat8(found)) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        scale->second.file->path(), ": tensor ", found.name, " is ", found.dtype, " ", ShapeText(found.shape),
        "; expected F32, F16 or BF16 of [], [1], [", rows, "] or [", rows, ", 1]"));
  }

  // The first few names; a wrong directory would otherwise print thousands.
  static std::string Listed(const std::string& title, const std::vector<std::string>& names) {
    constexpr size_t kMaxListed = 3;
    std::string text = names.empty() ? "" : title;
    for (size_t i = 0; i < names.size() && i < kMaxListed; ++i) absl::StrAppend(&text, i ? ", " : "", names[i]);
    if (names.size() > kMaxListed) absl::StrAppend(&text, " and ", names.size() - kMaxListed, " more");
    return text;
  }

  std::string directory_;
  const ModelConfig& config_;
  FileMap files_;
  TensorMap tensors_;
};

class SafetensorsSource : public WeightSource {
 public:
  // The map's pointers go into the nodes of `files`, which moving a std::map leaves in place.
  SafetensorsSource(FileMap files, TensorMap tensors) : files_(std::move(files)), tensors_(std::move(tensors)) {}

  absl::StatusOr<DType> TypeOf(const std::string& name) const override {
    CAIRN_ASSIGN_OR_RETURN(const Location location, Find(name));
    DType type = DType::kFloat32;
    if (!ReadableType(location.entry->dtype, type))
      return absl::InvalidArgumentError(
          absl::StrCat(location.file->path(), ": tensor ", name, " is of type ", location.entry->dtype));
    return type;
  }

  absl::StatusOr<std::vector<int64_t>> ShapeOf(const std::string& name) const override {
    CAIRN_ASSIGN_OR_RETURN(const Location location, Find(name));
    return location.entry->shape;
  }

  absl::Status Read(const std::string& name, const std::vector<int64_t>& shape, Range rows, Range columns,
                    void* out) override {
    CAIRN_ASSIGN_OR_RETURN(const Location location, Find(name));
    CAIRN_ASSIGN_OR_RETURN(const DType type, TypeOf(name));
    if (location.entry->shape != shape)
      return absl::InvalidArgumentError(absl::StrCat(location.file->path(), ": tensor ", name, " has shape ",
                                                     ShapeText(location.entry->shape), ", not ", ShapeText(shape)));
    CAIRN_CHECK(shape.size() <= 2, name, " of rank ", shape.size());
    const int64_t num_rows = shape.size() == 2 ? shape[0] : 1, num_columns = shape.empty() ? 1 : shape.back();
    CAIRN_CHECK(0 <= rows.begin && rows.begin <= rows.end && rows.end <= num_rows, name);
    CAIRN_CHECK(0 <= columns.begin && columns.begin <= columns.end && columns.end <= num_columns, name);
    const int64_t element = static_cast<int64_t>(DTypeSize(type));
    bytes_read_ += rows.size() * columns.size() * element;
    const auto offset = [&](int64_t row) {
      return location.entry->begin + (row * num_columns + columns.begin) * element;
    };
    if (columns.size() == num_columns)
      return location.file->ReadAt(offset(rows.begin), rows.size() * num_columns * element, out);
    char* to = static_cast<char*>(out);
    for (int64_t row = rows.begin; row < rows.end; ++row, to += columns.size() * element)
      CAIRN_RETURN_IF_ERROR(location.file->ReadAt(offset(row), columns.size() * element, to));
    return absl::OkStatus();
  }

  int64_t bytes_read() const override { return bytes_read_; }

 private:
  absl::StatusOr<Location> Find(const std::string& name) const {
    const auto it = tensors_.find(name);
    if (it == tensors_.end()) return absl::NotFoundError(absl::StrCat("the checkpoint has no tensor ", name));
    return it->second;
  }

  FileMap files_;
  TensorMap tensors_;
  std::atomic<int64_t> bytes_read_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WeightSource>> OpenSafetensors(const std::string& directory, const ModelConfig& config) {
  TensorCollector collector(directory, config);
  CAIRN_RETURN_IF_ERROR(collector.Open());
  CAIRN_RETURN_IF_ERROR(collector.Check());
  FileMap files = collector.TakeFiles();
  return std::make_unique<SafetensorsSource>(std::move(files), collector.TakeTensors());
}

}  // namespace cairn
