// The NCCL communicator over the fake NCCL: what every communicator must do, and what it alone has to: graphs, errors
// that come later, ranks that do not come, windows.
#include "parallel/comm/nccl_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/core/copy.h"
#include "kernels/core/status_macros.h"
#include "kernels/cuda/device_state.h"
#include "kernels/ops/elementwise.h"
#include "parallel/comm/thread_channel.h"
#include "tests/emulator/emulator.h"
#include "tests/emulator/fake_nccl.h"
#include "tests/parallel/conformance.h"
#include "tests/parallel/device_world.h"

namespace cairn {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr double kPatience = 60;  // where nothing should be late
constexpr double kHaste = 0.3;    // where something is

std::string Message(const absl::Status& status) { return std::string(status.message()); }

// One rank: a GPU of its own, and a communicator of all ranks.
struct Rank {
  std::unique_ptr<Context> context;
  std::shared_ptr<NcclStream> stream;
  std::unique_ptr<NcclCommunicator> comm;

  static absl::StatusOr<Rank> Make(ControlChannel& world, NcclUse use, double timeout_seconds = kPatience) {
    Rank rank;
    CAIRN_ASSIGN_OR_RETURN(rank.context, Context::Cuda(world.rank(), DType::kFloat32));
    rank.stream = std::make_shared<NcclStream>(*rank.context, timeout_seconds);
    CAIRN_ASSIGN_OR_RETURN(rank.comm, rank.Join(world, use));
    return rank;
  }
  absl::StatusOr<std::unique_ptr<NcclCommunicator>> Join(ControlChannel& world, NcclUse use) const {
    CAIRN_ASSIGN_OR_RETURN(const NcclLibrary* library, NcclLibrary::Load());
    CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<ControlChannel> control, world.Split(0, world.rank()));
    CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> host, world.SplitCommunicator(0, world.rank()));
    return NcclCommunicator::Create(library, stream, use, std::move(control), std::move(host));
  }
  Tensor Floats(const Buffer& memory) const {
    return Tensor(memory.data(), DType::kFloat32, {1, static_cast<int64_t>(memory.size_bytes() / sizeof(float))},
                  context->device());
  }
  Buffer Allocate(int64_t floats) const {
    return Buffer::Allocate(context->device(), static_cast<size_t>(floats) * sizeof(float)).value();
  }
  void Write(const Tensor& tensor, float value) const {
    const std::vector<float> values(tensor.num_elements(), value);
    CopyFromHost(*context, values.data(), tensor);
  }
  float Read(const Tensor& tensor) const {
    std::vector<float> values(tensor.num_elements());
    CopyToHost(*context, tensor, values.data());
    for (const float value : values) EXPECT_EQ(value, values[0]);
    return values[0];
  }
};

// Runs the body on ranks with a GPU each; every rank must return OK.
template <typename Body>
void OnRanks(int size, const Body& body) {
  fake_nccl::Reset();
  cuda_emulator::SetDeviceCount(size);
  const std::vector<absl::Status> results = RunThreadRanks(size, body, kPatience);
  for (int rank = 0; rank < size; ++rank) EXPECT_TRUE(results[rank].ok()) << "rank " << rank << ": " << results[rank];
  cuda_emulator::SetDeviceCount(1);
  EXPECT_EQ(cuda_emulator::LastError(), "");
  cuda_emulator::ResetErrors();
}

// --- Conformance ---

class NcclConformance : public testing::TestWithParam<std::tuple<ConformanceCheck, int>> {};

TEST_P(NcclConformance, Holds) {
  const auto& [check, size] = GetParam();
  const std::string name = check.name;
  if (name == "NansInMinAndMax") GTEST_SKIP() << "NCCL's minimum and maximum lose NaN (nccl_communicator.h)";
  if (name == "SendsDoNotWait" && size > 2) GTEST_SKIP() << "crossing messages of many ranks (nccl_communicator.h)";
  OnRanks(size, [&, run = check.run](ControlChannel& inner) -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<Context> context, Context::Cuda(inner.rank(), DType::kFloat32));
    CAIRN_ASSIGN_OR_RETURN(const NcclLibrary* library, NcclLibrary::Load());
    DeviceWorld world(inner, *context, library, kPatience);
    return run(world);
  });
}

INSTANTIATE_TEST_SUITE_P(Worlds, NcclConformance,
                         testing::Combine(testing::ValuesIn(CommunicatorChecks()), testing::Values(1, 2, 3)),
                         [](const auto& info) {
                           return absl::StrCat(std::get<0>(info.param).name, std::get<1>(info.param));
                         });

TEST(NcclTimeouts, NameTheRankThatDidNotCome) {
  const auto outer = MakeThreadWorld(3, kPatience);
  fake_nccl::Reset();
  cuda_emulator::SetDeviceCount(3);
  const auto results = RunThreadRanks(
      3,
      [&](ControlChannel& inner) -> absl::Status {
        CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<Context> context, Context::Cuda(inner.rank(), DType::kFloat32));
        CAIRN_ASSIGN_OR_RETURN(const NcclLibrary* library, NcclLibrary::Load());
        DeviceWorld world(inner, *context, library, kHaste);
        return CheckTimeouts(world, *outer[inner.rank()]);
      },
      2);
  for (const absl::Status& result : results) EXPECT_TRUE(result.ok()) << result;
  cuda_emulator::SetDeviceCount(1);
}

// --- Graphs ---

// An op, a sum over the ranks and another op, captured once and replayed with other inputs.
TEST(NcclGraphs, ReplayAnAllReduce) {
  OnRanks(3, [](ControlChannel& world) -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(const Rank rank, Rank::Make(world, NcclUse::kTensorParallel));
    const Buffer sum_memory = rank.Allocate(300), one_memory = rank.Allocate(300);
    const Tensor sum = rank.Floats(sum_memory), one = rank.Floats(one_memory);
    rank.Write(one, 1);
    rank.context->Synchronize();
    const cudaStream_t stream = rank.context->cuda().stream();
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    EXPECT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    AddInPlace(*rank.context, sum, one);
    CAIRN_RETURN_IF_ERROR(rank.comm->AllReduce(sum, ReduceOp::kSum));
    AddInPlace(*rank.context, sum, one);
    EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    EXPECT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
    for (int replay = 0; replay < 4; ++replay) {
      rank.Write(sum, static_cast<float>(100 * replay + world.rank()));
      EXPECT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
      CAIRN_RETURN_IF_ERROR(rank.comm->AllReduce(one, ReduceOp::kMax));  // beside the graph
      CAIRN_RETURN_IF_ERROR(rank.comm->Synchronize());
      EXPECT_EQ(rank.Read(sum), static_cast<float>(300 * replay + 3 + 3 + 1));
    }
    EXPECT_EQ(cudaGraphExecDestroy(executable), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
    return absl::OkStatus();
  });
}

// A stage that sends inside of a graph: the message goes on the graph's own stream.
TEST(NcclGraphs, ReplayASend) {
  OnRanks(2, [](ControlChannel& world) -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(const Rank rank, Rank::Make(world, NcclUse::kPipeline));
    const Buffer memory = rank.Allocate(100);
    const Tensor data = rank.Floats(memory);
    const cudaStream_t stream = rank.context->cuda().stream();
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    EXPECT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    if (world.rank() == 0) {
      AddInPlace(*rank.context, data, data);
      CAIRN_RETURN_IF_ERROR(rank.comm->Send(data, 1));
    } else {
      CAIRN_RETURN_IF_ERROR(rank.comm->Recv(data, 0));
    }
    EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    EXPECT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
    for (int replay = 1; replay < 4; ++replay) {
      rank.Write(data, world.rank() == 0 ? static_cast<float>(replay) : -1);
      EXPECT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
      CAIRN_RETURN_IF_ERROR(rank.comm->Synchronize());
      EXPECT_EQ(rank.Read(data), static_cast<float>(2 * replay));
    }
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
    return absl::OkStatus();
  });
}

// --- Pipelines ---

// The first stage runs ahead by as many messages as there are, without waiting and into memory that it uses again; the
// others receive while they send.
TEST(NcclPipeline, StagesDoNotWaitForTheNextOne) {
  constexpr int kMessages = 6;
  OnRanks(4, [](ControlChannel& world) -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(const Rank rank, Rank::Make(world, NcclUse::kPipeline));
    const Buffer memory = rank.Allocate(1000), one_memory = rank.Allocate(1000);
    const Tensor data = rank.Floats(memory), one = rank.Floats(one_memory);
    rank.Write(one, 1);
    for (int message = 0; message < kMessages; ++message) {
      if (world.rank() == 0) {
        rank.Write(data, static_cast<float>(10 * message));
      } else {
        CAIRN_RETURN_IF_ERROR(rank.comm->Recv(data, world.rank() - 1));
        AddInPlace(*rank.context, data, one);
      }
      if (world.rank() < 3) {
        CAIRN_RETURN_IF_ERROR(rank.comm->Send(data, world.rank() + 1));
      } else {
        CAIRN_RETURN_IF_ERROR(rank.comm->Synchronize());
        EXPECT_EQ(rank.Read(data), static_cast<float>(10 * message + 3));
      }
      // The first stage is done with its own work before anybody has received.
      if (world.rank() == 0) CAIRN_RETURN_IF_ERROR(rank.comm->Synchronize());
    }
    return world.Barrier();
  });
}

// With room for two messages, six that nobody receives yet: nothing is allocated, the host does not wait, and the
// stream writes no message into one that has not left.
TEST(NcclPipeline, MessagesBeyondTheReservedRoomWaitOnTheStream) {
  constexpr int kMessages = 6;
  OnRanks(2, [](ControlChannel& world) -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(const Rank rank, Rank::Make(world, NcclUse::kPipeline));
    const Buffer memory = rank.Allocate(1000), one_memory = rank.Allocate(1000);
    const Tensor data = rank.Floats(memory), one = rank.Floats(one_memory);
    rank.Write(data, 0);
    rank.Write(one, 1);
    CAIRN_RETURN_IF_ERROR(rank.comm->ReserveMessages(2, data.size_bytes()));
    CAIRN_RETURN_IF_ERROR(world.Barrier());
    const int64_t allocations = cuda_emulator::NumAllocations();
    CAIRN_RETURN_IF_ERROR(world.Barrier());
    if (world.rank() == 0) {
      for (int message = 0; message < kMessages; ++message) {
        AddInPlace(*rank.context, data, one);
        CAIRN_RETURN_IF_ERROR(rank.comm->Send(data, 1));
      }
    }
    CAIRN_RETURN_IF_ERROR(world.Barrier());
    EXPECT_EQ(cuda_emulator::NumAllocations(), allocations);
    CAIRN_RETURN_IF_ERROR(world.Barrier());
    for (int message = 0; message < kMessages && world.rank() == 1; ++message) {
      CAIRN_RETURN_IF_ERROR(rank.comm->Recv(data, 0));
      CAIRN_RETURN_IF_ERROR(rank.comm->Synchronize());
      EXPECT_EQ(rank.Read(data), static_cast<float>(message + 1));
    }
    CAIRN_RETURN_IF_ERROR(rank.comm->Synchronize());
    return world.Barrier();
  });
}

// --- What goes wrong ---

TEST(NcclFailures, AnErrorThatComesLaterReachesEveryRank) {
  OnRanks(3, [](ControlChannel& world) -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(const Rank rank, Rank::Make(world, NcclUse::kTensorParallel));
    const Buffer memory = rank.Allocate(8);
    CAIRN_RETURN_IF_ERROR(rank.comm->AllReduce(rank.Floats(memory), ReduceOp::kSum));
    CAIRN_RETURN_IF_ERROR(rank.comm->Synchronize());
    CAIRN_RETURN_IF_ERROR(world.Barrier());
    if (world.rank() == 1) fake_nccl::FailRank(1, ncclRemoteError);
    CAIRN_RETURN_IF_ERROR(world.Barrier());
    absl::Status failure = rank.comm->AllReduce(rank.Floats(memory), ReduceOp::kSum);
    if (failure.ok()) failure = rank.comm->Synchronize();
    EXPECT_TRUE(absl::IsUnavailable(failure)) << failure;
    EXPECT_THAT(Message(failure), AllOf(HasSubstr(absl::StrCat("AllReduce on rank ", world.rank(), " of 3 (host ")),
                                        HasSubstr(absl::StrCat(", GPU ", world.rank(), ")")),
                                        HasSubstr("remote process exited or there was a network error")));
    if (world.rank() != 1) {
      EXPECT_THAT(Message(failure), HasSubstr(", GPU 1) gave up: "));
    }
    // It stays so, and the stream is free.
    EXPECT_EQ(rank.comm->AllReduce(rank.Floats(memory), ReduceOp::kSum), failure);
    EXPECT_EQ(rank.comm->Synchronize(), failure);
    rank.context->Synchronize();
    return world.Barrier();
  });
  EXPECT_EQ(fake_nccl::Count().aborted, 3);
}

TEST(NcclFailures, ARankThatNeverComesIsNamedInTime) {
  OnRanks(3, [](ControlChannel& world) -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(const Rank rank, Rank::Make(world, NcclUse::kTensorParallel, kHaste));
    const Buffer memory = rank.Allocate(8);
    if (world.rank() != 2) {
      const auto begin = std::chrono::steady_clock::now();
      for (int i = 0; i < 5; ++i) {
        CAIRN_RETURN_IF_ERROR(rank.comm->AllReduce(rank.Floats(memory), ReduceOp::kSum));
      }
      const absl::Status late = rank.comm->Synchronize();
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
      EXPECT_TRUE(absl::IsDeadlineExceeded(late)) << late;
      EXPECT_THAT(Message(late), AllOf(HasSubstr("AllReduce, the first of 5 operations"),
                                       HasSubstr(" s for rank 2 (host "), HasSubstr(", GPU 2)")));
      EXPECT_LT(elapsed.count(), 5);  // the timeout, as long again to hear the others, and a busy machine
      rank.context->Synchronize();    // nothing is left on the stream
    }
    return world.Barrier();
  });
  EXPECT_EQ(fake_nccl::Count().aborted, 2);
}

// The tensor-parallel group waits only because it stands behind the pipeline's: the message names the stage.
TEST(NcclFailures, TheGroupThatIsToBlameIsFound) {
  OnRanks(2, [](ControlChannel& world) -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(Rank rank, Rank::Make(world, NcclUse::kPipeline, kHaste));
    // Each rank is a group of its own besides.
    CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<ControlChannel> alone, world.Split(world.rank(), 0));
    CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<NcclCommunicator> tp, rank.Join(*alone, NcclUse::kTensorParallel));
    const Buffer memory = rank.Allocate(8);
    if (world.rank() == 1) {
      CAIRN_RETURN_IF_ERROR(rank.comm->Recv(rank.Floats(memory), 0));
      CAIRN_RETURN_IF_ERROR(tp->AllReduce(rank.Floats(memory), ReduceOp::kSum));
      const absl::Status late = tp->Synchronize();
      EXPECT_TRUE(absl::IsDeadlineExceeded(late)) << late;
      EXPECT_THAT(Message(late), AllOf(HasSubstr("Recv from rank 0 on rank 1 of 2"), HasSubstr("s for rank 0 (host ")));
      EXPECT_FALSE(rank.comm->Synchronize().ok());
    }
    return world.Barrier();
  });
}

TEST(NcclFailures, AnAbortThatHangsIsLeftBehind) {
  OnRanks(2, [](ControlChannel& world) -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(const Rank rank, Rank::Make(world, NcclUse::kTensorParallel, kHaste));
    const Buffer memory = rank.Allocate(8);
    CAIRN_RETURN_IF_ERROR(world.Barrier());
    if (world.rank() == 0) {
      fake_nccl::SetAbortSeconds(3);
      const auto begin = std::chrono::steady_clock::now();
      CAIRN_RETURN_IF_ERROR(rank.comm->AllReduce(rank.Floats(memory), ReduceOp::kSum));
      const absl::Status late = rank.comm->Synchronize();
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
      EXPECT_THAT(Message(late), HasSubstr("; ncclCommAbort has not come back after 0.3 s"));
      EXPECT_LT(elapsed.count(), 2.5);
    }
    return world.Barrier();
  });
}

TEST(NcclFailures, AGroupThatNcclRefusesSaysWhy) {
  fake_nccl::Reset();
  cuda_emulator::SetDeviceCount(1);
  const auto results = RunThreadRanks(
      2,
      [](ControlChannel& world) -> absl::Status {
        Rank rank;
        CAIRN_ASSIGN_OR_RETURN(rank.context, Context::Cuda(0, DType::kFloat32));
        rank.stream = std::make_shared<NcclStream>(*rank.context, kPatience);
        return rank.Join(world, NcclUse::kTensorParallel).status();
      },
      kPatience);
  for (const absl::Status& result : results) {
    EXPECT_TRUE(absl::IsUnavailable(result)) << result;
    EXPECT_THAT(Message(result), AllOf(HasSubstr("the start of NCCL on rank "), HasSubstr("Duplicate GPU detected")));
  }
}

// Of the fake itself: NCCL would wait for ever.
TEST(NcclFailures, DifferentCollectivesAreAnError) {
  fake_nccl::Reset();
  cuda_emulator::SetDeviceCount(2);
  const auto results = RunThreadRanks(
      2,
      [](ControlChannel& world) -> absl::Status {
        CAIRN_ASSIGN_OR_RETURN(const Rank rank, Rank::Make(world, NcclUse::kTensorParallel));
        const Buffer memory = rank.Allocate(8);
        const Tensor data = rank.Floats(memory);
        CAIRN_RETURN_IF_ERROR(world.rank() == 0 ? rank.comm->AllReduce(data, ReduceOp::kSum)
                                                : rank.comm->Broadcast(data, 0));
        while (cudaStreamQuery(rank.context->cuda().stream()) == cudaErrorNotReady) {
        }
        CAIRN_RETURN_IF_ERROR(world.Barrier());
        if (world.rank() == 0) {
          EXPECT_THAT(cuda_emulator::LastError(), HasSubstr("called different collectives"));
          cuda_emulator::ResetErrors();
        }
        return world.Barrier();
      },
      kPatience);
  for (const absl::Status& result : results) EXPECT_TRUE(result.ok()) << result;
  cuda_emulator::SetDeviceCount(1);
}

// --- Windows ---

TEST(NcclWindows, ReduceInRegisteredMemory) {
  OnRanks(2, [](ControlChannel& world) -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(const Rank rank, Rank::Make(world, NcclUse::kTensorParallel));
    CAIRN_ASSIGN_OR_RETURN(void* const memory, rank.comm->AllocateForReduce(4096 * sizeof(float)));
    EXPECT_NE(memory, nullptr);
    const Tensor whole(memory, DType::kFloat32, {64, 64}, rank.context->device());
    const Buffer plain_memory = rank.Allocate(64);
    const Tensor plain = rank.Floats(plain_memory);
    for (const Tensor& tensor : {whole, whole.Rows(0, 3), plain}) {
      rank.Write(tensor, static_cast<float>(world.rank() + 1));
      CAIRN_RETURN_IF_ERROR(rank.comm->AllReduce(tensor, ReduceOp::kSum));
      CAIRN_RETURN_IF_ERROR(rank.comm->Synchronize());
      EXPECT_EQ(rank.Read(tensor), 3);
    }
    return world.Barrier();
  });
  EXPECT_EQ(fake_nccl::Count().windows, 2);
  EXPECT_EQ(fake_nccl::Count().symmetric_reductions, 2);
  EXPECT_EQ(fake_nccl::Count().reductions, 3);
}

TEST(NcclWindows, AreNotAskedOfAnOlderLibrary) {
  OnRanks(2, [](ControlChannel& world) -> absl::Status {
    fake_nccl::SetVersion(NCCL_VERSION(2, 26, 5));
    CAIRN_ASSIGN_OR_RETURN(const Rank rank, Rank::Make(world, NcclUse::kTensorParallel));
    CAIRN_ASSIGN_OR_RETURN(void* const memory, rank.comm->AllocateForReduce(4096));
    EXPECT_EQ(memory, nullptr);
    return world.Barrier();
  });
}

}  // namespace
}  // namespace cairn
