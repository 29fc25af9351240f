// --quantization: what the weights of the linear layers become when they are loaded. The embedding, the LM head, norms
// and biases keep their types.
#ifndef CAIRN_ENGINE_WEIGHTS_QUANTIZATION_H_
#define CAIRN_ENGINE_WEIGHTS_QUANTIZATION_H_

#include <string>

#include "absl/status/statusor.h"

namespace cairn {

enum class Quantization {
  kNone,  // as they are stored; E4M3 stays E4M3
  kFp8,   // E4M3, a scale for each row of a rank's shard (kernels/ops/matmul.h)
  kInt8,  // integers, likewise; on CPU
};

// INVALID_ARGUMENT lists the names.
absl::StatusOr<Quantization> ParseQuantization(const std::string& name);

}  // namespace cairn

#endif  // CAIRN_ENGINE_WEIGHTS_QUANTIZATION_H_
