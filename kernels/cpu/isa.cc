#include "kernels/cpu/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/cpu/kernels.h"

namespace cairn::cpu {
namespace {

bool IsKnown(absl::string_view name) {
  return name == "scalar" || name == "avx2" || name == "avx512" || name == "avx512_bf16" || name == "avx512_amx";
}

#if defined(__x86_64__)
// Does the CPU have AMX tiles of bf16, and may this process use them? Linux wants to be asked for their 8 KB of state.
bool MayUseTiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kAmxBf16) == 0 || (d & kAmxTile) == 0) return false;
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // asm/prctl.h: ARCH_REQ_XCOMP_PERM
  static const bool is_allowed = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return is_allowed;
}
#endif

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
  if (!__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512vnni")) return available;
  available.push_back(&kAvx512Bf16Kernels);
  if (MayUseTiles()) available.push_back(&kAvx512AmxKernels);
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
