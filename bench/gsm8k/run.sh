#!/usr/bin/env bash
# Answers GSM8K questions with an instruct model over MPI ranks and scores them.
#
#   bench/gsm8k/run.sh MODEL_DIR OUT_DIR [CAIRN_FLAG...]
#
# QUESTIONS    how many, from the head of the test set (default 20)
# GSM8K        the published test set (default ../shared/data/gsm8k/test.jsonl)
# RANKS        default 2; the flags of cairn default to --tensor-parallel-size=RANKS
# OUT_DIR gets requests.jsonl, results.jsonl (the answers), summary.json (tokens/s) and report.json (accuracy).
set -euo pipefail
cd "$(dirname "$0")/../.."

(($# >= 2)) || { echo "usage: bench/gsm8k/run.sh MODEL_DIR OUT_DIR [CAIRN_FLAG...]" >&2; exit 64; }
model=$1 out=$2
shift 2
ranks=${RANKS:-2}
data=${GSM8K:-../shared/data/gsm8k/test.jsonl}
[[ -s $data ]] || { echo "$data is missing: set GSM8K to the published test.jsonl" >&2; exit 66; }
(($# > 0)) || set -- "--tensor-parallel-size=$ranks"

mkdir -p "$out"
tools/gsm8k.py make "$data" --questions "${QUESTIONS:-20}" >"$out/requests.jsonl"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
mpirun -np "$ranks" --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 \
  build/release/cairn run-batch --model "$model" -i "$out/requests.jsonl" -o "$out/results.jsonl" --overwrite \
  --output-json "$out/summary.json" "$@"
tools/gsm8k.py score "$data" "$out/results.jsonl" --report "$out/report.json"
