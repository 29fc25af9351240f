// Shared by the op tests: the backends to test (instruction sets, a GPU, the emulated GPU under each schedule),
// reproducible random rows, rows that lie apart in memory, and their way to the device and back.
#ifndef CAIRN_TESTS_KERNELS_OP_TESTING_H_
#define CAIRN_TESTS_KERNELS_OP_TESTING_H_

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/core/context.h"
#include "kernels/core/copy.h"
#include "kernels/core/float8.h"
#include "kernels/core/tensor.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/kernels.h"
#ifndef CAIRN_TEST_EMULATED_GPU
#define CAIRN_TEST_EMULATED_GPU 0
#endif
#if CAIRN_TEST_EMULATED_GPU
#include "tests/emulator/emulator.h"
#endif

namespace cairn {

// What this CPU can run, and the AVX-512 kernels on AVX2 registers.
inline std::vector<const cpu::Kernels*> TestedKernels() {
  std::vector<const cpu::Kernels*> kernels = cpu::AvailableKernels();
#if defined(__x86_64__)
  if (kernels.size() > 1) kernels.push_back(&cpu::kEmulatedAvx512Kernels);
#endif
  return kernels;
}

// Where an op runs: on the CPU with some inner loops, or on GPU 0.
struct Backend {
  std::string name;
  const cpu::Kernels* kernels = nullptr;  // null: the GPU
  int schedule = 0;                       // of the emulated GPU

  bool is_cpu() const { return kernels != nullptr; }
};

inline std::vector<Backend> CpuBackends() {
  std::vector<Backend> backends;
  if (CAIRN_TEST_EMULATED_GPU) return backends;
  for (const cpu::Kernels* kernels : TestedKernels()) backends.push_back({kernels->name, kernels});
  return backends;
}

inline std::vector<Backend> TestedBackends() {
  std::vector<Backend> backends;
#if CAIRN_TEST_EMULATED_GPU
  const char* names[] = {"emulated_forward", "emulated_reverse", "emulated_random1", "emulated_random2"};
#if defined(__SANITIZE_ADDRESS__)
  for (int i : {0, 2}) backends.push_back({names[i], nullptr, i});  // the release build runs them all
#else
  for (int i = 0; i < 4; ++i) backends.push_back({names[i], nullptr, i});
#endif
#else
  backends = CpuBackends();
  backends.push_back({"cuda"});
#endif
  return backends;
}

// For a test's SetUp: makes it run on the backend, or skip aloud.
inline void ChooseBackend(const Backend& backend) {
#if CAIRN_TEST_EMULATED_GPU
  cuda_emulator::SetSchedule(cuda_emulator::kSchedules[backend.schedule]);
#else
  if (!backend.is_cpu() && Context::NumCudaDevices() == 0) GTEST_SKIP() << "no GPU: the CUDA kernels were not run";
#endif
}

// On a GPU one context per activation type serves all tests.
inline std::shared_ptr<Context> ContextOf(const Backend& backend, int threads, DType activation) {
  if (backend.is_cpu()) return Context::Cpu(threads, activation, *backend.kernels);
  static std::map<DType, std::shared_ptr<Context>>& contexts = *new std::map<DType, std::shared_ptr<Context>>;
  std::shared_ptr<Context>& shared = contexts[activation];
  if (shared == nullptr) shared = Context::Cuda(0, activation).value();
  return shared;
}

// One test per backend: TEST_P(OpTest, ...) with context(threads, activation).
class OpTest : public testing::TestWithParam<Backend> {
 protected:
  void SetUp() override { ChooseBackend(GetParam()); }

  bool on_cpu() const { return GetParam().is_cpu(); }
  // The emulator runs some ten thousand times slower than a GPU: tests give it fewer or smaller cases.
  static constexpr bool kEmulated = CAIRN_TEST_EMULATED_GPU;

  // For lists of cases: the emulated GPU runs one in `share` under each schedule, and under each schedule others.
  bool Skips(int turn, int share) const { return kEmulated && (turn + 3 * GetParam().schedule) % share != 0; }

  std::shared_ptr<Context> context(int threads = 2, DType activation = DType::kFloat32) const {
    return ContextOf(GetParam(), threads, activation);
  }
};

inline std::string BackendName(const testing::TestParamInfo<Backend>& info) { return info.param.name; }

#define CAIRN_OP_TEST_SUITE(Suite) \
  INSTANTIATE_TEST_SUITE_P(Backends, Suite, testing::ValuesIn(TestedBackends()), BackendName)
// For ops without a CUDA half, and for what is about the CPU's inner loops.
#define CAIRN_CPU_OP_TEST_SUITE(Suite)                  \
  GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Suite); \
  INSTANTIATE_TEST_SUITE_P(Isa, Suite, testing::ValuesIn(CpuBackends()), BackendName)

inline constexpr DType kFloatTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};
// What holds keys and values.
inline constexpr DType kCacheTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat8E4M3};

// Half the distance between neighbouring numbers near 1, as a share: the error of one rounding to nearest.
inline double UnitRoundoff(DType type) {
  return type == DType::kFloat32 ? 0x1p-24 : type == DType::kBFloat16 ? 0x1p-8 : 0x1p-11;
}

inline float RoundTo(DType type, float value) {
  if (type == DType::kBFloat16) return BFloat16ToFloat(FloatToBFloat16(value));
  if (type == DType::kFloat16) return Float16ToFloat(FloatToFloat16(value));
  if (type == DType::kFloat8E4M3) return Float8E4M3ToFloat(FloatToFloat8E4M3(value));
  return value;
}

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  float Normal() { return normal_(engine_); }
  // In [low, high].
  int Integer(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }

 private:
  std::mt19937 engine_;
  std::normal_distribution<float> normal_;
};

// A matrix [rows, columns] whose rows lie `gap` elements apart; the gaps hold a value that nobody may read or write.
class Rows {
 public:
  static constexpr float kGap = -7.75e8f;

  Rows(int64_t rows, int64_t columns, int64_t gap = 0)
      : rows_(rows), columns_(columns), stride_(columns + gap), values_(rows * stride_ + gap, kGap) {}

  static Rows Normal(Random& random, int64_t rows, int64_t columns, int64_t gap = 0,
                     DType rounded_to = DType::kFloat32) {
    Rows r(rows, columns, gap);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) r.at(i, j) = RoundTo(rounded_to, random.Normal());
    }
    return r;
  }
  static Rows Integers(Random& random, int64_t rows, int64_t columns, int low, int high, int64_t gap = 0) {
    Rows r(rows, columns, gap);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) r.at(i, j) = static_cast<float>(random.Integer(low, high));
    }
    return r;
  }

  float& at(int64_t i, int64_t j) { return values_[i * stride_ + j]; }
  float at(int64_t i, int64_t j) const { return values_[i * stride_ + j]; }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }

  Tensor tensor() {
    if (columns_ == stride_) return Tensor(values_.data(), DType::kFloat32, {rows_, columns_});
    return Tensor(values_.data(), DType::kFloat32, {rows_, stride_}).Columns(0, columns_);
  }

  // Gaps untouched?
  bool GapsIntact() const {
    for (int64_t i = 0; i < rows_; ++i) {
      for (int64_t j = columns_; j < stride_; ++j) {
        if (values_[i * stride_ + j] != kGap) return false;
      }
    }
    return true;
  }

 private:
  friend class Operands;

  int64_t rows_, columns_, stride_;
  std::vector<float> values_;
};

// Operands on a context's device: on CPU the rows themselves, on a GPU copies, in the type that the device stores, gaps
// included; Fetch brings what an op has changed back into the rows.
class Operands {
 public:
  explicit Operands(Context& context) : context_(context) {}

  // Activations; float32 values; row by row.
  Tensor operator()(Rows& rows) { return Place(rows, context_.storage_dtype()); }
  Tensor F32(Rows& rows) { return Place(rows, DType::kFloat32); }
  Tensor F32(std::vector<float>& values) { return PlaceVector(values.data(), DType::kFloat32, values.size()); }
  Tensor Ints(std::vector<int32_t>& values) { return PlaceVector(values.data(), DType::kInt32, values.size()); }
  Tensor Ints(std::vector<int64_t>& values) { return PlaceVector(values.data(), DType::kInt64, values.size()); }

  void Fetch() {
    for (auto& [rows, copy] : copies_) {
      std::vector<uint8_t> bytes(copy.sent.size());
      CopyToHost(context_, Whole(copy.memory, copy.dtype, bytes.size()), bytes.data());
      const size_t size = DTypeSize(copy.dtype);
      for (size_t i = 0; i < bytes.size() / size; ++i) {
        const bool is_gap = static_cast<int64_t>(i) % rows->stride_ >= rows->columns_;
        if (is_gap && std::memcmp(&bytes[i * size], &copy.sent[i * size], size) == 0) continue;  // not to be rounded
        rows->values_[i] = Read(copy.dtype, &bytes[i * size]);
      }
      copy.sent = std::move(bytes);
    }
    for (VectorCopy& copy : vectors_) CopyToHost(context_, copy.tensor, copy.host);
  }

 private:
  struct Copy {
    DType dtype;
    Buffer memory;
    std::vector<uint8_t> sent;
  };

  struct VectorCopy {
    void* host;
    Buffer memory;
    Tensor tensor;
  };

  static float Read(DType dtype, const uint8_t* bytes) {
    if (dtype == DType::kFloat32) {
      float value;
      std::memcpy(&value, bytes, sizeof(value));
      return value;
    }
    uint16_t bits;
    std::memcpy(&bits, bytes, sizeof(bits));
    return dtype == DType::kBFloat16 ? BFloat16ToFloat(bits) : Float16ToFloat(bits);
  }

  Tensor Whole(const Buffer& memory, DType dtype, size_t bytes) const {
    return Tensor(memory.data(), dtype, {static_cast<int64_t>(bytes / DTypeSize(dtype))}, context_.device());
  }

  Tensor Place(Rows& rows, DType dtype) {
    if (context_.device().is_cpu()) return rows.tensor();
    auto [it, is_new] = copies_.try_emplace(&rows);
    Copy& copy = it->second;
    if (is_new) {
      const size_t size = DTypeSize(dtype);
      copy.dtype = dtype;
      copy.sent.resize(rows.values_.size() * size);
      for (size_t i = 0; i < rows.values_.size(); ++i) {
        const float value = rows.values_[i];
        const uint16_t half = dtype == DType::kBFloat16 ? FloatToBFloat16(value) : FloatToFloat16(value);
        std::memcpy(&copy.sent[i * size], dtype == DType::kFloat32 ? static_cast<const void*>(&value) : &half, size);
      }
      copy.memory = Buffer::Allocate(context_.device(), std::max<size_t>(copy.sent.size(), 16)).value();
      if (!copy.sent.empty()) CopyFromHost(context_, copy.sent.data(), Whole(copy.memory, dtype, copy.sent.size()));
    }
    const Tensor tensor(copy.memory.data(), copy.dtype, {rows.rows_, rows.stride_}, context_.device());
    return rows.columns_ == rows.stride_ ? tensor : tensor.Columns(0, rows.columns_);
  }

  Tensor PlaceVector(void* data, DType dtype, size_t count) {
    const int64_t n = static_cast<int64_t>(count);
    if (context_.device().is_cpu()) return Tensor(data, dtype, {n});
    Buffer memory = Buffer::Allocate(context_.device(), std::max<size_t>(count * DTypeSize(dtype), 16)).value();
    const Tensor tensor(memory.data(), dtype, {n}, context_.device());
    if (count > 0) CopyFromHost(context_, data, tensor);
    vectors_.push_back({data, std::move(memory), tensor});
    return tensor;
  }

  Context& context_;
  std::map<Rows*, Copy> copies_;
  std::vector<VectorCopy> vectors_;
};

// Same bits in row `i` of a and row `j` of b (so NaN equals itself and -0 differs from 0).
inline testing::AssertionResult SameRowBits(const Rows& a, int64_t i, const Rows& b, int64_t j) {
  for (int64_t c = 0; c < a.columns(); ++c) {
    if (std::bit_cast<uint32_t>(a.at(i, c)) != std::bit_cast<uint32_t>(b.at(j, c))) {
      return testing::AssertionFailure() << "row " << i << " against " << j << ", column " << c << ": " << a.at(i, c)
                                         << " against " << b.at(j, c);
    }
  }
  return testing::AssertionSuccess();
}

inline testing::AssertionResult SameBits(const Rows& a, const Rows& b) {
  for (int64_t i = 0; i < a.rows(); ++i) {
    if (auto same = SameRowBits(a, i, b, i); !same) return same;
  }
  return testing::AssertionSuccess();
}

}  // namespace cairn

#endif  // CAIRN_TESTS_KERNELS_OP_TESTING_H_
