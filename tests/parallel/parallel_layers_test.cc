// The linears, the embedding and the head over ranks against the same layer on one rank.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>
#include <tuple>
#include <vector>

#include "kernels/core/status_macros.h"
#include "parallel/comm/thread_channel.h"
#include "parallel/shard/parallel_embedding.h"
#include "parallel/shard/parallel_linear.h"
#include "parallel/shard/shard.h"

namespace cairn {
namespace {

Tensor Matrix(std::vector<float>& values, int64_t rows, int64_t columns) {
  return Tensor(values.data(), DType::kFloat32, {rows, columns});
}

// Multiples of 1/8 in [-1, 1): products and sums of hundreds of them are exact in float32, in any order.
std::vector<float> ExactValues(int64_t count, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(static_cast<int>(rng() % 16) - 8) / 8;
  return values;
}

// Rows [row_range) and columns [column_range) of w [*, columns].
PackedMatrix Pack(const std::vector<float>& w, int64_t columns, Range row_range, Range column_range) {
  PackedMatrix packed = *PackedMatrix::Create({}, DType::kFloat32, row_range.size(), column_range.size());
  for (int64_t row = row_range.begin; row < row_range.end; ++row) {
    packed.PackRows(row - row_range.begin, 1, w.data() + row * columns + column_range.begin, DType::kFloat32);
  }
  return packed;
}

constexpr int64_t kTokens = 5, kInputs = 48, kOutputs = 24;

struct Layer {
  std::vector<float> w = ExactValues(kOutputs * kInputs, 1), bias = ExactValues(kOutputs, 2);
  std::vector<float> x = ExactValues(kTokens * kInputs, 3);

  // x W^T + b, rounded once.
  std::vector<float> Expected(DType activation) const {
    std::vector<float> y(kTokens * kOutputs);
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t n = 0; n < kOutputs; ++n) {
        float sum = bias[n];
        for (int64_t k = 0; k < kInputs; ++k) sum += x[t * kInputs + k] * w[n * kInputs + k];
        y[t * kOutputs + n] = activation == DType::kBFloat16 ? BFloat16ToFloat(FloatToBFloat16(sum)) : sum;
      }
    }
    return y;
  }
};

WeightVector Vector(absl::Span<const float> values) {
  return WeightVector::Create(Device{}, DType::kFloat32, values).value();
}

// (tp, activation type)
class ParallelLayers : public testing::TestWithParam<std::tuple<int, DType>> {
 protected:
  // Runs body on every rank of a tp group; all must return OK.
  template <typename Body>
  void OnEveryRank(Body body) {
    const auto results = RunThreadRanks(tp(), [&](ControlChannel& world) -> absl::Status {
      CAIRN_ASSIGN_OR_RETURN(auto comm, world.SplitCommunicator(0, world.rank()));
      const auto context = Context::Cpu(1, activation());
      return body(*context, *comm);
    });
    for (const absl::Status& result : results) EXPECT_TRUE(result.ok()) << result;
  }
  int tp() const { return std::get<0>(GetParam()); }
  DType activation() const { return std::get<1>(GetParam()); }
};

TEST_P(ParallelLayers, RowParallelIsTheWholeLayer) {
  const Layer layer;
  const std::vector<float> expected = layer.Expected(activation());
  OnEveryRank([&](Context& context, Communicator& comm) -> absl::Status {
    const Range columns = EvenShard(kInputs, comm.size(), comm.rank());
    const RowParallelLinear linear = {Pack(layer.w, kInputs, {0, kOutputs}, columns), Vector(layer.bias)};
    std::vector<float> x = layer.x, y(kTokens * kOutputs);
    const Tensor local = Matrix(x, kTokens, kInputs).Columns(columns.begin, columns.end);
    const Tensor out = Matrix(y, kTokens, kOutputs);
    CAIRN_ASSIGN_OR_RETURN(const Tensor sum, linear.ForwardToAdd(context, comm, local, /*partial=*/out, out));
    EXPECT_EQ(sum.raw(), out.raw());
    EXPECT_EQ(y, expected) << "rank " << comm.rank();
    return absl::OkStatus();
  });
}

TEST_P(ParallelLayers, ColumnParallelIsASliceOfTheLayer) {
  const Layer layer;
  const std::vector<float> expected = layer.Expected(activation());
  OnEveryRank([&](Context& context, Communicator& comm) -> absl::Status {
    const Range rows = EvenShard(kOutputs, comm.size(), comm.rank());
    const ColumnParallelLinear linear = {Pack(layer.w, kInputs, rows, {0, kInputs}),
                                         Vector(absl::MakeConstSpan(layer.bias).subspan(rows.begin, rows.size()))};
    std::vector<float> x = layer.x, y(kTokens * rows.size());
    linear.Forward(context, Matrix(x, kTokens, kInputs), Matrix(y, kTokens, rows.size()));
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t n = 0; n < rows.size(); ++n) {
        EXPECT_EQ(y[t * rows.size() + n], expected[t * kOutputs + rows.begin + n]);
      }
    }
    return absl::OkStatus();
  });
}

// Vocabularies that divide, that do not, and that leave the last ranks without rows.
TEST_P(ParallelLayers, EmbeddingFindsEveryToken) {
  constexpr int64_t kWidth = 24;
  for (int64_t vocab : {32, 21, 5}) {
    const std::vector<float> table = ExactValues(vocab * kWidth, 4);
    OnEveryRank([&](Context& context, Communicator& comm) -> absl::Status {
      const Range rows = VocabShard(vocab, comm.size(), comm.rank());
      const PackedMatrix shard = Pack(table, kWidth, rows, {0, kWidth});
      std::vector<int32_t> ids = {0, static_cast<int32_t>(vocab - 1), 3, 3, 1, static_cast<int32_t>(vocab / 2)};
      std::vector<float> y(ids.size() * kWidth, 99);
      const int64_t tokens = static_cast<int64_t>(ids.size());
      CAIRN_RETURN_IF_ERROR(VocabParallelEmbed(context, comm, shard, rows, Tensor(ids.data(), DType::kInt32, {tokens}),
                                               Matrix(y, tokens, kWidth)));
      for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], table[ids[i / kWidth] * kWidth + i % kWidth]) << vocab;
      return absl::OkStatus();
    });
  }
}

TEST_P(ParallelLayers, LogitsAreWholeOnRankZeroAndNotRounded) {
  constexpr int64_t kWidth = 48, kRows = 3;
  for (int64_t vocab : {32, 21, 5}) {
    const std::vector<float> head = ExactValues(vocab * kWidth, 5);
    OnEveryRank([&](Context& context, Communicator& comm) -> absl::Status {
      const Range rows = VocabShard(vocab, comm.size(), comm.rank());
      const PackedMatrix shard = Pack(head, kWidth, rows, {0, kWidth});
      std::vector<float> x = ExactValues(kRows * kWidth, 6), logits(kRows * vocab, 99);
      const int64_t each = VocabShard(vocab, comm.size(), 0).size();
      std::vector<float> scratch(kRows * each * (comm.size() + 1));
      const Tensor room(scratch.data(), DType::kFloat32, {static_cast<int64_t>(scratch.size())});
      const Tensor whole = Matrix(logits, kRows, vocab);
      const Tensor part = VocabShardLogits(context, comm, shard, vocab, Matrix(x, kRows, kWidth), room, whole);
      CAIRN_RETURN_IF_ERROR(GatherLogits(context, comm, vocab, part, room, whole));
      for (int64_t i = 0; i < kRows * vocab; ++i) {
        float expected = 0;
        for (int64_t k = 0; k < kWidth; ++k) expected += x[i / vocab * kWidth + k] * head[i % vocab * kWidth + k];
        EXPECT_EQ(logits[i], comm.rank() == 0 ? expected : 99) << "rank " << comm.rank() << " vocab " << vocab;
      }
      return absl::OkStatus();
    });
  }
}

INSTANTIATE_TEST_SUITE_P(TensorParallel, ParallelLayers,
                         testing::Combine(testing::Values(1, 2, 3, 4),
                                          testing::Values(DType::kFloat32, DType::kBFloat16)),
                         [](const auto& info) {
                           return std::string(DTypeName(std::get<1>(info.param))) + "_tp" +
                                  std::to_string(std::get<0>(info.param));
                         });

}  // namespace
}  // namespace cairn
