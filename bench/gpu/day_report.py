"""What day.py has recorded, as a page to read: each figure beside its goal.

The goals are those of the project: decode at 75 % of the roofline, decode attention at 85 % of the copy bandwidth (60 %
where less than 1 GB is read per launch), compression within 1 % of decode time, and a compressed cache that gains within
10 % of what the arithmetic allows over the full one in the same memory.
"""
EMULATED = "EMULATED: no GPU ran any of this; times and rates are not a GPU's."

DECODE_GOAL, ATTENTION_GOAL, SMALL_ATTENTION_GOAL = 0.75, 0.85, 0.60
COMPRESSION_GOAL, GAIN_GOAL = 0.01, 0.90
LARGE_LAUNCH_BYTES = 1e9

# What the stages of whole engines end in, and the memory that this says. R-KV's table (arXiv 2505.24133): 9.19 times.
MEMORIES = {"": "the same memory", "_80gb": "80 GB (R-KV's table on an A100 has 9.19 times at 16,384)"}


def figures(record, stage, figure):
    found = record["stages"].get(stage, {}).get("figures", [])
    return [line for line in found if line.get("figure") == figure]


def first(record, stage, figure):
    return next(iter(figures(record, stage, figure)), None)


def ran_on(record):
    if record["emulated"]:
        return EMULATED
    device = first(record, "versions", "device")
    return device["name"] if device else "a GPU that stage `versions` has not named"


def ceilings(record):
    """{bytes per second of a copy, operations per second of a large bf16 product}; None where not measured."""
    copy, peak = first(record, "ceilings", "copy"), first(record, "ceilings", "peak")
    return (copy["GB/s"] * 1e9 if copy else None), (peak["TFLOP/s"] * 1e12 if peak else None)


def step_bound(engine, line, bandwidth, peak):
    """Seconds that a decode step takes at least: the weights read once or used at the full rate, and the cache read."""
    weights = max(engine["weight_bytes_read"] / bandwidth, 2 * line["batch"] * engine["weights_read"] / peak)
    return weights + line["batch"] * line["slots"] * engine["kv_bytes_per_token"] / bandwidth


def decodes(record, stage):
    """The cases that ran, each with its share of the bound where the ceilings are known."""
    engine, (bandwidth, peak) = first(record, stage, "engine"), ceilings(record)
    lines = [dict(line) for line in figures(record, stage, "decode") if line.get("fits") and "ms_per_step" in line]
    for line in lines:
        if bandwidth and peak:
            line["bound_ms"] = 1e3 * step_bound(engine, line, bandwidth, peak)
            line["of_bound"] = line["bound_ms"] / line["ms_per_step"]
    return lines


def compression_share(record, line):
    """Of a decode step, by the kernels of compactions: each sequence has one per buffer and layer. Those of a sequence's
    layers are done together, or as many of them as were measured."""
    engine = first(record, "rkv", "engine")
    events = [event for event in figures(record, "compression", "event")
              if event["slots"] == engine["budget"] + engine["buffer"] and event["batch"] <= engine["num_layers"]]
    if not events:
        return None
    event = max(events, key=lambda event: event["batch"])
    per_step = event["us"] / event["batch"] * engine["num_layers"] * line["batch"] / engine["buffer"]
    return per_step / (1e3 * line["ms_per_step"])


def goal(what, wanted, got, at_most=False):
    reached = got <= wanted if at_most else got >= wanted
    off = abs(got - wanted)
    return {"goal": what, "wanted": f"{'<=' if at_most else '>='} {100 * wanted:.0f} %", "got": f"{100 * got:.1f} %",
            "verdict": "reached" if reached else f"missed by {100 * off:.1f} points"}


def gains(record, memory=""):
    """Compressed against full in the same memory, for each answer length that a full case stands for."""
    rows = []
    best = [line for line in decodes(record, "rkv" + memory) if line["case"].startswith("max:")]
    for full in decodes(record, "full" + memory):
        if not full["case"].startswith("max@") or not best or "bound_ms" not in full:
            continue
        rkv = best[0]
        answer = int(full["case"][4:].split(":")[0])
        allowed = (rkv["batch"] / rkv["bound_ms"]) / (full["batch"] / full["bound_ms"])
        measured = rkv["tokens_per_second"] / full["tokens_per_second"]
        rows.append({"answer": answer, "full": full, "rkv": rkv, "measured": measured, "allowed": allowed})
    return rows


def goals(record):
    """One row per goal and figure; empty on the emulator, whose times say nothing."""
    if record["emulated"]:
        return []
    rows = []
    bandwidth, _ = ceilings(record)
    for stage in ("full", "rkv"):
        for line in decodes(record, stage):
            if "of_bound" in line:
                rows.append(goal(f"decode, {stage}, batch {line['batch']} x {line['slots']} slots: share of the roofline",
                                 DECODE_GOAL, line["of_bound"]))
    for line in figures(record, "attention", "attention"):
        if not bandwidth:
            break
        read = 1e3 * line["GB/s"] * line["us"]  # bytes
        rows.append(goal(f"decode attention, {line['batch']} x {line['slots']} slots, {line['kv_heads']} KV heads "
                         f"({read / 1e9:.2f} GB): share of the copy bandwidth",
                         ATTENTION_GOAL if read >= LARGE_LAUNCH_BYTES else SMALL_ATTENTION_GOAL,
                         1e9 * line["GB/s"] / bandwidth))
    for line in decodes(record, "rkv"):
        share = compression_share(record, line)
        if share is not None:
            rows.append(goal(f"compression, batch {line['batch']}: share of decode time", COMPRESSION_GOAL, share,
                             at_most=True))
    for memory, words in MEMORIES.items():
        for row in gains(record, memory):
            rows.append(goal(f"rkv over full in {words}, answers of {row['answer']} tokens: {row['measured']:.2f} times "
                             f"as fast, {row['allowed']:.2f} by arithmetic; share", GAIN_GOAL,
                             row["measured"] / row["allowed"]))
    return rows


def table(head, rows):
    if not rows:
        return []
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows] + [""]


def number(value, digits=1):
    return "" if value is None else f"{value:.{digits}f}"


def why(stage):
    reason = stage.get("why", "")
    return "; ".join(reason) if isinstance(reason, list) else reason


def counts(stage):
    if "tests" in stage:
        return f"{stage['tests'] - stage['skipped'] - len(stage['failed'])} of {stage['tests']} tests passed"
    if "runs" in stage:
        return f"{sum(run['status'] == 'ok' for run in stage['runs'])} of {len(stage['runs'])} runs agree"
    return f"{len(stage['figures'])} figures" if stage.get("figures") else ""


def stage_table(record, names):
    rows = []
    for name in names:
        stage = record["stages"].get(name, {"status": "not run"})
        result = "; ".join(filter(None, [counts(stage), stage.get("summary", ""), why(stage)]))
        rows.append([name, stage["status"], stage.get("seconds", ""), result.replace("|", "\\|")])
    return table(["stage", "status", "s", "result"], rows)


def matmul_table(record):
    bandwidth, peak = ceilings(record)
    rows = {}
    for line in figures(record, "matmuls", "matmul"):
        row = rows.setdefault((line["weights"], line["m"]), {})
        row[line["type"], "0" if line["workspace"] == 0 else "ws"] = line
    out = []
    for (weights, m), row in rows.items():
        cells = [weights, m]
        for kind in ("bf16", "fp8"):
            plain, with_space = row.get((kind, "0"), {}), row.get((kind, "ws"), {})
            us, best = with_space.get("us"), with_space.get("best_us")
            share = None
            if us and bandwidth and peak:
                rate = peak * (2 if kind == "fp8" else 1)  # the tensor cores' fp8 rate is twice that of bf16
                bound = max(with_space["GB/s"] * 1e9 * us / bandwidth, with_space["TFLOP/s"] * 1e12 * us / rate)
                share = 100 * bound / us
            cells += [number(plain.get("us")), number(us), number(best), number(share, 0)]
        out.append(cells)
    return table(["weights", "M", "bf16, no workspace, us", "32 MiB", "best of 4", "% of bound", "fp8, no workspace, us",
                  "32 MiB", "best of 4", "% of bound"], out)


def decode_table(record, stage):
    return table(["case", "batch", "slots", "tokens/s", "ms/step", "p50", "p99", "bound ms", "% of bound",
                  "host's compression %", "prompt tokens/s"],
                 [[line["case"], line["batch"], line["slots"], number(line["tokens_per_second"]),
                   number(line["ms_per_step"], 2), number(line["ms_per_step_p50"], 2),
                   number(line["ms_per_step_p99"], 2), number(line.get("bound_ms"), 2),
                   number(100 * line["of_bound"]) if "of_bound" in line else "",
                   number(100 * line["host_compression_share"], 2), number(line["prefill_tokens_per_second"], 0)]
                  for line in decodes(record, stage)])


def report(record, names):
    """Markdown. The first line says what ran it."""
    lines = [record["ran_on"] if record["emulated"] else f"Ran on: {record['ran_on']}", "",
             f"Commit {record['commit']}, {record['date']}.", ""]
    lines += ["## Stages", "", *stage_table(record, names)]
    rows = goals(record)
    if rows:
        lines += ["## Goals", "", *table(["figure", "goal", "measured", ""], [list(row.values()) for row in rows])]
    elif record["emulated"]:
        lines += ["Goals are for a GPU: none is judged here.", ""]
    device, bandwidth_and_peak = first(record, "versions", "device"), ceilings(record)
    about = {key: value for key, value in record["stages"].get("versions", {}).items()
             if key not in ("figures", "status", "seconds")} | (device or {})
    about.pop("figure", None)
    lines += ["## Machine", "", *table(["", ""], [[key, str(value).replace("\n", "; ")] for key, value in about.items()])]
    if None not in bandwidth_and_peak and not record["emulated"]:
        lines += [f"Copy {bandwidth_and_peak[0] / 1e9:.0f} GB/s (read + written), bf16 product "
                  f"{bandwidth_and_peak[1] / 1e12:.0f} TFLOP/s.", ""]
    kernels = figures(record, "attention", "attention")
    for name in ("importance", "redundancy", "redundancy_again", "selection", "compaction", "first_event", "event"):
        kernels += figures(record, "compression", name)
    if kernels:
        lines += ["## Kernels", "", "Median of cold launches, each between two events.", "",
                  *table(["kernel", "batch", "slots", "KV heads", "us", "GB/s", "TFLOP/s"],
                         [[line["figure"], line.get("batch", 1), line["slots"], line["kv_heads"], number(line["us"]),
                           number(line.get("GB/s")), number(line.get("TFLOP/s"), 2)] for line in kernels])]
    for stage in (kind + memory for memory in MEMORIES for kind in ("full", "rkv")):
        if decodes(record, stage):
            lines += [f"## 8B-shaped, {stage}" if not record["emulated"] else f"## Tiny model, {stage}", "",
                      *decode_table(record, stage)]
    if figures(record, "matmuls", "matmul"):
        lines += ["## cuBLASLt", "", *matmul_table(record)]
    differing = [run for name in ("greedy", "nccl") for run in record["stages"].get(name, {}).get("runs", [])
                 if run["status"] != "ok"]
    if differing:
        lines += ["## Runs that did not agree", "",
                  *table(["run", "status", ""], [[run["name"], run["status"], why(run)] for run in differing])]
    return "\n".join(lines)
