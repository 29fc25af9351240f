#include "launcher/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace cairn {

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

namespace {

constexpr int kBarWidth = 24;
constexpr double kBarInterval = 0.2, kLineInterval = 10, kFirstLineAfter = 1;
// The rate shown follows changes within a few updates and does not flicker.
constexpr double kRateSmoothing = 0.3;
// An answer's length over what is there of it, as long as longer ones than those done are under way.
constexpr double kLengthByNow = 1.5;

// Tokens to come at the mean rate so far. The requests done alone would not tell: where many run side by side, hardly
// any is done until nearly all are, and those done first are the short ones.
std::string TimeLeft(const ProgressState& state, double elapsed_seconds) {
  const double done = static_cast<double>(state.done - state.done_before);
  if (!state.total.has_value() || done == 0 || state.done >= *state.total) return "";
  const double missing = static_cast<double>(*state.total - state.done);
  const double finished = static_cast<double>(state.finished_tokens);
  const double begun = std::max(0.0, static_cast<double>(state.generated_tokens) - finished);
  const double running = std::min(static_cast<double>(state.running), missing);
  // A running answer is expected to be as long as those done, and half as long again as it is by now.
  const double by_now = running > 0 ? begun / running : 0;
  const double of_running = std::max(finished / done, kLengthByNow * by_now);
  const double of_waiting = (finished + running * of_running) / (done + running);
  const double tokens = (missing - running) * of_waiting + std::max(0.0, running * of_running - begun);
  // Answers without tokens (all failed, say) count each alike.
  const double share = finished > 0 ? tokens / (finished + begun) : missing / done;
  return absl::StrCat(", ", FormatDuration(elapsed_seconds * share), " left");
}

std::string Count(const ProgressState& state) {
  return absl::StrCat(state.label, state.label.empty() ? "" : ": ", state.done, state.total.has_value() ? "/" : "",
                      state.total.has_value() ? absl::StrCat(*state.total) : "");
}

std::string Failures(const ProgressState& state) {
  return state.failed > 0 ? absl::StrCat(", ", state.failed, " failed") : "";
}

// mpirun gives its ranks pipes and copies what comes through them to its own stderr, which may be a terminal.
bool ParentHasTerminal() {
  if (std::getenv("OMPI_COMM_WORLD_RANK") == nullptr) return false;
  std::error_code error;
  const std::string target =
      std::filesystem::read_symlink(absl::StrCat("/proc/", getppid(), "/fd/", STDERR_FILENO), error).string();
  return !error && (absl::StartsWith(target, "/dev/pts/") || absl::StartsWith(target, "/dev/tty"));
}

}  // namespace

std::string FormatDuration(double seconds) {
  if (seconds < 9.95) return absl::StrFormat("%.1f s", seconds);
  const int64_t whole = static_cast<int64_t>(seconds + 0.5);
  if (whole < 60) return absl::StrCat(whole, " s");
  if (whole < 3600) return absl::StrFormat("%d:%02d", whole / 60, whole % 60);
  return absl::StrFormat("%d:%02d:%02d", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string ProgressBar(const ProgressState& state, double elapsed_seconds, double tokens_per_second) {
  std::string bar;
  if (state.total.has_value() && *state.total > 0) {
    const int filled = static_cast<int>(std::min(state.done, *state.total) * kBarWidth / *state.total);
    bar = absl::StrCat(" [", std::string(filled, '#'), std::string(kBarWidth - filled, '.'), "]");
  }
  return absl::StrCat(Count(state), bar, absl::StrFormat(" %.1f tokens/s", tokens_per_second), ", ", state.running,
                      " running", Failures(state), TimeLeft(state, elapsed_seconds));
}

std::string ProgressLine(const ProgressState& state, double elapsed_seconds, double tokens_per_second) {
  return absl::StrCat("cairn: ", Count(state), " requests done after ", FormatDuration(elapsed_seconds),
                      absl::StrFormat(", %.1f tokens/s", tokens_per_second), ", ", state.running, " running",
                      Failures(state), TimeLeft(state, elapsed_seconds));
}

Progress::Style Progress::StyleForStderr(bool quiet) {
  if (quiet) return Style::kNone;
  return isatty(STDERR_FILENO) || ParentHasTerminal() ? Style::kBar : Style::kLines;
}

Progress::Progress(Style style, Print print) : style_(style), print_(std::move(print)) {}

double Progress::IntervalSeconds() const {
  if (style_ == Style::kBar) return kBarInterval;
  return times_shown_ == 0 ? kFirstLineAfter : kLineInterval;
}

void Progress::Update(const ProgressState& state, double seconds) {
  if (!start_.has_value()) {
    start_ = last_shown_ = seconds;
    tokens_at_start_ = tokens_at_last_ = state.generated_tokens;
  }
  if (style_ != Style::kNone && seconds - last_shown_ >= IntervalSeconds()) Show(state, seconds);
}

void Progress::Show(const ProgressState& state, double seconds) {
  const double span = seconds - last_shown_;
  const double rate = span > 0 ? static_cast<double>(state.generated_tokens - tokens_at_last_) / span : rate_;
  rate_ = times_shown_ == 0 || style_ == Style::kLines ? rate : rate_ + kRateSmoothing * (rate - rate_);
  last_shown_ = seconds;
  tokens_at_last_ = state.generated_tokens;
  ++times_shown_;
  Draw(state, seconds, rate_);
}

void Progress::Draw(const ProgressState& state, double seconds, double rate) {
  const double elapsed = seconds - *start_;
  print_(style_ == Style::kBar ? absl::StrCat("\r\x1b[K", ProgressBar(state, elapsed, rate))
                               : absl::StrCat(ProgressLine(state, elapsed, rate), "\n"));
}

void Progress::Finish(const ProgressState& state, double seconds) {
  if (style_ == Style::kNone) return;
  Update(state, seconds);
  // A job that ends between two lines says so; the bar ends full, not where it was last drawn. The rate is the whole
  // run's.
  const double elapsed = seconds - *start_;
  Draw(state, seconds, elapsed > 0 ? static_cast<double>(state.generated_tokens - tokens_at_start_) / elapsed : 0);
  if (style_ == Style::kBar) print_("\n");
}

void PrintToStderr(const std::string& text) {
  std::fputs(text.c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace cairn
