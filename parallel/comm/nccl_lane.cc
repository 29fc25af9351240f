#include "parallel/comm/nccl_lane.h"

#include <cuda_runtime_api.h>

#include <chrono>
#include <future>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "parallel/comm/waiter.h"

namespace cairn {
namespace {

// For an orderly end: the other ranks end at about the same time, or are gone.
constexpr double kEndSeconds = 5;

}  // namespace

absl::StatusOr<std::unique_ptr<NcclLane>> NcclLane::Start(const NcclLibrary* library, int device, int size, int rank,
                                                          const ncclUniqueId& id) {
  std::unique_ptr<NcclLane> lane(new NcclLane(library, device));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const ncclResult_t result = library->CommInitRankConfig(&lane->comm_, size, id, rank, &config);
  if (result == ncclSuccess || result == ncclInProgress) return lane;
  lane->comm_ = nullptr;
  return absl::UnavailableError(absl::StrCat("ncclCommInitRankConfig: ", lane->Describe(result)));
}

ncclResult_t NcclLane::State() const {
  ncclResult_t state = ncclSuccess;
  const ncclResult_t asked = library_->CommGetAsyncError(comm_, &state);
  return asked == ncclSuccess ? state : asked;
}

std::string NcclLane::Describe(ncclResult_t result) const {
  std::string text = library_->GetErrorString(result);
  const char* last = library_->GetLastError(comm_);
  if (last != nullptr && *last != '\0') absl::StrAppend(&text, ": ", last);
  return text;
}

bool NcclLane::Abort(double seconds) {
  if (comm_ == nullptr) return true;
  // On a thread of its own: ncclCommAbort has been seen to wait for what it should end.
  auto done = std::make_shared<std::promise<void>>();
  std::future<void> ended = done->get_future();
  std::thread([library = library_, device = device_, comm = std::exchange(comm_, nullptr), done] {
    cudaSetDevice(device);
    library->CommAbort(comm);
    done->set_value();
  }).detach();
  return ended.wait_for(std::chrono::duration<double>(seconds)) == std::future_status::ready;
}

absl::StatusOr<void*> NcclLane::RegisterWindow(size_t bytes) {
  auto window = std::make_unique<Window>(Window{nullptr, nullptr});
  ncclResult_t result = library_->MemAlloc(&window->memory, bytes);
  if (result != ncclSuccess) {
    return absl::ResourceExhaustedError(
        absl::StrCat("ncclMemAlloc of ", bytes, " bytes on GPU ", device_, ": ", library_->GetErrorString(result)));
  }
  result = library_->CommWindowRegister(comm_, window->memory, bytes, &window->handle, NCCL_WIN_COLL_SYMMETRIC);
  void* memory = window->memory;
  windows_.push_back(std::move(window));
  if (result != ncclSuccess && result != ncclInProgress) {
    return absl::UnavailableError(absl::StrCat("ncclCommWindowRegister of ", bytes, " bytes: ", Describe(result)));
  }
  return memory;
}

bool NcclLane::SettleForEnd() const {
  Waiter waiter({.timeout_seconds = kEndSeconds});
  for (;;) {
    const ncclResult_t state = State();
    if (state != ncclInProgress) return state == ncclSuccess;
    if (!waiter.Pause([] {})) return false;
  }
}

NcclLane::~NcclLane() {
  // After an abort the memory of the windows is NCCL's to keep: what used it may still be running.
  if (comm_ == nullptr) return;
  cudaSetDevice(device_);
  bool in_order = SettleForEnd();
  for (const auto& window : windows_) {
    if (in_order && window->handle != nullptr) library_->CommWindowDeregister(comm_, window->handle);
  }
  if (in_order) {
    const ncclResult_t result = library_->CommFinalize(comm_);
    in_order = (result == ncclSuccess || result == ncclInProgress) && SettleForEnd();
  }
  if (!in_order) {
    Abort(kEndSeconds);
    return;
  }
  library_->CommDestroy(std::exchange(comm_, nullptr));
  for (const auto& window : windows_) library_->MemFree(window->memory);
}

}  // namespace cairn
