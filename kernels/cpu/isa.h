// Which vector instructions to use: the best that this CPU has, or what CAIRN_CPU_ISA says.
#ifndef CAIRN_KERNELS_CPU_ISA_H_
#define CAIRN_KERNELS_CPU_ISA_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cairn::cpu {

struct Kernels;

// Kernels that this CPU can run, the plain ones first, the best last. Kernels::name is scalar, avx2 (with FMA and
// F16C), avx512 (F, BW, DQ, VL), avx512_bf16 or avx512_amx (with AMX tiles).
std::vector<const Kernels*> AvailableKernels();

// By name. INVALID_ARGUMENT for an unknown name and for one that this CPU cannot run; the message lists those it can.
absl::StatusOr<const Kernels*> FindKernels(absl::string_view name);

// Those named by the environment variable CAIRN_CPU_ISA, else the best available.
absl::StatusOr<const Kernels*> KernelsFromEnvironment();

}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_ISA_H_
