#include "launcher/eval/eval_flags.h"

#include <algorithm>

#include "absl/flags/flag.h"
#include "absl/flags/reflection.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/core/status_macros.h"
#include "launcher/exit_codes.h"
#include "launcher/flags.h"

ABSL_FLAG(std::string, task, "file",
          "what is asked: file (our JSONL format), gsm8k, math500, aime, needle (made here) or demo (the demo model's "
          "held-out problems): docs/eval.md");
ABSL_FLAG(std::string, eval_input_file, "",
          "the task's questions; needle: a text to hide it in; demo: by default the model's heldout.jsonl");
ABSL_FLAG(std::string, output_dir, "", "directory for the answers and the reports; made where it is missing");
ABSL_FLAG(bool, resume, false, "go on with the evaluation in --output-dir: what is answered is not asked again");
ABSL_FLAG(bool, eval_overwrite, false, "begin anew: the answers in --output-dir are deleted");
ABSL_FLAG(int32_t, num_questions, 0,
          "how many questions; needle and demo: of each length and depth. 0 is all (needle: 5)");
ABSL_FLAG(int32_t, first_question, 0, "how many to leave out before");
ABSL_FLAG(std::string, lengths, "", "needle: tokens of the prompt [2048]; demo: lengths of the problems [500]; a list");
ABSL_FLAG(std::string, depths, "", "needle: percent of the text before it, a list [0,25,50,75,100]");
ABSL_FLAG(std::string, prompt_template, "", "text around a question, {prompt} in its place; by default the task's");
ABSL_FLAG(std::string, apply_chat_template, "auto",
          "auto (where the model has one and the task is made for it), true or false");
ABSL_FLAG(std::string, seeds, "0", "a list: every question is answered once for each seed (needs --temperature)");
ABSL_FLAG(bool, full_cache, true, "also measure the full cache, which the others are compared with");
ABSL_FLAG(bool, shadow_full, false,
          "keep the full cache beside the compressed one, and report what attention loses in each layer and KV head "
          "(slow, takes the memory of both, one replica)");

ABSL_FLAG(int32_t, eval_max_tokens, 0, "longest answer in tokens; 0 is the task's");
ABSL_FLAG(float, eval_temperature, 0, "0 is greedy");

ABSL_FLAG(
    std::string, eval_kv_compression, "none",
    "none (the full cache), rkv, rkv-history, snapkv, streamingllm, h2o, keydiff, gkv, random: docs/compression.md");
ABSL_FLAG(std::string, eval_kv_schedule, cairn::CompressionConfig().schedule, "uniform, pyramid, weighted");
ABSL_FLAG(std::string, eval_kv_scope, cairn::CompressionConfig().scope, "head, layer, sequence");
ABSL_FLAG(std::string, eval_kv_lambda, absl::StrCat(cairn::CompressionConfig().mix_lambda),
          "rkv, rkv-history, gkv with redundancy: weight of importance, the rest is redundancy's");
ABSL_FLAG(std::string, eval_kv_beta, absl::StrCat(cairn::CompressionConfig().beta), "slope of the pyramid, 1 is flat");
ABSL_FLAG(std::string, eval_kv_window, absl::StrCat(cairn::CompressionConfig().window),
          "last tokens, which score the others and stay");
ABSL_FLAG(std::string, eval_kv_recent_ratio, absl::StrCat(cairn::CompressionConfig().recent_ratio),
          "share of a layer's slots for its last tokens; the window at least");
ABSL_FLAG(std::string, eval_kv_kernel, absl::StrCat(cairn::CompressionConfig().kernel_size),
          "rkv, rkv-history, snapkv: width of the pooling, odd");
ABSL_FLAG(std::string, eval_kv_buffer, absl::StrCat(cairn::CompressionConfig().buffer), "tokens between compressions");
ABSL_FLAG(std::string, eval_kv_budget, absl::StrCat(cairn::CompressionConfig().budget),
          "slots that a KV head of a layer keeps; 10% is that share of the mean prompt + answer with the full cache");

namespace cairn {

const FlagGroup kEvalFlags{"Evaluation",
                           {{"task", "NAME"},
                            {"eval_input_file", "FILE", "i", "input_file"},
                            {"output_dir", "DIR", "o"},
                            {"resume"},
                            {"eval_overwrite", "", "", "overwrite"},
                            {"num_questions", "N"},
                            {"first_question", "N"},
                            {"lengths", "LIST"},
                            {"depths", "LIST"},
                            {"prompt_template", "TEXT"},
                            {"apply_chat_template", "X"},
                            {"system", "TEXT"},
                            {"enable_thinking"},
                            {"seeds", "LIST"},
                            {"full_cache"},
                            {"shadow_full"}}};
const FlagGroup kEvalSamplingFlags{"Sampling",
                                   {{"eval_max_tokens", "N", "", "max_tokens"},
                                    {"min_tokens", "N"},
                                    {"eval_temperature", "X", "", "temperature"},
                                    {"top_p", "X"},
                                    {"top_k", "N"},
                                    {"min_p", "X"},
                                    {"repetition_penalty", "X"},
                                    {"presence_penalty", "X"},
                                    {"frequency_penalty", "X"},
                                    {"stop", "TEXT"},
                                    {"ignore_eos"}}};
const FlagGroup kEvalSweepFlags{"KV compression: where a list is taken, every combination is a setting",
                                {{"eval_kv_compression", "LIST", "", "kv_compression"},
                                 {"eval_kv_budget", "LIST", "", "kv_budget"},
                                 {"eval_kv_buffer", "LIST", "", "kv_buffer"},
                                 {"eval_kv_window", "LIST", "", "kv_window"},
                                 {"eval_kv_recent_ratio", "LIST", "", "kv_recent_ratio"},
                                 {"eval_kv_schedule", "LIST", "", "kv_schedule"},
                                 {"eval_kv_beta", "LIST", "", "kv_beta"},
                                 {"kv_layer_weights", "WEIGHTS"},
                                 {"kv_head_weights", "WEIGHTS"},
                                 {"eval_kv_scope", "LIST", "", "kv_scope"},
                                 {"eval_kv_lambda", "LIST", "", "kv_lambda"},
                                 {"kv_threshold", "X"},
                                 {"eval_kv_kernel", "LIST", "", "kv_kernel"},
                                 {"kv_pooling", "NAME"},
                                 {"kv_group_reduce", "NAME"},
                                 {"kv_variant", "NAME"},
                                 {"kv_sinks", "N"},
                                 {"kv_gamma", "X"},
                                 {"kv_gkv_redundancy"},
                                 {"kv_prefill"},
                                 {"kv_decode"},
                                 {"kv_bounded_prefill"}}};

namespace {

absl::StatusOr<std::vector<int64_t>> NumbersOf(const char* flag, const std::string& text) {
  std::vector<int64_t> numbers;
  if (text.empty()) return numbers;
  const std::vector<std::string> items = absl::StrSplit(text, ',');
  for (const std::string& item : items) {
    int64_t value = 0;
    if (!absl::SimpleAtoi(item, &value)) {
      return UsageError(absl::StrCat("--", flag, "=", text, ": '", item, "': expected a whole number"));
    }
    if (std::find(numbers.begin(), numbers.end(), value) != numbers.end()) {
      return UsageError(absl::StrCat("--", flag, "=", text, ": ", value, " is in it twice"));
    }
    numbers.push_back(value);
  }
  return numbers;
}

absl::StatusOr<ChatTemplateUse> ChatTemplateUseFromFlag() {
  const std::string text = absl::AsciiStrToLower(absl::GetFlag(FLAGS_apply_chat_template));
  if (text == "auto") return ChatTemplateUse::kAuto;
  if (text == "true") return ChatTemplateUse::kOn;
  if (text == "false") return ChatTemplateUse::kOff;
  return UsageError(absl::StrCat("--apply-chat-template=", text, ": must be auto, true or false"));
}

absl::Status CheckCounts(const EvalOptions& options) {
  if (options.task.num_questions < 0) {
    return UsageError(absl::StrCat("--num-questions=", options.task.num_questions, ": must be at least 0"));
  }
  if (options.task.first_question < 0) {
    return UsageError(absl::StrCat("--first-question=", options.task.first_question, ": must be at least 0"));
  }
  if (options.output_dir.empty()) {
    return UsageError("--output-dir (-o) is missing: where the answers and the reports go");
  }
  if (options.resume && options.overwrite) {
    return UsageError("--resume keeps the answers in --output-dir, --overwrite deletes them: give one of them");
  }
  if (!options.prompt_template.empty() && options.prompt_template.find("{prompt}") == std::string::npos) {
    return UsageError("--prompt-template has no {prompt}, the place of the question");
  }
  if (options.seeds.empty()) return UsageError("--seeds is empty: give at least one");
  if (options.seeds.size() > 1 && options.sampling.temperature == 0) {
    return UsageError(absl::StrCat("--seeds has ", options.seeds.size(),
                                   " seeds, but at --temperature=0 all give the same answer: raise it"));
  }
  return absl::OkStatus();
}

// All of the group but where it runs, and what seeds has.
std::vector<std::pair<std::string, std::string>> ModelFlags() {
  std::vector<std::pair<std::string, std::string>> flags;
  for (const FlagEntry& entry : kModelFlags.flags) {
    const std::string name = entry.spelled();
    if (name == "device" || name == "seed") continue;
    flags.emplace_back(name, absl::FindCommandLineFlag(entry.name)->CurrentValue());
  }
  return flags;
}

}  // namespace

absl::StatusOr<EvalOptions> EvalOptionsFromFlags() {
  EvalOptions options;
  options.model_flags = ModelFlags();
  options.task.name = absl::GetFlag(FLAGS_task);
  options.task.file = absl::GetFlag(FLAGS_eval_input_file);
  options.task.num_questions = absl::GetFlag(FLAGS_num_questions);
  options.task.first_question = absl::GetFlag(FLAGS_first_question);
  CAIRN_ASSIGN_OR_RETURN(options.task.lengths, NumbersOf("lengths", absl::GetFlag(FLAGS_lengths)));
  CAIRN_ASSIGN_OR_RETURN(options.task.depths, NumbersOf("depths", absl::GetFlag(FLAGS_depths)));
  options.output_dir = absl::GetFlag(FLAGS_output_dir);
  options.resume = absl::GetFlag(FLAGS_resume);
  options.overwrite = absl::GetFlag(FLAGS_eval_overwrite);
  options.prompt_template = absl::GetFlag(FLAGS_prompt_template);
  CAIRN_ASSIGN_OR_RETURN(options.chat, ChatTemplateUseFromFlag());
  options.system = absl::GetFlag(FLAGS_system);
  options.enable_thinking = absl::GetFlag(FLAGS_enable_thinking);
  CAIRN_ASSIGN_OR_RETURN(options.seeds, NumbersOf("seeds", absl::GetFlag(FLAGS_seeds)));
  CAIRN_ASSIGN_OR_RETURN(options.sampling, SamplingParamsFromFlags());
  options.sampling.temperature = absl::GetFlag(FLAGS_eval_temperature);
  options.sampling.max_tokens.reset();
  if (const int32_t most = absl::GetFlag(FLAGS_eval_max_tokens); most != 0) options.sampling.max_tokens = most;
  if (absl::Status valid = options.sampling.Validate(); !valid.ok()) return WithExitCode(valid, kExitUsage);
  options.full_cache = absl::GetFlag(FLAGS_full_cache);
  options.shadow_full = absl::GetFlag(FLAGS_shadow_full);
  options.sweep = {{"kv_compression", absl::GetFlag(FLAGS_eval_kv_compression)},
                   {"kv_schedule", absl::GetFlag(FLAGS_eval_kv_schedule)},
                   {"kv_beta", absl::GetFlag(FLAGS_eval_kv_beta)},
                   {"kv_scope", absl::GetFlag(FLAGS_eval_kv_scope)},
                   {"kv_lambda", absl::GetFlag(FLAGS_eval_kv_lambda)},
                   {"kv_kernel", absl::GetFlag(FLAGS_eval_kv_kernel)},
                   {"kv_window", absl::GetFlag(FLAGS_eval_kv_window)},
                   {"kv_recent_ratio", absl::GetFlag(FLAGS_eval_kv_recent_ratio)},
                   {"kv_buffer", absl::GetFlag(FLAGS_eval_kv_buffer)},
                   {"kv_budget", absl::GetFlag(FLAGS_eval_kv_budget)}};
  CAIRN_RETURN_IF_ERROR(CheckCounts(options));
  return options;
}

}  // namespace cairn
