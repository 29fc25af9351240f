// The functions of NCCL, found when the first communicator on GPUs is made: the binary starts on machines without it,
// and the library that is there, not the header, says what it can do.
#ifndef CAIRN_PARALLEL_COMM_NCCL_LIBRARY_H_
#define CAIRN_PARALLEL_COMM_NCCL_LIBRARY_H_

#include <nccl.h>

#include <string>

#include "absl/status/statusor.h"

#if NCCL_VERSION_CODE < NCCL_VERSION(2, 27, 0)
#error "building the NCCL communicator takes nccl.h of 2.27 or later; at run time 2.19 is enough"
#endif

namespace cairn {

#define CAIRN_NCCL_FUNCTIONS(X) \
  X(GetVersion)                 \
  X(GetUniqueId)                \
  X(CommInitRankConfig)         \
  X(CommFinalize)               \
  X(CommDestroy)                \
  X(CommAbort)                  \
  X(CommGetAsyncError)          \
  X(GetErrorString)             \
  X(GetLastError)               \
  X(AllReduce)                  \
  X(AllGather)                  \
  X(Broadcast)                  \
  X(Send)                       \
  X(Recv)                       \
  X(GroupStart)                 \
  X(GroupEnd)                   \
  X(MemAlloc)                   \
  X(MemFree)
// Since 2.27; null in an older library.
#define CAIRN_NCCL_WINDOW_FUNCTIONS(X) \
  X(CommWindowRegister)                \
  X(CommWindowDeregister)

struct NcclLibrary {
#define CAIRN_MEMBER_(name) decltype(&nccl##name) name = nullptr;
  CAIRN_NCCL_FUNCTIONS(CAIRN_MEMBER_)
  CAIRN_NCCL_WINDOW_FUNCTIONS(CAIRN_MEMBER_)
#undef CAIRN_MEMBER_

  // NOT_FOUND says which library and why it could not be loaded.
  static absl::StatusOr<const NcclLibrary*> Load();

  int Version() const;  // 22809 is 2.28.9
  bool HasWindows() const;
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_NCCL_LIBRARY_H_
