// Buffers, contexts and the choice of the instruction set.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "kernels/core/buffer.h"
#include "kernels/core/context.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/kernels.h"

namespace cairn {
namespace {

constexpr size_t kMegabyte = size_t{1} << 20;

TEST(BufferTest, IsAlignedZeroedAndWritable) {
  for (size_t bytes : {size_t{1}, size_t{63}, size_t{4096}, 2 * kMegabyte - 1, 2 * kMegabyte, 5 * kMegabyte + 3}) {
    Buffer buffer = Buffer::Allocate(Device{}, bytes).value();
    EXPECT_EQ(buffer.size_bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    for (size_t i = 0; i < bytes; i += 61) ASSERT_EQ(buffer.data()[i], 0);
    ASSERT_EQ(buffer.data()[bytes - 1], 0);
    std::memset(buffer.data(), 1, bytes);
  }
}

TEST(BufferTest, OfNothingIsEmpty) {
  Buffer buffer = Buffer::Allocate(Device{}, 0).value();
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_EQ(buffer.size_bytes(), 0u);
}

TEST(BufferTest, MovesItsMemory) {
  Buffer a = Buffer::Allocate(Device{}, 3 * kMegabyte).value();
  uint8_t* data = a.data();
  Buffer b = std::move(a);
  EXPECT_EQ(b.data(), data);
  EXPECT_EQ(a.data(), nullptr);  // NOLINT: what a moved-from buffer holds is part of the contract
  a = std::move(b);
  EXPECT_EQ(a.data(), data);
  a = Buffer::Allocate(Device{}, 100).value();
  EXPECT_EQ(a.size_bytes(), 100u);
}

TEST(BufferTest, SaysHowMuchItCouldNotGet) {
  for (size_t bytes : {size_t{1} << 60, SIZE_MAX - 5}) {
    const auto buffer = Buffer::Allocate(Device{}, bytes);
    ASSERT_FALSE(buffer.ok());
    EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_NE(std::string(buffer.status().message()).find(std::to_string(bytes)), std::string::npos) << buffer.status();
  }
}

// Megabytes of this process in memory.
double ResidentMegabytes() {
  FILE* file = std::fopen("/proc/self/statm", "r");
  long total = 0, resident = 0;
  const int fields = std::fscanf(file, "%ld %ld", &total, &resident);
  std::fclose(file);
  return fields == 2 ? static_cast<double>(resident) * 4096 / kMegabyte : 0;
}

TEST(BufferTest, TakesMemoryOnlyWhereTouched) {
  const double before = ResidentMegabytes();
  Buffer buffer = Buffer::Allocate(Device{}, 512 * kMegabyte).value();
  buffer.data()[256 * kMegabyte] = 1;
  EXPECT_LT(ResidentMegabytes() - before, 64);
}

TEST(ContextTest, ScratchIsPerWorkerAlignedAndGrows) {
  auto context = Context::Cpu(2, DType::kFloat32);
  EXPECT_EQ(context->threads().num_threads(), 2);
  EXPECT_TRUE(context->device().is_cpu());
  void* first = context->Scratch(0, 100);
  void* second = context->Scratch(1, 100);
  void* shared = context->SharedScratch(100);
  EXPECT_NE(first, second);
  EXPECT_NE(first, shared);
  EXPECT_EQ(context->Scratch(0, 50), first);
  for (size_t bytes : {size_t{1000}, 3 * kMegabyte}) {
    void* larger = context->Scratch(0, bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(larger) % 64, 0u);
    std::memset(larger, 1, bytes);
    EXPECT_EQ(context->Scratch(0, bytes), larger);
  }
}

// Sets CAIRN_CPU_ISA for a test.
class IsaVariable {
 public:
  explicit IsaVariable(const char* value) {
    if (const char* old = std::getenv("CAIRN_CPU_ISA")) old_ = old;
    setenv("CAIRN_CPU_ISA", value, 1);
  }
  ~IsaVariable() {
    if (old_.empty()) {
      unsetenv("CAIRN_CPU_ISA");
    } else {
      setenv("CAIRN_CPU_ISA", old_.c_str(), 1);
    }
  }

 private:
  std::string old_;
};

TEST(IsaTest, EveryAvailableSetCanBeForced) {
  for (const cpu::Kernels* kernels : cpu::AvailableKernels()) {
    IsaVariable variable(kernels->name);
    EXPECT_TRUE(Context::CheckEnvironment().ok());
    EXPECT_EQ(&Context::Cpu(1, DType::kFloat32)->cpu_kernels(), kernels);
    EXPECT_STREQ(Context::Cpu(1, DType::kFloat32)->isa_name(), kernels->name);
  }
}

TEST(IsaTest, TheBestIsTheDefault) {
  IsaVariable variable("");
  EXPECT_EQ(&Context::Cpu(1, DType::kFloat32)->cpu_kernels(), cpu::AvailableKernels().back());
}

TEST(IsaTest, RefusesUnknownAndMissingSets) {
  IsaVariable variable("avx1024");
  EXPECT_EQ(Context::CheckEnvironment().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(Context::CheckEnvironment().message());
  EXPECT_NE(message.find("CAIRN_CPU_ISA: unknown instruction set 'avx1024'; this CPU can run: scalar"),
            std::string::npos)
      << message;
  if (cpu::AvailableKernels().size() == 5) GTEST_SKIP() << "this CPU runs every instruction set";
  IsaVariable missing("avx512_amx");
  const std::string refusal(Context::CheckEnvironment().message());
  EXPECT_NE(refusal.find("this CPU lacks instruction set 'avx512_amx'"), std::string::npos) << refusal;
}

}  // namespace
}  // namespace cairn
