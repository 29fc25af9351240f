// Runs the real cairn binary, alone or under mpirun, and catches all that it says.
#ifndef CAIRN_TESTS_INTEGRATION_CLI_PROCESS_H_
#define CAIRN_TESTS_INTEGRATION_CLI_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

namespace cairn {

struct CommandResult {
  int exit_code = -1;  // 128 + signal where one ended it
  std::string out, err;
  double seconds = 0;
};

// A command that is running; its output goes to files.
class RunningCommand {
 public:
  // ranks 0: without mpirun.
  RunningCommand(int ranks, const std::vector<std::string>& arguments, const std::string& input = "");
  // Ends the command, should the test have failed before it did.
  ~RunningCommand();
  RunningCommand(const RunningCommand&) = delete;
  RunningCommand& operator=(const RunningCommand&) = delete;

  pid_t pid() const { return pid_; }  // of mpirun, or of cairn
  // The cairn processes of this command that run (zombies do not), by rank; under mpirun. Also after Wait.
  std::vector<pid_t> RankPids() const;
  // What it has printed on stderr so far.
  std::string ErrSoFar() const;
  CommandResult Wait(double limit_seconds = 120);

 private:
  std::string directory_;
  pid_t pid_ = -1;
  double start_ = 0;
};

CommandResult RunCairn(int ranks, const std::vector<std::string>& arguments, const std::string& input = "");

double MonotonicSeconds();

// A file's bytes; "" where there is none.
std::string ReadAll(const std::string& path);

}  // namespace cairn

#endif  // CAIRN_TESTS_INTEGRATION_CLI_PROCESS_H_
