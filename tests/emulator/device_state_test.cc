// What stands under the CUDA ops: device buffers, the context, copies, and the way of tables to the device.
#include "kernels/cuda/device_state.h"

#include <gmock/gmock.h>

#include <numeric>
#include <vector>

#include "kernels/core/copy.h"
#include "kernels/ops/elementwise.h"
#include "tests/emulator/emulator.h"

namespace cairn {
namespace {

using testing::HasSubstr;

constexpr Device kGpu = {DeviceKind::kCuda, 0};

TEST(CudaContextTest, NamesAGpuThatIsNotThere) {
  EXPECT_EQ(Context::NumCudaDevices(), 1);
  for (int index : {-1, 1}) {
    const auto context = Context::Cuda(index, DType::kBFloat16);
    ASSERT_FALSE(context.ok());
    EXPECT_EQ(context.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(context.status().message()), HasSubstr("CUDA sees 1"));
  }
}

TEST(CudaContextTest, StoresActivationsInTheirType) {
  const auto context = Context::Cuda(0, DType::kBFloat16).value();
  EXPECT_EQ(context->device(), kGpu);
  EXPECT_EQ(context->storage_dtype(), DType::kBFloat16);
  EXPECT_STREQ(context->isa_name(), "cuda");
  EXPECT_EQ(Context::Cpu(1, DType::kBFloat16)->storage_dtype(), DType::kFloat32);
}

TEST(CudaBufferTest, SaysHowMuchIsFree) {
  cuda_emulator::SetDeviceMemory(1000);
  const auto buffer = Buffer::Allocate(kGpu, 2000);
  ASSERT_FALSE(buffer.ok());
  EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(buffer.status().message()), HasSubstr("cannot allocate 2000 bytes on GPU 0: 1000 of "));
  {
    const Buffer first = Buffer::Allocate(kGpu, 900).value();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(first.data()) % 256, 0u);
    EXPECT_FALSE(Buffer::Allocate(kGpu, 900).ok());
  }
  EXPECT_TRUE(Buffer::Allocate(kGpu, 900).ok());  // given back
  cuda_emulator::SetDeviceMemory(SIZE_MAX);
}

TEST(CudaCopyTest, GoesThereAndBackByRows) {
  auto context = Context::Cuda(0, DType::kFloat32).value();
  const Buffer memory = Buffer::Allocate(kGpu, 6 * 10 * sizeof(float)).value();
  const Tensor wide(memory.data(), DType::kFloat32, {6, 10}, kGpu);
  const Tensor part = wide.Columns(3, 7);
  std::vector<float> zeros(60, 0), values(24), read(24), whole(60);
  std::iota(values.begin(), values.end(), 1.0f);
  CopyFromHost(*context, zeros.data(), wide);
  CopyFromHost(*context, values.data(), part);
  std::fill(values.begin(), values.end(), -1.0f);  // the source has been read
  CopyToHost(*context, part, read.data());
  CopyToHost(*context, wide, whole.data());
  for (int i = 0; i < 24; ++i) EXPECT_EQ(read[i], static_cast<float>(i + 1));
  for (int i = 0; i < 60; ++i) EXPECT_EQ(whole[i] != 0, i % 10 >= 3 && i % 10 < 7) << i;
}

// Tables of several times the staging memory, each used by an op before the next is built: none is overwritten before
// its use, though nobody waits.
TEST(CudaStagingTest, TablesLastUntilTheyAreUsed) {
  auto context = Context::Cuda(0, DType::kFloat32).value();
  constexpr int64_t kValues = 200000, kUsed = 500;  // of each table, its last values
  constexpr int kTables = 25;
  const Buffer memory = Buffer::Allocate(kGpu, kTables * kUsed * sizeof(float)).value();
  const Tensor sums(memory.data(), DType::kFloat32, {kTables, kUsed}, kGpu);
  CopyFromHost(*context, std::vector<float>(kTables * kUsed, 0).data(), sums);
  std::vector<float> table(kValues);
  for (int i = 0; i < kTables; ++i) {
    std::iota(table.begin(), table.end(), static_cast<float>(1000 * i));
    const float* uploaded = context->cuda().Upload(table.data(), table.size());
    const Tensor whole(const_cast<float*>(uploaded), DType::kFloat32, {1, kValues}, kGpu);
    AddInPlace(*context, sums.Rows(i, i + 1), whole.Columns(kValues - kUsed, kValues));
  }
  std::vector<float> read(kTables * kUsed);
  CopyToHost(*context, sums, read.data());
  for (int i = 0; i < kTables; ++i) {
    for (int64_t j = 0; j < kUsed; ++j) {
      ASSERT_EQ(read[i * kUsed + j], static_cast<float>(1000 * i + kValues - kUsed + j)) << i;
    }
  }
}

TEST(CudaStagingTest, TheSameTableIsSentOnce) {
  auto context = Context::Cuda(0, DType::kFloat32).value();
  std::vector<int32_t> a = {1, 2, 3}, b = {4, 5, 6, 7}, c = {1, 2, 4};
  const int32_t* first = context->cuda().Upload(a.data(), a.size());
  const int32_t* second = context->cuda().Upload(b.data(), b.size());
  EXPECT_NE(first, second);
  EXPECT_EQ(context->cuda().Upload(a.data(), a.size()), first);
  EXPECT_EQ(context->cuda().Upload(b.data(), b.size()), second);
  EXPECT_NE(context->cuda().Upload(c.data(), c.size()), first);
  EXPECT_NE(context->cuda().Upload(b.data(), 3), second);
}

TEST(CudaStagingTest, GrowsForALargeTableAndThenNoMore) {
  auto context = Context::Cuda(0, DType::kFloat32).value();
  std::vector<int32_t> table(5 << 20);
  std::iota(table.begin(), table.end(), 0);
  std::vector<int32_t> read(table.size());
  for (int repeat = 0; repeat < 3; ++repeat) {
    const int64_t before = cuda_emulator::NumAllocations();
    table[0] = repeat;
    const int32_t* uploaded = context->cuda().Upload(table.data(), table.size());
    CopyToHost(*context,
               Tensor(const_cast<int32_t*>(uploaded), DType::kInt32, {static_cast<int64_t>(table.size())}, kGpu),
               read.data());
    EXPECT_EQ(read, table);
    if (repeat > 0) {
      EXPECT_EQ(cuda_emulator::NumAllocations(), before);
    }
  }
}

}  // namespace
}  // namespace cairn
