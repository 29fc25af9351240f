// The part of the CUDA runtime that this project calls, linked in place of libcudart.
//
// Streams are lazy: work runs when something synchronises, so host code that forgets to reads old data. Copies from or
// to pageable memory behave as CUDA's do (the source may change at once; a copy to the host waits). A failed kernel
// makes every later call fail, with the emulator's text as the error's string.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "cuda_emulator.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/emulator.h"
#include "tests/emulator/race_check.h"
#include "tests/emulator/runtime.h"
#include "tests/emulator/scheduler.h"
#include "tests/emulator/shared_memory.h"

namespace {

// A piece of a stream: wait for an event, wait for other ranks, run, reach an event.
struct Work {
  std::function<std::string()> run;
  std::function<bool()> ready = nullptr;
  bool is_ready = false;  // it has said so
  cudaEvent_t wait = nullptr, reach = nullptr;
  uint64_t wait_count = 0, reach_count = 0;
};

}  // namespace

struct CUevent_st {
  uint64_t recorded = 0, reached = 0;
  cudaStream_t stream = nullptr;
  // Recorded in a capture: the graph, and the stream whose work it stands behind.
  cudaGraph_t captured = nullptr;
};

struct CUgraph_st {
  std::vector<Work> work;
  std::set<cudaStream_t> unjoined;  // forked streams with work that the first one has not waited for
  bool forbids_all = false;         // what waits is forbidden to all threads, not to the one that captures alone
  std::thread::id thread = std::this_thread::get_id();
};

struct CUgraphExec_st {
  std::vector<Work> work;
};

struct CUstream_st {
  std::deque<Work> queue;
  cudaGraph_t capture = nullptr;
  bool captures_first = false;  // began the capture
  int device = 0;
};

namespace cuda_emulator {
namespace {

CUstream_st null_stream;
std::set<cudaStream_t> streams;
std::map<const char*, size_t> pinned;  // begin -> bytes
std::map<const void*, int> dynamic_shared_limits;
cudaError_t last_error = cudaSuccess, sticky_error = cudaSuccess;
std::string error_text;
int64_t num_allocations = 0;
thread_local std::string next_kernel = "?";
thread_local int current_device = 0;
int num_devices = 1;

std::recursive_mutex& Mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}
int lock_depth = 0;  // how often the thread that is inside holds it

constexpr auto kTurn = std::chrono::microseconds(50);

// Other threads may come in meanwhile.
void LetOthersIn() {
  const int depth = lock_depth;
  lock_depth = 0;
  for (int i = 0; i < depth; ++i) Mutex().unlock();
  std::this_thread::sleep_for(kTurn);
  for (int i = 0; i < depth; ++i) Mutex().lock();
  lock_depth = depth;
}

cudaStream_t StreamOf(cudaStream_t stream) { return stream != nullptr ? stream : &null_stream; }

cudaError_t Result(cudaError_t error) {
  if (sticky_error != cudaSuccess) return sticky_error;
  if (error != cudaSuccess) last_error = error;
  return error;
}

bool Advance(cudaStream_t stream, cudaEvent_t until = nullptr, uint64_t count = 0);

// Asks what the front of a stream waits for. Opens no memory: threads that wait ask all the time.
bool IsHeldUp(cudaStream_t stream) {
  Work& front = stream->queue.front();
  if (front.wait != nullptr && front.wait->reached < front.wait_count &&
      !Advance(front.wait->stream, front.wait, front.wait_count)) {
    return true;
  }
  if (front.ready && !front.is_ready) front.is_ready = front.ready();
  return front.ready && !front.is_ready;
}

void RunFront(cudaStream_t stream) {
  const DeviceAccess access;
  const Work work = std::move(stream->queue.front());
  stream->queue.pop_front();
  if (work.run) {
    const std::string error = work.run();
    if (!error.empty()) {
      sticky_error = cudaErrorLaunchFailure;
      error_text = error;
    }
  }
  if (work.reach != nullptr) work.reach->reached = work.reach_count;
}

// Runs the stream's work: all of it, or until the event has been reached. False where it waits for other ranks.
bool Advance(cudaStream_t stream, cudaEvent_t until, uint64_t count) {
  std::optional<DeviceAccess> access;
  while (!stream->queue.empty() && sticky_error == cudaSuccess) {
    if (until != nullptr && until->reached >= count) return true;
    if (IsHeldUp(stream)) return false;
    if (!access.has_value()) access.emplace();
    RunFront(stream);
  }
  return true;
}

// What GPUs do while the host waits: every stream goes on to the last of its work that other ranks may wait for.
bool AdvanceRanks() {
  bool any = false;
  for (const cudaStream_t stream : std::vector<cudaStream_t>(streams.begin(), streams.end())) {
    const auto waits = [](const Work& work) { return work.ready != nullptr; };
    while (sticky_error == cudaSuccess && std::any_of(stream->queue.begin(), stream->queue.end(), waits) &&
           !IsHeldUp(stream)) {
      RunFront(stream);
      any = true;
    }
  }
  return any;
}

void Drain(cudaStream_t stream, cudaEvent_t until = nullptr, uint64_t count = 0) {
  while (!Advance(stream, until, count)) {
    if (!AdvanceRanks()) LetOthersIn();
  }
}

// Of the current device.
void DrainAll() {
  Drain(&null_stream);
  for (const cudaStream_t stream : std::vector<cudaStream_t>(streams.begin(), streams.end())) {
    if (streams.count(stream) > 0 && stream->device == current_device) Drain(stream);
  }
}

cudaError_t Push(cudaStream_t stream, Work work) {
  if (sticky_error != cudaSuccess) return sticky_error;
  stream = StreamOf(stream);
  if (stream->capture != nullptr) {
    stream->capture->work.push_back(std::move(work));
    if (!stream->captures_first) stream->capture->unjoined.insert(stream);
  } else {
    stream->queue.push_back(std::move(work));
  }
  return cudaSuccess;
}

// A call that waits for the device is not allowed while a stream is captured.
bool AnyCapture() {
  return std::any_of(streams.begin(), streams.end(), [](cudaStream_t s) {
    return s->capture != nullptr && (s->capture->forbids_all || s->capture->thread == std::this_thread::get_id());
  });
}

bool IsPinned(const void* address, size_t bytes) {
  const char* byte = static_cast<const char*>(address);
  auto after = pinned.upper_bound(byte);
  if (after == pinned.begin()) return false;
  const auto [begin, size] = *std::prev(after);
  return byte + bytes <= begin + size;
}

// Do the two ends of a copy live where its kind says?
bool KindFits(const void* to, const void* from, size_t to_bytes, size_t from_bytes, cudaMemcpyKind kind) {
  const bool to_device = InDeviceRange(to), from_device = InDeviceRange(from);
  if (to_device && !IsAllocated(to, to_bytes)) return false;
  if (from_device && !IsAllocated(from, from_bytes)) return false;
  switch (kind) {
    case cudaMemcpyHostToDevice:
      return to_device && !from_device;
    case cudaMemcpyDeviceToHost:
      return !to_device && from_device;
    case cudaMemcpyDeviceToDevice:
      return to_device && from_device;
    case cudaMemcpyHostToHost:
      return !to_device && !from_device;
    case cudaMemcpyDefault:
      return true;
  }
  return false;
}

void CopyRows(char* to, size_t to_pitch, const char* from, size_t from_pitch, size_t width, size_t height) {
  for (size_t row = 0; row < height; ++row) std::memmove(to + row * to_pitch, from + row * from_pitch, width);
}

cudaError_t CopyAsync2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                        cudaMemcpyKind kind, cudaStream_t stream) {
  if (width == 0 || height == 0) return Result(cudaSuccess);
  const size_t to_bytes = (height - 1) * to_pitch + width, from_bytes = (height - 1) * from_pitch + width;
  if (width > to_pitch || width > from_pitch || !KindFits(to, from, to_bytes, from_bytes, kind)) {
    return Result(cudaErrorInvalidValue);
  }
  char* out = static_cast<char*>(to);
  const char* in = static_cast<const char*>(from);
  const bool pageable_source = !InDeviceRange(from) && !IsPinned(from, from_bytes);
  const bool pageable_target = !InDeviceRange(to) && !IsPinned(to, to_bytes);
  if ((pageable_source || pageable_target) && StreamOf(stream)->capture != nullptr) {
    return Result(cudaErrorStreamCaptureUnsupported);
  }
  if (pageable_source) {  // staged before the call returns
    auto staged = std::make_shared<std::vector<char>>(width * height);
    CopyRows(staged->data(), width, in, from_pitch, width, height);
    return Push(stream, {.run = [=] { return CopyRows(out, to_pitch, staged->data(), width, width, height), ""; }});
  }
  const cudaError_t pushed =
      Push(stream, {.run = [=] { return CopyRows(out, to_pitch, in, from_pitch, width, height), ""; }});
  if (pageable_target && pushed == cudaSuccess) Drain(StreamOf(stream));
  return Result(pushed);
}

// A copy that waits goes through the null stream; other streams are not waited for (ours are non-blocking).
cudaError_t CopyNow(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                    cudaMemcpyKind kind) {
  if (AnyCapture()) return Result(cudaErrorStreamCaptureUnsupported);
  const cudaError_t error = CopyAsync2D(to, to_pitch, from, from_pitch, width, height, kind, nullptr);
  if (error == cudaSuccess) Drain(&null_stream);
  return Result(error);
}

bool IsValid(const cudaLaunchConfig_t& config, const void* kernel) {
  const dim3 grid = config.gridDim, block = config.blockDim;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > 1024 || block.z > 64) return false;
  if (grid.x == 0 || grid.x > 0x7fffffffu || grid.y == 0 || grid.y > 65535 || grid.z == 0 || grid.z > 65535)
    return false;
  const auto limit = dynamic_shared_limits.find(kernel);
  return config.dynamicSmemBytes <=
         (limit == dynamic_shared_limits.end() ? kMaxStaticShared : static_cast<size_t>(limit->second));
}

}  // namespace

Guard::Guard() {
  Mutex().lock();
  ++lock_depth;
}
Guard::~Guard() {
  --lock_depth;
  Mutex().unlock();
}

cudaError_t Enqueue(cudaStream_t stream, std::function<std::string()> work) {
  const Guard guard;
  return Push(stream, {.run = std::move(work)});
}

cudaError_t EnqueueWhenReady(cudaStream_t stream, std::function<bool()> ready, std::function<std::string()> work) {
  const Guard guard;
  return Push(stream, {.run = std::move(work), .ready = std::move(ready)});
}

bool IsCapturing(cudaStream_t stream) {
  const Guard guard;
  return StreamOf(stream)->capture != nullptr;
}

int CurrentDevice() { return current_device; }

void NameNextLaunch(const char* name) { next_kernel = name; }

cudaError_t Launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> thread_body) {
  const Guard guard;
  if (!IsValid(config, kernel)) return Result(cudaErrorInvalidConfiguration);
  auto grid = std::make_shared<Grid>(
      Grid{next_kernel, config.gridDim, config.blockDim, config.dynamicSmemBytes, std::move(thread_body)});
  return Push(config.stream, {.run = [grid] { return RunGrid(*grid); }});
}

std::string LastError() { return error_text; }

void ResetErrors() {
  const Guard guard;
  for (cudaStream_t stream : streams) stream->queue.clear();
  null_stream.queue.clear();
  last_error = sticky_error = cudaSuccess;
  error_text.clear();
  race::Reset();
}

int64_t NumRaces() { return race::NumRaces(); }
void SetRaceCheck(bool on) { race::Enable(on); }
bool HasRaceCheck() { return race::HooksCalled(); }
int64_t NumAllocations() { return num_allocations; }
void SetDeviceCount(int count) { num_devices = count; }

}  // namespace cuda_emulator

using namespace cuda_emulator;  // NOLINT: the functions below are the C interface of the code above

extern "C" {

cudaError_t cudaGetLastError() {
  const Guard guard;
  return sticky_error != cudaSuccess ? sticky_error : std::exchange(last_error, cudaSuccess);
}
cudaError_t cudaPeekAtLastError() {
  const Guard guard;
  return sticky_error != cudaSuccess ? sticky_error : last_error;
}
const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaSuccess              ? "cudaSuccess"
         : error == cudaErrorLaunchFailure ? "cudaErrorLaunchFailure"
                                           : "cudaError";
}
const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorLaunchFailure:
      return error_text.c_str();
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureUnjoined:
      return "capturing stream has unjoined work";
    default:
      return "unrecognized error";
  }
}

cudaError_t cudaGetDeviceCount(int* count) { return *count = num_devices, cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
  const Guard guard;
  if (device < 0 || device >= num_devices) return Result(cudaErrorInvalidDevice);
  current_device = device;
  return Result(cudaSuccess);
}
cudaError_t cudaGetDevice(int* device) { return *device = current_device, cudaSuccess; }
cudaError_t cudaDeviceSynchronize() {
  const Guard guard;
  if (AnyCapture()) return Result(cudaErrorStreamCaptureUnsupported);
  DrainAll();
  return Result(cudaSuccess);
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      return *value = 4, cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      return *value = 9, cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      return *value = 0, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return *value = kMaxShared, cudaSuccess;
    default:
      return Result(cudaErrorInvalidValue);
  }
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= num_devices) return Result(cudaErrorInvalidDevice);
  *properties = cudaDeviceProp();
  std::strcpy(properties->name, "emulated GPU");
  properties->uuid.bytes[15] = static_cast<char>(device);
  properties->pciBusID = device + 1;
  properties->major = 9;
  properties->multiProcessorCount = 4;
  properties->totalGlobalMem = DeviceBytesTotal();
  return Result(cudaSuccess);
}
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
  const Guard guard;
  *free_bytes = DeviceBytesFree();
  *total = DeviceBytesTotal();
  return Result(cudaSuccess);
}
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  const Guard guard;
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return Result(cudaSuccess);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > static_cast<int>(kMaxShared)) {
    return Result(cudaErrorInvalidValue);
  }
  dynamic_shared_limits[kernel] = value;
  return Result(cudaSuccess);
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  const Guard guard;
  ++num_allocations;
  if (AnyCapture()) return Result(cudaErrorStreamCaptureUnsupported);
  if (bytes == 0) return *memory = nullptr, Result(cudaSuccess);
  *memory = AllocateDevice(bytes);
  return Result(*memory != nullptr ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t cudaFree(void* memory) {
  const Guard guard;
  if (memory == nullptr) return Result(cudaSuccess);
  DrainAll();
  return Result(FreeDevice(memory) ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  const Guard guard;
  ++num_allocations;
  if (posix_memalign(memory, 4096, std::max<size_t>(bytes, 1)) != 0) return Result(cudaErrorMemoryAllocation);
  std::memset(*memory, 0xff, bytes);
  pinned[static_cast<char*>(*memory)] = bytes;
  return Result(cudaSuccess);
}
cudaError_t cudaFreeHost(void* memory) {
  const Guard guard;
  if (memory == nullptr) return Result(cudaSuccess);
  DrainAll();
  if (pinned.erase(static_cast<char*>(memory)) == 0) return Result(cudaErrorInvalidValue);
  std::free(memory);
  return Result(cudaSuccess);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const Guard guard;
  return CopyAsync2D(to, bytes, from, bytes, bytes, 1, kind, stream);
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  const Guard guard;
  return CopyAsync2D(to, to_pitch, from, from_pitch, width, height, kind, stream);
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const Guard guard;
  return CopyNow(to, bytes, from, bytes, bytes, 1, kind);
}
cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                         cudaMemcpyKind kind) {
  const Guard guard;
  return CopyNow(to, to_pitch, from, from_pitch, width, height, kind);
}
cudaError_t cudaMemset2DAsync(void* memory, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream) {
  const Guard guard;
  if (width == 0 || height == 0) return Result(cudaSuccess);
  if (width > pitch || !IsAllocated(memory, (height - 1) * pitch + width)) return Result(cudaErrorInvalidValue);
  char* begin = static_cast<char*>(memory);
  return Push(stream, {.run = [=] {
                for (size_t row = 0; row < height; ++row) std::memset(begin + row * pitch, value, width);
                return "";
              }});
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  return cudaMemset2DAsync(memory, bytes, value, bytes, 1, stream);
}
cudaError_t cudaMemset(void* memory, int value, size_t bytes) {
  const Guard guard;
  const cudaError_t error = cudaMemsetAsync(memory, value, bytes, nullptr);
  if (error == cudaSuccess) Drain(&null_stream);
  return Result(error);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  const Guard guard;
  if (flags != cudaStreamNonBlocking) return Result(cudaErrorInvalidValue);  // the project makes no other
  *stream = new CUstream_st;
  (*stream)->device = current_device;
  streams.insert(*stream);
  return Result(cudaSuccess);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Guard guard;
  Drain(stream);
  streams.erase(stream);
  delete stream;
  return Result(cudaSuccess);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Guard guard;
  if (StreamOf(stream)->capture != nullptr) return Result(cudaErrorStreamCaptureUnsupported);
  Drain(StreamOf(stream));
  return Result(cudaSuccess);
}
// Each question lets one piece of work run, so that polling comes to an end; that of other ranks, where this stream
// waits for them.
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Guard guard;
  stream = StreamOf(stream);
  if (sticky_error != cudaSuccess || stream->queue.empty()) return Result(cudaSuccess);
  if (IsHeldUp(stream)) {
    AdvanceRanks();
  } else {
    RunFront(stream);
  }
  return sticky_error != cudaSuccess ? sticky_error : cudaErrorNotReady;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  const Guard guard;
  *event = new CUevent_st;
  return Result(cudaSuccess);
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Guard guard;
  if (event->stream != nullptr && event->reached < event->recorded) Drain(event->stream, event, event->recorded);
  delete event;
  return Result(cudaSuccess);
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Guard guard;
  stream = StreamOf(stream);
  event->stream = stream;
  event->captured = stream->capture;
  if (stream->capture != nullptr) return Result(cudaSuccess);  // an edge of the graph; its work is in order anyway
  return Push(stream, {.run = nullptr, .reach = event, .reach_count = ++event->recorded});
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Guard guard;
  stream = StreamOf(stream);
  if (event->captured != nullptr) {  // the stream joins the capture, or the other one joins this
    if (stream->capture != nullptr && stream->capture != event->captured) return Result(cudaErrorStreamCaptureMerge);
    event->captured->unjoined.erase(event->stream);
    if (stream->capture == nullptr) {
      stream->capture = event->captured;
      stream->captures_first = false;
    }
    if (!stream->captures_first) stream->capture->unjoined.insert(stream);
    return Result(cudaSuccess);
  }
  if (stream->capture != nullptr) return Result(cudaErrorStreamCaptureIsolation);
  return Push(stream, {.run = nullptr, .wait = event, .wait_count = event->recorded});
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Guard guard;
  if (event->captured != nullptr) return Result(cudaErrorCapturedEvent);
  if (event->stream != nullptr) Drain(event->stream, event, event->recorded);
  return Result(cudaSuccess);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Guard guard;
  if (event->reached >= event->recorded) return Result(cudaSuccess);
  cudaStreamQuery(event->stream);
  return sticky_error != cudaSuccess ? sticky_error : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  if (begin->reached == 0 || end->reached == 0) return Result(cudaErrorNotReady);
  return *milliseconds = 0.001f, Result(cudaSuccess);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const Guard guard;
  if (stream == nullptr || stream->capture != nullptr) return Result(cudaErrorStreamCaptureUnsupported);
  stream->capture = new CUgraph_st;
  stream->capture->forbids_all = mode == cudaStreamCaptureModeGlobal;
  stream->captures_first = true;
  return Result(cudaSuccess);
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Guard guard;
  *graph = nullptr;
  if (stream->capture == nullptr || !stream->captures_first) return Result(cudaErrorIllegalState);
  cudaGraph_t captured = stream->capture;
  for (cudaStream_t other : streams) {
    if (other->capture == captured) other->capture = nullptr;
  }
  if (!captured->unjoined.empty()) {
    delete captured;
    return Result(cudaErrorStreamCaptureUnjoined);
  }
  *graph = captured;
  return Result(cudaSuccess);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const Guard guard;
  *status = StreamOf(stream)->capture != nullptr ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return Result(cudaSuccess);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  const Guard guard;
  *executable = new CUgraphExec_st{graph->work};
  return Result(cudaSuccess);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const Guard guard;
  for (const Work& work : executable->work) {
    if (const cudaError_t error = Push(stream, work); error != cudaSuccess) return error;
  }
  return Result(cudaSuccess);
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  const Guard guard;
  DrainAll();
  delete executable;
  return Result(cudaSuccess);
}

}  // extern "C"
