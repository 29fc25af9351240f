// Where weights come from: safetensors files or reproducible random numbers. A rank asks for the rows and columns of
// its shard and reads only those bytes.
#ifndef CAIRN_ENGINE_WEIGHTS_WEIGHT_SOURCE_H_
#define CAIRN_ENGINE_WEIGHTS_WEIGHT_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "kernels/core/dtype.h"
#include "kernels/ops/matmul.h"
#include "parallel/shard/shard.h"

namespace cairn {

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  virtual absl::StatusOr<DType> TypeOf(const std::string& name) const = 0;
  virtual absl::StatusOr<std::vector<int64_t>> ShapeOf(const std::string& name) const = 0;
  // Rows x columns of the matrix `name` (its shape must be `shape`; a vector [n] is [1, n], a number [1, 1]) as
  // row-major elements of TypeOf(name) into `out`. Errors name file, tensor, expected and found.
  virtual absl::Status Read(const std::string& name, const std::vector<int64_t>& shape, Range rows, Range columns,
                            void* out) = 0;
  // Bytes of tensors read (or made) so far, without headers.
  virtual int64_t bytes_read() const = 0;
};

// model.safetensors, or the shards of model.safetensors.index.json, in `directory`. Headers are parsed as hostile input
// (sizes bounded, offsets inside the file, no overlap, known types). Checks the whole tensor list against
// ExpectedTensors(config): a missing, extra or wrongly shaped tensor is INVALID_ARGUMENT with all three facts.
// `lm_head.weight` beside tied embeddings and `*.rotary_emb.inv_freq` are tolerated. With config.float8_weights linear
// layers may be E4M3, with a `*.weight_scale` of one element, [N] or [N, 1] beside each; scales of activations and of
// the KV cache are tolerated.
absl::StatusOr<std::unique_ptr<WeightSource>> OpenSafetensors(const std::string& directory, const ModelConfig& config);

// Random weights in config.dtype, nearly normal with deviation 1/sqrt(columns) (activations neither vanish nor
// explode), norms 1, biases small: a pure function of (seed, tensor name, element), so every sharding sees the same
// model.
std::unique_ptr<WeightSource> MakeDummyWeights(const ModelConfig& config, uint64_t seed);

// Whether scales of that shape are those of an E4M3 matrix of `rows` rows: [], [1] or [1, 1] for all of them, [rows] or
// [rows, 1] for each its own.
bool IsScaleShape(const std::vector<int64_t>& shape, int64_t rows);

// Reads [rows, columns] of a matrix into rows row_begin.. of `out`, in pieces (no second copy of the whole in memory).
// What is E4M3 comes with its scales, into an `out` in E4M3.
absl::Status LoadPacked(WeightSource& source, const std::string& name, const std::vector<int64_t>& shape, Range rows,
                        Range columns, PackedMatrix& out, int64_t row_begin);
// A vector's slice as float32, on the host.
absl::StatusOr<std::vector<float>> LoadVector(WeightSource& source, const std::string& name, int64_t size, Range slice);

// The type a matrix of `stored` type is packed in under a compute type: bf16 stays bf16 under float32 (exact), f32 and
// f16 stay themselves; under bfloat16 (float16) compute everything becomes bf16 (f16). On a GPU always the compute
// type, which its matmul takes.
DType PackedTypeFor(DType stored, DType compute, Device device);

}  // namespace cairn

#endif  // CAIRN_ENGINE_WEIGHTS_WEIGHT_SOURCE_H_
