// The conformance checks of communicators, and a graph's replay, by the real NCCL between the GPUs of MPI ranks:
//
//   mpirun -np 1 nccl_conformance             one rank
//   mpirun -np 2 nccl_conformance             two GPUs; one where NCCL allows it (2.30.3, NCCL_MULTI_RANK_GPU_ENABLE=1)
//   mpirun -np 2 nccl_conformance one-gpu     one GPU, whatever the NCCL: each rank pretends to be a host of its own
//
// Exit code 77 without GPUs. Two ranks at most: the checks compare sums in rank order, and NCCL has its own.
#include <cuda_runtime_api.h>
#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/device_state.h"
#include "kernels/ops/elementwise.h"
#include "parallel/comm/device_groups.h"
#include "parallel/comm/mpi_channel.h"
#include "tests/parallel/conformance.h"
#include "tests/parallel/device_world.h"

namespace cairn {
namespace {

constexpr int kSkipped = 77;
constexpr double kTimeoutSeconds = 60;

// Over sockets on the loop-back device, since the ranks share a GPU without being told so, and on few multiprocessors,
// since each waits for the other on the same ones.
void PretendToBeAHost(int rank) {
  const std::pair<const char*, std::string> settings[] = {{"NCCL_HOSTID", absl::StrCat("cairn-", rank)},
                                                          {"NCCL_NET", "Socket"},
                                                          {"NCCL_SOCKET_IFNAME", "lo"},
                                                          {"NCCL_IB_DISABLE", "1"},
                                                          {"NCCL_MNNVL_ENABLE", "0"},
                                                          {"NCCL_NVLS_ENABLE", "0"},
                                                          {"NCCL_ALGO", "Ring"},
                                                          {"NCCL_PROTO", "Simple"},
                                                          {"NCCL_MAX_CTAS", "2"}};
  for (const auto& [name, value] : settings) setenv(name, value.c_str(), /*overwrite=*/0);
}

// A sum over the ranks in memory that NCCL has registered, captured with an op before it and replayed.
absl::Status GraphReplay(ControlChannel& world, Context& context, const NcclLibrary* library) {
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<ControlChannel> control, world.Split(0, world.rank()));
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> host, world.SplitCommunicator(0, world.rank()));
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<NcclCommunicator> comm,
                         NcclCommunicator::Create(library, std::make_shared<NcclStream>(context, kTimeoutSeconds),
                                                  NcclUse::kTensorParallel, std::move(control), std::move(host)));
  constexpr int64_t kCount = 8192;
  CAIRN_ASSIGN_OR_RETURN(Buffer plain, Buffer::Allocate(context.device(), 2 * kCount * sizeof(float)));
  CAIRN_ASSIGN_OR_RETURN(void* window, comm->AllocateForReduce(kCount * sizeof(float)));
  if (world.rank() == 0) std::printf("window: %s\n", window != nullptr ? "yes" : "no");
  if (window == nullptr) window = plain.data() + kCount * sizeof(float);
  const Tensor sum(window, DType::kFloat32, {1, kCount}, context.device());
  const Tensor one(plain.data(), DType::kFloat32, {1, kCount}, context.device());
  std::vector<float> values(kCount, 1);
  CopyFromHost(context, values.data(), one);
  CopyFromHost(context, values.data(), sum);
  CAIRN_RETURN_IF_ERROR(comm->AllReduce(sum, ReduceOp::kSum));  // what NCCL sets up, it sets up before the capture
  CAIRN_RETURN_IF_ERROR(comm->Synchronize());
  const cudaStream_t stream = context.cuda().stream();
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  CAIRN_EXPECT(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  AddInPlace(context, sum, one);
  CAIRN_RETURN_IF_ERROR(comm->AllReduce(sum, ReduceOp::kSum));
  CAIRN_EXPECT(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  CAIRN_EXPECT(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
  for (int replay = 0; replay < 20; ++replay) {
    values.assign(kCount, static_cast<float>(replay + world.rank()));
    CopyFromHost(context, values.data(), sum);
    CAIRN_EXPECT(cudaGraphLaunch(executable, stream) == cudaSuccess);
    CAIRN_RETURN_IF_ERROR(comm->Synchronize());
    CopyToHost(context, sum, values.data());
    const int n = world.size();
    const float expected = static_cast<float>(n * (replay + 1) + n * (n - 1) / 2);
    for (const float value : values) CAIRN_EXPECT(value == expected, value, " instead of ", expected);
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  return absl::OkStatus();
}

absl::StatusOr<int> Run(bool one_gpu) {
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<ControlChannel> world, MakeMpiWorld(2 * kTimeoutSeconds));
  if (world->size() > 2) return absl::InvalidArgumentError("two ranks at most");
  CAIRN_ASSIGN_OR_RETURN(const std::vector<std::string> gpus,
                         world->AllGather(absl::StrCat(Context::NumCudaDevices())));
  for (const std::string& count : gpus) {
    if (count != "0") continue;
    if (world->rank() == 0) std::printf("a rank sees no GPU: NCCL was not run\n");
    return kSkipped;
  }
  if (one_gpu) PretendToBeAHost(world->rank());
  CAIRN_ASSIGN_OR_RETURN(const int gpu, ChooseGpu(*world));
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<Context> context, Context::Cuda(gpu, DType::kFloat32));
  CAIRN_ASSIGN_OR_RETURN(const NcclLibrary* library, NcclLibrary::Load());
  const RankGpu mine = DescribeRankGpu(*world, *context, DeviceComm::kNccl);
  CAIRN_ASSIGN_OR_RETURN(const std::vector<std::string> ids, world->AllGather(absl::StrCat(mine.host, " ", mine.gpu)));
  if (ids.size() > 1 && ids[0] == ids[1] && !mine.MayShareGpu()) {
    if (world->rank() == 0) std::printf("the ranks share a GPU, which NCCL %d refuses\n", mine.nccl_version);
    return kSkipped;
  }
  if (world->rank() == 0) std::printf("NCCL %d, %d ranks\n", library->Version(), world->size());
  DeviceWorld devices(*world, *context, library, kTimeoutSeconds);
  std::vector<ConformanceCheck> checks;
  for (const ConformanceCheck& it : CommunicatorChecks()) {
    if (std::string(it.name) != "NansInMinAndMax") checks.push_back(it);  // nccl_communicator.h
  }
  const bool all = RunChecks(devices, checks) &&
                   RunCheck(*world, "GraphReplay", [&] { return GraphReplay(*world, *context, library); });
  return all ? 0 : 1;
}

}  // namespace
}  // namespace cairn

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  const absl::StatusOr<int> code = cairn::Run(argc > 1 && std::string(argv[1]) == "one-gpu");
  if (!code.ok()) {
    std::printf("%s\n", code.status().ToString().c_str());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  if (*code != 0 && *code != cairn::kSkipped) MPI_Abort(MPI_COMM_WORLD, *code);
  MPI_Finalize();
  return *code;
}
