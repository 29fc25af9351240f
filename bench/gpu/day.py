#!/usr/bin/env python3
"""The day a GPU is there: ten minutes that need no hand. Python's standard library alone.

  bench/gpu/day.py [--out day] [--build build/release] [--minutes 10] [--only STAGE[,STAGE]] [--emulated]

From a bundle (tools/bundle --with-tests) it runs that bundle's programs, from a checkout those of --build. Each stage has
its own time limit; one that fails or is cut short is recorded, and the next one runs. Stages that were recorded in --out
before are kept with --only, which runs the ones named (again).

Writes OUT/day.json (everything), OUT/report.md (to read: each figure beside its goal) and OUT/logs.

  --emulated   the same stages at small sizes on the CUDA emulator, to show that the script runs to its end without a
               GPU. Nothing that it reports is a GPU's, and the report's first line says so.

Exit status: 0 if no stage failed, 1 if one did, 69 if there is no GPU.
"""
import argparse
import concurrent.futures
import ctypes
import datetime
import glob
import itertools
import json
import os
import pathlib
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import day_report

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent  # of the checkout or of the bundle

# Where a build leaves the programs; a bundle has them all in bin/.
FOLDERS = (".", "tests", "bench", "tests/emulator")
EMULATED = {"kernels_test": "kernels_emulated_test", "gpu_bench": "gpu_bench_emulated",
            "gpu_decode_bench": "gpu_decode_bench_emulated", "cairn": "cairn_emulated",
            "nccl_conformance": "nccl_conformance_emulated"}

NOT_BUILT = re.compile(r"no CUDA version is built|has no (CUDA|GPU) backend|unknown flag --comm|no NCCL|without NCCL")
# Two ranks on one GPU with an NCCL that refuses them: each claims to be a host of its own (docs/cuda.md).
SHARED_GPU = {"NCCL_NET": "Socket", "NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": "1", "NCCL_MNNVL_ENABLE": "0",
              "NCCL_NVLS_ENABLE": "0", "NCCL_ALGO": "Ring", "NCCL_PROTO": "Simple", "NCCL_MAX_CTAS": "2",
              "NCCL_RAS_ENABLE": "0"}
MULTI_RANK_GPU = 23003  # from 2.30.3 on NCCL_MULTI_RANK_GPU_ENABLE=1 allows them


class NotBuilt(Exception):
    pass


class Done:
    """A program that has run: its status (None: cut short), output and time."""

    def __init__(self, status, out, err, seconds):
        self.status, self.out, self.err, self.seconds = status, out, err, seconds

    def figures(self):
        found = []
        for line in self.out.splitlines():
            if line.startswith("{"):
                try:
                    found.append(json.loads(line))
                except ValueError:
                    pass  # cut short in the middle of a line
        return found

    def verdict(self):
        """{"status": ..., "why": ...} of a program that should have ended well."""
        if self.status == 0:
            return {"status": "ok"}
        if NOT_BUILT.search(self.err):
            return {"status": "not built", "why": last_line(self.err)}
        if self.status is None:
            return {"status": "cut short", "why": f"its limit of {self.seconds:.0f} s was over"}
        return {"status": "failed", "why": f"exit status {self.status}: {last_line(self.err) or last_line(self.out)}"}


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:400] if lines else ""


class Day:
    def __init__(self, args):
        self.args = args
        self.out = args.out.resolve()
        self.in_bundle = (ROOT / "bundle.json").exists() and args.build is None
        self.build = (args.build or ROOT / "build/release").resolve()
        self.deadline = time.monotonic() + args.minutes * 60
        self.limit = 0.0  # of the stage that runs
        self.stage = ""
        self.calls = itertools.count(1)
        self.library_folders = cuda_folders()
        (self.out / "logs").mkdir(parents=True, exist_ok=True)
        (self.out / "work").mkdir(exist_ok=True)

    def program(self, name):
        name = EMULATED.get(name, name) if self.args.emulated else name
        folders = [ROOT / "bin"] if self.in_bundle else [self.build / folder for folder in FOLDERS]
        for folder in folders:
            if (folder / name).exists():
                return folder / name
        raise NotBuilt(f"{name} is not in {'the bundle' if self.in_bundle else self.build}")

    def data(self, in_checkout, in_bundle):
        return ROOT / (in_bundle if (ROOT / "bundle.json").exists() else in_checkout)

    def environment(self):
        env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                   OMPI_MCA_rmaps_base_oversubscribe="1", OMPI_MCA_mpi_yield_when_idle="1",
                   OMPI_MCA_btl_vader_single_copy_mechanism="none")
        folders = ([str(ROOT / "lib")] if self.in_bundle else []) + self.library_folders
        env["LD_LIBRARY_PATH"] = ":".join(filter(None, [*folders, env.get("LD_LIBRARY_PATH", "")]))
        env.setdefault("CAIRN_CONFIGS_DIR", str(ROOT / "configs"))
        return env

    def run(self, command, limit=None, env=None):
        """Runs a command in a process group of its own, which is ended when its time is over."""
        left = self.limit if limit is None else min(limit, self.limit)
        stem = self.out / "logs" / f"{self.stage}.{next(self.calls)}"
        begin = time.monotonic()
        with open(f"{stem}.out", "w+") as out, open(f"{stem}.err", "w+") as err:
            err.write("$ " + " ".join(map(str, command)) + "\n")
            err.flush()
            process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=err, stdin=subprocess.DEVNULL,
                                       cwd=self.out / "work", env=self.environment() | (env or {}),
                                       start_new_session=True)
            try:
                status = process.wait(timeout=max(1.0, left))
            except subprocess.TimeoutExpired:
                status = None
            if status is None or status < 0:
                end_group(process)
            out.seek(0)
            err.seek(0)
            seconds = time.monotonic() - begin
            self.limit = max(0.0, self.limit - seconds)
            return Done(status, out.read(), err.read().partition("\n")[2], seconds)

    def run_tests(self, command):
        """A program of GoogleTest, its tests shared out among processes that run at the same time: (Done, counts)."""
        shards = max(1, min(8, (os.cpu_count() or 1) // 2))
        reports = [self.out / "work" / f"{self.stage}.{shard}.json" for shard in range(shards)]
        limit, begin = self.limit, time.monotonic()

        def run_shard(shard):
            reports[shard].unlink(missing_ok=True)
            return self.run([*command, f"--gtest_output=json:{reports[shard]}"], limit,
                            {"GTEST_TOTAL_SHARDS": str(shards), "GTEST_SHARD_INDEX": str(shard)})
        with concurrent.futures.ThreadPoolExecutor(shards) as pool:
            runs = list(pool.map(run_shard, range(shards)))
        seconds = time.monotonic() - begin
        self.limit = max(0.0, limit - seconds)
        worst = next((run for run in runs if run.status is None), None) or max(runs, key=lambda run: abs(run.status))
        whole = Done(worst.status, "".join(run.out for run in runs), worst.err, seconds)
        return whole, add_counts([test_counts(report) for report in reports])

    def mpirun(self, ranks, command, per_rank=None, limit=None):
        """`per_rank(rank)`: variables that each rank gets of its own."""
        launcher = [ROOT / "mpirun"] if self.in_bundle else [shutil.which("mpirun") or "mpirun"]
        if per_rank is None:
            return self.run([*launcher, "-np", ranks, "--bind-to", "none", *command], limit)
        parts = []
        for rank in range(ranks):
            variables = [word for name, value in per_rank(rank).items() for word in ("-x", f"{name}={value}")]
            parts += [":"] * bool(parts) + ["-np", "1", *variables, *command]
        return self.run([*launcher, "--bind-to", "none", *parts], limit)


def end_group(process):
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            pass
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            pass


def cuda_folders():
    """Folders where cuBLASLt and NCCL lie outside of the loader's own places."""
    places = ["/usr/local/cuda/lib64", "/usr/local/cuda/lib", *sorted(glob.glob("/usr/local/cuda-*/lib64")),
              "/usr/local/nvidia/lib64"]
    for folder in sys.path:
        places += sorted(glob.glob(os.path.join(folder, "nvidia/*/lib")))
    return [place for place in dict.fromkeys(places)
            if any(glob.glob(os.path.join(place, f"lib{name}.so*")) for name in ("cublasLt", "nccl", "cuda"))]


def find_library(day, pattern):
    folders = ([str(ROOT / "lib")] if day.in_bundle else []) + day.library_folders
    folders += os.environ.get("LD_LIBRARY_PATH", "").split(":") + ["/usr/lib/x86_64-linux-gnu", "/usr/lib64"]
    for folder in filter(None, folders):
        for file in sorted(glob.glob(os.path.join(folder, pattern))):
            return file
    return None


def nccl_version(day):
    """22809 is 2.28.9; None where there is no NCCL."""
    file = find_library(day, "libnccl.so.*")
    if file is None:
        return None
    version = ctypes.c_int()
    try:
        return version.value if ctypes.CDLL(file).ncclGetVersion(ctypes.byref(version)) == 0 else None
    except (OSError, AttributeError):
        return None


# --- stages: each returns {"status": ok | failed | cut short | not built | skipped, ...} ---

def versions(day):
    about = {"status": "ok", "kernel": platform.release(), "python": platform.python_version(),
             "glibc": " ".join(platform.libc_ver()), "cores": os.cpu_count()}
    if shutil.which("nvidia-smi") and not day.args.emulated:
        query = "name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,power.limit"
        about["nvidia-smi"] = day.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv"]).out.strip()
    sanitizer = compute_sanitizer()
    if sanitizer:
        about["compute-sanitizer"] = last_line(day.run([sanitizer, "--version"]).out)
    if not day.args.emulated:
        for name in ("cublasLt", "nccl"):
            about[f"lib{name}"] = find_library(day, f"lib{name}.so.*") or "not found"
        about["nccl"] = nccl_version(day)
        if os.path.exists(about["libcublasLt"]):
            about["cublasLt"] = cublaslt_version(about["libcublasLt"])
    try:
        about["cairn"] = last_line(day.run([day.program("cairn"), "--version"]).out)
    except NotBuilt as absent:
        about["cairn"] = str(absent)
    done = gpu_bench(day, "device")
    about["figures"] = done.figures()
    return about | done.verdict()


def cublaslt_version(file):
    try:
        library = ctypes.CDLL(file)
        library.cublasLtGetVersion.restype = ctypes.c_size_t
        return library.cublasLtGetVersion()
    except (OSError, AttributeError):
        return None


def compute_sanitizer():
    found = shutil.which("compute-sanitizer")
    for path in sorted(glob.glob("/usr/local/cuda*/bin/compute-sanitizer")):
        found = found or path
    return found


def gpu_bench(day, group, limit=None):
    small = ["--small"] if day.args.emulated else []
    return day.run([day.program("gpu_bench"), *small, group], limit)


def figures_of(*groups):
    """A stage that runs groups of gpu_bench, each a process; the worst verdict is the stage's."""
    def stage(day):
        result = {"status": "ok", "figures": []}
        for group in groups:
            done = gpu_bench(day, group)
            result["figures"] += done.figures()
            verdict = done.verdict()
            if verdict["status"] != "ok":
                result["status"] = worse(result["status"], verdict["status"])
                result.setdefault("why", []).append(f"{group}: {verdict.get('why', verdict['status'])}")
        return result
    return stage


def worse(a, b):
    order = ["ok", "skipped", "not built", "cut short", "failed"]
    return max(a, b, key=order.index)


def test_counts(path):
    """Of a report of GoogleTest."""
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    cases = [case for suite in report.get("testsuites", []) for case in suite.get("testsuite", [])]
    failed = [f"{case['classname']}.{case['name']}" for case in cases if case.get("failures")]
    skipped = sum(case.get("result") == "SKIPPED" for case in cases)
    return {"tests": len(cases), "failed": failed, "skipped": skipped}


def add_counts(counts):
    counts = [count for count in counts if count]
    if not counts:
        return {}
    return {"tests": sum(count["tests"] for count in counts), "failed": sum((count["failed"] for count in counts), []),
            "skipped": sum(count["skipped"] for count in counts)}


def op_filter(day):
    # On the emulator a few; all of them run there in ctest.
    return "*RmsNorm*/emulated_forward:*SwiGlu*/emulated_forward" if day.args.emulated else "*/cuda*"


def op_tests(day):
    done, counts = day.run_tests([day.program("kernels_test"), f"--gtest_filter={op_filter(day)}"])
    result = {"figures": []} | done.verdict() | counts
    if result["status"] == "ok" and result.get("tests", 0) <= result.get("skipped", 0):
        result.update(status="failed", why="no test ran: is there a GPU?")
    return result


def sanitized(tool, tests):
    """The op tests under a tool of compute-sanitizer, which sees what the tests' answers may not show."""
    def stage(day):
        sanitizer = compute_sanitizer()
        if day.args.emulated:
            return {"status": "skipped", "why": "the emulator has its own checks"}
        if sanitizer is None:
            return {"status": "skipped", "why": "compute-sanitizer is not on this machine"}
        # Running out of memory on purpose is an error to memcheck.
        options = ["--report-api-errors", "no"] if tool == "memcheck" else []
        done, counts = day.run_tests([sanitizer, "--tool", tool, "--error-exitcode", "86", "--target-processes", "all",
                                      *options, day.program("kernels_test"), f"--gtest_filter={tests}"])
        result = {"figures": [], "tests_under": tests} | done.verdict() | counts
        summaries = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", done.out)
        result["summary"] = "; ".join(sorted(set(summaries))) or "none: it did not come to its end"
        return result
    return stage


def write_requests(path, vocabulary, count, answer, shortest=5, step=9):
    rng = random.Random(1)
    with open(path, "w") as file:
        for i in range(count):
            prompt = [rng.randrange(3, vocabulary) for _ in range(shortest + step * i)]
            file.write(json.dumps({"custom_id": f"r{i}", "method": "POST", "url": "/v1/completions",
                                   "body": {"prompt": prompt, "max_tokens": answer, "temperature": 0,
                                            "ignore_eos": True, "return_token_ids": True}}) + "\n")


def read_tokens(path):
    tokens = {}
    for line in open(path):
        record = json.loads(line)
        tokens[record["custom_id"]] = record["response"]["body"]["choices"][0]["token_ids"]
    return tokens


def checkpoints(day):
    folder = day.data("tests/data/checkpoints", "checkpoints")
    found = sorted(path.parent for path in folder.glob("*/config.json"))
    return [path for path in found if path.name == "llama3"] if day.args.emulated else found


COMPRESSED = ["--kv-compression", "rkv", "--kv-budget", "16", "--kv-buffer", "8", "--kv-window", "4"]


def batch_command(day, checkpoint, requests, answers, *flags):
    return [day.program("cairn"), "run-batch", "--model", checkpoint, "--dtype", "float32", "--max-model-len", "256",
            "--kv-cache-memory-bytes", "64MiB", "-i", requests, "-o", answers, "--overwrite", "--quiet", *flags]


def compare_with_cpu(day, checkpoint, name, policy, flags, start):
    """Greedy tokens in float32 of some way to run against the CPU's alone. {"name", "equal", "of", "status"}."""
    work = day.out / "work"
    requests, expected, got = work / f"{name}.in", work / f"{name}.cpu", work / f"{name}.out"
    vocabulary = json.loads((checkpoint / "config.json").read_text())["vocab_size"]
    count, answer = (2, 12) if day.args.emulated else (5, 48)
    write_requests(requests, vocabulary, count, answer)
    reference = day.run(batch_command(day, checkpoint, requests, expected, "--device", "cpu", *policy))
    if reference.status != 0:
        return {"name": name} | reference.verdict()
    done = start(batch_command(day, checkpoint, requests, got, *policy, *flags))
    result = {"name": name, "of": count, "seconds": done.seconds} | done.verdict()
    if done.status == 0:
        a, b = read_tokens(expected), read_tokens(got)
        result["equal"] = sum(a[key] == b.get(key) for key in a)
        if result["equal"] != count:
            result.update(status="failed", why=f"{count - result['equal']} of {count} answers differ from the CPU's")
    return result


def stage_of_runs(runs):
    result = {"status": "ok", "runs": runs}
    for run in runs:
        if run["status"] != "ok":
            result["status"] = worse(result["status"], run["status"])
            result.setdefault("why", []).append(f"{run['name']}: {run.get('why', run['status'])}")
    return result


def greedy(day):
    runs = []
    for checkpoint in checkpoints(day):
        for kind, policy in (("full", []), ("rkv", COMPRESSED)):
            runs.append(compare_with_cpu(day, checkpoint, f"{checkpoint.name}-{kind}", policy, ["--device", "cuda"],
                                         day.run))
    return stage_of_runs(runs)


def nccl(day):
    checkpoint = next(path for path in checkpoints(day) if path.name == "llama3")
    version = nccl_version(day) or 0
    shared = SHARED_GPU if version < MULTI_RANK_GPU else {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "NCCL_NVLS_ENABLE": "0"}

    def of_rank(rank):
        return shared | ({"NCCL_HOSTID": f"rank{rank}"} if version < MULTI_RANK_GPU else {})

    two = ["--device", "cuda", "-tp", "2"]
    runs = [
        compare_with_cpu(day, checkpoint, "nccl-1-rank", [], ["--device", "cuda", "--comm", "nccl"],
                         lambda command: day.mpirun(1, command, limit=60)),
        compare_with_cpu(day, checkpoint, "mpi-2-ranks-1-gpu", [], [*two, "--comm", "mpi"],
                         lambda command: day.mpirun(2, command, limit=60)),
        compare_with_cpu(day, checkpoint, "nccl-2-ranks-1-gpu", [], [*two, "--comm", "nccl"],
                         lambda command: day.mpirun(2, command, of_rank, limit=90)),
    ]
    try:
        done = day.mpirun(2, [day.program("nccl_conformance")], of_rank, limit=60)
        runs.append({"name": "nccl-conformance-2-ranks", "seconds": done.seconds} | done.verdict())
    except NotBuilt as absent:
        runs.append({"name": "nccl-conformance-2-ranks", "status": "not built", "why": str(absent)})
    return stage_of_runs(runs)


def end_to_end(compression, cases, *flags):
    """An 8B-shaped model of random weights in bf16, its cases on one engine."""
    def stage(day):
        command = [day.program("gpu_decode_bench"), *flags]
        if day.args.emulated:
            command = [day.program("gpu_decode_bench"), "--model", checkpoints(day)[0], "--dtype", "float32",
                       "--cases", "1:12,2:16", "--steps", "2", "--max-num-seqs", "4", "--max-num-batched-tokens", "32",
                       "--max-model-len", "128", "--kv-cache-memory-bytes", str(8 << 20), "--kv-budget", "16",
                       "--kv-buffer", "4", "--kv-window", "4", "--kv-compression", compression]
        else:
            command += ["--model", "llama-3.1-8b", "--load-format", "dummy", "--dtype", "bfloat16", "--cases", cases,
                        "--kv-compression", compression]
        done = day.run(command)
        return {"figures": done.figures()} | done.verdict()
    return stage


def on_80_gb(compression, cases, *flags):
    """The same in the memory of an 80 GB card, the shape of R-KV's table (an A100), where the GPU has more."""
    def stage(day):
        devices = [line for line in gpu_bench(day, "device").figures() if line["figure"] == "device"]
        total = devices[0]["total_bytes"] if devices else 0
        if total < 90e9 and not day.args.emulated:
            return {"status": "skipped", "why": f"the GPU has {total / 1e9:.0f} GB: stages rkv and full are this shape"}
        share = min(0.9, 0.9 * 80e9 / total)
        return end_to_end(compression, cases, "--gpu-memory-utilization", f"{share:.4f}", *flags)(day)
    return stage


# Name, seconds at most, what it does. In the order of their worth, should time run out.
STAGES = {
    "versions": (20, versions),
    "ceilings": (20, figures_of("copy", "peak")),
    "op_tests": (60, op_tests),
    "greedy": (60, greedy),
    "attention": (20, figures_of("attention")),
    "compression": (20, figures_of("importance", "redundancy", "selection", "compaction", "event")),
    "rkv": (110, end_to_end("rkv", "1:1024,64:1024,max:1024", "--max-model-len", "32768", "--max-num-seqs", "640",
                            "--steps", "144", "--spread", "128")),
    "full": (110, end_to_end("none", "1:8192,64:4096,max@16384:8192,max@32768:16384", "--max-model-len", "32768",
                             "--max-num-seqs", "128", "--steps", "24")),
    "nccl": (80, nccl),
    "rkv_80gb": (60, on_80_gb("rkv", "max:1024", "--max-model-len", "16384", "--max-num-seqs", "640", "--steps", "144",
                               "--spread", "128")),
    "full_80gb": (60, on_80_gb("none", "max@16384:8192", "--max-model-len", "16384", "--max-num-seqs", "128",
                               "--steps", "24")),
    "matmuls": (40, figures_of("matmul")),
    "memcheck": (60, sanitized("memcheck", "*/cuda*")),
    "racecheck": (60, sanitized("racecheck", "*Attention*/cuda*:*Norm*/cuda*:*KvScores*/cuda*:*KvSelect*/cuda*"
                                             ":*Rope*/cuda*:*SwiGlu*/cuda*:*WindowQueries*/cuda*:*LayersTogether*/cuda*")),
}


def run_stage(day, name):
    limit, stage = STAGES[name]
    left = day.deadline - time.monotonic()
    if left < 3:
        return {"status": "skipped", "why": "the time was over", "seconds": 0}
    day.stage, day.calls, day.limit = name, itertools.count(1), min(limit, left)
    begin = time.monotonic()
    try:
        result = stage(day)
    except NotBuilt as absent:
        result = {"status": "not built", "why": str(absent)}
    except Exception as error:  # the next stage runs all the same
        result = {"status": "failed", "why": f"{type(error).__name__}: {error}"}
    result["seconds"] = round(time.monotonic() - begin, 1)
    return result


def commit_of():
    if (ROOT / "bundle.json").exists():
        return json.loads((ROOT / "bundle.json").read_text())["commit"]
    git = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
                         capture_output=True, text=True)
    return git.stdout.strip() or "unknown"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("day"))
    parser.add_argument("--build", type=pathlib.Path, help="a build folder (default: the bundle's bin, or build/release)")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", help=f"stages of {', '.join(STAGES)}")
    parser.add_argument("--emulated", action="store_true")
    args = parser.parse_args()
    args.stages = args.only.split(",") if args.only else list(STAGES)
    for name in args.stages:
        if name not in STAGES:
            parser.error(f"--only: there is no stage {name}; there are {', '.join(STAGES)}")
    return args


def has_gpu():
    for name in ("libcuda.so.1", "/usr/local/nvidia/lib64/libcuda.so.1"):
        try:
            cuda, count = ctypes.CDLL(name), ctypes.c_int()
            if cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0:
                return True
        except OSError:
            pass
    return False


def main():
    args = arguments()
    if not args.emulated and not has_gpu():
        print("day: no GPU (libcuda.so.1 finds none); --emulated runs the script at small sizes on the CUDA emulator",
              file=sys.stderr)
        return 69
    day = Day(args)
    path = day.out / "day.json"
    record = json.loads(path.read_text()) if args.only and path.exists() else {"stages": {}}
    if record.get("emulated", args.emulated) != args.emulated:
        print(f"day: {path} is of a run {'on the emulator' if record['emulated'] else 'on a GPU'}: name another --out",
              file=sys.stderr)
        return 64
    record = {"ran_on": "", "emulated": args.emulated, "commit": commit_of(),
              "date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}"} | {"stages": record["stages"]}
    for name in args.stages:
        print(f"{name} ...", file=sys.stderr, flush=True)
        result = run_stage(day, name)
        record["stages"][name] = result
        record["ran_on"] = day_report.ran_on(record)
        print(f"{name}: {result['status']} after {result['seconds']} s", file=sys.stderr,
              flush=True)
        path.write_text(json.dumps(record, indent=1) + "\n")
        (day.out / "report.md").write_text(day_report.report(record, list(STAGES)))
    print((day.out / "report.md").read_text())
    return 1 if any(stage["status"] in ("failed", "cut short") for stage in record["stages"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
