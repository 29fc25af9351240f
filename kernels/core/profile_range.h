// A named range of host time for Nsight Systems (NVTX): kernels that are given within it are shown under it. Costs
// nothing where no profiler listens, or in a build without CUDA.
#ifndef CAIRN_KERNELS_CORE_PROFILE_RANGE_H_
#define CAIRN_KERNELS_CORE_PROFILE_RANGE_H_

namespace cairn {

class ProfileRange {
 public:
  explicit ProfileRange(const char* name);
  ~ProfileRange();
  ProfileRange(const ProfileRange&) = delete;
  ProfileRange& operator=(const ProfileRange&) = delete;
};

}  // namespace cairn

#endif  // CAIRN_KERNELS_CORE_PROFILE_RANGE_H_
