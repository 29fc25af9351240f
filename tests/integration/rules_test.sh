#!/usr/bin/env bash
# The rules of the folders, each a grep over the sources:
#
#   order   kernels < parallel < compression < engine < launcher: a file includes nothing to the right of its own room,
#           nothing of tests/ or bench/, and nothing by a relative path (which would escape this check)
#   homes   a third-party header is included in its home alone, so that one folder knows one library
#   device  kernels are launched, name shared memory and use PTX through the headers of kernels/cuda alone, so that the
#           same files run on the emulator (kernels/cuda/launch.h)
#
#   rules_test.sh [ROOT]      checks the sources under ROOT (default: this repository)
#   rules_test.sh --self      checks the checker: each violation planted for it must be caught
set -euo pipefail

rooms=(kernels parallel compression engine launcher)

# Extended regular expressions: what stands between the quotes of an #include, and the paths that may include it.
header=() home=()
rule() { header+=("$1") home+=("$2"); }
rule 'mpi\.h' 'parallel/comm/mpi_[^/]*|launcher/bootstrap[^/]*'
rule 'nccl\.h' 'parallel/comm/nccl_[^/]*'
rule '(cuda|cublas|cooperative_groups|cub/|mma\.h)[^">]*' \
  'kernels/cuda/.*|kernels/core/[^/]*_cuda\.[^/]*|parallel/comm/nccl_[^/]*'
rule 'nvtx3/[^">]*' 'kernels/core/profile_range\.cc'
rule 'yaml-cpp/[^">]*' 'engine/config/.*'
rule 'absl/flags/[^">]*' 'launcher/.*'

# What device code may not say, where it may all the same, and what to write instead.
said=() except=() instead=()
device_rule() { said+=("$1") except+=("$2") instead+=("$3"); }
device_rule '<<<|cudaLaunch(Kernel|Cooperative|Device)' 'kernels/cuda/launch\.h' 'launch through CAIRN_LAUNCH'
device_rule '\b__shared__\b' 'kernels/cuda/launch\.h' 'name shared memory by CAIRN_SHARED or CAIRN_DYNAMIC_SHARED'
device_rule '\basm\b' 'kernels/cuda/ptx\.h' 'put PTX into kernels/cuda/ptx.h, with a half for the emulator'
device_rule 'cooperative_groups|\bcub::|\bcuda::(barrier|pipeline|atomic)|<thrust/' '' \
  'use the intrinsics that the emulator has (tests/emulator/include/cuda_emulator.h)'
device_rule 'while *\(.*(volatile|atomic(Add|CAS|Exch)|ld_acquire)' '' 'do not wait for other blocks: split the kernel'

# includes ROOT ROOM REGEX: the #include lines of a room whose header matches, as path:line:text.
includes() {
  [[ -d $1/$2 ]] || return 0
  (cd "$1" && grep -rnE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]($3)[>\"]" \
    --include='*.h' --include='*.cc' --include='*.cu' --include='*.cuh' -- "$2") || [[ $? == 1 ]]
}

# violations ROOT: one line each, with the rule that it breaks.
violations() {
  local root=$1 room i right
  for i in "${!rooms[@]}"; do
    right=$(IFS='|' && echo "${rooms[*]:i+1}")
    includes "$root" "${rooms[i]}" "(${right:+$right|}tests|bench)/[^\">]*" |
      sed "s/\$/    <- order: ${rooms[i]}\/ may not include this/"
    includes "$root" "${rooms[i]}" '\.\.?/[^">]*' | sed 's/$/    <- order: write the path from the root of the sources/'
  done
  for i in "${!header[@]}"; do
    for room in "${rooms[@]}"; do
      includes "$root" "$room" "${header[i]}" | { grep -vE "^(${home[i]}):" || [[ $? == 1 ]]; } |
        awk -v home="${home[i]//\\/}" '{ print $0 "    <- homes: this header belongs in " home }'
    done
  done
  [[ -d $root/kernels/cuda ]] || return 0
  for i in "${!said[@]}"; do
    (cd "$root" && grep -rnP "^(?!\s*//).*(${said[i]})" --include='*.cu' --include='*.h' -- kernels/cuda || [[ $? == 1 ]]) |
      { grep -vE "^(${except[i]:-none}):" || [[ $? == 1 ]]; } |
      awk -v instead="${instead[i]}" '{ print $0 "    <- device: " instead }'
  done
}

self_check() {
  # Not local: the trap runs after this function has returned.
  root=$(mktemp -d)
  trap 'rm -rf "$root"' EXIT
  local failures=0
  # expect caught|clean PATH INCLUDE: a tree with that one file.
  expect() {
    local found
    rm -rf "${root:?}"/* && mkdir -p "$root/$(dirname "$2")" && printf '// A file.\n%s\n' "$3" >"$root/$2"
    found=$(violations "$root")
    if [[ $1 == caught && $found != "$2:2:$3"* ]] || [[ $1 == clean && -n $found ]]; then
      echo "FAILED: $3 in $2 should be $1; found: ${found:-nothing}"
      failures=$((failures + 1))
    fi
  }
  expect caught kernels/ops/a.cc '#include "parallel/comm/communicator.h"'
  expect caught kernels/core/a.h '#include "launcher/flags.h"'
  expect caught parallel/shard/a.h '#include "engine/request.h"'
  expect caught compression/a.cc '  #  include "engine/engine.h"'
  expect caught engine/a.cc '#include <launcher/flags.h>'
  expect caught engine/model/a.cc '#include "tests/helper.h"'
  expect caught launcher/a.cc '#include "bench/helper.h"'
  expect caught kernels/cpu/a.cc '#include "../../engine/engine.h"'
  expect caught engine/a.cc '#include <mpi.h>'
  expect caught launcher/main.cc '#include <mpi.h>'
  expect caught parallel/comm/mpi_channel.cc '#include <nccl.h>'
  expect caught kernels/cpu/a.cc '#include <cuda_runtime.h>'
  expect caught engine/model/a.cc '#include "cublasLt.h"'
  expect caught launcher/a.cc '#include "yaml-cpp/yaml.h"'
  expect caught engine/runner/a.cc '#include <nvtx3/nvToolsExt.h>'
  expect caught engine/config/a.cc '#include "absl/flags/flag.h"'
  expect caught kernels/cuda/a.cu '  Kernel<<<1, 32>>>(x);'
  expect caught kernels/cuda/a.cu '  cudaLaunchKernelEx(&config, Kernel, x);'
  expect caught kernels/cuda/a.h '  __shared__ float sums[32];'
  expect caught kernels/cuda/a.cu '  extern __shared__ float sums[];'
  expect caught kernels/cuda/a.cu '  asm volatile("bar.sync 0;");'
  expect caught kernels/cuda/a.cu 'namespace cg = cooperative_groups;'
  expect caught kernels/cuda/a.cu '  using Scan = cub::BlockScan<int, 128>;'
  expect caught kernels/cuda/a.cu '  while (atomicAdd(flag, 0) == 0) {}'
  expect clean kernels/cuda/launch.h '#define CAIRN_SHARED(T, name, ...) __shared__ T name __VA_ARGS__'
  expect clean kernels/cuda/ptx.h '  asm volatile("cp.async.commit_group;" ::: "memory");'
  expect clean kernels/cuda/a.cu '  CAIRN_SHARED(float, sums, [32]);'
  expect clean kernels/cuda/a.cu '// instead of __shared__ and asm'
  expect clean launcher/batch/a.cc '#include "engine/engine.h"'
  expect clean engine/a.cc '#include "kernels/core/tensor.h"'
  expect clean parallel/comm/mpi_channel.cc '#include <mpi.h>'
  expect clean launcher/bootstrap.cc '#include <mpi.h>'
  expect clean parallel/comm/nccl_communicator.cc '#include <nccl.h>'
  expect clean kernels/core/buffer_cuda.cc '#include <cuda_runtime.h>'
  expect clean kernels/cuda/a.cu '#include <cublasLt.h>'
  expect clean engine/config/a.cc '#include <yaml-cpp/yaml.h>'
  expect clean launcher/flags.cc '#include "absl/flags/flag.h"'
  expect clean kernels/core/a.h '// see #include "engine/engine.h"'
  ((failures == 0)) || exit 1
  echo "the checker catches what is planted"
}

if [[ ${1:-} == --self ]]; then
  self_check
  exit 0
fi

root=${1:-$(cd "$(dirname "$0")/../.." && pwd)}
for room in kernels parallel engine launcher; do
  # An empty folder passes every grep: a wrong ROOT must not.
  [[ -n $(find "$root/$room" -name '*.h' -print -quit 2>/dev/null) ]] || { echo "no sources under $root/$room"; exit 1; }
done
found=$(violations "$root")
if [[ -n $found ]]; then
  echo "$found"
  exit 1
fi
echo "order and homes are kept"
