// Steps that are recorded: when, and that a replay reads the tables and data of its own step.
#include "kernels/ops/decode_graphs.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "kernels/core/copy.h"
#include "kernels/cuda/device_state.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/elementwise.h"
#include "tests/emulator/emulator.h"

namespace cairn {
namespace {

TEST(DecodeGraphsTest, PadsToAFewSizes) {
  const int expected[] = {1, 2, 4, 4, 8, 8, 8, 8, 16, 16, 16, 16, 16, 16, 16, 16, 20, 20, 20, 20};
  for (int rows = 1; rows <= 20; ++rows) EXPECT_EQ(DecodeGraphs::PaddedRows(rows, 20), expected[rows - 1]) << rows;
}

// Two layers of one KV head of two dimensions in blocks of four slots: a float32 key is where its block table says.
// Block b's neighbour in a table is b + 1, so that one table, which counts up, serves all.
class RecordedAppendTest : public testing::Test {
 protected:
  static constexpr int kLayers = 2, kMaxRows = 5, kBlocks = 30, kDim = 2;

  RecordedAppendTest() {
    context_ = Context::Cuda(0, DType::kFloat32).value();
    const Device gpu = context_->device();
    memory_ = Buffer::Allocate(gpu, kBlocks * layout_.block_bytes()).value();
    memory_.Clear();
    rows_ = Buffer::Allocate(gpu, 2 * kMaxRows * (kDim + 1) * sizeof(float)).value();
    k_ = Tensor(rows_.data(), DType::kFloat32, {kMaxRows, kDim}, gpu);
    positions_ = Tensor(rows_.data() + k_.size_bytes(), DType::kInt32, {kMaxRows}, gpu);
    std::vector<int32_t> table(kBlocks);
    std::iota(table.begin(), table.end(), 0);
    tables_ = Buffer::Allocate(gpu, kBlocks * sizeof(int32_t)).value();
    tables_.Fill(table.data(), tables_.size_bytes());
    graphs_ = DecodeGraphs::Create(context_.get(), {.num_layers = kLayers,
                                                    .max_rows = kMaxRows,
                                                    .layout = layout_,
                                                    .pool = memory_.data(),
                                                    .device_tables = device_tables()})
                  .value();
  }

  const int32_t* device_tables() const { return reinterpret_cast<const int32_t*>(tables_.data()); }
  KvView View(int32_t first_block, int32_t num_slots) const {
    return {.layout = layout_,
            .pool = memory_.data(),
            .num_slots = num_slots,
            .device_tables = device_tables(),
            .device_table_begin = first_block};
  }
  float KeyAt(int32_t block, int32_t slot) const {
    float value = 0;
    uint8_t* at = memory_.data() + static_cast<size_t>(block) * layout_.block_bytes() + slot * kDim * sizeof(float);
    CopyToHost(*context_, Tensor(at, DType::kFloat32, {1}, context_->device()), &value);
    return value;
  }
  // Appends a key to each sequence in both layers; `first` is the first's, the others count on.
  absl::Status Append(const std::vector<std::vector<KvView>>& layers, float first) {
    std::vector<float> keys;
    std::vector<int32_t> positions;
    for (size_t i = 0; i < layers[0].size(); ++i) {
      for (int d = 0; d < kDim; ++d) keys.push_back(first + static_cast<float>(i));
      positions.push_back(static_cast<int32_t>(i));
    }
    const int64_t rows = static_cast<int64_t>(layers[0].size());
    CopyFromHost(*context_, keys.data(), k_.Rows(0, rows));
    CopyFromHost(*context_, positions.data(), positions_.Rows(0, rows));
    graphs_->Begin(static_cast<int>(rows));
    for (int layer = 0; layer < kLayers; ++layer) graphs_->SetLayer(layer, layers[layer], {});
    return graphs_->Run([&](absl::Span<const SequenceRows> sequences) {
      ++calls_;
      const int64_t padded = static_cast<int64_t>(sequences.size());
      const Tensor k = k_.Rows(0, padded).SplitRows(1, kDim);
      for (int layer = 0; layer < kLayers; ++layer) {
        graphs_->UseLayer(layer);
        KvAppend(*context_, k, k, positions_.Rows(0, padded), sequences);
      }
      return failure_;
    });
  }

  const KvBlockLayout layout_ = {.kv_heads = 1, .head_dim = kDim, .block_size = 4, .dtype = DType::kFloat32};
  std::unique_ptr<Context> context_;
  Buffer memory_, rows_, tables_;
  Tensor k_, positions_;
  std::unique_ptr<DecodeGraphs> graphs_;
  int calls_ = 0;
  absl::Status failure_;
};

TEST_F(RecordedAppendTest, EveryStepWritesWhereItsOwnTablesSay) {
  // Three sequences in a step of four rows; layers of different lengths.
  ASSERT_TRUE(Append({{View(3, 6), View(9, 1), View(12, 4)}, {View(5, 3), View(10, 2), View(13, 1)}}, 100).ok());
  EXPECT_EQ(calls_, 2);  // done, and recorded
  EXPECT_EQ(graphs_->num_recorded(), 1);
  EXPECT_EQ(KeyAt(4, 1), 100);
  EXPECT_EQ(KeyAt(5, 2), 100);
  EXPECT_EQ(KeyAt(9, 0), 101);
  EXPECT_EQ(KeyAt(10, 1), 101);
  EXPECT_EQ(KeyAt(12, 3), 102);
  EXPECT_EQ(KeyAt(13, 0), 102);
  // Others, elsewhere, the first of them after a compaction.
  ASSERT_TRUE(Append({{View(3, 2), View(20, 9), View(9, 2)}, {View(5, 4), View(23, 1), View(10, 3)}}, 200).ok());
  EXPECT_EQ(calls_, 2);
  EXPECT_EQ(graphs_->num_replayed(), 1);
  EXPECT_EQ(KeyAt(3, 1), 200);
  EXPECT_EQ(KeyAt(4, 1), 100);
  EXPECT_EQ(KeyAt(5, 3), 200);
  EXPECT_EQ(KeyAt(22, 0), 201);
  EXPECT_EQ(KeyAt(23, 0), 201);
  EXPECT_EQ(KeyAt(9, 1), 202);
  EXPECT_EQ(KeyAt(10, 2), 202);
  EXPECT_EQ(KeyAt(0, 0), 0) << "a row that pads has written";
}

TEST_F(RecordedAppendTest, OtherSizesAndMovedScratchAreRecordedAnew) {
  const int32_t a = 3, b = 4;
  const std::vector<std::vector<KvView>> one = {{View(a, 1)}, {View(b, 1)}};
  ASSERT_TRUE(Append(one, 1).ok());
  ASSERT_TRUE(Append(one, 2).ok());
  EXPECT_EQ(graphs_->num_recorded(), 1);
  ASSERT_TRUE(Append({{View(a, 1), View(b, 1)}, {View(a, 2), View(b, 2)}}, 3).ok());
  EXPECT_EQ(graphs_->num_recorded(), 2);
  context_->SharedScratch(size_t{8} << 20);  // grows
  ASSERT_TRUE(Append(one, 5).ok());
  EXPECT_EQ(graphs_->num_recorded(), 3);
  EXPECT_EQ(graphs_->num_replayed(), 1);
  EXPECT_EQ(KeyAt(3, 0), 5);
}

TEST_F(RecordedAppendTest, AnErrorComesBackAndIsNotRecorded) {
  const int32_t a = 3, b = 4;
  const std::vector<std::vector<KvView>> one = {{View(a, 1)}, {View(b, 1)}};
  failure_ = absl::UnavailableError("a rank is gone");
  EXPECT_EQ(Append(one, 1), failure_);
  EXPECT_EQ(graphs_->num_recorded(), 0);
  failure_ = absl::OkStatus();
  EXPECT_TRUE(Append(one, 1).ok());
  EXPECT_EQ(graphs_->num_recorded(), 1);
}

using DecodeGraphsDeathTest = RecordedAppendTest;

TEST_F(DecodeGraphsDeathTest, ATableSentWhileRecordingIsAMistake) {
  const int32_t a = 3;
  graphs_->Begin(1);
  for (int layer = 0; layer < kLayers; ++layer) graphs_->SetLayer(layer, {View(a, 1)}, {});
  int calls = 0;
  EXPECT_DEATH(static_cast<void>(graphs_->Run([&](absl::Span<const SequenceRows>) {
                 const int32_t table = 1;
                 if (++calls == 2) context_->cuda().Upload(&table, 1);
                 return absl::OkStatus();
               })),
               "a table is sent while ops are recorded");
}

}  // namespace
}  // namespace cairn
