#include "kernels/cpu/isa.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/cpu/kernels.h"

namespace cairn::cpu {
namespace {

bool IsKnown(absl::string_view name) {
  return name == "scalar" || name == "avx2" || name == "avx512" || name == "avx512_bf16";
}

}  // namespace

std::vector<const Kernels*> AvailableKernels() {
  std::vector<const Kernels*> available = {&kScalarKernels};
#if defined(__x86_64__)
  // These also ask whether the operating system saves the wide registers.
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) {
    return available;
  }
  available.push_back(&kAvx2Kernels);
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return available;
  }
  available.push_back(&kAvx512Kernels);
  if (__builtin_cpu_supports("avx512bf16")) available.push_back(&kAvx512Bf16Kernels);
#endif
  return available;
}

absl::StatusOr<const Kernels*> FindKernels(absl::string_view name) {
  const std::vector<const Kernels*> available = AvailableKernels();
  std::vector<absl::string_view> names;
  for (const Kernels* kernels : available) {
    if (name == kernels->name) return kernels;
    names.push_back(kernels->name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat(IsKnown(name) ? "this CPU lacks instruction set '" : "unknown instruction set '", name,
                   "'; this CPU can run: ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<const Kernels*> KernelsFromEnvironment() {
  const char* name = std::getenv("CAIRN_CPU_ISA");
  if (name == nullptr || *name == '\0') return AvailableKernels().back();
  absl::StatusOr<const Kernels*> kernels = FindKernels(name);
  if (!kernels.ok()) {
    return absl::Status(kernels.status().code(), absl::StrCat("CAIRN_CPU_ISA: ", kernels.status().message()));
  }
  return kernels;
}

}  // namespace cairn::cpu
