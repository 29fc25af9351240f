// Weights for --load-format dummy: hashes of (seed, tensor, row, column), so that a shard can be made alone.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <map>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/weights/safetensors_header.h"
#include "engine/weights/weight_source.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"
#include "kernels/core/thread_pool.h"

namespace cairn {
namespace {

// The sum of four random bytes is near a normal distribution (Irwin-Hall), is cheap, and takes so few values that
// conversion to the stored type is a look-up.
constexpr int kNumLevels = 4 * 255 + 1;
constexpr double kMeanLevel = 510;
const double kLevelDeviation = std::sqrt(4 * (256.0 * 256.0 - 1) / 12);

// One step of a splitmix64 generator (Steele, Lea, Flood, 2014).
uint64_t Mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

uint64_t HashName(uint64_t seed, const std::string& name) {
  uint64_t hash = Mix64(seed);
  for (char c : name) hash = Mix64(hash ^ static_cast<uint8_t>(c));
  return hash;
}

// Levels of columns [begin, begin + count) of a row: 32-bit arithmetic without branches, which compilers vectorise.
void FillLevels(uint64_t row_key, int64_t begin, int count, uint16_t* levels) {
  const uint32_t first_key = static_cast<uint32_t>(row_key), second_key = static_cast<uint32_t>(row_key >> 32);
  for (int i = 0; i < count; ++i) {
    // A two-multiply finaliser (github.com/skeeto/hash-prospector) with half of the row's key before each multiply.
    uint32_t x = (static_cast<uint32_t>(begin + i) * 0x9e3779b9u) ^ first_key;
    x = (x ^ (x >> 16)) * 0x21f0aaadu;
    x ^= second_key;
    x = (x ^ (x >> 15)) * 0xd35a2d97u;
    x ^= x >> 15;
    x = (x & 0x00ff00ffu) + ((x >> 8) & 0x00ff00ffu);
    levels[i] = static_cast<uint16_t>((x & 0xffffu) + (x >> 16));
  }
}

// Element type T holding the bits of each level.
template <typename T>
using LevelTable = std::array<T, kNumLevels>;

template <typename T, typename Convert>
void FillRows(ThreadPool& threads, const LevelTable<float>& values, uint64_t tensor_key, Range rows, Range columns,
              Convert convert, T* out) {
  constexpr int kChunk = 512;
  constexpr int64_t kTaskElements = 64 << 10;
  LevelTable<T> table;
  std::transform(values.begin(), values.end(), table.begin(), convert);
  const int64_t task_rows = std::max<int64_t>(1, kTaskElements / std::max<int64_t>(1, columns.size()));
  threads.ParallelFor((rows.size() + task_rows - 1) / task_rows, [&](int64_t task, int) {
    uint16_t levels[kChunk];
    T* to = out + task * task_rows * columns.size();
    const int64_t begin = rows.begin + task * task_rows;
    for (int64_t row = begin; row < std::min(begin + task_rows, rows.end); ++row) {
      const uint64_t row_key = Mix64(tensor_key + static_cast<uint64_t>(row));
      for (int64_t column = columns.begin; column < columns.end; column += kChunk) {
        const int count = static_cast<int>(std::min<int64_t>(kChunk, columns.end - column));
        FillLevels(row_key, column, count, levels);
        for (int i = 0; i < count; ++i) to[i] = table[levels[i]];
        to += count;
      }
    }
  });
}

// A GPU waits for its weights longer than for anything else of a start: a core makes 0.7 GB/s of them.
int FillThreads() { return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 16); }

class DummyWeights : public WeightSource {
 public:
  DummyWeights(const ModelConfig& config, uint64_t seed) : config_(config), seed_(seed), threads_(FillThreads()) {
    for (TensorSpec& spec : ExpectedTensors(config)) shapes_[spec.name] = std::move(spec.shape);
  }

  absl::StatusOr<DType> TypeOf(const std::string& name) const override {
    if (!shapes_.contains(name)) return absl::NotFoundError(absl::StrCat(config_.name, " has no tensor ", name));
    return config_.dtype;
  }

  absl::StatusOr<std::vector<int64_t>> ShapeOf(const std::string& name) const override {
    CAIRN_RETURN_IF_ERROR(TypeOf(name).status());
    return shapes_.at(name);
  }

  absl::Status Read(const std::string& name, const std::vector<int64_t>& shape, Range rows, Range columns,
                    void* out) override {
    CAIRN_ASSIGN_OR_RETURN(const std::vector<int64_t> own, ShapeOf(name));
    if (own != shape)
      return absl::InvalidArgumentError(
          absl::StrCat(config_.name, ": tensor ", name, " has shape ", ShapeText(own), ", not ", ShapeText(shape)));
    const int64_t num_rows = shape.size() == 2 ? shape[0] : 1;
    CAIRN_CHECK(0 <= rows.begin && rows.begin <= rows.end && rows.end <= num_rows, name);
    CAIRN_CHECK(0 <= columns.begin && columns.begin <= columns.end && columns.end <= shape.back(), name);
    bytes_read_ += rows.size() * columns.size() * static_cast<int64_t>(DTypeSize(config_.dtype));
    const LevelTable<float> values = Values(name, shape);
    const uint64_t key = HashName(seed_, name);
    if (config_.dtype == DType::kFloat32)
      FillRows(
          threads_, values, key, rows, columns, [](float v) { return v; }, static_cast<float*>(out));
    else if (config_.dtype == DType::kBFloat16)
      FillRows(threads_, values, key, rows, columns, FloatToBFloat16, static_cast<uint16_t*>(out));
    else
      FillRows(threads_, values, key, rows, columns, FloatToFloat16, static_cast<uint16_t*>(out));
    return absl::OkStatus();
  }

  int64_t bytes_read() const override { return bytes_read_; }

 private:
  // Of each level. A matrix has deviation 1/sqrt(columns), so that it neither grows nor shrinks what a norm put in.
  LevelTable<float> Values(const std::string& name, const std::vector<int64_t>& shape) const {
    LevelTable<float> values;
    if (absl::EndsWith(name, "norm.weight")) {
      values.fill(1.0f);
      return values;
    }
    const double deviation = absl::EndsWith(name, ".bias") ? 0.02 : 1 / std::sqrt(static_cast<double>(shape.back()));
    for (int level = 0; level < kNumLevels; ++level)
      values[level] = static_cast<float>((level - kMeanLevel) / kLevelDeviation * deviation);
    return values;
  }

  const ModelConfig config_;
  const uint64_t seed_;
  ThreadPool threads_;
  std::map<std::string, std::vector<int64_t>> shapes_;
  std::atomic<int64_t> bytes_read_ = 0;
};

}  // namespace

std::unique_ptr<WeightSource> MakeDummyWeights(const ModelConfig& config, uint64_t seed) {
  return std::make_unique<DummyWeights>(config, seed);
}

}  // namespace cairn
