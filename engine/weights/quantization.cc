#include "engine/weights/quantization.h"

#include "absl/strings/str_cat.h"

namespace cairn {

absl::StatusOr<Quantization> ParseQuantization(const std::string& name) {
  if (name == "none") return Quantization::kNone;
  if (name == "fp8") return Quantization::kFp8;
  if (name == "int8") return Quantization::kInt8;
  return absl::InvalidArgumentError(absl::StrCat("--quantization=", name, ": allowed is none, int8 or fp8"));
}

}  // namespace cairn
