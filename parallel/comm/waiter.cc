#include "parallel/comm/waiter.h"

#include <sched.h>

#include <algorithm>
#include <thread>

namespace cairn {
namespace {

using std::chrono::microseconds;

// Ranks that compute the same shapes arrive within tens of microseconds of each other: about that long on a core of our
// own, hardly at all on a shared one.
constexpr int kSpins = 2000, kSpinsCrowded = 50;
constexpr microseconds kYieldFor(1000);
constexpr microseconds kShortestSleep(20), kLongestSleep(1000);
// A sleep is at most this part of the time waited so far, so that it delays no answer by more than that part.
constexpr int kSleepPart = 256;

inline void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

bool Waiter::Pause(absl::FunctionRef<void()> progress) {
  const int spins = policy_.crowded ? kSpinsCrowded : kSpins;
  if (spins_ < spins) {
    ++spins_;
    CpuRelax();
    return true;
  }
  const auto now = std::chrono::steady_clock::now();
  if (spins_ == spins) {
    ++spins_;
    start_ = now;
  }
  const auto waited = now - start_;
  if (policy_.timeout_seconds > 0 && std::chrono::duration<double>(waited).count() > policy_.timeout_seconds) {
    return false;
  }
  progress();
  if (waited < kYieldFor) {
    sched_yield();
  } else {
    const auto part = std::chrono::duration_cast<microseconds>(waited) / kSleepPart;
    std::this_thread::sleep_for(std::clamp(part, kShortestSleep, kLongestSleep));
  }
  return true;
}

}  // namespace cairn
