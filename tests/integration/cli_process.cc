#include "cli_process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <thread>

namespace cairn {

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

namespace {

namespace fs = std::filesystem;

// The value of a variable in /proc/PID/environ, "" where there is none.
std::string EnvironmentOf(pid_t pid, const std::string& name) {
  const std::string all = ReadAll("/proc/" + std::to_string(pid) + "/environ");
  const std::string key = '\0' + name + "=";
  const size_t at = ('\0' + all).find(key);
  if (at == std::string::npos) return "";
  const size_t begin = at + key.size() - 1;
  return all.substr(begin, all.find('\0', begin) - begin);
}

void Sleep() { std::this_thread::sleep_for(std::chrono::milliseconds(5)); }

}  // namespace

double MonotonicSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

RunningCommand::RunningCommand(int ranks, const std::vector<std::string>& arguments, const std::string& input) {
  char path[] = "/tmp/cairn_cli_XXXXXX";
  directory_ = mkdtemp(path);
  std::ofstream(directory_ + "/in", std::ios::binary) << input;
  std::vector<std::string> words;
  if (ranks > 0) words = {CAIRN_MPIEXEC, "-np", std::to_string(ranks)};
  words.push_back(CAIRN_BINARY);
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  start_ = MonotonicSeconds();
  pid_ = fork();
  if (pid_ != 0) return;
  setpgid(0, 0);
  for (const char* name : {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
                           "OMPI_MCA_rmaps_base_oversubscribe", "OMPI_MCA_mpi_yield_when_idle"}) {
    setenv(name, "1", 1);
  }
  // Marks the ranks of this command in /proc.
  setenv("CAIRN_CLI_TEST", directory_.c_str(), 1);
  dup2(open((directory_ + "/in").c_str(), O_RDONLY), STDIN_FILENO);
  dup2(open((directory_ + "/out").c_str(), O_WRONLY | O_CREAT, 0600), STDOUT_FILENO);
  dup2(open((directory_ + "/err").c_str(), O_WRONLY | O_CREAT, 0600), STDERR_FILENO);
  execvp(argv[0], argv.data());
  _exit(127);
}

RunningCommand::~RunningCommand() {
  if (pid_ > 0) {
    kill(-pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    for (pid_t rank : RankPids()) kill(rank, SIGKILL);
  }
  fs::remove_all(directory_);
}

std::vector<pid_t> RunningCommand::RankPids() const {
  std::map<int, pid_t> by_rank;
  for (const fs::directory_entry& entry : fs::directory_iterator("/proc")) {
    const pid_t pid = static_cast<pid_t>(std::atoi(entry.path().filename().c_str()));
    if (pid <= 0 || EnvironmentOf(pid, "CAIRN_CLI_TEST") != directory_) continue;
    const std::string rank = EnvironmentOf(pid, "OMPI_COMM_WORLD_RANK");
    if (!rank.empty()) by_rank[std::atoi(rank.c_str())] = pid;
  }
  std::vector<pid_t> pids;
  for (const auto& [rank, pid] : by_rank) pids.push_back(pid);
  return pids;
}

std::string RunningCommand::ErrSoFar() const { return ReadAll(directory_ + "/err"); }

CommandResult RunningCommand::Wait(double limit_seconds) {
  CommandResult result;
  int status = 0;
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (MonotonicSeconds() - start_ > limit_seconds) {
      kill(-pid_, SIGKILL);
      waitpid(pid_, &status, 0);
      break;
    }
    Sleep();
  }
  pid_ = -1;
  result.seconds = MonotonicSeconds() - start_;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.out = ReadAll(directory_ + "/out");
  result.err = ReadAll(directory_ + "/err");
  return result;
}

CommandResult RunCairn(int ranks, const std::vector<std::string>& arguments, const std::string& input) {
  return RunningCommand(ranks, arguments, input).Wait();
}

}  // namespace cairn
