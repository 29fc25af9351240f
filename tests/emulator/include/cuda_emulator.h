// CUDA C++ for a host compiler: what a .cu file of this project sees instead of cuda_runtime.h when nvcc is not there.
// Types, bf16, fp16 and fp8 are CUDA's own headers; here are the built-in variables, the warp and block operations, and
// the launch. Only what the kernels use.
#ifndef CAIRN_TESTS_EMULATOR_INCLUDE_CUDA_EMULATOR_H_
#define CAIRN_TESTS_EMULATOR_INCLUDE_CUDA_EMULATOR_H_

#ifdef __CUDACC__
#error "cuda_emulator.h is for host compilers; nvcc has cuda_runtime.h"
#endif

#define __launch_bounds__(...)
// clang-format off: the runtime's types come before the headers that use them
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime_api.h>
#include <driver_types.h>
#include <vector_functions.h>
#include <vector_types.h>
// clang-format on

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

// Written by the scheduler whenever another thread runs.
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

// Kernels name shared memory through kernels/cuda/launch.h, so that it can be filled with NaN and fenced here.
#undef __shared__
#define __shared__ static_assert(false, "shared memory goes through CAIRN_SHARED and CAIRN_DYNAMIC_SHARED")

namespace cuda_emulator {

inline constexpr unsigned kFullMask = 0xffffffffu;

// An array of the block, the same for all its threads; `key` tells it from the others. The first thread that asks
// makes it: filled with 0xff (NaN as a float of any width), fenced, no better aligned than asked for.
void* SharedArray(const void* key, size_t bytes, size_t alignment);
void* DynamicShared(size_t alignment);

// Ends the kernel with an error of this thread.
[[noreturn]] void Fail(const std::string& what, const char* file, int line);

// A lane waits until all lanes of the mask have arrived with the same function; then it runs once, over the lanes'
// arguments (on their stacks), and all go on. `name` is for messages. A null function only waits.
using WarpFunction = void (*)(void* const lane_arguments[32], unsigned mask);
void WarpCollective(const char* name, unsigned mask, void* arguments, WarpFunction function, const char* file,
                    int line);

enum class Vote { kNone, kCount, kAnd, kOr };
int BlockBarrier(Vote vote, int predicate, const char* file, int line);

int LaneId();
// For the race check: an access that a collective makes for a lane.
void NoteAccess(const void* address, size_t bytes, bool is_write, int lane);

// cp.async: `source_bytes` of `bytes` are copied, the rest is zero. It lands some time between here and the wait.
void CopyAsync(void* destination, const void* source, int bytes, int source_bytes, const char* file, int line);
void CopyAsyncCommit();
// Until at most `pending_groups` are under way.
void CopyAsyncWait(int pending_groups);

// Name of the kernel that this host thread launches next.
void NameNextLaunch(const char* name);
cudaError_t Launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> thread_body);

template <typename T>
T BitsTo(uint64_t bits) {
  T value;
  std::memcpy(static_cast<void*>(&value), &bits, sizeof(T));
  return value;
}
template <typename T>
uint64_t BitsOf(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

struct ShuffleArguments {
  uint64_t value, result;
  int source;
  const char* file;
  int line;
};
void ShuffleLanes(void* const lanes[32], unsigned mask);

template <typename T>
T Shuffle(unsigned mask, T value, int source, const char* file, int line) {
  ShuffleArguments arguments = {BitsOf(value), 0, source, file, line};
  WarpCollective("shfl", mask, &arguments, &ShuffleLanes, file, line);
  return BitsTo<T>(arguments.result);
}

struct VoteArguments {
  unsigned value, result;
};
void BallotLanes(void* const lanes[32], unsigned mask);
void MatchLanes(void* const lanes[32], unsigned mask);

struct Add {
  template <typename T>
  T operator()(T a, T b) const {
    return a + b;
  }
};
struct Min {
  template <typename T>
  T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};
struct Max {
  template <typename T>
  T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};

template <typename T, typename Reduction>
void ReduceLanes(void* const lanes[32], unsigned mask) {
  bool first = true;
  T total = {};
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    const T value = BitsTo<T>(static_cast<VoteArguments*>(lanes[i])->value);
    total = first ? value : Reduction()(total, value);
    first = false;
  }
  for (int i = 0; i < 32; ++i) {
    if (mask >> i & 1) static_cast<VoteArguments*>(lanes[i])->result = static_cast<unsigned>(BitsOf(total));
  }
}

template <typename T, typename Reduction>
T ReduceWarp(const char* name, unsigned mask, T value, const char* file, int line) {
  static_assert(sizeof(T) == 4);
  VoteArguments arguments = {static_cast<unsigned>(BitsOf(value)), 0};
  WarpCollective(name, mask, &arguments, &ReduceLanes<T, Reduction>, file, line);
  return BitsTo<T>(arguments.result);
}

// Lanes of one group of `width`.
inline int GroupBegin(int width) { return LaneId() & ~(width - 1); }
inline int InGroupOr(int lane, int own, int width) {
  return lane >= GroupBegin(width) && lane < GroupBegin(width) + width ? lane : own;
}

}  // namespace cuda_emulator

// The launch of cuda_runtime.h.
template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  std::tuple<Parameters...> parameters(std::forward<Arguments>(arguments)...);
  return cuda_emulator::Launch(*config, reinterpret_cast<const void*>(kernel), [kernel, parameters] {
    std::tuple<Parameters...> own = parameters;  // every thread has its own copy
    std::apply(kernel, own);
  });
}

#define CUDA_EMULATOR_AT const char *file_ = __builtin_FILE(), int line_ = __builtin_LINE()

inline void __syncthreads(CUDA_EMULATOR_AT) {
  cuda_emulator::BlockBarrier(cuda_emulator::Vote::kNone, 0, file_, line_);
}
inline int __syncthreads_count(int predicate, CUDA_EMULATOR_AT) {
  return cuda_emulator::BlockBarrier(cuda_emulator::Vote::kCount, predicate, file_, line_);
}
inline int __syncthreads_and(int predicate, CUDA_EMULATOR_AT) {
  return cuda_emulator::BlockBarrier(cuda_emulator::Vote::kAnd, predicate, file_, line_);
}
inline int __syncthreads_or(int predicate, CUDA_EMULATOR_AT) {
  return cuda_emulator::BlockBarrier(cuda_emulator::Vote::kOr, predicate, file_, line_);
}
inline void __syncwarp(unsigned mask = cuda_emulator::kFullMask, CUDA_EMULATOR_AT) {
  cuda_emulator::WarpCollective("syncwarp", mask, nullptr, nullptr, file_, line_);
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, CUDA_EMULATOR_AT) {
  return cuda_emulator::Shuffle(mask, value, cuda_emulator::GroupBegin(width) | (lane & (width - 1)), file_, line_);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, CUDA_EMULATOR_AT) {
  const int own = cuda_emulator::LaneId();
  return cuda_emulator::Shuffle(mask, value, cuda_emulator::InGroupOr(own ^ lanes, own, width), file_, line_);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_EMULATOR_AT) {
  const int own = cuda_emulator::LaneId(), lane = own - static_cast<int>(delta);
  return cuda_emulator::Shuffle(mask, value, cuda_emulator::InGroupOr(lane, own, width), file_, line_);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_EMULATOR_AT) {
  const int own = cuda_emulator::LaneId(), lane = own + static_cast<int>(delta);
  return cuda_emulator::Shuffle(mask, value, cuda_emulator::InGroupOr(lane, own, width), file_, line_);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_EMULATOR_AT) {
  cuda_emulator::VoteArguments arguments = {predicate != 0, 0};
  cuda_emulator::WarpCollective("ballot", mask, &arguments, &cuda_emulator::BallotLanes, file_, line_);
  return arguments.result;
}
inline int __any_sync(unsigned mask, int predicate, CUDA_EMULATOR_AT) {
  return __ballot_sync(mask, predicate, file_, line_) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDA_EMULATOR_AT) {
  return __ballot_sync(mask, predicate, file_, line_) == mask;
}
inline unsigned __match_any_sync(unsigned mask, unsigned value, CUDA_EMULATOR_AT) {
  cuda_emulator::VoteArguments arguments = {value, 0};
  cuda_emulator::WarpCollective("match", mask, &arguments, &cuda_emulator::MatchLanes, file_, line_);
  return arguments.result;
}
template <typename T>
T __reduce_add_sync(unsigned mask, T value, CUDA_EMULATOR_AT) {
  return cuda_emulator::ReduceWarp<T, cuda_emulator::Add>("redux.add", mask, value, file_, line_);
}
template <typename T>
T __reduce_min_sync(unsigned mask, T value, CUDA_EMULATOR_AT) {
  return cuda_emulator::ReduceWarp<T, cuda_emulator::Min>("redux.min", mask, value, file_, line_);
}
template <typename T>
T __reduce_max_sync(unsigned mask, T value, CUDA_EMULATOR_AT) {
  return cuda_emulator::ReduceWarp<T, cuda_emulator::Max>("redux.max", mask, value, file_, line_);
}

// Threads run one at a time, so plain arithmetic would do; the builtins tell the race check that these are atomic.
template <typename T, typename Function>
T AtomicUpdate(T* address, const Function& function) {
  T old, updated;
  do {
    __atomic_load(address, &old, __ATOMIC_RELAXED);
    updated = function(old);
  } while (!__atomic_compare_exchange(address, &old, &updated, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}
template <typename T, typename U>
T atomicAdd(T* address, U value) {
  return AtomicUpdate(address, [&](T old) { return static_cast<T>(old + static_cast<T>(value)); });
}
template <typename T, typename U>
T atomicMax(T* address, U value) {
  return AtomicUpdate(address, [&](T old) { return old < static_cast<T>(value) ? static_cast<T>(value) : old; });
}
template <typename T, typename U>
T atomicMin(T* address, U value) {
  return AtomicUpdate(address, [&](T old) { return static_cast<T>(value) < old ? static_cast<T>(value) : old; });
}
template <typename T, typename U>
T atomicOr(T* address, U value) {
  return AtomicUpdate(address, [&](T old) { return static_cast<T>(old | static_cast<T>(value)); });
}
template <typename T, typename U>
T atomicExch(T* address, U value) {
  return AtomicUpdate(address, [&](T) { return static_cast<T>(value); });
}
template <typename T, typename U, typename V>
T atomicCAS(T* address, U compare, V value) {
  return AtomicUpdate(address, [&](T old) { return old == static_cast<T>(compare) ? static_cast<T>(value) : old; });
}
inline void __threadfence() {}
inline void __threadfence_block() {}

template <typename T>
T __ldg(const T* address) {
  return *address;
}
template <typename T>
T __ldcs(const T* address) {
  return *address;
}
template <typename T>
void __stcs(T* address, T value) {
  *address = value;
}

inline uint64_t __umul64hi(uint64_t a, uint64_t b) {
  __extension__ typedef unsigned __int128 Wide;
  return static_cast<uint64_t>(static_cast<Wide>(a) * b >> 64);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x != 0 ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline unsigned __float_as_uint(float x) { return cuda_emulator::BitsTo<unsigned>(cuda_emulator::BitsOf(x)); }
inline int __float_as_int(float x) { return cuda_emulator::BitsTo<int>(cuda_emulator::BitsOf(x)); }
inline float __uint_as_float(unsigned x) { return cuda_emulator::BitsTo<float>(x); }
inline float __int_as_float(int x) { return cuda_emulator::BitsTo<float>(static_cast<unsigned>(x)); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

#define CUDA_EMULATOR_MIN_MAX(T)                   \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
CUDA_EMULATOR_MIN_MAX(int)
CUDA_EMULATOR_MIN_MAX(unsigned)
CUDA_EMULATOR_MIN_MAX(long)
CUDA_EMULATOR_MIN_MAX(unsigned long)
CUDA_EMULATOR_MIN_MAX(float)
CUDA_EMULATOR_MIN_MAX(double)
#undef CUDA_EMULATOR_MIN_MAX

#endif  // CAIRN_TESTS_EMULATOR_INCLUDE_CUDA_EMULATOR_H_
