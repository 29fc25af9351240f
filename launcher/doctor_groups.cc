// Doctor's check of the ranks' groups: do messages arrive, are sums right, and how long do they take; on host memory,
// and between GPUs where the ranks have them.
#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/core/buffer.h"
#include "kernels/core/context.h"
#include "kernels/core/copy.h"
#include "kernels/core/status_macros.h"
#include "kernels/core/tensor.h"
#include "launcher/doctor_checks.h"
#include "parallel/comm/device_groups.h"

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

// What travels: in host memory, or with a context in its GPU's.
class Load {
 public:
  static absl::StatusOr<Load> Create(Context* gpu) {
    Load load;
    load.gpu_ = gpu;
    load.values_.resize(kLarge);
    if (gpu != nullptr) {
      CAIRN_ASSIGN_OR_RETURN(load.memory_, Buffer::Allocate(gpu->device(), kLarge * sizeof(float)));
    }
    return load;
  }

  Tensor tensor(int64_t size) {
    if (gpu_ == nullptr) return Tensor(values_.data(), DType::kFloat32, {size});
    return Tensor(memory_.data(), DType::kFloat32, {size}, gpu_->device());
  }
  void Fill(int64_t size, float value) {
    std::fill(values_.begin(), values_.begin() + size, value);
    if (gpu_ != nullptr) CopyFromHost(*gpu_, values_.data(), tensor(size));
  }
  // What has arrived; waits for it.
  absl::Status Fetch(Communicator& group, int64_t size) {
    CAIRN_RETURN_IF_ERROR(group.Synchronize());
    if (gpu_ != nullptr) CopyToHost(*gpu_, tensor(size), values_.data());
    return absl::OkStatus();
  }
  float at(int64_t i) const { return values_[i]; }

 private:
  Load() = default;

  Context* gpu_ = nullptr;
  std::vector<float> values_;
  Buffer memory_;
};

// Every rank gives rank + 1, so that the sum is known.
absl::Status SumOnce(Communicator& group, Load& load, int64_t size) {
  load.Fill(size, static_cast<float>(group.rank() + 1));
  CAIRN_RETURN_IF_ERROR(group.AllReduce(load.tensor(size), ReduceOp::kSum));
  CAIRN_RETURN_IF_ERROR(load.Fetch(group, size));
  const float expected = static_cast<float>(group.size() * (group.size() + 1) / 2);
  for (int64_t i = 0; i < size; ++i) {
    if (load.at(i) != expected) {
      return absl::InternalError(absl::StrCat("a sum over ", group.size(), " ranks is ", load.at(i), " at element ", i,
                                              ", expected ", expected));
    }
  }
  return absl::OkStatus();
}

// From the first stage to the last and back to the first: the values count the stages they have seen.
absl::Status RingOnce(Communicator& group, Load& load, int64_t size) {
  const Tensor data = load.tensor(size);
  const int next = (group.rank() + 1) % group.size(), previous = (group.rank() + group.size() - 1) % group.size();
  if (group.rank() == 0) {
    load.Fill(size, 1);
    CAIRN_RETURN_IF_ERROR(group.Send(data, next));
    CAIRN_RETURN_IF_ERROR(group.Recv(data, previous));
    CAIRN_RETURN_IF_ERROR(load.Fetch(group, size));
  } else {
    CAIRN_RETURN_IF_ERROR(group.Recv(data, previous));
    CAIRN_RETURN_IF_ERROR(load.Fetch(group, size));
  }
  const float expected = static_cast<float>(group.rank() == 0 ? group.size() : group.rank());
  if (load.at(0) == expected && load.at(size - 1) == expected) {
    if (group.rank() == 0) return absl::OkStatus();
    load.Fill(size, expected + 1);
    return group.Send(data, next);
  }
  return absl::InternalError(
      absl::StrCat("a message along ", group.size(), " stages holds ", load.at(0), ", expected ", expected));
}

// The detail for rank 0, whose figures stand for all; an empty one elsewhere, so that the good merge into one line.
absl::StatusOr<std::string> Measure(Communicator& group, Context* gpu,
                                    absl::Status (*once)(Communicator&, Load&, int64_t), const char* what) {
  CAIRN_ASSIGN_OR_RETURN(Load load, Load::Create(gpu));
  CAIRN_ASSIGN_OR_RETURN(const double small, Time([&] { return once(group, load, kSmall); }));
  CAIRN_ASSIGN_OR_RETURN(const double large, Time([&] { return once(group, load, kLarge); }));
  return absl::StrFormat("%s: %.0f us for 16 KiB, %.1f ms for 4 MiB", what, small * 1e6, large * 1e3);
}

// `suffix`: of the checks' names. `fix`: where a message is late or wrong.
std::vector<Finding> MeasureGroups(ProcessGroups& groups, Context* gpu, const char* suffix, const char* fix) {
  std::vector<Finding> findings;
  const auto check = [&](const char* name, Communicator& group, auto once, const char* what) {
    if (group.size() == 1) return;
    const absl::StatusOr<std::string> measured = Measure(group, gpu, once, what);
    if (!measured.ok()) {
      findings.push_back({absl::StrCat(name, suffix), Verdict::kFail, std::string(measured.status().message()), fix,
                          /*among_ranks=*/true});
    } else if (groups.world->rank() == 0) {
      findings.push_back({absl::StrCat(name, suffix), Verdict::kOk, *measured, "", /*among_ranks=*/true});
    }
  };
  check("tp group", *groups.tp, SumOnce, "sum over the group");
  check("pp group", *groups.pp, RingOnce, "message around the stages");
  return findings;
}

}  // namespace

std::vector<Finding> CheckGroups(ProcessGroups& groups) {
  return MeasureGroups(groups, nullptr, "",
                       "look at the network between these hosts: mpirun --mca btl_tcp_if_include NAME picks one");
}

absl::StatusOr<std::vector<Finding>> CheckGpus(ProcessGroups& groups, const EngineOptions& options,
                                               double timeout_seconds) {
  if (options.device == "cpu") return std::vector<Finding>();
  ControlChannel& world = *groups.world;
  const int num_gpus = Context::NumCudaDevices();
  CAIRN_ASSIGN_OR_RETURN(const std::vector<std::string> all, world.AllGather(absl::StrCat(num_gpus)));
  if (std::count(all.begin(), all.end(), "0") > 0) {
    if (num_gpus > 0 && options.device == "auto") {
      return std::vector<Finding>{{"GPU", Verdict::kWarn, "other ranks see no GPU: all run on their CPUs",
                                   "check the driver there, or ask for --device=cpu", true}};
    }
    if (num_gpus > 0) return std::vector<Finding>();
    const bool wanted = options.device == "cuda";
    return std::vector<Finding>{{"GPU", wanted ? Verdict::kFail : Verdict::kOk, "none to be seen",
                                 wanted ? "check the driver with nvidia-smi, and CUDA_VISIBLE_DEVICES" : "", false}};
  }
  CAIRN_ASSIGN_OR_RETURN(const int gpu, ChooseGpu(world));
  absl::StatusOr<std::unique_ptr<Context>> context = Context::Cuda(gpu, DType::kFloat32);
  if (const absl::Status agreed = AgreeOnStatus(world, context.status()); !agreed.ok()) {
    return std::vector<Finding>{{"GPU", Verdict::kFail, std::string(agreed.message()), "", false}};
  }
  std::vector<Finding> findings = {{"GPU", Verdict::kOk, absl::StrCat("cuda:", gpu, " of ", num_gpus), "", false}};
  CAIRN_ASSIGN_OR_RETURN(const DeviceComm wanted, ParseDeviceComm(options.comm));
  CAIRN_ASSIGN_OR_RETURN(ProcessGroups on_gpus, MakeProcessGroups(&world, groups.sizes));
  const absl::StatusOr<CommChoice> choice = ConnectGpus(on_gpus, **context, wanted, timeout_seconds);
  if (!choice.ok()) {
    findings.push_back({"GPU groups", Verdict::kFail, std::string(choice.status().message()),
                        "use --comm=mpi; NCCL_DEBUG=WARN says more", true});
    return findings;
  }
  const bool second_best = wanted == DeviceComm::kAuto && choice->comm == DeviceComm::kMpi && groups.sizes.tp > 1;
  findings.push_back({"GPU groups", second_best ? Verdict::kWarn : Verdict::kOk, choice->text,
                      second_best ? "a GPU and an NCCL for every rank are several times faster" : "", false});
  for (Finding& finding : MeasureGroups(on_gpus, context->get(), ", GPUs",
                                        "set NCCL_DEBUG=WARN to see more; --comm=mpi does without NCCL")) {
    findings.push_back(std::move(finding));
  }
  return findings;
}

}  // namespace cairn
