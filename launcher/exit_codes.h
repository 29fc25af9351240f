// What the command's exit status means, and how an error carries it from where it is known to main.
#ifndef CAIRN_LAUNCHER_EXIT_CODES_H_
#define CAIRN_LAUNCHER_EXIT_CODES_H_

#include <string>

#include "absl/status/status.h"

namespace cairn {

enum ExitCode : int {
  kExitOk = 0,
  kExitSomeFailed = 10,    // the job ran, some requests have error records
  kExitUsage = 64,         // flags, sizes, files that would be overwritten
  kExitBadInput = 65,      // model, configuration or input file
  kExitRankFailed = 70,    // a rank failed or could not be reached
  kExitOutput = 74,        // results could not be written
  kExitInterrupted = 130,  // SIGINT
  kExitTerminated = 143,   // SIGTERM
};

// `status` with the exit code it stands for; an OK status stays OK.
absl::Status WithExitCode(absl::Status status, ExitCode code);
absl::Status UsageError(std::string message);

// The code attached by WithExitCode; else from the kind of error: what the user gave (INVALID_ARGUMENT, NOT_FOUND,
// OUT_OF_RANGE, RESOURCE_EXHAUSTED ...) is kExitBadInput, what went wrong among the ranks kExitRankFailed.
int ExitCodeOf(const absl::Status& status);

// "cairn: error: ..." as rank 0 prints it.
void PrintError(const absl::Status& status);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_EXIT_CODES_H_
