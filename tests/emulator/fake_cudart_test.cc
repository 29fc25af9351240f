// The fake runtime: what it lets pass and what it refuses, against what CUDA documents.
#include <gmock/gmock.h>

#include <thread>

#include "tests/emulator/kernel_testing.h"

namespace cuda_emulator {
namespace {

__global__ void AddTo(int* value, int amount) { *value += amount; }
__global__ void FailKernel(int* value) {
  if (threadIdx.x == 3) __syncwarp(1);
  *value = 1;
}

class FakeCudartTest : public testing::Test {
 protected:
  FakeCudartTest() {
    for (cudaStream_t* stream : {&stream_, &other_}) {
      EXPECT_EQ(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking), cudaSuccess);
    }
    EXPECT_EQ(cudaMallocHost(reinterpret_cast<void**>(&pinned_), 2 * sizeof(int)), cudaSuccess);
    pinned_[0] = pinned_[1] = 0;
  }
  ~FakeCudartTest() override {
    ResetErrors();
    cudaStreamDestroy(stream_);
    cudaStreamDestroy(other_);
    cudaFreeHost(pinned_);
  }
  void Add(int amount, cudaStream_t stream) { CAIRN_LAUNCH(AddTo, stream, {1, 1}, value_.data(), amount); }
  cudaError_t ReadAsync(cudaStream_t stream) {
    return cudaMemcpyAsync(pinned_, value_.data(), sizeof(int), cudaMemcpyDeviceToHost, stream);
  }

  DeviceArray<int> value_{std::vector<int>{10}};
  cudaStream_t stream_, other_;
  int* pinned_;
};

TEST_F(FakeCudartTest, WorkWaitsForASynchronisation) {
  Add(5, stream_);
  EXPECT_EQ(ReadAsync(stream_), cudaSuccess);
  EXPECT_EQ(*pinned_, 0);
  EXPECT_EQ(value_.Read()[0], 10);  // a plain copy does not wait for a non-blocking stream
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(*pinned_, 15);
}

TEST_F(FakeCudartTest, PinnedSourcesAreReadLateAndPageableOnesAtOnce) {
  int pageable = 1;
  *pinned_ = 1;
  DeviceArray<int> a(1), b(1);
  EXPECT_EQ(cudaMemcpyAsync(a.data(), &pageable, sizeof(int), cudaMemcpyHostToDevice, stream_), cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(b.data(), pinned_, sizeof(int), cudaMemcpyHostToDevice, stream_), cudaSuccess);
  pageable = *pinned_ = 2;
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(a.Read()[0], 1);
  EXPECT_EQ(b.Read()[0], 2);
}

TEST_F(FakeCudartTest, EventsOrderStreams) {
  cudaEvent_t event;
  EXPECT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
  Add(5, stream_);
  EXPECT_EQ(cudaEventRecord(event, stream_), cudaSuccess);
  EXPECT_EQ(cudaEventQuery(event), cudaErrorNotReady);
  Add(100, stream_);
  EXPECT_EQ(cudaStreamWaitEvent(other_, event, 0), cudaSuccess);
  EXPECT_EQ(ReadAsync(other_), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(other_), cudaSuccess);
  EXPECT_EQ(*pinned_, 15);  // and no further than the event
  EXPECT_EQ(cudaEventSynchronize(event), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(value_.Read()[0], 115);
  EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
}

TEST_F(FakeCudartTest, GraphsReplayWhatWasCaptured) {
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  EXPECT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(value_.data(), pinned_, sizeof(int), cudaMemcpyHostToDevice, stream_), cudaSuccess);
  Add(1, stream_);
  EXPECT_EQ(cudaMemcpyAsync(pinned_ + 1, value_.data(), sizeof(int), cudaMemcpyDeviceToHost, stream_), cudaSuccess);
  EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
  EXPECT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(value_.Read()[0], 10);
  for (int input : {40, 7}) {
    pinned_[0] = input;
    EXPECT_EQ(cudaGraphLaunch(executable, stream_), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    EXPECT_EQ(pinned_[1], input + 1);
  }
  EXPECT_EQ(cudaGraphExecDestroy(executable), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
}

TEST_F(FakeCudartTest, CaptureSpansForkedStreamsThatJoin) {
  cudaEvent_t fork, join;
  cudaEventCreate(&fork);
  cudaEventCreate(&join);
  for (bool joins : {true, false}) {
    cudaGraph_t graph;
    EXPECT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    EXPECT_EQ(cudaEventRecord(fork, stream_), cudaSuccess);
    EXPECT_EQ(cudaStreamWaitEvent(other_, fork, 0), cudaSuccess);
    Add(1, other_);
    EXPECT_EQ(cudaEventRecord(join, other_), cudaSuccess);
    if (joins) {
      EXPECT_EQ(cudaStreamWaitEvent(stream_, join, 0), cudaSuccess);
    }
    EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), joins ? cudaSuccess : cudaErrorStreamCaptureUnjoined);
    if (joins) cudaGraphDestroy(graph);
  }
  cudaGetLastError();
  Add(1, other_);
  EXPECT_EQ(cudaStreamSynchronize(other_), cudaSuccess);
  EXPECT_EQ(value_.Read()[0], 11);
  cudaEventDestroy(fork);
  cudaEventDestroy(join);
}

TEST_F(FakeCudartTest, RefusesWhatACaptureForbids) {
  cudaGraph_t graph;
  int pageable = 0;
  void* memory = nullptr;
  EXPECT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaMalloc(&memory, 8), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaMemcpyAsync(value_.data(), &pageable, 4, cudaMemcpyHostToDevice, stream_),
            cudaErrorStreamCaptureUnsupported);
  std::thread([&] {  // forbidden to this thread alone
    EXPECT_EQ(cudaMalloc(&memory, 8), cudaSuccess);
    EXPECT_EQ(cudaFree(memory), cudaSuccess);
  })
      .join();
  EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
  cudaGraphDestroy(graph);
  EXPECT_EQ(cudaGetLastError(), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST_F(FakeCudartTest, AFailedKernelFailsEverythingAfterIt) {
  CAIRN_LAUNCH(FailKernel, stream_, {1, 32}, value_.data());
  EXPECT_EQ(cudaStreamSynchronize(other_), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorLaunchFailure);
  EXPECT_THAT(cudaGetErrorString(cudaErrorLaunchFailure),
              testing::HasSubstr("kernel FailKernel, block (0, 0, 0), thread (3, 0, 0)"));
  EXPECT_EQ(cudaStreamSynchronize(other_), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
}

TEST_F(FakeCudartTest, RefusesWrongCopiesAndLaunches) {
  int host[4] = {};
  EXPECT_EQ(cudaMemcpy(value_.data(), host, 8, cudaMemcpyHostToDevice), cudaErrorInvalidValue);  // beyond the end
  EXPECT_EQ(cudaMemcpy(host, host + 2, 4, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(host, value_.data(), 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  cudaLaunchConfig_t config = {};
  config.stream = stream_;
  config.gridDim = 1;
  config.blockDim = 1025;
  EXPECT_EQ(cudaLaunchKernelEx(&config, AddTo, value_.data(), 1), cudaErrorInvalidConfiguration);
  config.blockDim = 1;
  config.gridDim = dim3(1, 65536);
  EXPECT_EQ(cudaLaunchKernelEx(&config, AddTo, value_.data(), 1), cudaErrorInvalidConfiguration);
  config.gridDim = 1;
  config.dynamicSmemBytes = 48 * 1024 + 1;  // without asking for more
  EXPECT_EQ(cudaLaunchKernelEx(&config, AddTo, value_.data(), 1), cudaErrorInvalidConfiguration);
  cudaGetLastError();
}

TEST_F(FakeCudartTest, DeviceMemoryRunsOut) {
  SetDeviceMemory(1000);
  void *a = nullptr, *b = nullptr;
  const int64_t before = NumAllocations();
  EXPECT_EQ(cudaMalloc(&a, 600), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&b, 600), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaFree(a), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&b, 600), cudaSuccess);
  EXPECT_EQ(NumAllocations(), before + 3);
  EXPECT_EQ(cudaFree(b), cudaSuccess);
  EXPECT_EQ(cudaFree(b), cudaErrorInvalidValue);
  SetDeviceMemory(SIZE_MAX);
  cudaGetLastError();
}

using FakeCudartDeathTest = FakeCudartTest;

TEST_F(FakeCudartDeathTest, TheHostCannotTouchDeviceMemory) {
  volatile int* device = value_.data();
  EXPECT_DEATH(*device = 1, "host code touched device memory, 0 bytes into an allocation of 4 bytes");
  EXPECT_DEATH(std::exit(*device), "host code touched device memory");
}

}  // namespace
}  // namespace cuda_emulator
