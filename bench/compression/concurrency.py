#!/usr/bin/env python3
"""The same batch in the same KV pool: full cache, compressed uniformly, compressed by a pyramid, side by side.

  bench/compression/concurrency.py MODEL OUT_DIR [--requests 32] [--answer 4096] [--full 4] [--budget 256]
                                   [--buffer 128] [--prompt 16] [--settings full,uniform,pyramid] [--cairn BINARY]

MODEL is a checkpoint's directory or a shape of configs/models (random weights). The pool holds --full uncompressed
requests of --prompt + --answer tokens; what compressed runs need beside it (the last queries of each sequence) is given
on top and reported. Every request has its own random prompt and runs to its last token (ignore_eos). A setting that has
its summary in OUT_DIR already is not run again. Writes OUT_DIR/{SETTING.json,table.md}.
"""
import argparse
import json
import os
import pathlib
import platform
import random
import subprocess
import sys
import time

REPO = pathlib.Path(__file__).resolve().parents[2]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--answer", type=int, default=4096)
    parser.add_argument("--full", type=int, default=4)
    parser.add_argument("--budget", type=int, default=256)
    parser.add_argument("--buffer", type=int, default=128)
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--settings", default="full,uniform,pyramid")
    parser.add_argument("--cairn", default=str(REPO / "build/release/cairn"))
    return parser.parse_args()


def flags_of(args, setting):
    model = ["--model", args.model] + ([] if os.path.isdir(args.model) else ["--load-format", "dummy"])
    common = model + ["--max-model-len", str(args.prompt + args.answer), "--max-num-seqs", str(args.requests)]
    if setting == "full":
        return common
    return common + ["--kv-compression", "rkv", "--kv-budget", str(args.budget), "--kv-buffer", str(args.buffer),
                     "--kv-schedule", setting]


def plan_of(args, setting):
    path = args.out / "plan.json"
    subprocess.run([args.cairn, "plan", *flags_of(args, setting), "--rank-memory-bytes", "64GiB", "--quiet",
                    "--output-json", str(path)], check=True)
    plan = json.loads(path.read_text())
    path.unlink()
    return plan


def run(args, setting):
    summary = args.out / f"{setting}.json"
    stage = plan_of(args, setting)["stages"][0]
    pool = args.full * stage["kv_bytes_per_sequence"]
    rings = stage["query_ring_bytes_per_rank"]
    allowed = args.full if setting == "full" else pool // stage["compressed_kv_bytes_per_sequence"]
    if not summary.exists():
        partial = args.out / f"{setting}.partial.json"
        subprocess.run([args.cairn, "run-batch", *flags_of(args, setting), "-i", str(args.out / "requests.jsonl"),
                        "-o", str(args.out / f"{setting}.jsonl"), "--overwrite", "--kv-cache-memory-bytes",
                        str(pool + rings), "--output-json", str(partial)], check=True)
        partial.rename(summary)
        (args.out / f"{setting}.jsonl").unlink()
    result = json.loads(summary.read_text())
    result.update(setting=setting, pool_bytes=pool, ring_bytes=rings, allowed=min(allowed, args.requests))
    return result


def main():
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    with open(args.out / "requests.jsonl", "w") as file:
        for i in range(args.requests):
            prompt = [rng.randrange(3, 250) for _ in range(args.prompt)]
            file.write(json.dumps({"custom_id": f"r{i}", "method": "POST", "url": "/v1/completions",
                                   "body": {"prompt": prompt, "max_tokens": args.answer, "ignore_eos": True,
                                            "temperature": 1.0, "seed": i}}) + "\n")
    results = [run(args, setting) for setting in args.settings.split(",")]
    commit = subprocess.run(["git", "-C", str(REPO), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    lines = [
        f"{args.requests} requests of {args.prompt} + {args.answer} tokens, {args.model}; KV pool of "
        f"{results[0]['pool_bytes'] / 2**20:.1f} MiB = {args.full} uncompressed requests; rkv {args.budget} + "
        f"{args.buffer}. {time.strftime('%Y-%m-%d')}, commit {commit.stdout.strip()}, {os.cpu_count()} cores of {cpu}.",
        "",
        "| cache | at once | allowed | seconds | tokens/s | tokens/step | ms/step | preemptions | compressing | queries |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for r in results:
        steps = max(1, r["steps"])
        lines.append(
            f"| {r['setting']} | {r['peak_running']} | {r['allowed']} | {r['elapsed_time']:.1f} | "
            f"{r['output_tokens_per_second']:.1f} | {r['generated_tokens'] / steps:.1f} | "
            f"{1000 * r['elapsed_time'] / steps:.2f} | {r['preemptions']} | {100 * r['compression_share']:.1f} % | "
            f"{r['ring_bytes'] / 2**20:.1f} MiB |")
    full = next((r for r in results if r["setting"] == "full"), None)
    if full:
        for r in results:
            if r is full:
                continue
            faster = full["elapsed_time"] / r["elapsed_time"]
            bound = r["allowed"] / args.full
            lines.append("")
            lines.append(f"{r['setting']}: {faster:.2f} times as fast as the full cache; {bound:.1f} times as many at "
                         f"once is the arithmetic's bound, of which this is {100 * faster / bound:.0f} %.")
    text = "\n".join(lines) + "\n"
    (args.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    sys.exit(main())
