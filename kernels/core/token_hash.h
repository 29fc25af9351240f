// A number for a token of one KV head of one layer: the same on every device and rank.
#ifndef CAIRN_KERNELS_CORE_TOKEN_HASH_H_
#define CAIRN_KERNELS_CORE_TOKEN_HASH_H_

#include <cstdint>

#ifdef __CUDACC__
#define CAIRN_TOKEN_HASH_INLINE __host__ __device__ __forceinline__
#else
#define CAIRN_TOKEN_HASH_INLINE inline
#endif

namespace cairn {

// In [0, 1), a multiple of 2^-24: the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), twice.
CAIRN_TOKEN_HASH_INLINE float UniformOfToken(int32_t layer, int32_t kv_head, int32_t position) {
  uint64_t x = (static_cast<uint64_t>(static_cast<uint32_t>(layer)) << 32) | static_cast<uint32_t>(kv_head);
  for (int round = 0; round < 2; ++round) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    if (round == 0) x ^= static_cast<uint32_t>(position);
  }
  return static_cast<float>(x >> 40) * 0x1p-24f;
}

}  // namespace cairn

#endif  // CAIRN_KERNELS_CORE_TOKEN_HASH_H_
