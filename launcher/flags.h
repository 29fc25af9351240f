// The command's flags, in the groups that help prints.
#ifndef CAIRN_LAUNCHER_FLAGS_H_
#define CAIRN_LAUNCHER_FLAGS_H_

#include <string>

#include "absl/flags/declare.h"
#include "absl/status/statusor.h"
#include "engine/engine_options.h"
#include "engine/sampling_params.h"
#include "launcher/byte_size.h"
#include "launcher/command_line.h"

ABSL_DECLARE_FLAG(std::string, config);
ABSL_DECLARE_FLAG(double, distributed_timeout_seconds);
ABSL_DECLARE_FLAG(cairn::ByteSize, rank_memory_bytes);
ABSL_DECLARE_FLAG(std::string, input_file);
ABSL_DECLARE_FLAG(std::string, output_file);
ABSL_DECLARE_FLAG(std::string, errors_file);
ABSL_DECLARE_FLAG(bool, overwrite);
ABSL_DECLARE_FLAG(std::string, output_json);
ABSL_DECLARE_FLAG(std::string, output_html);
ABSL_DECLARE_FLAG(bool, quiet);
ABSL_DECLARE_FLAG(std::string, reasoning_parser);
ABSL_DECLARE_FLAG(std::string, prompt);
ABSL_DECLARE_FLAG(std::string, chat);
ABSL_DECLARE_FLAG(std::string, system);
ABSL_DECLARE_FLAG(bool, enable_thinking);

namespace cairn {

extern const FlagGroup kModelFlags, kParallelFlags, kMemoryFlags, kCompressionFlags, kPlanFlags, kBatchFlags,
    kPromptFlags, kSamplingFlags, kReportFlags, kInspectFlags, kQuietFlags, kConfigFlags;

// From the flags as they are now; checked by EngineOptions::Validate (exit code 64).
absl::StatusOr<EngineOptions> EngineOptionsFromFlags();
// The same without the checks that need a model, for doctor.
absl::StatusOr<EngineOptions> UncheckedEngineOptionsFromFlags();
absl::StatusOr<SamplingParams> SamplingParamsFromFlags();

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_FLAGS_H_
