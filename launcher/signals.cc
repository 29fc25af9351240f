#include "launcher/signals.h"

#include <signal.h>
#include <unistd.h>

namespace cairn {
namespace {

volatile sig_atomic_t stop_signal = 0;
volatile sig_atomic_t grace = 0;

void OnStop(int signal) {
  if (stop_signal != 0) _exit(128 + signal);
  stop_signal = signal;
  if (grace > 0) alarm(static_cast<unsigned>(grace));
}

void OnAlarm(int) { _exit(128 + stop_signal); }

void Handle(int signal, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(signal, &action, nullptr);
}

}  // namespace

void IgnoreWriteSignals() {
  for (int signal : {SIGPIPE, SIGXFSZ}) Handle(signal, SIG_IGN);
}

void NoteStopSignals(int grace_seconds) {
  grace = grace_seconds;
  Handle(SIGALRM, OnAlarm);
  for (int signal : {SIGINT, SIGTERM}) Handle(signal, OnStop);
}

int StopSignal() { return stop_signal; }

ExitCode ExitCodeOfSignal(int signal) { return signal == SIGINT ? kExitInterrupted : kExitTerminated; }

}  // namespace cairn
