#!/usr/bin/env python3
r"""What Hugging Face `tokenizers` makes of many texts: the expected values of tests/engine/text.

  python3 -m venv V && V/bin/pip install tokenizers==0.23.3
  V/bin/python tools/tokenizer_reference.py train  --out tests/data/text/tokenizers
  V/bin/python tools/tokenizer_reference.py sweep  --out tests/data/text/sweep.json \
      tests/data/text/tokenizers/{qwen2,smollm,deepseek3,metaspace}
  V/bin/python tools/tokenizer_reference.py cases  --count 100 --max-characters 24 --out tests/data/text/cases.jsonl \
      tests/data/text/tokenizers/* ../shared/tokenizers/* ../shared/models/{stories260k,babyllama105}
  V/bin/python tools/tokenizer_reference.py cases  --count 10000 --out /tmp/cases.jsonl DIRECTORY ...
  CAIRN_TOKENIZER_CASES=/tmp/cases.jsonl build/release/tests/text_test --gtest_filter='*Cases*'

train  small tokenizers, one of each kind that is supported, on the texts of tokenizer_samples.py
sweep  hashes of the ids of a text around every code point (but for the insides of large blocks), 1,024 to a hash
cases  seeded random texts and ids; a line of the file names a tokenizer, the lines after it are its cases:
       {"tokenizer": DIRECTORY}                       relative to the repository, or to ../shared as "shared:PATH"
       {"text": T or "hex": BYTES, "ids": without added special tokens, "decoded": with special tokens kept, where that is not
        T, "skipped": with special tokens left out, where that differs, "special": ids with special tokens added, likewise}
       {"ids": random ids, "decoded":, "skipped":}    "text" absent: decoding only
"""
import argparse
import json
import os
import random

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import tokenizer_samples as samples

QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
DEEPSEEK3 = [r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+",
             r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
             r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
SHARED = os.path.join(os.path.dirname(ROOT), "shared")


# ---- train ----

def byte_level(split_patterns, vocab_size, normalizer=None, use_regex=False, digits=False, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer:
        tokenizer.normalizer = normalizer
    steps = [pre_tokenizers.Split(Regex(p), "isolated") for p in split_patterns]
    if digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps + [last]) if steps else last
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(samples.TRAINING, trainer)
    return tokenizer


def qwen2():
    tokenizer = byte_level([QWEN2], 700, normalizer=normalizers.NFC())
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("<think>", "</think>", "<tool_call>")])
    return tokenizer


def llama3():
    tokenizer = byte_level([LLAMA3], 700, ignore_merges=True)
    # A word of the vocabulary that no merges lead to: only ignore_merges finds it.
    data = json.loads(tokenizer.to_str())
    for word in ("Ġcairnstone", "Ġzyzzyva"):
        data["model"]["vocab"][word] = len(data["model"]["vocab"])
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
                                  "<|eot_id|>"])
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", bos)])])
    return tokenizer


def gpt2():
    tokenizer = byte_level([], 600, use_regex=True)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.add_tokens([AddedToken("New York", single_word=True), AddedToken("[L]", lstrip=True),
                          AddedToken("[R]", rstrip=True), AddedToken("[LR]", lstrip=True, rstrip=True),
                          AddedToken("[L][R]", normalized=False), AddedToken(" [gap] ", normalized=False),
                          AddedToken("é", single_word=True)])
    return tokenizer


def smollm():
    tokenizer = byte_level([], 500, use_regex=True, digits=True)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return tokenizer


def deepseek3():
    tokenizer = byte_level(DEEPSEEK3, 600)
    tokenizer.add_special_tokens(["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"])
    return tokenizer


def llama2():
    """sentencepiece-style: no pre-tokenizer, byte fallback, fused unknowns."""
    alphabet = ["<0x%02X>" % b for b in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")  # for training only: words do not join
    trainer = trainers.BpeTrainer(vocab_size=800, show_progress=False, limit_alphabet=120,
                                  special_tokens=["<unk>", "<s>", "</s>"] + alphabet)
    tokenizer.train_from_iterator(samples.TRAINING, trainer)
    data = json.loads(tokenizer.to_str())
    data["pre_tokenizer"] = None
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] not in alphabet]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.add_tokens([AddedToken("Wednesday", normalized=True), AddedToken("<pad>", normalized=True)])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return tokenizer


def metaspace():
    """Metaspace with compatibility forms, single digits and punctuation; unknown characters one by one."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(left=False, right=True)])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Punctuation("merged_with_previous")])
    trainer = trainers.BpeTrainer(vocab_size=500, show_progress=False, limit_alphabet=100, special_tokens=["[UNK]", "[END]"])
    tokenizer.train_from_iterator(samples.TRAINING, trainer)
    tokenizer.add_tokens([AddedToken("ﬁle", normalized=True)])
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return tokenizer


TRAINED = {"qwen2": qwen2, "llama3": llama3, "gpt2": gpt2, "smollm": smollm, "deepseek3": deepseek3, "llama2": llama2,
           "metaspace": metaspace}


def train(arguments):
    for name, make in TRAINED.items():
        directory = os.path.join(arguments.out, name)
        os.makedirs(directory, exist_ok=True)
        make().save(os.path.join(directory, "tokenizer.json"), pretty=False)


# ---- sweep ----

# Everything assigned, less the insides of the large blocks of Han, Hangul and Tangut, of which the ends stand for the whole.
SWEEP_RANGES = [(0x0000, 0x3800), (0x9C00, 0xB000), (0xD400, 0x17400), (0x18400, 0x20400), (0x2A400, 0x32400),
                (0xE0000, 0xE0400), (0x10FC00, 0x110000)]
SWEEP_BLOCK = 1024


def sweep_text(first):
    """Each code point as a letter's neighbour, a digit's, after a space, and between marks of several classes."""
    lines = []
    for c in range(first, first + SWEEP_BLOCK):
        if not 0xD800 <= c < 0xE000:
            c = chr(c)
            lines.append(f"a{c}1{c} {c}\u0345\u0301\u0327{c}\n")
    return "".join(lines)


def fnv1a(ids):
    value = 0xCBF29CE484222325
    for i in ids:
        value = ((value ^ i) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return "%016x" % value


def sweep(arguments):
    result = {}
    for directory in arguments.directories:
        tokenizer = load(directory)
        result[name_of(directory)] = [fnv1a(tokenizer.encode(sweep_text(first), add_special_tokens=False).ids)
                                      for begin, end in SWEEP_RANGES for first in range(begin, end, SWEEP_BLOCK)]
    with open(arguments.out, "w", encoding="utf-8") as f:
        json.dump(result, f, indent=0)
        f.write("\n")


# ---- cases ----

def load(directory):
    return Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))


def name_of(directory):
    path = os.path.abspath(directory)
    for base, prefix in ((ROOT, ""), (SHARED, "shared:")):
        if path.startswith(base + os.sep):
            return prefix + os.path.relpath(path, base)
    return path


def case(tokenizer, text):
    """`text` is a str, or bytes that are not UTF-8."""
    result = {"hex": text.hex()} if isinstance(text, bytes) else {"text": text}
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    result["ids"] = tokenizer.encode(text, add_special_tokens=False).ids
    special = tokenizer.encode(text, add_special_tokens=True).ids
    if special != result["ids"]:
        result["special"] = special
    decoded(tokenizer, result)
    if result["decoded"] == result.get("text"):
        del result["decoded"]
    return result


def decoded(tokenizer, result):
    result["decoded"] = tokenizer.decode(result["ids"], skip_special_tokens=False)
    skipped = tokenizer.decode(result["ids"], skip_special_tokens=True)
    if skipped != result["decoded"]:
        result["skipped"] = skipped
    return result


def random_ids(tokenizer, rng):
    size = tokenizer.get_vocab_size()
    if rng.random() < 0.5:
        return [rng.randrange(size) for _ in range(rng.randint(1, 20))]
    # Ids of few bytes: cut characters, runs of byte tokens, special tokens between them.
    short = [i for i in (rng.randrange(min(size, 400)) for _ in range(12))]
    added = list(tokenizer.get_added_tokens_decoder())
    return [rng.choice(added) if added and rng.random() < 0.1 else rng.choice(short) for _ in range(rng.randint(1, 20))]


def cases(arguments):
    with open(arguments.out, "w", encoding="utf-8") as f:
        for directory in arguments.directories:
            rng = random.Random(arguments.seed)
            tokenizer = load(directory)
            texts = samples.Texts(rng, [t.content for t in tokenizer.get_added_tokens_decoder().values()],
                                  arguments.max_length)
            lines = [{"tokenizer": name_of(directory)}]
            lines += [case(tokenizer, text[:arguments.max_characters]) for text in texts.take(arguments.count)]
            lines += [decoded(tokenizer, {"ids": random_ids(tokenizer, rng)}) for _ in range(arguments.count // 5)]
            for line in lines:
                f.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "sweep", "cases"])
    parser.add_argument("directories", nargs="*")
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--max-length", type=int, default=400, help="of the random texts, in pieces")
    parser.add_argument("--max-characters", type=int, help="cuts the texts, for a compact file")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_intermixed_args()
    print("tokenizers", tokenizers.__version__)
    {"train": train, "sweep": sweep, "cases": cases}[arguments.command](arguments)


if __name__ == "__main__":
    main()
