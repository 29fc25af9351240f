// FNV-1a, 64 bits: a hash that is the same on every machine, for fingerprints and keys.
#ifndef CAIRN_KERNELS_CORE_FNV1A_H_
#define CAIRN_KERNELS_CORE_FNV1A_H_

#include <cstdint>

namespace cairn {

inline constexpr uint64_t kFnv1aSeed = 0xcbf29ce484222325;

// The hash of what was hashed before and the bytes of `value`, the lowest first.
template <typename Unsigned>
constexpr uint64_t Fnv1a(uint64_t hash, Unsigned value) {
  static_assert(Unsigned(-1) > 0, "unsigned, so that shifts bring zeros");
  for (unsigned bit = 0; bit < 8 * sizeof value; bit += 8) hash = (hash ^ (value >> bit & 0xff)) * 0x100000001b3;
  return hash;
}

}  // namespace cairn

#endif  // CAIRN_KERNELS_CORE_FNV1A_H_
