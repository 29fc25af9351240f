#!/usr/bin/env python3
"""Seeds mistakes into the project's own kernels and their host code and runs their tests on the emulator: each must be seen.

    tests/emulator/mutate_kernels.py BUILD_DIR [NAME...]

BUILD_DIR holds a built kernels_emulated_test (the release preset: its race check is part of what sees). Nothing in the
sources or the build is changed: a mutant is compiled and linked beside them. Some ten seconds each.
"""
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
KERNELS = "kernels/cuda/"

# name, file, old text, new text, which occurrence (from 0), the file to compile, tests to run
MUTATIONS = [
    ("block maximum: no barrier", "reduce.h", "  __syncthreads();\n", "", 0, "quantize.cu", "Quantize"),
    ("block sum: no barrier", "reduce.h", "  __syncthreads();\n  float total", "  float total", 0, "elementwise.cu", "RmsNorm"),
    ("warp sum: a step too few", "reduce.h", "lanes > 0", "lanes > 1", 0, "elementwise.cu", "RmsNorm"),
    ("norm: one element too many", "elementwise.cu", "i < n; i += kThreads", "i <= n; i += kThreads", 1,
     "elementwise.cu", "RmsNorm"),
    ("norm: last element left out", "elementwise.cu", "i < n; i += kThreads", "i < n - 1; i += kThreads", 0,
     "elementwise.cu", "RmsNorm"),
    ("norm: the second round of packs left out", "elementwise.cu", "if (i >= packs) break;",
     "if (i >= packs || j > 0) break;", 0, "elementwise.cu", "RmsNorm"),
    ("norm: an update that is not kept", "elementwise.cu", "      in[i] = own[j];\n", "", 0, "elementwise.cu",
     "AddRmsNorm"),
    ("swiglu: up for gate", "elementwise.cu", "Gated<T>(gate.at[e], up.at[e])", "Gated<T>(up.at[e], gate.at[e])", 0,
     "elementwise.cu", "SwiGlu"),
    ("paged: a block's index off by one", "paged.h", "static_cast<int32_t>(scaled >> 32)",
     "static_cast<int32_t>((scaled + block_factor) >> 32)", 0, "kv_append.cu", "KvAppend"),
    ("rope: the neighbour's half", "elementwise.cu", "Rotate(low[0], low[half],", "Rotate(low[0], low[half - 1],", 0,
     "elementwise.cu", "Rope"),
    ("embedding: a row too many", "embedding.cu", "row < table.rows", "row <= table.rows", 0, "embedding.cu",
     "Embedding"),
    ("append: last element left out", "kv_append.cu", "i < step.kv_heads * d", "i < step.kv_heads * d - 1", 0,
     "kv_append.cu", "KvAppend"),
    ("append: the slot before", "paged.h", "s.num_slots - s.num_rows", "s.num_slots - s.num_rows - 1", 0,
     "kv_append.cu", "KvAppend"),
    ("rows: no barrier after the queries", "attend_rows.cu", "  __syncthreads();\n", "", 0, "attend_rows.cu",
     "MatchesTheFormula/*"),
    ("rows: a slot too many", "attend_rows.cu", "PagedStep::SlotOf(s, item.row) + 1)",
     "PagedStep::SlotOf(s, item.row) + 2)", 0, "attend_rows.cu", "MatchesTheFormula/*"),
    ("rows: window off by one", "attend_rows.cu", "> p.positions[item.row] - p.window",
     ">= p.positions[item.row] - p.window", 0, "attend_rows.cu", "MatchesTheFormula"),
    ("merge: last span left out", "attend_rows.cu", "min(spans - begin, kWarpSize)",
     "min(spans - begin - (spans > 1), kWarpSize)", 0, "attend_rows.cu",
     "LongContext"),
    ("decode: weak wait", "attend_decode.cu", "CopyAsyncWait<1>", "CopyAsyncWait<2>", 0, "attend_decode.cu", "16Bits"),
    ("decode: no barrier after the queries", "attend_decode.cu", "  __syncthreads();\n  unsigned q", "  unsigned q", 0,
     "attend_decode.cu", "16Bits"),
    ("decode: no barrier after the wait", "attend_decode.cu", "    __syncthreads();\n    const int own",
     "    const int own", 0, "attend_decode.cu", "16Bits"),
    ("decode: no barrier before the overwrite", "attend_decode.cu", "    __syncthreads();  // before", "    // before", 0,
     "attend_decode.cu", "16Bits"),
    ("decode: no barrier before the merge", "attend_decode.cu", "  __syncthreads();\n  for (int i = thread; i < p.group",
     "  for (int i = thread; i < p.group", 0, "attend_decode.cu", "16Bits"),
    ("prefill: weak wait", "attend_prefill.cu", "CopyAsyncWait<1>", "CopyAsyncWait<2>", 0, "attend_prefill.cu",
     "16Bits"),
    ("prefill: no barrier after the wait", "attend_prefill.cu", "    __syncthreads();\n    const int rows",
     "    const int rows", 0, "attend_prefill.cu", "16Bits"),
    ("prefill: no barrier before the overwrite", "attend_prefill.cu", "    __syncthreads();  // before",
     "    // before", 0, "attend_prefill.cu", "16Bits"),
    ("prefill: no barrier after the queries", "attend_prefill.cu", "  __syncthreads();\n  unsigned q", "  unsigned q", 0,
     "attend_prefill.cu", "16Bits"),
    ("prefill: rows see a slot too many", "attend_prefill.cu", "PagedStep::SlotOf(s, v.row) + 1",
     "PagedStep::SlotOf(s, v.row) + 2", 0, "attend_prefill.cu", "16Bits"),
    ("tile: the slot behind", "tile.h", "from = min(slot,", "from = min(slot + 1,", 0, "attend_decode.cu", "16Bits"),
    ("tile: maximum over the wrong lanes", "tile.h", "new_max, 2)", "new_max, 1)", 0, "attend_decode.cu", "16Bits"),
    ("tile: rows of the wrong lanes", "tile.h", "lane / 16 * 8) * kTileStride<D>", "lane / 8 % 2 * 8) * kTileStride<D>",
     0, "attend_prefill.cu", "16Bits"),
    ("select: a tie too many", "kv_select.cu", "equal_before < threshold.equals", "equal_before <= threshold.equals", 0,
     "kv_select.cu", "EqualsASort"),
    ("select: no barrier after the clearing", "kv_select.cu", "    bins[thread] = 0;\n    __syncthreads();\n",
     "    bins[thread] = 0;\n", 0, "kv_select.cu", "EqualsASort"),
    ("select: no barrier after the choice", "kv_select.cu", "    __syncthreads();\n    prefix |=", "    prefix |=", 0,
     "kv_select.cu", "EqualsASort"),
    ("select: one buffer of counts", "kv_select.cu", "turn ^= 1", "turn ^= 0", 0, "kv_select.cu", "EqualsASort"),
    ("compact: no barrier", "kv_select.cu", "    __syncthreads();\n#pragma unroll", "#pragma unroll", 0,
     "kv_select.cu", "Compaction"),
    ("compact: wrong scores", "kv_select.cu", "*step.Score(s, head, begin + i, plane) = scores[plane][j]",
     "*step.Score(s, head, begin + i, plane) = scores[plane][j] + 1", 0, "kv_select.cu", "Compaction"),
    ("compact: the second plane of scores stays", "kv_select.cu",
     "if (plane < step.num_scores) *step.Score(s, head, begin", "if (plane < 1) *step.Score(s, head, begin", 0,
     "kv_select.cu", "Compaction"),
    ("ring: one row too few", "kv_select.cu", "if (back >= ring.num_rows) return",
     "if (back + 1 >= max(2, ring.num_rows)) return", 0, "kv_select.cu", "RingHolds"),
    ("append and rope: the oldest query left out", "rope_append.cu", "s.num_rows - window;",
     "s.num_rows - window + 1;", 0, "rope_append.cu", "OneAfterTheOther"),
    ("append and rope: no barrier after the angles", "rope_append.cu", "  __syncthreads();\n", "", 0, "rope_append.cu",
     "OneAfterTheOther"),
    ("append and rope: the first angle for all", "rope_append.cu", "Rotate(low[0], low[half], rotations[i])",
     "Rotate(low[0], low[half], rotations[0])", 0, "rope_append.cu", "OneAfterTheOther"),
    ("window queries: newest first", "window_queries.cu", "(ring.oldest + row) % window",
     "(ring.oldest + window - row) % window", 0,
     "window_queries.cu", "OldestFirst"),
    ("logits: no barrier before the queries are replaced", "window_scores.cu", "    __syncthreads();  // before",
     "    // before", 0, "window_scores.cu", "WindowImportance"),
    ("logits: no barrier after the queries", "window_scores.cu", "    __syncthreads();\n    const float* key",
     "    const float* key", 0, "window_scores.cu", "WindowImportance"),
    ("logits by tiles: no barrier before the queries are replaced", "window_scores.cu",
     "    __syncthreads();  // before the queries are replaced\n  }", "  }", 0, "window_scores.cu", "WindowImportance"),
    ("logits by tiles: the queries' last parts alone", "window_scores.cu", "part >= 0; --part",
     "part >= kQueryParts - 1; --part", 0, "window_scores.cu", "WindowImportance"),
    ("logits by tiles: the next head's queries", "window_scores.cu", "for (; g >= p.group; g -= p.group) ++r;",
     "for (; g > p.group; g -= p.group) ++r;", 0, "window_scores.cu", "WindowImportance"),
    ("together: the first layer's queries for all", "window_scores.cu", "static_cast<int64_t>(layer) * p.window + r",
     "static_cast<int64_t>(0 * layer) * p.window + r", 0, "window_scores.cu", "LayersTogether"),
    ("together: the first layer's length for all", "kv_select.cu", "const Selection layer = layers[blockIdx.x /",
     "const Selection layer = layers[0 * blockIdx.x /", 0, "kv_select.cu", "LayersTogether"),
    ("together: the first layer's recent slots for all", "kv_select.cu", "recent = layer.recent,",
     "recent = layers[0].recent,", 0, "kv_select.cu", "LayersTogether"),
    ("together: the first layer's sets for all", "kv_select.cu", "kept.row(layer * sets +",
     "kept.row(0 * layer * sets +", 0, "kv_select.cu", "LayersTogether"),
    ("newest: a screen too fine", "newest_keys.cu", "fabsf(similarity) * 1e-6f <=", "-0.2f <=", 0, "newest_keys.cu",
     "RedundancyMatches"),
    ("importance: the group's first head alone", "window_scores.cu", "for (int32_t g = 1;",
     "for (int32_t g = p.group;", 0, "window_scores.cu", "WindowImportance"),
    ("window attention: a slot too many", "window_scores.cu", "vector / p.group + 1;", "vector / p.group + 2;", 0,
     "window_scores.cu", "WindowAttention"),
    ("window attention: the group's last head alone", "window_scores.cu", "fixed += ToFixedPoint(sum)",
     "fixed = ToFixedPoint(sum)", 0, "window_scores.cu", "WindowAttention"),
    ("units: no barrier before the teams' sums", "key_similarity.cu", "  __syncthreads();\n  float* to", "  float* to", 0,
     "key_similarity.cu", "DifferenceMatches"),
    ("units: the last key left out", "key_similarity.cu", "if (first + j * kTeams < count) lanes.Load",
     "if (first + j * kTeams < count - 1) lanes.Load", 0,
     "key_similarity.cu", "DifferenceMatches"),
    ("redundancy: own share left in", "key_similarity.cu", "-(squares * factor * factor)", "0 * squares", 0,
     "key_similarity.cu", "RedundancyMatches"),
    ("redundancy: a lonely key clears nothing", "key_similarity.cu", "variant == RedundancyVariant::kCode ? 0 : slot",
     "slot", 0,
     "key_similarity.cu", "RedundancyMatches"),
    ("redundancy: the row's own column", "key_similarity.cu", "p.left_out[keys.At(other[j])]",
     "p.left_out[keys.At(slot)]", 0, "key_similarity.cu", "RedundancyMatches"),
    ("redundancy: remembers slots", "key_similarity.cu", "*keys.Position(newest[j]) + KeyMemory::kFirst",
     "newest[j] + KeyMemory::kFirst", 0, "key_similarity.cu", "WhatIsRemembered"),
    ("newest: the key itself", "newest_keys.cu", "column != slot", "true", 0, "newest_keys.cu", "RedundancyMatches"),
    ("newest: at the threshold too", "newest_keys.cu", "> keys.p.threshold", ">= keys.p.threshold", 0, "newest_keys.cu",
     "ThresholdIsStrict"),
    ("newest: keys behind the last", "newest_keys.cu", "column < keys.n &&", "true &&", 0, "newest_keys.cu",
     "RedundancyMatches"),
    ("newest: the oldest of a tile", "newest_keys.cu", "max(row[r].newest, at)",
     "row[r].newest >= begin ? min(row[r].newest, at) : at", 0, "newest_keys.cu", "RedundancyMatches"),
    ("newest: weak wait for the rows", "newest_keys.cu", "CopyAsyncWait<1>", "CopyAsyncWait<2>", 0, "newest_keys.cu",
     "RedundancyMatches"),
    ("newest: weak wait for the columns", "newest_keys.cu", "CopyAsyncWait<0>", "CopyAsyncWait<1>", 0, "newest_keys.cu",
     "RedundancyMatches"),
    ("newest: no barrier after the rows", "newest_keys.cu", "  __syncthreads();\n  stages.WidenOwn", "  stages.WidenOwn",
     0, "newest_keys.cu", "RedundancyMatches"),
    ("newest: votes without a barrier", "newest_keys.cu", "__syncthreads_or(row[0]", "(row[0]", 0, "newest_keys.cu",
     "RedundancyMatches"),
    ("newest: half of the lanes' maximum", "newest_keys.cu", "row[r].newest, 2)", "row[r].newest, 1)", 0,
     "newest_keys.cu", "RedundancyMatches"),
    ("newest: plain, no barrier after the columns", "newest_keys.cu", "    __syncthreads();\n    float dots",
     "    float dots", 0, "newest_keys.cu", "RedundancyMatches"),
    ("newest: plain, lowest instead of highest lane", "newest_keys.cu", "kWarpSize - 1 - __clz(static_cast<int>(like))",
     "__ffs(static_cast<int>(like)) - 1", 0, "newest_keys.cu", "RedundancyMatches"),
    ("recall: a near-duplicate that has gone", "key_similarity.h", "== wanted ? low - 1 : kUnknown",
     ">= 0 ? low - 1 : kUnknown", 0, "newest_keys.cu", "WhatIsRemembered"),
    ("recall: the slot before", "key_similarity.h", "== wanted ? low - 1 : kUnknown", "== wanted ? low - 2 : kUnknown", 0,
     "newest_keys.cu", "WhatIsRemembered"),
    ("recall: new keys are old", "key_similarity.h", "return p.remembers && *Memory(slot) != KeyMemory::kNew",
     "return p.remembers && *Memory(slot) >= KeyMemory::kNew", 0, "newest_keys.cu", "WhatIsRemembered"),
    ("pool: a neighbour too few", "score_rows.cu", "i + kernel_size / 2 + 1", "i + kernel_size / 2", 0, "score_rows.cu",
     "Pooling"),
    ("running scores: of the candidates alone", "score_rows.cu", "if (i >= s.num_slots) return;\n  float& running",
     "if (i >= s.num_slots - window) return;\n  float& running", 0, "score_rows.cu", "RunningScores"),
    ("running scores: decay after the maximum", "score_rows.cu", "running = decayed < score ? score : decayed",
     "running = decayed < decay * score ? decay * score : decayed", 0, "score_rows.cu", "RunningScores"),
    ("running means: more windows than there were", "score_rows.cu", "min(windows[row.layer],", "max(windows[row.layer],",
     0, "score_rows.cu", "RunningMeans"),
    ("running means: the first layer's count", "score_rows.cu", "windows[row.layer]", "windows[0]", 0, "score_rows.cu",
     "LayersTogether"),
    ("staging: used again without a wait", "device_state.cc",
     "    CAIRN_CUDA_CHECK(cudaStreamSynchronize(stream));\n    if (bytes",
     "    static_cast<void>(stream);\n    if (bytes", 0, "device_state.cc", "CudaStaging"),
    ("copy: does not wait", "device_state.cc", "stream_));\n  Synchronize();\n", "nullptr));\n", 0, "device_state.cc",
     "CudaCopy"),
    ("matmul: rows taken as close", "matmul_plans.cc", "p.k, p.m, p.x_stride", "p.k, p.m, p.k", 0, "matmul_plans.cc",
     "IsExactOnIntegers"),
    ("quantize: last element left out", "quantize.cu", "i < own; i += kThreads", "i < own - 1; i += kThreads", 0,
     "quantize.cu", "Quantize"),
    ("quantize: what lies beside a row", "quantize.cu", "i < own ? ToFloat", "i < padded ? ToFloat", 0, "quantize.cu",
     "Quantize"),
    ("float8: a scale of the wrong row", "float8_matmul.cu", "x_scales[blockIdx.x]", "x_scales[0]", 0,
     "float8_matmul.cu", "Float8MatMul"),
    ("float8: no bias", "float8_matmul.cu", "value += ToFloat(bias[i])", "value += 0 * ToFloat(bias[i])", 0,
     "float8_matmul.cu", "Float8MatMul"),
    ("float8: sizes as they are", "float8_matmul.cu", "problem.m = Float8Padded(rows)", "problem.m = rows", 0, "float8_matmul.cu",
     "Float8MatMul"),
    ("float8: the library scales by W's rows alone", "matmul_plans.cc", "B_SCALE_POINTER, p.x_scales",
     "B_SCALE_POINTER, p.w_scales", 0, "matmul_plans.cc", "Float8MatMul"),
    ("sample: NaN is the largest", "sample.cu", "logit == logit ? logit + 0.0f : -INFINITY", "logit", 0, "sample.cu",
     "Sample"),
    ("sample: a warp too few", "sample.cu", "warp = 1; warp < kWarps", "warp = 1; warp < kWarps - 1", 0, "sample.cu",
     "Sample"),
    ("sample: no barrier before the total", "sample.cu", "  __syncthreads();\n  if (threadIdx.x != 0) return;",
     "  if (threadIdx.x != 0) return;", 0, "sample.cu", "Sample"),
    ("sample: no barrier after the chunk", "sample.cu", "  __syncthreads();\n  if (place.chunk < 0) return;",
     "  if (place.chunk < 0) return;", 0, "sample.cu", "Sample"),
    ("sample: no barrier after the warps' sums", "sample.cu", "  __syncthreads();\n  for (int warp = 0; warp < thread",
     "  for (int warp = 0; warp < thread", 0, "sample.cu", "Sample"),
    ("sample: a token without weight", "sample.cu", "left >= weight; weight =", "left > weight; weight =", 0,
     "sample.cu", "Sample"),
    ("sample: the rank itself is before it", "sample.cu", "rank < p.rank ? sum", "rank <= p.rank ? sum", 0,
     "sample.cu", "Sample"),
    ("matmul: no bias", "matmul_plans.cc", "int32_t{CUBLASLT_EPILOGUE_BIAS}", "int32_t{CUBLASLT_EPILOGUE_DEFAULT}", 0,
     "matmul_plans.cc", "IsWithinTheRounding"),
]


def replaced(text, old, new, occurrence):
    at = -1
    for _ in range(occurrence + 1):
        at = text.find(old, at + 1)
        if at < 0:
            return None
    return text[:at] + new + text[at + len(old):]


def compile_command(build, unit):
    """The command for the emulated object of a file, as a list, and its directory."""
    for entry in json.loads((build / "compile_commands.json").read_text()):
        if entry["file"].endswith(KERNELS + unit) and "cairn_kernels_emulated" in entry["command"]:
            return shlex.split(entry["command"]), entry["directory"]
    sys.exit(f"mutate_kernels: {unit} is not part of the emulated library in {build}")


def link_command(build):
    target = "tests/emulator/kernels_emulated_test"
    lines = subprocess.run(["ninja", "-C", build, "-t", "commands", target], capture_output=True, text=True, check=True)
    line = next(l for l in reversed(lines.stdout.splitlines()) if f"-o {target}" in l)
    words = shlex.split(line)
    begin = next(i for i, word in enumerate(words) if word.endswith(("g++", "c++", "clang++")))
    end = words.index("&&", begin) if "&&" in words[begin:] else len(words)
    words = words[begin:end]
    return words, words.index(target)


def verdict(build, work, mutation):
    name, file, old, new, occurrence, unit, tests = mutation
    source = ROOT / KERNELS / file
    text = replaced(source.read_text(), old, new, occurrence)
    if text is None:
        return "STALE: the text to change is not there"
    copy = work / KERNELS / file
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(text)
    command, directory = compile_command(build, unit)
    mutant_object, mutant = work / "mutant.o", work / "mutant_test"
    command[command.index("-o") + 1] = str(mutant_object)
    command[-1] = str(copy if file == unit else ROOT / KERNELS / unit)
    first_include = next(i for i, word in enumerate(command) if word.startswith("-I"))
    command.insert(first_include, f"-I{work}")  # a changed header hides the real one
    compiled = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    copy.unlink()
    if compiled.returncode != 0:
        return "DOES NOT COMPILE: " + compiled.stderr[:300]
    words, at = link_command(build)
    words[at] = str(mutant)
    words.insert(at + 1, str(mutant_object))  # ahead of the library that has the right one
    subprocess.run(words, cwd=build, check=True)
    try:
        run = subprocess.run([mutant, f"--gtest_filter=*{tests}*", "--gtest_brief=1", "--gtest_fail_fast"],
                             capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return "seen: does not end"
    if run.returncode == 0:
        return "NOT SEEN"
    output = run.stdout + run.stderr
    by = next((sign for sign in ("race on", "out of bounds", "at different", "wait for each other") if sign in output),
              "wrong answer")
    return "seen: " + by


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    build = pathlib.Path(sys.argv[1]).resolve()
    chosen = [m for m in MUTATIONS if not sys.argv[2:] or any(word in m[0] for word in sys.argv[2:])]
    seen = 0
    for mutation in chosen:
        with tempfile.TemporaryDirectory() as work:
            result = verdict(build, pathlib.Path(work), mutation)
        seen += result.startswith("seen")
        print(f"{mutation[0]:42} {result}", flush=True)
    print(f"{seen} of {len(chosen)} mistakes seen")
    return 0 if seen == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
