// Does the emulator see what it should? Four small kernels of the kinds that the project has, right as they stand; each
// with the mistakes that are made in such kernels. Every mistake must show: as an error, a race, or a wrong answer
// under one of the schedules.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "kernels/cuda/ptx.h"
#include "tests/emulator/kernel_testing.h"

namespace cuda_emulator {
namespace {

enum class Mutation {
  kNone,
  kNoBarrierAfterPartials,
  kNoBarrierAfterScale,
  kWrongLane,
  kNormTail,
  kNormSkipsLast,
  kWeakWait,
  kNoBarrierAfterWait,
  kNoBarrierBeforeOverwrite,
  kTileTail,
  kWrongStage,
  kTakesOneTieTooMany,
  kNoBarrierAfterClear,
  kNoBarrierAfterThreshold,
  kNotAtomic,
  kNoBarrierAfterReads,
};

// y[row] = x[row] / rms(x[row]), one block a row.
template <Mutation M>
__global__ void NormKernel(const float* x, float* y, int n) {
  CAIRN_SHARED(float, partial, [4]);
  CAIRN_SHARED(float, scale);
  const float* row = x + static_cast<size_t>(blockIdx.x) * n;
  const int thread = static_cast<int>(threadIdx.x);
  float sum = 0;
  for (int i = thread; i < n - (M == Mutation::kNormSkipsLast); i += 128) sum += row[i] * row[i];
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    sum += __shfl_xor_sync(kFullMask, sum, M == Mutation::kWrongLane && lanes == 1 ? 2 : lanes);
  }
  if (thread % 32 == 0) partial[thread / 32] = sum;
  if (M != Mutation::kNoBarrierAfterPartials) __syncthreads();
  if (thread == 0) scale = rsqrtf((partial[0] + partial[1] + partial[2] + partial[3]) / static_cast<float>(n));
  if (M != Mutation::kNoBarrierAfterScale) __syncthreads();
  const float factor = scale;
  for (int i = thread; i < n + (M == Mutation::kNormTail); i += 128) {
    y[static_cast<size_t>(blockIdx.x) * n + i] = row[i] * factor;
  }
}

constexpr int kTileRows = 32, kColumns = 8;

// out[i] = x . row i of a matrix, tiles of rows fetched a tile ahead. One warp pair: warps read each other's copies.
template <Mutation M>
__global__ void TileKernel(const float* x, const float* rows, int n, float* out) {
  CAIRN_SHARED_ALIGNED(16, float, tile, [2][kTileRows][kColumns]);
  const int thread = static_cast<int>(threadIdx.x);  // of 64: one 16-byte piece each
  const auto fetch = [&](int t, int stage) {
    const int r = thread / 2, c = thread % 2 * 4, row = t * kTileRows + r;
    const bool in = M == Mutation::kTileTail ? row <= n : row < n;
    cairn::cuda::CopyAsync16(&tile[stage][r][c], rows + (in ? static_cast<size_t>(row) * kColumns + c : 0), in);
    cairn::cuda::CopyAsyncCommit();
  };
  const int tiles = (n + kTileRows - 1) / kTileRows;
  fetch(0, 0);
  for (int t = 0; t < tiles; ++t) {
    const int stage = t % 2;
    if (t + 1 < tiles) {
      fetch(t + 1, M == Mutation::kWrongStage ? stage : stage ^ 1);
      cairn::cuda::CopyAsyncWait<M == Mutation::kWeakWait ? 2 : 1>();
    } else {
      cairn::cuda::CopyAsyncWait<0>();
    }
    if (M != Mutation::kNoBarrierAfterWait) __syncthreads();
    const int r = 31 - thread / 2, row = t * kTileRows + r;  // a row that the other warp fetched
    float sum = 0;
    for (int c = 0; c < 4; ++c) sum += x[thread % 2 * 4 + c] * tile[stage][r][thread % 2 * 4 + c];
    sum += __shfl_xor_sync(kFullMask, sum, 1);
    if (thread % 2 == 0 && row < n + (M == Mutation::kTileTail)) out[row] = sum;
    if (M != Mutation::kNoBarrierBeforeOverwrite) __syncthreads();
  }
}

// The k largest of n small integers, ties to the lower index, as flags. One block of 64.
template <Mutation M>
__global__ void SelectKernel(const int* values, int n, int k, int* taken) {
  CAIRN_SHARED(int, counts, [16]);
  CAIRN_SHARED(int, threshold);
  CAIRN_SHARED(int, ties);
  CAIRN_SHARED(int, before, [64]);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < 16) counts[thread] = 0;
  if (M != Mutation::kNoBarrierAfterClear) __syncthreads();
  for (int i = thread; i < n; i += 64) {
    if (M == Mutation::kNotAtomic) {
      counts[values[i]] = counts[values[i]] + 1;
    } else {
      atomicAdd(&counts[values[i]], 1);
    }
  }
  __syncthreads();
  if (thread == 63) {
    int left = k, bin = 15;
    while (counts[bin] < left) left -= counts[bin--];
    threshold = bin;
    ties = left;
  }
  if (M != Mutation::kNoBarrierAfterThreshold) __syncthreads();
  // Each thread owns a run of neighbours.
  const int run = (n + 63) / 64, begin = min(n, thread * run), end = min(n, begin + run);
  int equal = 0;
  for (int i = begin; i < end; ++i) equal += values[i] == threshold;
  before[thread] = equal;
  __syncthreads();
  int rank = 0;
  for (int t = 0; t < thread; ++t) rank += before[t];
  for (int i = begin; i < end; ++i) {
    bool take = values[i] > threshold;
    if (values[i] == threshold) {
      take = M == Mutation::kTakesOneTieTooMany ? rank <= ties : rank < ties;
      ++rank;
    }
    taken[i] = take;
  }
}

// row[j] = row[keep[j]] in place, keep ascending. One block of 64.
template <Mutation M>
__global__ void CompactKernel(float* rows, const int* keep, int n) {
  for (int begin = 0; begin < n; begin += 64) {
    const int j = begin + static_cast<int>(threadIdx.x);
    const float value = j < n ? rows[keep[j]] : 0;
    if (M != Mutation::kNoBarrierAfterReads) __syncthreads();
    if (j < n) rows[j] = value;  // later rounds read behind these
  }
}

// Each runs its kernel on its data: an error, "wrong" or nothing.

template <Mutation M>
std::string RunNorm() {
  const int rows = 3, n = 333;
  std::vector<float> x(rows * n);
  std::mt19937 random(1);
  for (float& value : x) value = static_cast<float>(random() % 100) / 50 - 1 + 0.3f;
  DeviceArray<float> dx(x), dy(x.size());
  const std::string error = RunKernel(NormKernel<M>, {rows, 128}, static_cast<const float*>(dx.data()), dy.data(), n);
  if (!error.empty()) return error;
  const std::vector<float> y = dy.Read();
  for (int row = 0; row < rows; ++row) {
    double sum = 0;
    for (int i = 0; i < n; ++i) sum += static_cast<double>(x[row * n + i]) * x[row * n + i];
    for (int i = 0; i < n; ++i) {
      const double expected = x[row * n + i] / std::sqrt(sum / n);
      if (!(std::abs(y[row * n + i] - expected) <= 1e-5)) return "wrong";
    }
  }
  return "";
}

template <Mutation M>
std::string RunTiles() {
  const int n = 4 * kTileRows + 9;  // enough tiles for both stages to be used again
  std::vector<float> x(kColumns), rows(n * kColumns);
  std::iota(x.begin(), x.end(), 1.0f);
  std::iota(rows.begin(), rows.end(), 0.0f);
  DeviceArray<float> dx(x), drows(rows), out(n);
  const std::string error = RunKernel(TileKernel<M>, {1, 64}, static_cast<const float*>(dx.data()),
                                      static_cast<const float*>(drows.data()), n, out.data());
  if (!error.empty()) return error;
  const std::vector<float> y = out.Read();
  for (int r = 0; r < n; ++r) {
    if (y[r] != std::inner_product(x.begin(), x.end(), rows.begin() + r * kColumns, 0.0f)) return "wrong";
  }
  return "";
}

template <Mutation M>
std::string RunSelect() {
  const int n = 500, k = 137;
  std::vector<int> values(n);
  std::mt19937 random(2);
  for (int& value : values) value = static_cast<int>(random() % 11);
  DeviceArray<int> dvalues(values), taken(n);
  const std::string error =
      RunKernel(SelectKernel<M>, {1, 64}, static_cast<const int*>(dvalues.data()), n, k, taken.data());
  if (!error.empty()) return error;
  std::vector<int> order(n), expected(n, 0);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return values[a] > values[b]; });
  for (int i = 0; i < k; ++i) expected[order[i]] = 1;
  return taken.Read() == expected ? "" : "wrong";
}

template <Mutation M>
std::string RunCompact() {
  const int slots = 400;
  std::vector<float> rows(slots), expected;
  std::iota(rows.begin(), rows.end(), 0.0f);
  std::vector<int> keep;
  std::mt19937 random(3);
  for (int i = 0; i < slots; ++i) {
    if (random() % 5 < 3) keep.push_back(i);
  }
  expected = rows;
  for (size_t j = 0; j < keep.size(); ++j) expected[j] = rows[keep[j]];
  DeviceArray<float> drows(rows);
  DeviceArray<int> dkeep(keep);
  const std::string error = RunKernel(CompactKernel<M>, {1, 64}, drows.data(), static_cast<const int*>(dkeep.data()),
                                      static_cast<int>(keep.size()));
  if (!error.empty()) return error;
  return drows.Read() == expected ? "" : "wrong";
}

struct Case {
  const char* name;
  std::string (*run)();
};

TEST(MutationTest, RightKernelsPass) {
  for (const Case& c : {Case{"norm", RunNorm<Mutation::kNone>}, Case{"tiles", RunTiles<Mutation::kNone>},
                        Case{"select", RunSelect<Mutation::kNone>}, Case{"compact", RunCompact<Mutation::kNone>}}) {
    for (const Schedule& schedule : kSchedules) {
      SetSchedule(schedule);
      EXPECT_EQ(c.run(), "") << c.name;
    }
  }
  SetSchedule({});
}

#if CAIRN_EMULATED_WITH_RACE_CHECK

#define CASE(Run, mutation) \
  { #mutation, &Run < Mutation::mutation> }
const Case kMutants[] = {
    CASE(RunNorm, kNoBarrierAfterPartials),
    CASE(RunNorm, kNoBarrierAfterScale),
    CASE(RunNorm, kWrongLane),
    CASE(RunNorm, kNormTail),
    CASE(RunNorm, kNormSkipsLast),
    CASE(RunTiles, kWeakWait),
    CASE(RunTiles, kNoBarrierAfterWait),
    CASE(RunTiles, kNoBarrierBeforeOverwrite),
    CASE(RunTiles, kTileTail),
    CASE(RunTiles, kWrongStage),
    CASE(RunSelect, kTakesOneTieTooMany),
    CASE(RunSelect, kNoBarrierAfterClear),
    CASE(RunSelect, kNoBarrierAfterThreshold),
    CASE(RunSelect, kNotAtomic),
    CASE(RunCompact, kNoBarrierAfterReads),
};
#undef CASE

TEST(MutationTest, EveryMistakeShows) {
  for (const Case& mutant : kMutants) {
    std::string by_check, by_schedule;
    for (const Schedule& schedule : kSchedules) {
      SetSchedule(schedule);
      SetRaceCheck(true);
      by_check += mutant.run();
      SetRaceCheck(false);
      by_schedule += mutant.run();
    }
    SetRaceCheck(true);
    SetSchedule({});
    EXPECT_NE(by_check, "") << mutant.name << " was not seen";
    // What the schedules alone see: for the reader of the log.
    std::printf("%-28s %-32s without the race check: %s\n", mutant.name,
                by_check.substr(0, 5) == "wrong" ? "wrong answer" : "named", by_schedule.empty() ? "unseen" : "seen");
  }
}

#endif

}  // namespace
}  // namespace cuda_emulator
