// cairn doctor: what would keep a job from running here, before it is tried.
#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "engine/host_resources.h"
#include "kernels/core/context.h"
#include "kernels/core/status_macros.h"
#include "launcher/build_info.h"
#include "launcher/doctor_checks.h"
#include "launcher/doctor_report.h"
#include "launcher/exit_codes.h"
#include "launcher/flags.h"
#include "launcher/progress.h"
#include "launcher/report_file.h"
#include "launcher/subcommands.h"
#include "parallel/comm/device_groups.h"

namespace cairn {
namespace {

class Examination {
 public:
  Examination(World& world, const EngineOptions& options, double longest_wait_seconds)
      : world_(world), options_(options), longest_wait_seconds_(longest_wait_seconds) {}

  // Collective. This rank's findings.
  absl::StatusOr<std::vector<Finding>> Run() {
    CheckBinary();
    Append(CheckCores(world_.channel().local_size(), BoundCores(), OnlineCores(), options_.threads));
    CAIRN_RETURN_IF_ERROR(CheckWorld());
    CheckModel();
    if (groups_.has_value()) {
      Append(CheckGroups(*groups_));
      CAIRN_RETURN_IF_ERROR(world_.channel().Barrier());
      CAIRN_ASSIGN_OR_RETURN(std::vector<Finding> gpus, CheckGpus(*groups_, options_, longest_wait_seconds_));
      Append(std::move(gpus));
      CAIRN_RETURN_IF_ERROR(world_.channel().Barrier());
    }
    return std::move(findings_);
  }

 private:
  void Append(std::vector<Finding> findings) {
    for (Finding& finding : findings) findings_.push_back(std::move(finding));
  }

  void CheckBinary() {
    if (const absl::Status environment = Context::CheckEnvironment(); !environment.ok()) {
      findings_.push_back({"binary", Verdict::kFail, std::string(environment.message()), "unset CAIRN_CPU_ISA", false});
      return;
    }
    const std::string isa = Context::Cpu(1, DType::kFloat32)->isa_name();
    findings_.push_back({"binary", isa == "scalar" ? Verdict::kWarn : Verdict::kOk,
                         absl::StrCat(BuildInfo(), ", instructions: ", isa),
                         isa == "scalar" ? "this CPU has no AVX2: expect it to be slow" : "", false});
  }

  // The ranks that are there, and their groups where their number is right.
  absl::Status CheckWorld() {
    ControlChannel& channel = world_.channel();
    CAIRN_ASSIGN_OR_RETURN(const std::vector<std::string> hosts, channel.AllGather(channel.host()));
    CAIRN_ASSIGN_OR_RETURN(const std::vector<std::string> builds, channel.AllGather(BuildInfo()));
    std::map<std::string, int> ranks_of;
    for (const std::string& host : hosts) ++ranks_of[host];
    std::string by_host;
    for (const auto& [host, ranks] : ranks_of)
      absl::StrAppend(&by_host, by_host.empty() ? "" : ", ", host, ": ", ranks);
    findings_.push_back(
        {"MPI", Verdict::kOk,
         absl::StrCat(world_.has_mpi() ? MpiLibraryVersion() : "not used", "; ranks by host: ", by_host), "", true});
    for (const std::string& build : builds) {
      if (build == builds[0]) continue;
      findings_.push_back({"binary", Verdict::kFail, absl::StrCat("rank 0 runs ", builds[0], ", another rank ", build),
                           "install the same binary on every host", true});
      break;
    }
    absl::Status sizes = CheckWorldSize(world_, options_.parallel, "doctor");
    if (sizes.ok()) {
      absl::StatusOr<ProcessGroups> groups = MakeProcessGroups(&channel, options_.parallel);
      if (groups.ok()) groups_ = *std::move(groups);
      sizes = groups.status();
    }
    if (sizes.ok()) {
      const ParallelSizes& p = options_.parallel;
      findings_.push_back(
          {"sizes", Verdict::kOk, absl::StrCat("tp ", p.tp, " x pp ", p.pp, " x dp ", p.dp), "", false});
    } else {
      findings_.push_back({"sizes", Verdict::kFail, std::string(sizes.message()),
                           absl::StrCat("as many ranks as tp x pp x dp (", hosts.size(), " are running)"), false});
    }
    return absl::OkStatus();
  }

  void CheckModel() {
    if (options_.model.empty()) {
      findings_.push_back({"model", Verdict::kWarn, "not checked", "name it with --model", false});
      return;
    }
    std::optional<ModelConfig> config;
    // Every rank of a host sees the same files.
    std::vector<Finding> files = CheckModelFiles(options_, config);
    if (world_.channel().local_rank() == 0) Append(std::move(files));
    if (!config.has_value()) return;
    std::vector<Range> stages;
    Append(CheckShards(options_, *config, stages));
    if (stages.empty() || !groups_.has_value()) return;
    Append(CheckMemory(options_, *config, stages[groups_->at.pp], groups_->at,
                       FindMemory(options_, world_.channel().local_size())));
  }

  World& world_;
  const EngineOptions& options_;
  const double longest_wait_seconds_;
  std::optional<ProcessGroups> groups_;
  std::vector<Finding> findings_;
};

}  // namespace

absl::StatusOr<int> Doctor(World& world, const Subcommand& subcommand) {
  CAIRN_ASSIGN_OR_RETURN(const EngineOptions options, UncheckedEngineOptionsFromFlags());
  if (const absl::Status comm = ParseDeviceComm(options.comm).status(); !comm.ok()) {
    return WithExitCode(comm, kExitUsage);
  }
  const double longest_wait = std::min(options.distributed_timeout_seconds, subcommand.longest_wait_seconds);
  absl::StatusOr<std::vector<Finding>> mine = Examination(world, options, longest_wait).Run();
  if (!mine.ok()) world.AbortAll(mine.status());
  ControlChannel& channel = world.channel();
  CAIRN_ASSIGN_OR_RETURN(const std::vector<std::string> hosts, channel.AllGather(channel.host()));
  CAIRN_ASSIGN_OR_RETURN(const std::vector<std::string> encoded, channel.AllGather(EncodeFindings(*mine)));
  if (!world.is_root()) return kExitOk;
  std::vector<std::vector<Finding>> findings;
  for (const std::string& bytes : encoded) findings.push_back(DecodeFindings(bytes));
  const std::vector<ReportLine> lines = MergeFindings(findings, hosts);
  if (!absl::GetFlag(FLAGS_quiet)) std::fputs(ReportTable(lines).c_str(), stdout);
  if (const absl::Status written = WriteOutputJson(ReportJson(lines)); !written.ok()) {
    PrintError(written);
    return ExitCodeOf(written);
  }
  return ReportExitCode(lines);
}

}  // namespace cairn
