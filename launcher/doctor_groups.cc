// Doctor's check of the ranks' groups: do messages arrive, are sums right, and how long do they take.
#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/core/status_macros.h"
#include "kernels/core/tensor.h"
#include "launcher/doctor_checks.h"

namespace cairn {
namespace {

constexpr int kRounds = 20;
// Activations of one token of a large model, and of a chunk of a prompt.
constexpr int64_t kSmall = 4096, kLarge = 1 << 20;

// Median seconds of `operation`.
absl::StatusOr<double> Time(const std::function<absl::Status()>& operation) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> seconds;
  for (int round = 0; round < kRounds; ++round) {
    const Clock::time_point begin = Clock::now();
    CAIRN_RETURN_IF_ERROR(operation());
    seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + kRounds / 2, seconds.end());
  return seconds[kRounds / 2];
}

// Every rank gives rank + 1, so that the sum is known.
absl::Status SumOnce(Communicator& group, std::vector<float>& values, int64_t size) {
  std::fill(values.begin(), values.begin() + size, static_cast<float>(group.rank() + 1));
  CAIRN_RETURN_IF_ERROR(group.AllReduce(Tensor(values.data(), DType::kFloat32, {size}), ReduceOp::kSum));
  const float expected = static_cast<float>(group.size() * (group.size() + 1) / 2);
  for (int64_t i = 0; i < size; ++i) {
    if (values[i] != expected) {
      return absl::InternalError(absl::StrCat("a sum over ", group.size(), " ranks is ", values[i], " at element ", i,
                                              ", expected ", expected));
    }
  }
  return absl::OkStatus();
}

// From the first stage to the last and back to the first: `values` counts the stages it has seen.
absl::Status RingOnce(Communicator& group, std::vector<float>& values, int64_t size) {
  const Tensor data = Tensor(values.data(), DType::kFloat32, {size});
  const int next = (group.rank() + 1) % group.size(), previous = (group.rank() + group.size() - 1) % group.size();
  if (group.rank() == 0) {
    std::fill(values.begin(), values.begin() + size, 1.0f);
    CAIRN_RETURN_IF_ERROR(group.Send(data, next));
    CAIRN_RETURN_IF_ERROR(group.Recv(data, previous));
  } else {
    CAIRN_RETURN_IF_ERROR(group.Recv(data, previous));
    for (int64_t i = 0; i < size; ++i) values[i] += 1;
    CAIRN_RETURN_IF_ERROR(group.Send(data, next));
  }
  const float expected = static_cast<float>(group.rank() == 0 ? group.size() : group.rank() + 1);
  if (values[0] == expected && values[size - 1] == expected) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("a message along ", group.size(), " stages holds ", values[0], ", expected ", expected));
}

// The detail for rank 0, whose figures stand for all; an empty one elsewhere, so that the good merge into one line.
absl::StatusOr<std::string> Measure(Communicator& group,
                                    absl::Status (*once)(Communicator&, std::vector<float>&, int64_t),
                                    const char* what) {
  std::vector<float> values(kLarge);
  CAIRN_ASSIGN_OR_RETURN(const double small, Time([&] { return once(group, values, kSmall); }));
  CAIRN_ASSIGN_OR_RETURN(const double large, Time([&] { return once(group, values, kLarge); }));
  return absl::StrFormat("%s: %.0f us for 16 KiB, %.1f ms for 4 MiB", what, small * 1e6, large * 1e3);
}

}  // namespace

std::vector<Finding> CheckGroups(ProcessGroups& groups) {
  std::vector<Finding> findings;
  const auto check = [&](const char* name, Communicator& group, auto once, const char* what) {
    if (group.size() == 1) return;
    const absl::StatusOr<std::string> measured = Measure(group, once, what);
    if (!measured.ok()) {
      findings.push_back({name, Verdict::kFail, std::string(measured.status().message()),
                          "look at the network between these hosts: mpirun --mca btl_tcp_if_include NAME picks one",
                          /*among_ranks=*/true});
    } else if (groups.world->rank() == 0) {
      findings.push_back({name, Verdict::kOk, *measured, "", /*among_ranks=*/true});
    }
  };
  check("tp group", *groups.tp, SumOnce, "sum over the group");
  check("pp group", *groups.pp, RingOnce, "message around the stages");
  return findings;
}

}  // namespace cairn
