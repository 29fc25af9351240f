// The flags of `cairn eval` that no other subcommand has, or that mean a list there.
#ifndef CAIRN_LAUNCHER_EVAL_EVAL_FLAGS_H_
#define CAIRN_LAUNCHER_EVAL_EVAL_FLAGS_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/sampling_params.h"
#include "launcher/command_line.h"
#include "launcher/eval/task.h"

namespace cairn {

extern const FlagGroup kEvalFlags, kEvalSamplingFlags, kEvalSweepFlags;

enum class ChatTemplateUse { kAuto, kOn, kOff };

struct EvalOptions {
  TaskOptions task;                                              // model, seed and count_tokens are the caller's
  std::vector<std::pair<std::string, std::string>> model_flags;  // the model group's that decide an answer
  std::string output_dir;
  bool resume = false, overwrite = false;
  std::string prompt_template;  // "": the task's
  ChatTemplateUse chat = ChatTemplateUse::kAuto;
  std::string system;
  bool enable_thinking = true;
  std::vector<int64_t> seeds;  // at least one
  SamplingParams sampling;     // max_tokens none: the task's; seed none
  bool full_cache = true;
  bool shadow_full = false;
  std::vector<std::pair<std::string, std::string>> sweep;  // MakeSweep's lists, the budget last
};

// Checked as far as no file is needed (exit code 64 names the flag).
absl::StatusOr<EvalOptions> EvalOptionsFromFlags();

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_EVAL_EVAL_FLAGS_H_
