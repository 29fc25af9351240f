#include "kernels/core/profile_range.h"

#if CAIRN_CUDA
#include <nvtx3/nvToolsExt.h>
#endif

namespace cairn {

#if CAIRN_CUDA

ProfileRange::ProfileRange(const char* name) { nvtxRangePushA(name); }
ProfileRange::~ProfileRange() { nvtxRangePop(); }

#else

ProfileRange::ProfileRange(const char*) {}
ProfileRange::~ProfileRange() {}

#endif

}  // namespace cairn
