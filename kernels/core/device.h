// Where memory lives and arithmetic runs.
#ifndef CAIRN_KERNELS_CORE_DEVICE_H_
#define CAIRN_KERNELS_CORE_DEVICE_H_

namespace cairn {

enum class DeviceKind { kCpu, kCuda };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;  // CUDA ordinal; 0 on CPU

  bool is_cpu() const { return kind == DeviceKind::kCpu; }
  bool operator==(const Device&) const = default;
};

}  // namespace cairn

#endif  // CAIRN_KERNELS_CORE_DEVICE_H_
