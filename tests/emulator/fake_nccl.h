// The fake NCCL, as tests steer it (fake_nccl.cc): ranks are threads of one process, each with a GPU of its own
// (SetDeviceCount), on the emulator's streams.
#ifndef CAIRN_TESTS_EMULATOR_FAKE_NCCL_H_
#define CAIRN_TESTS_EMULATOR_FAKE_NCCL_H_

#include <nccl.h>

#include <cstdint>

namespace fake_nccl {

// As if none of the below had been called.
void Reset();

// What ncclGetVersion says to the calling thread, and what its communicators are made with. Below 2.27 there are no
// windows, below 2.30.3 no two ranks on one GPU.
void SetVersion(int code);

// All communicators of this rank of their group, those to come included: from now on ncclCommGetAsyncError says so, and
// their operations end no more.
void FailRank(int rank, ncclResult_t error);

// ncclCommAbort returns after so many seconds.
void SetAbortSeconds(double seconds);

// What has happened since Reset.
struct Counts {
  int64_t communicators = 0, aborted = 0, windows = 0;
  int64_t reductions = 0;            // AllReduces done, once for all ranks
  int64_t symmetric_reductions = 0;  // those of memory that every rank has registered, at the same place
};
Counts Count();

}  // namespace fake_nccl

#endif  // CAIRN_TESTS_EMULATOR_FAKE_NCCL_H_
