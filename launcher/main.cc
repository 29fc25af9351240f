// The cairn command.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "kernels/core/status_macros.h"
#include "launcher/bootstrap.h"
#include "launcher/build_info.h"
#include "launcher/command_line.h"
#include "launcher/eval/eval_flags.h"
#include "launcher/exit_codes.h"
#include "launcher/flags.h"
#include "launcher/nearest_name.h"
#include "launcher/signals.h"
#include "launcher/subcommands.h"

namespace cairn {
namespace {

constexpr std::chrono::seconds kRootSpeaksWithin(10);

// One subcommand, one entry.
const std::vector<Subcommand>& Subcommands() {
  static const auto& table = *new std::vector<Subcommand>{
      {"run-batch",
       "--model DIR -i in.jsonl -o out.jsonl",
       "answer a file of prompts",
       {&kBatchFlags, &kModelFlags, &kParallelFlags, &kMemoryFlags, &kCompressionFlags, &kReportFlags, &kConfigFlags},
       RunBatch},
      {"generate",
       "--model DIR --chat TEXT",
       "answer one prompt, streamed to standard output",
       {&kPromptFlags, &kSamplingFlags, &kModelFlags, &kParallelFlags, &kMemoryFlags, &kCompressionFlags, &kQuietFlags,
        &kConfigFlags},
       Generate},
      {"eval",
       "--model DIR --task gsm8k -i test.jsonl -o DIR --kv-compression rkv,snapkv --kv-budget 128,256",
       "measure accuracy under KV compression against the full cache, in the same memory",
       {&kEvalFlags, &kEvalSweepFlags, &kEvalSamplingFlags, &kModelFlags, &kParallelFlags, &kMemoryFlags, &kReportFlags,
        &kConfigFlags},
       Eval},
      {"inspect",
       "--model DIR --chat TEXT --kv-compression rkv --output-html page.html",
       "answer one prompt, and show which tokens each layer and KV head kept",
       {&kInspectFlags, &kPromptFlags, &kSamplingFlags, &kModelFlags, &kParallelFlags, &kMemoryFlags,
        &kCompressionFlags, &kConfigFlags},
       Inspect},
      {"plan",
       "--model NAME -tp TP -pp PP --rank-memory-bytes 80GiB",
       "say what a model takes and how many sequences it runs, without loading it",
       {&kPlanFlags, &kModelFlags, &kParallelFlags, &kMemoryFlags, &kCompressionFlags, &kReportFlags, &kConfigFlags},
       PlanRun},
      {"doctor",
       "--model DIR",
       "check hosts, ranks, model and memory, and say what to fix",
       {&kModelFlags, &kParallelFlags, &kMemoryFlags, &kCompressionFlags, &kReportFlags, &kConfigFlags},
       Doctor,
       /*longest_wait_seconds=*/30},
  };
  return table;
}

absl::StatusOr<const Subcommand*> FindSubcommand(const std::string& name) {
  std::vector<std::string> names;
  for (const Subcommand& subcommand : Subcommands()) {
    if (name == subcommand.name) return &subcommand;
    names.push_back(subcommand.name);
  }
  const std::string nearest = NearestName(name, names);
  return UsageError(absl::StrCat("unknown subcommand ", name, nearest.empty() ? "" : ", did you mean ", nearest,
                                 nearest.empty() ? "" : "?", "; `cairn --help` lists them"));
}

// --config may be another file on another host; ranks with different settings would wait for each other for ever.
absl::Status CheckSettingsAgree(ControlChannel& channel, const Subcommand& subcommand) {
  std::vector<std::string> mine;
  for (const auto& [name, value] : Settings(subcommand)) {
    mine.push_back(absl::StrCat("--", FlagSpelling(name), "=", absl::CEscape(value)));
  }
  CAIRN_ASSIGN_OR_RETURN(const std::vector<std::string> all, channel.AllGather(absl::StrJoin(mine, "\n")));
  const std::vector<std::string> root = absl::StrSplit(all[0], '\n');
  for (int rank = 1; rank < channel.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    const std::vector<std::string> other = absl::StrSplit(all[rank], '\n');
    const auto [theirs, ours] = std::mismatch(other.begin(), other.end(), root.begin(), root.end());
    return UsageError(absl::StrCat("rank ", rank, " has ", theirs == other.end() ? "fewer flags" : *theirs, ", rank 0 ",
                                   ours == root.end() ? "fewer flags" : *ours,
                                   ": is --config the same file on every host?"));
  }
  return absl::OkStatus();
}

// Errors come back on every rank alike.
absl::StatusOr<int> RunSubcommand(World& world, const CommandLine& command_line, const absl::Status& config) {
  CAIRN_RETURN_IF_ERROR(world.Agree(config));
  CAIRN_RETURN_IF_ERROR(CheckSettingsAgree(world.channel(), *command_line.subcommand));
  return command_line.subcommand->run(world, *command_line.subcommand);
}

int Main(const std::vector<std::string>& arguments) {
  IgnoreWriteSignals();
  const LaunchEnvironment environment = DetectLaunch();
  const bool prints = environment.rank == 0;
  const auto fail = [prints](const absl::Status& status) {
    if (prints) PrintError(status);
    return ExitCodeOf(status);
  };
  // Before there is a world: mpirun ends the job with the first rank that fails, and rank 0 is to have spoken by then.
  const auto let_root_speak = [prints] {
    if (!prints) std::this_thread::sleep_for(kRootSpeaksWithin);
  };
  const auto refuse = [&](const absl::Status& status) {
    let_root_speak();
    return fail(status);
  };
  if (arguments.empty() || arguments[0] == "--help" || arguments[0] == "-h" || arguments[0] == "help") {
    if (prints) std::fputs(CommandHelp(Subcommands()).c_str(), arguments.empty() ? stderr : stdout);
    if (!arguments.empty()) return kExitOk;
    let_root_speak();
    return kExitUsage;
  }
  if (arguments[0] == "--version") {
    if (prints) std::printf("%s\n", BuildInfo().c_str());
    return kExitOk;
  }
  const absl::StatusOr<const Subcommand*> subcommand = FindSubcommand(arguments[0]);
  if (!subcommand.ok()) return refuse(subcommand.status());
  const absl::StatusOr<CommandLine> command_line =
      ParseCommandLine({arguments.begin() + 1, arguments.end()}, **subcommand, Subcommands());
  if (!command_line.ok()) return refuse(command_line.status());
  if (command_line->help) {
    if (prints) std::fputs(SubcommandHelp(**subcommand).c_str(), stdout);
    return kExitOk;
  }
  // Read before the world starts, because it may hold the world's timeout; judged in it, because hosts may differ.
  absl::Status config;
  if (const std::string path = absl::GetFlag(FLAGS_config); !path.empty()) {
    config = ApplyConfigFile(path, *command_line, Subcommands());
  }
  const absl::StatusOr<std::unique_ptr<World>> world = World::Start(
      environment, std::min(absl::GetFlag(FLAGS_distributed_timeout_seconds), (*subcommand)->longest_wait_seconds));
  if (!world.ok()) return fail(world.status());
  const absl::StatusOr<int> code = RunSubcommand(**world, *command_line, config);
  return code.ok() ? *code : fail(code.status());
}

}  // namespace
}  // namespace cairn

int main(int argc, char** argv) { return cairn::Main({argv + 1, argv + argc}); }
