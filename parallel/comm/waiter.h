// How a rank waits for another one: it looks again and again, and between two looks gets out of the way, the more the
// longer it has waited.
#ifndef CAIRN_PARALLEL_COMM_WAITER_H_
#define CAIRN_PARALLEL_COMM_WAITER_H_

#include <chrono>

#include "absl/functional/function_ref.h"

namespace cairn {

struct WaitPolicy {
  double timeout_seconds = 0;  // zero waits for ever
  // More ranks than cores on this host: the one that is waited for may need this very core.
  bool crowded = false;
};

class Waiter {
 public:
  explicit Waiter(const WaitPolicy& policy) : policy_(policy) {}

  // After a look that found nothing. `progress` moves this rank's own messages on: others may be waiting for those.
  // False once the time is up.
  bool Pause(absl::FunctionRef<void()> progress);

 private:
  const WaitPolicy policy_;
  int spins_ = 0;
  std::chrono::steady_clock::time_point start_;  // set when spinning ends
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_WAITER_H_
