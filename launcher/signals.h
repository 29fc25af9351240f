// SIGINT and SIGTERM: the first asks for a clean end, the second ends the process at once.
#ifndef CAIRN_LAUNCHER_SIGNALS_H_
#define CAIRN_LAUNCHER_SIGNALS_H_

#include "launcher/exit_codes.h"

namespace cairn {

// Writing to a closed pipe or beyond a file size limit becomes an error of write(2) instead of the process's end.
void IgnoreWriteSignals();

// From now on the signals are noted. `grace_seconds` > 0: the process ends that long after the first one whatever
// happens; for ranks that wait for another rank's word to stop, which may never come.
void NoteStopSignals(int grace_seconds);

// 0, or the first signal that came.
int StopSignal();

// kExitInterrupted or kExitTerminated.
ExitCode ExitCodeOfSignal(int signal);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_SIGNALS_H_
