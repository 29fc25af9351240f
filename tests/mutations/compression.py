#!/usr/bin/env python3
"""Puts known bugs of compressed caches into a copy of the sources, one at a time: a test must fail for each.

  tests/mutations/compression.py [--only NAME]... [--build DIR] [--jobs N]

The bugs are those that earlier ports of R-KV and PyramidKV had. Works in a git worktree of HEAD under --build (default
build/mutations), never in your files; the first build takes minutes, each bug one more. Prints a line for each: caught,
by which tests, or MISSED. Exit status 1 where one was missed.
"""
import argparse
import dataclasses
import pathlib
import re
import subprocess
import sys

REPO = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass
class Bug:
    name: str
    file: str
    old: str
    new: str
    tests: str  # gtest filter; of what should notice
    target: str = "engine_test"


BUGS = [
    Bug("chunked prefill is compressed between chunks", "engine/scheduler/scheduler.cc",
        "trigger.EventAt(prompt, sequence->length.fed),",
        "trigger.EventAt(prompt, sequence->length.fed) || "
        "(fed + count < prompt && fed + count > footprint_.config().budget),",
        "Policies/PolicyTest.SameSetsWhateverRunsBeside/snapkv"),
    Bug("the prompt does not reach the query ring", "engine/model/transformer.cc",
        "{rows.query_rings, cache.ring_layout().window}",
        "{rows.query_rings, T == 1 ? cache.ring_layout().window : 0}",
        "Policies/PolicyTest.SameSetsWhateverRunsBeside/rkv"),
    Bug("a batch with a prompt in it records no queries", "engine/model/transformer.cc",
        "{rows.query_rings, cache.ring_layout().window}",
        "{rows.query_rings, T == static_cast<int64_t>(rows.sequences.size()) ? cache.ring_layout().window : 0}",
        "Policies/PolicyTest.SameSetsWhateverRunsBeside/rkv"),
    Bug("sequences share a query ring", "engine/cache/kv_cache.cc",
        "static_cast<int64_t>(sequence) * num_layers_ + layer", "static_cast<int64_t>(sequence % 2) * num_layers_ + layer",
        "CompressionTest.AnswersToOnePromptDoNotShareWhatTheyKeep:CompressionTest.AFullBatchEqualsOneByOne"),
    Bug("the next token is written where it would be without the last compaction", "engine/cache/kv_cache.cc",
        "layers[layers[l].layer].num_slots = keep[l];",
        "layers[layers[l].layer].num_slots = layers[l].sequence < 60 ? keep[l] : views[l].num_slots;",
        "CompressionTest.AFullBatchEqualsOneByOne"),
    Bug("a place that is given to the next request keeps its count of tokens", "engine/cache/kv_cache.cc",
        "  sequences_[sequence].seen = 0;\n", "",
        "CompressionTest.AFullBatchEqualsOneByOne"),
    Bug("a place that is given to the next request keeps its budgets", "engine/runner/cache_compressor.cc",
        ".budgets = footprint_.BudgetsFor(open.prompt_length)}",
        ".budgets = open_[open.sequence].budgets ? open_[open.sequence].budgets "
        ": footprint_.BudgetsFor(open.prompt_length)}",
        "CompressionTest.PromptBudgetsFollowEachPrompt"),
    Bug("the share of the last tokens is forgotten", "compression/compressor.cc",
        "config_.RecentSlots(budget)", "config_.window",
        "Policies/PolicyTest.WhatIsKeptIsAscendingAndEndsInTheLastTokens/rkv"),
    Bug("lambda has another default", "compression/compression_config.h",
        "double mix_lambda = 0.1;", "double mix_lambda = 0.07;", 
        "CompressionConfigTest.DefaultsAreThoseOfTheSpecification", "compression_test"),
    Bug("evicted blocks are not freed", "engine/cache/kv_cache.cc",
        "    pool_.Free(state.blocks.back());\n", "",
        "SchedulerTest.CompressedRunsNeverOutgrowThePool:KvCacheTest.CompactionAgainstANaiveModel"),
    Bug("freed space is not given to others", "engine/scheduler/scheduler.cc",
        "  reserved_.Replace(sequence->reserved, footprint_.Bound(",
        "  (void)reserved_.CanReplace(sequence->reserved, footprint_.Bound(",
        "CompressionTest.BlocksOfCompressedPromptsAreGivenAwayAtOnce"),
    Bug("admission reserves the uncompressed length", "engine/cache/footprint.cc",
        "  if (max_fed < first) return", "  if (max_fed > 0) return",
        "CompressionTest.FreedBlocksAdmitMoreRequests"),
    Bug("query rings are not counted as memory", "engine/cache/cache_size.cc",
        "budget_bytes - size.ring_bytes", "budget_bytes",
        "CompressionTest.QueryRingsAreCounted"),
    Bug("deeper layers record no queries", "engine/model/transformer.cc",
        "{rows.query_rings, cache.ring_layout().window}",
        "{rows.query_rings, layer == 0 ? cache.ring_layout().window : 0}",
        "Goldens/CompressedReference.*"),
    Bug("replicas of a KV head score with their own queries alone", "compression/rank_sync.h",
        "bool is_replicated() const { return replicas_ > 1; }", "bool is_replicated() const { return false; }",
        "Policies/PolicyTest.SameSetsOverRanks/rkv"),
    Bug("a stage counts layers from its own first", "engine/runner/cache_compressor.h",
        "[layers_.budget(layer)]", "[layer]", "Policies/PolicyTest.SameSetsWhateverRunsBeside/rkv"),
    Bug("a head has the budget of its layer's first", "engine/cache/cache_layers.h",
        "layer(index) * num_kv_heads_ + first_head(index)", "layer(index) * num_kv_heads_",
        "Policies/PolicyTest.WhatIsKeptIsAscendingAndEndsInTheLastTokens/rkv"),
    Bug("every rank is counted with the heads of one", "engine/rank_setup.cc",
        "setup_.options.compression.by_head() ? groups_.sizes.tp : 1;", "1;",
        "CompressionTest.TheRankOfTheLargestHeadsAdmits"),
    Bug("a head attends with another's keys", "engine/model/transformer.cc",
        "(q_heads + part * kv_part) * d, (q_heads + (part + 1) * kv_part) * d", "q_heads * d, (q_heads + kv_part) * d",
        "Policies/PolicyTest.EqualHeadsAreTheLayers/rkv"),
    Bug("ranks compare what only one of them holds", "engine/runner/cache_compressor.cc",
        "!layers_.by_head() || !has_own_heads()", "true", "Policies/PolicyTest.SameSetsOverRanks/rkv"),
]


def run(command, cwd, **kwargs):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, **kwargs)


def check(bug, tree, jobs):
    path = tree / bug.file
    source = path.read_text()
    if source.count(bug.old) != 1:
        return f"STALE   {bug.name}: its place is not in {bug.file} once"
    path.write_text(source.replace(bug.old, bug.new))
    try:
        built = run(["ninja", "-C", "build/release", "-j", str(jobs), bug.target], tree)
        if built.returncode != 0:
            return f"STALE   {bug.name}: does not compile\n{built.stdout[-2000:]}"
        try:
            tested = run([f"build/release/tests/{bug.target}", f"--gtest_filter={bug.tests}"], tree, timeout=600)
        except subprocess.TimeoutExpired:
            return f"caught  {bug.name}: never ends"
        if tested.returncode == 0:
            return f"MISSED  {bug.name}"
        failed = sorted(set(re.findall(r"\[  FAILED  \] ([A-Za-z0-9_/]+\.[A-Za-z0-9_/]+)", tested.stdout)))
        return f"caught  {bug.name}: " + (", ".join(failed) or "stopped by a check")
    finally:
        path.write_text(source)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--build", type=pathlib.Path, default=REPO / "build/mutations")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    tree = args.build.resolve()
    if not tree.exists():
        subprocess.run(["git", "-C", str(REPO), "worktree", "add", "--detach", str(tree), "HEAD"], check=True)
    else:
        subprocess.run(["git", "-C", str(tree), "checkout", "--force", "--detach",
                        run(["git", "rev-parse", "HEAD"], REPO).stdout.strip()], check=True)
    subprocess.run(["cmake", "--preset", "release"], cwd=tree, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", "build/release", "-j", str(args.jobs), *sorted({bug.target for bug in BUGS})], cwd=tree,
                   check=True, stdout=subprocess.DEVNULL)
    bad = 0
    for bug in BUGS:
        if args.only and not any(part in bug.name for part in args.only):
            continue
        line = check(bug, tree, args.jobs)
        bad += not line.startswith("caught")
        print(line, flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
