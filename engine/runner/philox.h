// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11): random bits as a pure function
// of a key and a counter, so that a token's draw depends on its request and place alone.
#ifndef CAIRN_ENGINE_RUNNER_PHILOX_H_
#define CAIRN_ENGINE_RUNNER_PHILOX_H_

#include <array>
#include <cstdint>

namespace cairn {

inline std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0], b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key = {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
  }
  return counter;
}

// Uniform in [0, 1), in units of 2^-64.
inline uint64_t PhiloxFraction(uint64_t seed, uint64_t request_key, uint32_t index, uint32_t position) {
  const auto bits =
      Philox4x32({static_cast<uint32_t>(request_key), static_cast<uint32_t>(request_key >> 32), position, index},
                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return uint64_t{bits[0]} << 32 | bits[1];
}

// The same as a number, with 53 bits.
inline double PhiloxUniform(uint64_t seed, uint64_t request_key, uint32_t index, uint32_t position) {
  return static_cast<double>(PhiloxFraction(seed, request_key, index, position) >> 11) * 0x1p-53;
}

}  // namespace cairn

#endif  // CAIRN_ENGINE_RUNNER_PHILOX_H_
