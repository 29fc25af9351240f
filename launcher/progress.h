// How far a job is, on stderr: a bar that redraws itself on a terminal, a line now and then otherwise.
#ifndef CAIRN_LAUNCHER_PROGRESS_H_
#define CAIRN_LAUNCHER_PROGRESS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace cairn {

struct ProgressState {
  int64_t done = 0, failed = 0;
  std::optional<int64_t> total;  // none: not known beforehand
  int64_t generated_tokens = 0;
  int64_t finished_tokens = 0;  // of these: of requests that are done
  int64_t running = 0;
  int64_t done_before = 0;  // of `done`: by an earlier run
  std::string label = {};   // which part of the job this is; "" where it has no parts
};

// One line without its end. `elapsed_seconds` since the start; `tokens_per_second` of the recent past.
std::string ProgressBar(const ProgressState& state, double elapsed_seconds, double tokens_per_second);
std::string ProgressLine(const ProgressState& state, double elapsed_seconds, double tokens_per_second);

// "0.6 s", "41 s", "3:05", "2:03:05"
std::string FormatDuration(double seconds);

// Seconds on a steady clock.
double Now();

class Progress {
 public:
  enum class Style { kNone, kBar, kLines };
  // kBar where stderr is a terminal, also by way of mpirun on this host.
  static Style StyleForStderr(bool quiet);

  using Print = std::function<void(const std::string&)>;
  Progress(Style style, Print print);

  // Called as often as the caller likes; prints when it is time. `seconds`: on any steady clock.
  void Update(const ProgressState& state, double seconds);
  // The last state, always printed, and the end of the bar's line.
  void Finish(const ProgressState& state, double seconds);

 private:
  double IntervalSeconds() const;
  void Show(const ProgressState& state, double seconds);
  void Draw(const ProgressState& state, double seconds, double rate);

  Style style_;
  Print print_;
  std::optional<double> start_;
  double last_shown_ = 0;
  int64_t tokens_at_start_ = 0, tokens_at_last_ = 0;
  double rate_ = 0;
  int times_shown_ = 0;
};

void PrintToStderr(const std::string& text);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_PROGRESS_H_
