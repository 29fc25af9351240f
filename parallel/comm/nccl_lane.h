// One ncclComm_t, non-blocking: no call of it waits, and what is under way or has gone wrong is asked for. It knows
// nothing of tensors or of who the other ranks are.
#ifndef CAIRN_PARALLEL_COMM_NCCL_LANE_H_
#define CAIRN_PARALLEL_COMM_NCCL_LANE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/comm/nccl_library.h"

namespace cairn {

class NcclLane {
 public:
  // Begins to join the group that `id` names; State() tells when all have come. The current device is the rank's.
  static absl::StatusOr<std::unique_ptr<NcclLane>> Start(const NcclLibrary* library, int device, int size, int rank,
                                                         const ncclUniqueId& id);
  NcclLane(const NcclLane&) = delete;
  NcclLane& operator=(const NcclLane&) = delete;
  // Ends the group in order, which takes all ranks; aborts where that does not come to an end soon.
  ~NcclLane();

  ncclComm_t comm() const { return comm_; }

  // ncclInProgress while a call, or the start, is not through: no other may be made then. Anything but that and
  // ncclSuccess is final, and may come at any time (a peer that is gone, a broken link).
  ncclResult_t State() const;
  // NCCL's words for a result, with what it last reported.
  std::string Describe(ncclResult_t result) const;

  // Ends what this rank has under way on the device; the lane is good for nothing afterwards. False where NCCL has not
  // come back from it within `seconds` (it then goes on behind our back).
  bool Abort(double seconds);

  // Memory in which small reductions are quickest: `bytes` that all ranks register at once, for as long as the lane
  // lives. `bytes` is the same on all ranks. The registration is under way afterwards (State).
  absl::StatusOr<void*> RegisterWindow(size_t bytes);

 private:
  struct Window {
    void* memory;
    ncclWindow_t handle;
  };

  NcclLane(const NcclLibrary* library, int device) : library_(library), device_(device) {}
  // False where the lane is not ready for another call within the time that an orderly end may take.
  bool SettleForEnd() const;

  const NcclLibrary* library_;
  const int device_;
  ncclComm_t comm_ = nullptr;
  std::vector<std::unique_ptr<Window>> windows_;  // NCCL writes the handle when it is through
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_NCCL_LANE_H_
