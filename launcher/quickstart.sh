#!/usr/bin/env bash
# From a fresh clone to a reasoning model that thinks in a compressed cache, over several MPI ranks:
#   1. installs the missing Debian packages            (tools/install_deps.sh)
#   2. builds build/release/cairn
#   3. solves reasoning problems with the demo model of models/demo over 2 x 2 ranks (every layer divided in two, and
#      the layers over two stages): with the full KV cache, then with R-KV and pyramidal budgets in the same memory, and
#      says how many answers are right, what the caches held and how fast it went
# No download. Every step is skipped when it is already done: the second run starts in seconds.
#
#   launcher/quickstart.sh [--real [--cache DIR]]
#
#   --real        in place of the demo model a real one, SmolLM2-135M-Instruct (93 MB, Apache-2.0, tools/get_model.py),
#                 answers the prompts of configs/prompts/demo.jsonl over 3 x 2 ranks
#   --cache DIR   where the real model is kept (default: $CAIRN_CACHE, else ~/.cache/cairn)
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$0"; }

cache=${CAIRN_CACHE:-$HOME/.cache/cairn}
real=false
while (($# > 0)); do
  case $1 in
    --real) real=true; shift ;;
    --cache) cache=${2:?--cache needs a folder}; shift 2 ;;
    --cache=*) cache=${1#*=}; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "quickstart: unknown argument $1 (try --help)" >&2; exit 64 ;;
  esac
done

say() { printf '\n== %s\n' "$*"; }

# Open MPI refuses root unless told so; more ranks than cores must yield while they wait; inside containers the kernel
# forbids one process to read another's memory, which Open MPI would complain about.
launch() {
  local command=(mpirun -np "$1" --oversubscribe --bind-to none --mca mpi_yield_when_idle 1
                 --mca btl_vader_single_copy_mechanism none)
  ((EUID != 0)) || command+=(--allow-run-as-root)
  command+=(build/release/cairn "${@:2}")
  echo "${command[*]}"
  echo
  "${command[@]}"
}

say "1/3 packages"
tools/install_deps.sh

say "2/3 build (the first time takes some minutes)"
mkdir -p build/release build/quickstart
cmake --preset release >build/release/configure.log 2>&1 || { cat build/release/configure.log >&2; exit 1; }
ninja -C build/release cairn

if ! $real; then
  say "3/3 problems whose solution takes 1,000 tokens, over 4 ranks: tensor parallel 2 x pipeline parallel 2"
  launch 4 eval --config configs/runs/demo.yaml -o build/quickstart/demo --overwrite
  cat <<'END_OF_TEXT'

A problem of the demo model to look at, and what a harder budget costs:
  head -1 build/quickstart/demo/requests.jsonl
  build/release/cairn eval --config configs/runs/demo.yaml -tp 1 -pp 1 --kv-cache-memory-bytes 20MiB --kv-budget 7% \
                           -o build/quickstart/harder
  build/release/cairn eval --help
A real model instead (a download of 93 MB):
  launcher/quickstart.sh --real
END_OF_TEXT
  exit
fi

prompts=configs/prompts/demo.jsonl
answers=build/quickstart/answers.jsonl
say "3/3 the model, and $(grep -c . "$prompts") prompts over 6 ranks: tensor parallel 3 x pipeline parallel 2"
model=$(tools/get_model.py smollm2-135m --cache "$cache")  # 9 query and 3 KV heads, 30 layers
launch 6 run-batch --model "$model" -tp 3 -pp 2 -i "$prompts" -o "$answers" --overwrite

say "some of the answers"
tools/show_answers.py "$prompts" "$answers" --count 6
cat <<END_OF_TEXT
All answers: $answers
The model is a small one (135 million weights): it is often wrong.

A prompt of your own:
  build/release/cairn generate --model $model --chat "Why do leaves turn red in autumn?" --temperature 0 --max-tokens 200
A file of your own, in the format of $prompts:
  build/release/cairn run-batch --model $model -i my.jsonl -o answers.jsonl
END_OF_TEXT
