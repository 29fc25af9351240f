#include "tests/emulator/fiber.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

#if CUDA_EMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Saves the callee-saved registers and the stack pointer, and goes on from another stack (System V ABI).
extern "C" void CudaEmulatorSwitch(void** save_stack_pointer, void* to_stack_pointer);
#if defined(__x86_64__)
asm(R"(
.text
.globl CudaEmulatorSwitch
.type CudaEmulatorSwitch,@function
CudaEmulatorSwitch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size CudaEmulatorSwitch,.-CudaEmulatorSwitch
)");
#else
#error "the emulator's context switch is written for x86-64"
#endif

namespace cuda_emulator {
namespace {

constexpr size_t kGuardBytes = 4096;
// Frames are several times larger under the address sanitizer.
constexpr size_t kStackBytes = CUDA_EMULATOR_ASAN ? 256 << 10 : 64 << 10;

// Of the thread that runs the emulator (one at a time: scheduler.cc holds a lock).
void* scheduler_stack_pointer = nullptr;
#if CUDA_EMULATOR_ASAN
const void* scheduler_bottom = nullptr;
size_t scheduler_size = 0;
void* scheduler_fake_stack = nullptr;
#endif

char* MapStack() {
  void* memory = mmap(nullptr, kStackBytes + kGuardBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE) != 0) {
    std::perror("cuda emulator: a fiber's stack");
    std::abort();
  }
  return static_cast<char*>(memory) + kGuardBytes;
}

}  // namespace

Fiber::~Fiber() {
  if (stack_ != nullptr) munmap(stack_ - kGuardBytes, kStackBytes + kGuardBytes);
}

void Fiber::Start(void (*entry)()) {
  if (stack_ == nullptr) stack_ = MapStack();
#if CUDA_EMULATOR_ASAN
  __asan_unpoison_memory_region(stack_, kStackBytes);  // what a dropped fiber left
#endif
  void** top = reinterpret_cast<void**>(stack_ + kStackBytes);
  *--top = nullptr;  // so that the stack is aligned as after a call
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;  // the registers that the switch pops
  stack_pointer_ = top;
  fake_stack_ = nullptr;
}

void Fiber::Resume() {
#if CUDA_EMULATOR_ASAN
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, stack_, kStackBytes);
#endif
  CudaEmulatorSwitch(&scheduler_stack_pointer, stack_pointer_);
#if CUDA_EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

void Fiber::Entered() {
#if CUDA_EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom, &scheduler_size);
#endif
}

void Fiber::SwitchBack([[maybe_unused]] bool leaving) {
#if CUDA_EMULATOR_ASAN
  __sanitizer_start_switch_fiber(leaving ? nullptr : &fake_stack_, scheduler_bottom, scheduler_size);
#endif
  CudaEmulatorSwitch(&stack_pointer_, scheduler_stack_pointer);
#if CUDA_EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(fake_stack_, &scheduler_bottom, &scheduler_size);
#endif
}

}  // namespace cuda_emulator
