// A stack of its own for each CUDA thread, and the switch between it and the scheduler's. Knows the address sanitizer
// (which must hear of every switch); x86-64 only.
#ifndef CAIRN_TESTS_EMULATOR_FIBER_H_
#define CAIRN_TESTS_EMULATOR_FIBER_H_

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define CUDA_EMULATOR_ASAN 1
#else
#define CUDA_EMULATOR_ASAN 0
#endif

namespace cuda_emulator {

class Fiber {
 public:
  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber();

  // A fresh start: entry() runs at the next Resume and must end with Leave(). What the fiber held before is dropped
  // without running destructors. The stack is kept.
  void Start(void (*entry)());
  // From the scheduler: runs the fiber until it yields or leaves.
  void Resume();
  // From the fiber: back to the scheduler.
  void Yield() { SwitchBack(/*leaving=*/false); }
  void Leave() { SwitchBack(/*leaving=*/true); }
  // To be called first in entry().
  static void Entered();

 private:
  void SwitchBack(bool leaving);

  void* stack_pointer_ = nullptr;
  char* stack_ = nullptr;
  void* fake_stack_ = nullptr;  // the address sanitizer's
};

}  // namespace cuda_emulator

#endif  // CAIRN_TESTS_EMULATOR_FIBER_H_
