// Flags to values: our own loop over absl's flag registry, so that names follow vLLM (dashes or underscores, -tp, -o)
// and a
// --config file has the same keys.
#ifndef CAIRN_LAUNCHER_COMMAND_LINE_H_
#define CAIRN_LAUNCHER_COMMAND_LINE_H_

#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace cairn {

class World;

// A flag as a subcommand lists it. `value` is what help prints for its argument ("DIR"); booleans have none.
struct FlagEntry {
  const char* name;  // of the ABSL_FLAG
  const char* value = "";
  const char* alias = "";     // short form without the dash: "tp"
  const char* spelling = "";  // what arguments call it, where the ABSL_FLAG of that name is another subcommand's

  const char* spelled() const { return *spelling == '\0' ? name : spelling; }
};

struct FlagGroup {
  const char* title;
  std::vector<FlagEntry> flags;
};

struct Subcommand {
  const char* name;
  const char* synopsis;  // the arguments of a typical call
  const char* summary;
  std::vector<const FlagGroup*> groups;
  absl::StatusOr<int> (*run)(World&, const Subcommand&) = nullptr;
  // Whatever --distributed-timeout-seconds says: a subcommand that looks for trouble should not sit in it.
  double longest_wait_seconds = std::numeric_limits<double>::infinity();
};

struct CommandLine {
  const Subcommand* subcommand = nullptr;
  bool help = false;
  std::set<std::string> given;  // flags set by an argument
};

// Sets the flags of `arguments` (those after the subcommand's name). Accepts --name value, --name=value, --name /
// --no-name for booleans, aliases, dashes for underscores; the last one wins. Errors (exit code 64) name the argument
// and, for an unknown flag, the nearest known one. `all`: every subcommand, to tell a flag of another one from a
// mistyped one.
absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments, const Subcommand& subcommand,
                                             const std::vector<Subcommand>& all);

// Sets the flags that `path` gives and no argument did. Keys of another subcommand are legal and have no effect here,
// so that one file serves run-batch, generate and doctor; others are errors that name file and line (exit code 64).
absl::Status ApplyConfigFile(const std::string& path, const CommandLine& command_line,
                             const std::vector<Subcommand>& all);

// Name and value of every flag of the subcommand, for reports and for the check that all ranks agree.
std::vector<std::pair<std::string, std::string>> Settings(const Subcommand& subcommand);

// "tensor_parallel_size" -> "tensor-parallel-size", as messages and help write it.
std::string FlagSpelling(std::string name);

std::string SubcommandHelp(const Subcommand& subcommand);
std::string CommandHelp(const std::vector<Subcommand>& all);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_COMMAND_LINE_H_
