// The emulated GPU's memory: one range of addresses that the host cannot touch, as on a real machine. Kernels, copies
// and the fake libraries open it for as long as they run.
#ifndef CAIRN_TESTS_EMULATOR_DEVICE_MEMORY_H_
#define CAIRN_TESTS_EMULATOR_DEVICE_MEMORY_H_

#include <cstddef>

namespace cuda_emulator {

// 256-byte aligned, filled with 0xff (NaN; the first 4 MiB), fenced; null where the device is full.
void* AllocateDevice(size_t bytes);
bool FreeDevice(void* memory);

// Does the address belong to the device, allocated or not?
bool InDeviceRange(const void* address);
// Do the bytes lie in one allocation?
bool IsAllocated(const void* address, size_t bytes);

size_t DeviceBytesFree();
size_t DeviceBytesTotal();

// While one of these lives, the memory can be touched; at other times host code that does is told so and aborted.
// Callers hold the runtime's lock.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

}  // namespace cuda_emulator

#endif  // CAIRN_TESTS_EMULATOR_DEVICE_MEMORY_H_
