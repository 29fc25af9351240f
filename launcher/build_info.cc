#include "launcher/build_info.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace cairn {

std::string BuildInfo() {
  return absl::StrCat("cairn ", CAIRN_VERSION, " (", absl::AsciiStrToLower(CAIRN_BUILD_TYPE), ", g++ ", __GNUC__, ".",
                      __GNUC_MINOR__, ".", __GNUC_PATCHLEVEL__, ")");
}

std::string CpuInstructionSets() {
  std::string sets;
  const auto add = [&sets](const char* name) { absl::StrAppend(&sets, sets.empty() ? "" : " ", name); };
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) add("avx2");
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) add("avx512");
  if (__builtin_cpu_supports("avx512bf16")) add("avx512_bf16");
#endif
  return sets.empty() ? "no AVX2" : sets;
}

}  // namespace cairn
