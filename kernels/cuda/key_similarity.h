// How alike the keys of a head are: what the kernels of R-KV's redundancy and of KeyDiff share. The cosine of two keys
// is the product of the keys as the cache holds them, times the two factors 1 / (norm + 1e-8).
#ifndef CAIRN_KERNELS_CUDA_KEY_SIMILARITY_H_
#define CAIRN_KERNELS_CUDA_KEY_SIMILARITY_H_

#include <cstdint>

#include "kernels/core/key_memory.h"
#include "kernels/cuda/paged.h"

namespace cairn::cuda {

// What is known of a key's newest near-duplicate where that is not a slot: there is none, or it must be looked for.
inline constexpr int32_t kNone = -1, kUnknown = -2;

// Of each layer the first n slots. Arrays are [layers, heads, stride] unless they say otherwise.
struct KeyParams {
  PagedStep step;
  int32_t left_out_slots;  // n is a layer's slots without the last so many
  int32_t stride;          // the longest layer's n rounded up to whole tiles
  float threshold;
  bool remembers;
  int64_t* left_out;  // fixed point: the sum of the similarities that a column leaves out
  float* factors;     // 1 / (norm + 1e-8), zero where the squares overflow
  float* means;
  int32_t* newest;   // the newest near-duplicate's slot, or kNone
  float* sums;       // [layers, heads, stride / 64, d]: of the units (normalised keys) of each 64 slots
  float* mean;       // [layers, heads, d]: of all units
  float* mean_norm;  // [layers, heads]
};

// One head of one layer of them.
struct HeadKeys {
  const KeyParams& p;
  PagedSequence s;
  int32_t head, row, n;

  __device__ __forceinline__ HeadKeys(const KeyParams& params, int32_t of_row)
      : p(params),
        s(params.step.sequences[of_row / params.step.kv_heads]),
        head(of_row % params.step.kv_heads),
        row(of_row),
        n(s.num_slots - params.left_out_slots) {}

  // Of the arrays.
  __device__ __forceinline__ int64_t At(int32_t slot) const { return static_cast<int64_t>(row) * p.stride + slot; }
  __device__ __forceinline__ int32_t* Position(int32_t slot) const { return p.step.Position(s, head, slot); }
  __device__ __forceinline__ int32_t* Memory(int32_t slot) const {
    return reinterpret_cast<int32_t*>(p.step.Score(s, head, slot));
  }

  // What the last call found for a key, as far as it still holds: a slot, kNone or kUnknown.
  __device__ __forceinline__ int32_t Recall(int32_t slot) const {
    const int32_t memory = p.remembers ? *Memory(slot) : KeyMemory::kNew;
    if (memory == KeyMemory::kNew) return kUnknown;
    if (memory == KeyMemory::kAlone) return kNone;
    const int32_t wanted = memory - KeyMemory::kFirstPosition;
    int32_t low = 0, high = n;  // the first slot whose position is above the wanted one
    while (low < high) {
      const int32_t middle = (low + high) / 2;
      if (*Position(middle) <= wanted) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low > 0 && *Position(low - 1) == wanted ? low - 1 : kUnknown;
  }
  // Did the last call see all of the slots up to this one? (It saw the first so many.)
  __device__ __forceinline__ bool IsOld(int32_t slot) const { return p.remembers && *Memory(slot) != KeyMemory::kNew; }
};

// A product with a key whose factor is zero is zero: its squares overflow, and the product perhaps too.
__device__ __forceinline__ float Scaled(float dot, float factor) { return factor == 0 ? 0 : dot * factor; }
__device__ __forceinline__ float Similarity(float dot, float factor, float other) {
  return Scaled(Scaled(dot, factor), other);
}

// Fills `newest`: each key's largest other slot whose key's similarity is above the threshold. Keys are compared with
// those of ever older tiles until all of a tile's have found one, or have nothing to find among keys that the last call
// saw.
void LaunchFindNewest(const KeyParams& params, unsigned rows, cudaStream_t stream);

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_KEY_SIMILARITY_H_
