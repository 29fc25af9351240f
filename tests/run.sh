#!/usr/bin/env bash
# Passes the tests: installs what is missing, checks the form of the sources, builds, and runs
#   release  every unit test, and the integration tests (the real binary under mpirun)
#   asan     the unit tests with the address and undefined-behaviour sanitizers
#   tsan     the threaded tests with the thread sanitizer
#
#   tests/run.sh [--quick]      --quick: the release build alone
#
# No downloads beyond Debian packages. Tests of real models and of ../shared skip aloud where these are absent
# (tests/real_models.sh runs the former). Can be run again at any time: only what changed is built again.
# Ends with a line "N passed, N failed"; exit status 1 if anything failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

quick=false
for arg in "$@"; do
  case $arg in
    --quick) quick=true ;;
    -h | --help) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) echo "tests/run.sh: unknown argument $arg; there is only --quick" >&2; exit 64 ;;
  esac
done

jobs=$(nproc)
passed=0 failed=0 skipped=0
failures=()
times=()

# mpirun refuses root and more ranks than cores unless told; a waiting rank should leave its core to the others.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1

say() { printf '\n== %s\n' "$*"; }

fail() {
  failed=$((failed + 1))
  failures+=("$1")
}

# timed NAME COMMAND...: the command's status; its time goes into the closing table.
timed() {
  local name=$1 start=$SECONDS status
  shift
  "$@"
  status=$?
  times+=("$(printf '%6d s  %s' $((SECONDS - start)) "$name")")
  return "$status"
}

# step NAME COMMAND...: a check that counts as one test.
step() {
  if timed "$@"; then
    passed=$((passed + 1))
  else
    fail "$1"
  fi
}

install_packages() {
  tools/install_deps.sh && { command -v clang-format >/dev/null || tools/install_deps.sh clang-format || true; }
}

check_format() {
  if ! command -v clang-format >/dev/null; then
    echo "SKIPPED: clang-format could not be installed; the form of the sources was not checked"
    return 0
  fi
  local folder folders=()
  for folder in kernels parallel compression engine launcher tests bench; do
    if [[ -d $folder ]]; then folders+=("$folder"); fi
  done
  find "${folders[@]}" \( -name '*.h' -o -name '*.cc' -o -name '*.cu' \) -print0 |
    xargs -0 clang-format --dry-run --Werror && echo "clang-format has nothing to change"
}

# build PRESET [TARGET...]
build() {
  local preset=$1 log=build/$1/configure.log
  shift
  mkdir -p "build/$preset"
  cmake --preset "$preset" >"$log" 2>&1 || { cat "$log"; return 1; }
  "${in_fixed_layout[@]}" ninja -C "build/$preset" -j "$jobs" "$@"
}

# count FILE ATTRIBUTE: a number of a JUnit report's head.
count() { grep -oE -m1 " ?$2=\"[0-9]+\"" "$1" | grep -oE '[0-9]+' | head -n 1; }

# run_ctest PRESET [CTEST ARGUMENT...]: runs, adds to the totals, and says why tests were skipped.
run_ctest() {
  local preset=$1 report=$PWD/build/$1/ctest.xml
  shift
  rm -f "$report"
  "${in_fixed_layout[@]}" ctest --test-dir "build/$preset" -j "$jobs" --output-on-failure --no-tests=error \
    --output-junit "$report" "$@" 2>&1 | awk '
      /^ *Start +[0-9]+:/ || /\*\*\*Skipped/ || /\(Skipped\)$/ || /^The following tests did not run:/ { next }
      / Passed +[0-9.]+ sec$/ { if (++n % 50 == 0) print; fflush(); next }
      { print; fflush() }'
  local status=${PIPESTATUS[0]}
  if [[ ! -s $report ]]; then
    fail "$preset: ctest did not finish"
    return 1
  fi
  local total bad skip
  total=$(count "$report" tests) bad=$(count "$report" failures) skip=$(count "$report" skipped)
  passed=$((passed + total - bad - skip)) failed=$((failed + bad)) skipped=$((skipped + skip))
  if ((bad > 0)); then
    failures+=("$preset: $bad of $total tests")
  elif ((status != 0)); then  # ctest also fails over tests that it could not run, which its report calls skipped
    fail "$preset: ctest ended with status $status"
  fi
  if ((skip > 0)); then
    echo "SKIPPED $skip tests:"
    awk '/: Skipped$/ { getline; print }' "$report" | sed 's/&lt;/</g; s/&gt;/>/g; s/&quot;/"/g; s/&amp;/\&/g' |
      sort | uniq -c | sort -rn
  fi
  return "$status"
}

# phase PRESET TARGETS -- CTEST ARGUMENTS
phase() {
  local preset=$1 targets=()
  shift
  while (($#)) && [[ $1 != -- ]]; do targets+=("$1") && shift; done
  shift
  say "$preset: build"
  if ! timed "$preset: build" build "$preset" ${targets[@]+"${targets[@]}"}; then
    fail "$preset: build"
    return
  fi
  say "$preset: tests"
  timed "$preset: tests" run_ctest "$preset" "$@"
}

# Tests that run threads: the pool, channels, and engines whose ranks are threads.
threaded='Thread|Host|SharedMemory|Parallel|ProcessGroups|Engine|Invariance|BatchRoot|MatMul|RowIndependence|BitsDependOnTheHead|CompressionTest'
in_fixed_layout=()

say "packages"
step "packages" install_packages
say "form"
step "form" check_format

phase release --
if ! $quick; then
  phase asan -- -LE integration
  # This thread sanitizer cannot run under the wide address-space randomisation of newer kernels.
  if setarch -R true 2>/dev/null; then in_fixed_layout=(setarch -R); fi
  phase tsan kernels_test parallel_test engine_test launcher_test hello_engine -- -R "$threaded" -LE integration
fi

say "time"
printf '%s\n' "${times[@]}"
if ((failed > 0)); then
  say "failed"
  printf '%s\n' "${failures[@]}"
fi
((skipped == 0)) || printf '\n%d skipped (the reasons are above)\n' "$skipped"
printf '\n%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
