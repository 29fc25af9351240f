// Tensors of GPU memory through communicators of host memory: every operation, in place among the stream's ops.
#include "parallel/comm/staged_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "kernels/core/copy.h"
#include "kernels/core/status_macros.h"
#include "kernels/ops/elementwise.h"
#include "parallel/comm/thread_channel.h"

namespace cairn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kColumns = 3;

// A row of kColumns floats on the GPU for each of `rows`.
struct DeviceRows {
  DeviceRows(Context& context, int64_t rows) : context(context) {
    memory = Buffer::Allocate(context.device(), static_cast<size_t>(rows * kColumns) * sizeof(float)).value();
    tensor = Tensor(memory.data(), DType::kFloat32, {rows, kColumns}, context.device());
    ClearTensor(context, tensor);
  }
  void Set(std::vector<float> values) { CopyFromHost(context, values.data(), tensor); }
  std::vector<float> Get() const {
    std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
    CopyToHost(context, tensor, values.data());
    return values;
  }

  Context& context;
  Buffer memory;
  Tensor tensor;
};

TEST(StagedCommunicatorTest, EveryOperation) {
  const auto statuses = RunThreadRanks(2, [](ControlChannel& world) -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(auto context, Context::Cuda(0, DType::kFloat32));
    CAIRN_ASSIGN_OR_RETURN(auto host, world.SplitCommunicator(0, world.rank()));
    StagedCommunicator comm(context.get(), std::move(host));
    const int rank = comm.rank();
    EXPECT_EQ(comm.size(), 2);
    DeviceRows mine(*context, 1), all(*context, 2), more(*context, 1);
    const float base = rank == 0 ? 1 : 10;

    // Behind an op that nobody has waited for, and before one that reads the result.
    mine.Set({base, base, base});
    more.Set({1, 2, 3});
    AddInPlace(*context, mine.tensor, more.tensor);
    CAIRN_RETURN_IF_ERROR(comm.AllReduce(mine.tensor, ReduceOp::kSum));
    AddInPlace(*context, mine.tensor, more.tensor);
    EXPECT_THAT(mine.Get(), ElementsAre(14, 17, 20));

    mine.Set({base, base + 1, base + 2});
    CAIRN_RETURN_IF_ERROR(comm.AllGather(mine.tensor, all.tensor));
    EXPECT_THAT(all.Get(), ElementsAre(1, 2, 3, 10, 11, 12));
    ClearTensor(*context, all.tensor);
    CAIRN_RETURN_IF_ERROR(comm.Gather(mine.tensor, all.tensor, /*root=*/1));
    EXPECT_EQ(all.Get()[5], rank == 1 ? 12 : 0);
    CAIRN_RETURN_IF_ERROR(comm.Broadcast(mine.tensor, /*root=*/1));
    EXPECT_THAT(mine.Get(), ElementsAre(10, 11, 12));

    // What was sent may be overwritten at once.
    if (rank == 0) {
      for (float value : {5.0f, 6.0f}) {
        mine.Set({value, value, value});
        CAIRN_RETURN_IF_ERROR(comm.Send(mine.tensor, 1));
      }
    } else {
      CAIRN_RETURN_IF_ERROR(comm.Recv(mine.tensor, 0));
      CAIRN_RETURN_IF_ERROR(comm.Recv(more.tensor, 0));
      EXPECT_THAT(mine.Get(), ElementsAre(5, 5, 5));
      EXPECT_THAT(more.Get(), ElementsAre(6, 6, 6));
    }

    // Host memory goes by as it is.
    std::vector<float> values = {base};
    CAIRN_RETURN_IF_ERROR(comm.AllReduce(Tensor(values.data(), DType::kFloat32, {1}), ReduceOp::kMax));
    EXPECT_EQ(values[0], 10);

    const absl::Status strided = comm.AllReduce(all.tensor.Columns(0, 2), ReduceOp::kSum);
    EXPECT_EQ(strided.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(strided.message()), HasSubstr("not contiguous"));
    return absl::OkStatus();
  });
  for (const absl::Status& status : statuses) EXPECT_TRUE(status.ok()) << status;
}

}  // namespace
}  // namespace cairn
