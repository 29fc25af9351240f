// Threads, warps, barriers and shared memory: what a right kernel computes, and what a wrong one is told.
#include <gmock/gmock.h>

#include <numeric>

#include "kernels/cuda/ptx.h"
#include "tests/emulator/kernel_testing.h"

namespace cuda_emulator {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class SchedulerTest : public testing::TestWithParam<Schedule> {
 protected:
  void SetUp() override { SetSchedule(GetParam()); }
  void TearDown() override { SetSchedule({}); }
};
INSTANTIATE_TEST_SUITE_P(Schedules, SchedulerTest, testing::ValuesIn(kSchedules));

__global__ void WriteIndices(int* out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = static_cast<int>(block * 1000 + thread);
}

TEST_P(SchedulerTest, RunsEveryThreadOfEveryBlockOnce) {
  DeviceArray<int> out(2 * 3 * 2 * 5 * 4 * 3);
  EXPECT_EQ(RunKernel(WriteIndices, {dim3(2, 3, 2), dim3(5, 4, 3)}, out.data()), "");
  const std::vector<int> values = out.Read();
  for (int i = 0; i < static_cast<int>(values.size()); ++i) ASSERT_EQ(values[i], i / 60 * 1000 + i % 60);
}

// A block's sum, by warps and through shared memory.
__global__ void SumKernel(const int* in, int n, int* out) {
  CAIRN_SHARED(int, partial, [32]);
  int sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) sum += in[i];
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kFullMask, sum, lanes);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    sum = 0;
    for (unsigned w = 0; w < blockDim.x / 32; ++w) sum += partial[w];
    out[0] = sum;
  }
}

TEST_P(SchedulerTest, ReducesOverABlock) {
  std::vector<int> values(1000);
  std::iota(values.begin(), values.end(), 1);
  DeviceArray<int> in(values), out(1);
  for (unsigned threads : {32u, 64u, 256u, 1024u}) {
    EXPECT_EQ(RunKernel(SumKernel, {1, threads}, in.data(), 1000, out.data()), "");
    EXPECT_EQ(out.Read()[0], 500500);
  }
}

__global__ void WarpOperations(unsigned* out) {
  const unsigned lane = threadIdx.x;
  unsigned* own = out + lane * 8;
  own[0] = __shfl_up_sync(kFullMask, lane, 3);
  own[1] = __shfl_down_sync(kFullMask, lane, 3, 8);
  own[2] = __shfl_sync(kFullMask, lane, 9, 8);
  own[3] = __ballot_sync(kFullMask, lane % 3 == 0);
  own[4] = __match_any_sync(kFullMask, lane / 5);
  own[5] = static_cast<unsigned>(__reduce_min_sync(kFullMask, static_cast<int>(lane) - 7));
  own[6] = static_cast<unsigned>(__syncthreads_count(lane < 5));
  own[7] = lane % 2 == 0 ? __reduce_add_sync(0x55555555u, lane) : __reduce_max_sync(0xaaaaaaaau, lane);
}

TEST_P(SchedulerTest, WarpOperationsAreCudas) {
  DeviceArray<unsigned> out(32 * 8);
  EXPECT_EQ(RunKernel(WarpOperations, {1, 32}, out.data()), "");
  const std::vector<unsigned> v = out.Read();
  for (unsigned lane = 0; lane < 32; ++lane) {
    const unsigned* own = &v[lane * 8];
    EXPECT_EQ(own[0], lane < 3 ? lane : lane - 3);
    EXPECT_EQ(own[1], lane % 8 + 3 < 8 ? lane + 3 : lane);
    EXPECT_EQ(own[2], lane / 8 * 8 + 1);
    EXPECT_EQ(own[3], 0x49249249u);
    EXPECT_EQ(own[4], lane / 5 == 6 ? 3u << 30 : 31u << lane / 5 * 5);
    EXPECT_EQ(static_cast<int>(own[5]), -7);
    EXPECT_EQ(own[6], 5u);
    EXPECT_EQ(own[7], lane % 2 == 0 ? 240u : 31u);
  }
}

__global__ void CountAtomically(int* counter, float* sum) {
  atomicAdd(counter, 1);
  atomicAdd(sum, 0.5f);
  atomicMax(counter + 1, static_cast<int>(threadIdx.x));
}

TEST_P(SchedulerTest, Atomics) {
  DeviceArray<int> counter(std::vector<int>{0, -1});
  DeviceArray<float> sum(std::vector<float>{0});
  EXPECT_EQ(RunKernel(CountAtomically, {6, 50}, counter.data(), sum.data()), "");
  EXPECT_EQ(counter.Read(), (std::vector<int>{300, 49}));
  EXPECT_EQ(sum.Read()[0], 150);
}

template <typename T>
__global__ void TwoArrays(float* out) {
  CAIRN_SHARED(T, first, [3]);
  CAIRN_SHARED_ALIGNED(16, float, second, [2][4]);
  CAIRN_DYNAMIC_SHARED(float, rest);
  if (threadIdx.x == 0) {
    out[blockIdx.x * 4] = static_cast<float>(first[1]);
    out[blockIdx.x * 4 + 1] = second[1][3];
    out[blockIdx.x * 4 + 2] = rest[5];
    out[blockIdx.x * 4 + 3] = static_cast<float>(reinterpret_cast<uintptr_t>(second) % 16);
    first[1] = T(2);
    second[1][3] = rest[5] = 7;
  }
}

TEST_P(SchedulerTest, SharedMemoryIsNanForEveryBlock) {
  DeviceArray<float> out(12);
  EXPECT_EQ(RunKernel(TwoArrays<float>, {3, 32, 24}, out.data()), "");
  const std::vector<float> values = out.Read();
  for (int i = 0; i < 12; ++i) EXPECT_TRUE(i % 4 == 3 ? values[i] == 0 : std::isnan(values[i])) << i;
  EXPECT_EQ(RunKernel(TwoArrays<int>, {1, 32, 24}, out.data()), "");
  EXPECT_EQ(out.Read()[0], -1);
}

__global__ void MultiplyTiles(const __nv_bfloat16* a, const __nv_bfloat16* b, float* d, bool through_shared) {
  CAIRN_SHARED_ALIGNED(16, __nv_bfloat16, shared_a, [16][16]);
  CAIRN_SHARED_ALIGNED(16, __nv_bfloat16, shared_b, [16][16]);
  const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
  for (int i = lane; i < 256; i += 32) {
    shared_a[i / 16][i % 16] = a[i];
    shared_b[i / 16][i % 16] = i % 16 < 8 ? b[i / 16 * 8 + i % 16] : __float2bfloat16(0);
  }
  __syncwarp();
  const auto pair = [](__nv_bfloat16 low, __nv_bfloat16 high) {
    return static_cast<unsigned>(BitsOf(low)) | static_cast<unsigned>(BitsOf(high)) << 16;
  };
  unsigned fa[4], fb[2];
  if (through_shared) {
    cairn::cuda::LoadMatrices(fa, &shared_a[lane % 16][lane / 16 * 8]);
    unsigned r[4];
    cairn::cuda::LoadMatricesTransposed(r, &shared_b[lane % 16][lane / 16 * 8]);
    fb[0] = r[0];
    fb[1] = r[1];
  } else {
    for (int i = 0; i < 4; ++i) {
      const __nv_bfloat16* p = a + (g + i % 2 * 8) * 16 + t * 2 + i / 2 * 8;
      fa[i] = pair(p[0], p[1]);
    }
    for (int i = 0; i < 2; ++i) fb[i] = pair(b[(t * 2 + i * 8) * 8 + g], b[(t * 2 + 1 + i * 8) * 8 + g]);
  }
  float fd[4];
  for (int i = 0; i < 4; ++i) fd[i] = d[(g + i / 2 * 8) * 8 + t * 2 + i % 2];
  cairn::cuda::MmaBf16(fd, fa, fb);
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = fd[i];
}

// Fragments filled element by element, as the PTX ISA says, and through ldmatrix.
TEST_P(SchedulerTest, MmaMultipliesTiles) {
  for (bool through_shared : {false, true}) {
    std::vector<__nv_bfloat16> a(256), b(128);
    std::vector<float> d(128), expected(128);
    for (int i = 0; i < 256; ++i) a[i] = __float2bfloat16(static_cast<float>(i * 7 % 15 - 7));
    for (int i = 0; i < 128; ++i) b[i] = __float2bfloat16(static_cast<float>(i * 5 % 13 - 6));
    for (int i = 0; i < 128; ++i) d[i] = static_cast<float>(i);
    for (int m = 0; m < 16; ++m) {
      for (int n = 0; n < 8; ++n) {
        expected[m * 8 + n] = d[m * 8 + n];
        for (int k = 0; k < 16; ++k) {
          expected[m * 8 + n] += __bfloat162float(a[m * 16 + k]) * __bfloat162float(b[k * 8 + n]);
        }
      }
    }
    DeviceArray<__nv_bfloat16> da(a), db(b);
    DeviceArray<float> dd(d);
    EXPECT_EQ(RunKernel(MultiplyTiles, {1, 32}, da.data(), db.data(), dd.data(), through_shared), "");
    EXPECT_EQ(dd.Read(), expected);
  }
}

// Errors, each naming kernel, block, thread, file and line.

__global__ void DivergentBarrier(int* out) {
  if (threadIdx.x < 40) __syncthreads();
  out[threadIdx.x] = 1;
  __syncthreads();
}
TEST_P(SchedulerTest, NamesADivergentBarrier) {
  DeviceArray<int> out(64);
  EXPECT_THAT(RunKernel(DivergentBarrier, {1, 64}, out.data()),
              AllOf(HasSubstr("kernel test, block (0, 0, 0)"), HasSubstr("threads meet at different barriers"),
                    HasSubstr("threads 0..39: at the barrier"), HasSubstr("scheduler_test.cc:")));
}

__global__ void ReturnBeforeBarrier(int* out) {
  if (threadIdx.x >= 40) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}
TEST_P(SchedulerTest, NamesThreadsThatLeftBeforeABarrier) {
  DeviceArray<int> out(64);
  EXPECT_THAT(
      RunKernel(ReturnBeforeBarrier, {1, 64}, out.data()),
      testing::AnyOf(HasSubstr("24 threads returned before this barrier"), HasSubstr("threads 40..63: returned")));
}

__global__ void LanesMissing(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(kFullMask, static_cast<int>(threadIdx.x), 3);
}
__global__ void LaneOutsideItsMask(int* out) { out[threadIdx.x] = __shfl_sync(0xffffu, 1, 3); }
__global__ void SourceOutsideTheMask(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, static_cast<int>(threadIdx.x), 20);
}
__global__ void DifferentOperations(int* out) {
  out[threadIdx.x] = threadIdx.x % 2 == 0 ? __shfl_sync(kFullMask, 1, 0) : __any_sync(kFullMask, 1);
}
TEST_P(SchedulerTest, NamesWrongWarpOperations) {
  DeviceArray<int> out(64);
  EXPECT_THAT(RunKernel(LanesMissing, {1, 32}, out.data()),
              AllOf(HasSubstr("threads wait for each other"), HasSubstr("threads 0..15: in shfl of lanes ffffffff")));
  EXPECT_THAT(RunKernel(LaneOutsideItsMask, {1, 32}, out.data()),
              AllOf(HasSubstr("the lane is not in its own mask"), HasSubstr("thread (")));
  EXPECT_THAT(RunKernel(SourceOutsideTheMask, {1, 32}, out.data()), HasSubstr("reads lane 20, not in the mask"));
  EXPECT_THAT(RunKernel(DifferentOperations, {1, 32}, out.data()), HasSubstr("meet in different warp operations"));
  EXPECT_THAT(RunKernel(LanesMissing, {1, 20}, out.data()), HasSubstr("lanes that this block does not have"));
}

__global__ void TooMuchShared(float* out) {
  CAIRN_SHARED(float, big, [12000]);
  CAIRN_SHARED(float, more, [400]);
  out[0] = big[0] + more[0];
}
TEST_P(SchedulerTest, NamesSharedMemoryOverTheLimit) {
  DeviceArray<float> out(1);
  EXPECT_THAT(RunKernel(TooMuchShared, {1, 1}, out.data()), HasSubstr("shared memory over the limit"));
}

__global__ void CopyWrongly(const float* in, int what) {
  CAIRN_SHARED_ALIGNED(16, float, tile, [8]);
  if (what == 0) cairn::cuda::CopyAsync16(tile, in + 1, true);
  if (what == 1) cairn::cuda::CopyAsync16(&tile[1], in, true);
  if (what == 2) cairn::cuda::CopyAsync16(const_cast<float*>(in) + 4, in, true);
  if (what == 3) cairn::cuda::CopyAsync16(tile, in, true);
  if (what == 4) cairn::cuda::CopyAsync16(tile, in, true), cairn::cuda::CopyAsyncCommit();
}
TEST_P(SchedulerTest, NamesWrongAsyncCopies) {
  DeviceArray<float> in(16);
  const char* expected[] = {"misaligned source", "misaligned destination", "not in shared memory", "never committed",
                            "never waited for"};
  for (int what = 0; what < 5; ++what) {
    EXPECT_THAT(RunKernel(CopyWrongly, {1, 1}, static_cast<const float*>(in.data()), what), HasSubstr(expected[what]));
  }
}

__global__ void BadRow(const float* in) {
  CAIRN_SHARED(__nv_bfloat16, tile, [64 * 8 + 1]);
  unsigned r[4];
  cairn::cuda::LoadMatrices(r, tile + threadIdx.x * 8 + 1);
  if (in == nullptr) tile[0] = __ushort_as_bfloat16(static_cast<unsigned short>(r[0]));
}
TEST_P(SchedulerTest, NamesAMisalignedMatrixRow) {
  DeviceArray<float> in(1);
  EXPECT_THAT(RunKernel(BadRow, {1, 32}, static_cast<const float*>(in.data())), HasSubstr("not 16-byte aligned"));
}

#if CAIRN_EMULATED_WITH_RACE_CHECK

__global__ void Neighbours(int* out, int barriers) {
  CAIRN_SHARED(int, values, [64]);
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (barriers > 0) __syncthreads();
  const int left = values[(threadIdx.x + 63) % 64];
  if (barriers > 1) __syncthreads();
  values[threadIdx.x] = left;
  out[threadIdx.x] = values[threadIdx.x];
}

TEST_P(SchedulerTest, RaceCheckNamesMissingBarriers) {
  DeviceArray<int> out(64);
  EXPECT_EQ(RunKernel(Neighbours, {2, 64}, out.data(), 2).find("shared"), std::string::npos);
  for (int barriers : {0, 1}) {
    EXPECT_THAT(
        RunKernel(Neighbours, {1, 64}, out.data(), barriers),
        AllOf(HasSubstr("kernel test: race on shared memory: block 0 thread "), HasSubstr("scheduler_test.cc:")));
  }
}

__global__ void SameElement(int* out) { out[0] = static_cast<int>(blockIdx.x); }
__global__ void BeyondTheEnd(int* out, int n) { out[n + static_cast<int>(threadIdx.x)] = 1; }

TEST_P(SchedulerTest, RaceCheckWatchesDeviceMemory) {
  DeviceArray<int> out(10);
  EXPECT_THAT(RunKernel(SameElement, {2, 1}, out.data()), HasSubstr("race on device memory: block "));
  EXPECT_EQ(RunKernel(SameElement, {1, 1}, out.data()), "");
  EXPECT_THAT(RunKernel(BeyondTheEnd, {1, 1}, out.data(), 10), HasSubstr("outside of any allocation"));
  EXPECT_EQ(RunKernel(BeyondTheEnd, {1, 1}, out.data(), 9), "");
  SetRaceCheck(false);
  EXPECT_EQ(RunKernel(SameElement, {2, 1}, out.data()), "");
  SetRaceCheck(true);
}

#endif

#if CUDA_EMULATOR_ASAN

__global__ void Overrun(int* out, int what) {
  CAIRN_SHARED(int, values, [8]);
  CAIRN_DYNAMIC_SHARED(int, rest);
  if (what == 0) out[10] = 1;
  if (what == 1) values[threadIdx.x + 8] = 1;
  if (what == 2) rest[6] = 1;
}
TEST(SchedulerDeathTest, AddressSanitizerSeesOverruns) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  DeviceArray<int> out(10);
  for (int what : {0, 1, 2}) EXPECT_DEATH(RunKernel(Overrun, {1, 1, 24}, out.data(), what), "AddressSanitizer");
}

#endif

}  // namespace
}  // namespace cuda_emulator
