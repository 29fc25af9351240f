#!/usr/bin/env python3
"""Turn a GGUF file of a Llama or Qwen2 model into a Hugging Face directory, with numpy and gguf alone.

  python3 -m venv V && V/bin/pip install gguf
  V/bin/python tools/gguf_to_hf.py MODEL.gguf DIRECTORY

DIRECTORY must not exist yet (or be empty) and appears when it is complete: model.safetensors (bfloat16, dequantized,
rounded to nearest even), config.json, generation_config.json, tokenizer.json, tokenizer_config.json with the chat
template. Some rows of one tensor at a time are in memory. What would change the arithmetic and is not known here
(another architecture or pre-tokenizer, rope scaling, an extra tensor) is an error, exit code 65.
"""
import argparse
import json
import math
import os
import shutil
import struct
import sys

import gguf
import numpy as np

BLOCK_VALUES = 4 << 20  # dequantized values held at once: 16 MB of float32, and a few times that inside gguf


class Refused(Exception):
    """The file is damaged, or is a model that this tool does not know how to write."""


# ---- the GGUF file ---------------------------------------------------------------------------------------------------
# Read here, as gguf's own reader makes several objects of every token: half a minute and half a gigabyte for Qwen2.5.
# The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

MAGIC, VERSIONS = b"GGUF", (2, 3)
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
MAX_DIMENSIONS = 4


class Tensor:
    """Where a tensor's bytes are. `shape` as Hugging Face writes it: GGUF has the innermost dimension first."""

    def __init__(self, name, dimensions, kind, offset):
        self.name, self.offset = name, offset
        self.shape = tuple(reversed(dimensions))
        try:
            self.kind = gguf.GGMLQuantizationType(kind)
        except ValueError:
            raise Refused("tensor %s is of type %d, which the gguf package does not know" % (name, kind)) from None
        block, block_bytes = gguf.GGML_QUANT_SIZES[self.kind]
        if not self.shape or 0 in self.shape or self.shape[-1] % block:
            raise Refused("tensor %s of type %s has shape %s" % (name, self.kind.name, list(self.shape)))
        self.rows = math.prod(self.shape[:-1])
        self.row_bytes = self.shape[-1] // block * block_bytes


class GgufFile:
    """The metadata and tensor list of a file (little-endian), and any rows of a tensor as stored."""

    def __init__(self, file):
        self.file = file
        self.size = os.fstat(file.fileno()).st_size
        self.metadata, self.tensors = {}, {}
        if file.read(len(MAGIC)) != MAGIC:
            raise Refused("this is not a GGUF file: it does not begin with GGUF")
        version = self.scalar("I")
        if version not in VERSIONS:
            raise Refused("GGUF version %d; known: 2 and 3, little-endian" % version)
        num_tensors, num_keys = self.scalar("Q"), self.scalar("Q")
        for _ in range(num_keys):
            key = self.string()
            self.metadata[key] = self.value(self.scalar("I"))
        for _ in range(num_tensors):
            name = self.string()
            dimensions = [self.scalar("Q") for _ in range(min(self.scalar("I"), MAX_DIMENSIONS))]
            self.tensors[name] = Tensor(name, dimensions, self.scalar("I"), self.scalar("Q"))
        alignment = Metadata(self.metadata).size("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
        self.data = -(-file.tell() // alignment) * alignment
        for tensor in self.tensors.values():
            end = self.data + tensor.offset + tensor.rows * tensor.row_bytes
            if end > self.size:
                raise Refused("the file is cut off: tensor %s ends at byte %d of %d" % (tensor.name, end, self.size))

    def read(self, size):
        if size > self.size - self.file.tell():
            raise Refused("the file is cut off or damaged: %d bytes are wanted at byte %d of %d" %
                          (size, self.file.tell(), self.size))
        return self.file.read(size)

    def scalar(self, code):
        return struct.unpack("<" + code, self.read(struct.calcsize("<" + code)))[0]

    def string(self):
        begin = self.file.tell()
        try:
            return self.read(self.scalar("Q")).decode("utf-8")
        except UnicodeDecodeError:
            raise Refused("the text at byte %d is not UTF-8" % begin) from None

    def value(self, kind):
        if kind in SCALARS:
            return self.scalar(SCALARS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            raise Refused("the metadata has a value of type %d at byte %d, which GGUF does not have" %
                          (kind, self.file.tell()))
        kind, count = self.scalar("I"), self.scalar("Q")
        if kind in SCALARS:
            size = struct.calcsize("<" + SCALARS[kind])
            return list(struct.unpack("<%d%s" % (count, SCALARS[kind]), self.read(count * size)))
        if kind != STRING:
            raise Refused("the metadata has a list of values of type %d at byte %d" % (kind, self.file.tell()))
        return [self.string() for _ in range(count)]

    def rows(self, tensor, begin, end):
        self.file.seek(self.data + tensor.offset + begin * tensor.row_bytes)
        stored = self.read((end - begin) * tensor.row_bytes)
        return np.frombuffer(stored, np.uint8).reshape(end - begin, tensor.row_bytes)


# ---- the model's shape -----------------------------------------------------------------------------------------------

ARCHITECTURES = {
    "llama": dict(architectures=["LlamaForCausalLM"], extra=dict(attention_bias=False, mlp_bias=False)),
    "qwen2": dict(architectures=["Qwen2ForCausalLM"], extra=dict(use_sliding_window=False)),
}

# Metadata of an architecture that means other arithmetic than the plain model's.
UNKNOWN_ARITHMETIC = ("expert_count", "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear",
                      "attention.sliding_window", "attention.clamp_kqv", "logit_scale")
NO_EFFECT = (0, 0.0, "none", None)


class Metadata:
    """The key-value pairs of a GGUF file; `own` looks under the architecture's prefix."""

    def __init__(self, values):
        self.values = values
        self.architecture = values.get("general.architecture")
        if self.architecture not in ARCHITECTURES:
            raise Refused("general.architecture is %s; known: %s" % (self.architecture, ", ".join(ARCHITECTURES)))

    def get(self, key, default=None):
        return self.values.get(key, default)

    def need(self, key):
        if key not in self.values:
            raise Refused("the metadata has no %s" % key)
        return self.values[key]

    def own(self, key, default=None):
        return self.get("%s.%s" % (self.architecture, key), default)

    def size(self, key, default=None):
        """A whole number above 0, needed where there is no default."""
        value = self.need(key) if default is None else self.get(key, default)
        if type(value) is not int or value < 1:
            raise Refused("%s is %s, expected one whole number above 0" % (key, value))
        return value

    def own_size(self, key, default=None):
        return self.size("%s.%s" % (self.architecture, key), default)

    def own_number(self, key, default=None):
        """A float32 as a person would write it: 1e-05, not 9.999999747378752e-06 (the same float32)."""
        value = self.need("%s.%s" % (self.architecture, key)) if default is None else self.own(key, default)
        if type(value) is not float:
            raise Refused("%s.%s is %s, expected a number" % (self.architecture, key, value))
        return float(str(np.float32(value)))

    def tokens(self):
        """Texts and kinds (NORMAL ...) by id."""
        tokens, kinds = self.need("tokenizer.ggml.tokens"), self.need("tokenizer.ggml.token_type")
        if len(kinds) != len(tokens) or len(set(tokens)) != len(tokens):
            raise Refused("tokenizer.ggml has %d tokens (%d different) of %d types" %
                          (len(tokens), len(set(tokens)), len(kinds)))
        return tokens, kinds

    def token_id(self, key):
        """An id under tokenizer.ggml, or None."""
        value = self.get("tokenizer.ggml.%s_token_id" % key)
        if value is not None and not (type(value) is int and 0 <= value < len(self.need("tokenizer.ggml.tokens"))):
            raise Refused("tokenizer.ggml.%s_token_id is %s, which is no token's id" % (key, value))
        return value


def model_config(metadata, tensors):
    for key in UNKNOWN_ARITHMETIC:
        if metadata.own(key) not in NO_EFFECT:
            raise Refused("%s.%s = %s is not supported" % (metadata.architecture, key, metadata.own(key)))
    hidden, heads = metadata.own_size("embedding_length"), metadata.own_size("attention.head_count")
    kv_heads = metadata.own_size("attention.head_count_kv", heads)
    head_dim = metadata.own_size("attention.key_length", max(1, hidden // heads))
    for key in ("attention.value_length", "rope.dimension_count"):
        if metadata.own(key, head_dim) != head_dim:
            raise Refused("%s.%s = %s, expected the head size %d" %
                          (metadata.architecture, key, metadata.own(key), head_dim))
    if heads % kv_heads or head_dim % 2:
        raise Refused("%d query heads, %d KV heads and head size %d do not go together" % (heads, kv_heads, head_dim))
    family = ARCHITECTURES[metadata.architecture]
    return {
        "architectures": family["architectures"],
        "model_type": metadata.architecture,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": metadata.own_size("feed_forward_length"),
        "num_hidden_layers": metadata.own_size("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": metadata.own_size("context_length"),
        "rms_norm_eps": metadata.own_number("attention.layer_norm_rms_epsilon"),
        "rope_theta": metadata.own_number("rope.freq_base", 10000.0),
        "tie_word_embeddings": "output.weight" not in tensors,
        "torch_dtype": "bfloat16",
        "vocab_size": len(metadata.need("tokenizer.ggml.tokens")),
        **family["extra"],
        **token_ids(metadata),
    }


def token_ids(metadata):
    if metadata.token_id("eos") is None:
        raise Refused("the metadata has no tokenizer.ggml.eos_token_id")
    ids = {"bos_token_id": metadata.token_id("bos"), "eos_token_id": metadata.token_id("eos"),
           "pad_token_id": metadata.token_id("padding")}
    return {name: value for name, value in ids.items() if value is not None}


# ---- weights ---------------------------------------------------------------------------------------------------------

def expected_tensors(config):
    """(GGUF name, Hugging Face name, shape, heads) of every tensor; heads: rows that llama.cpp has permuted, else 0."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    llama, qwen2 = config["model_type"] == "llama", config["model_type"] == "qwen2"
    yield "token_embd.weight", "model.embed_tokens.weight", (config["vocab_size"], hidden), 0
    yield "output_norm.weight", "model.norm.weight", (hidden,), 0
    if not config["tie_word_embeddings"]:
        yield "output.weight", "lm_head.weight", (config["vocab_size"], hidden), 0
    for layer in range(config["num_hidden_layers"]):
        block, to = "blk.%d." % layer, "model.layers.%d." % layer
        yield block + "attn_norm.weight", to + "input_layernorm.weight", (hidden,), 0
        yield block + "ffn_norm.weight", to + "post_attention_layernorm.weight", (hidden,), 0
        for name, rows, heads in (("q", q, config["num_attention_heads"]), ("k", kv, config["num_key_value_heads"]),
                                  ("v", kv, 0)):
            linear, to_linear = block + "attn_%s." % name, to + "self_attn.%s_proj." % name
            yield linear + "weight", to_linear + "weight", (rows, hidden), heads if llama else 0
            if qwen2:
                yield linear + "bias", to_linear + "bias", (rows,), 0
        yield block + "attn_output.weight", to + "self_attn.o_proj.weight", (hidden, q), 0
        yield block + "ffn_gate.weight", to + "mlp.gate_proj.weight", (inner, hidden), 0
        yield block + "ffn_up.weight", to + "mlp.up_proj.weight", (inner, hidden), 0
        yield block + "ffn_down.weight", to + "mlp.down_proj.weight", (hidden, inner), 0


def matched_tensors(config, tensors):
    """[(Hugging Face name, tensor, heads)] by name; every tensor of the file is one of the model's."""
    found, left = [], dict(tensors)
    for name, to, shape, heads in expected_tensors(config):
        tensor = left.pop(name, None)
        if tensor is None:
            raise Refused("tensor %s is missing" % name)
        if tensor.shape != shape:
            raise Refused("tensor %s has shape %s, expected %s" % (name, list(tensor.shape), list(shape)))
        found.append((to, tensor, heads))
    if left:
        raise Refused("tensor %s is not known in a %s model" % (min(left), config["model_type"]))
    return sorted(found, key=lambda entry: entry[0])


def stored_rows(file, tensor, heads):
    """The tensor's rows as stored, some at a time, in Hugging Face order.

    llama.cpp turns neighbouring pairs by RoPE, Hugging Face the two halves of a head, and llama.cpp's converter has
    reordered the rows of q and k to that end: row [head, half, i] lies at [head, i, half].
    """
    step = max(1, BLOCK_VALUES // tensor.shape[-1])
    if heads == 0:
        for begin in range(0, tensor.rows, step):
            yield file.rows(tensor, begin, min(begin + step, tensor.rows))
        return
    order = np.arange(tensor.rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)
    rows = file.rows(tensor, 0, tensor.rows)
    for begin in range(0, tensor.rows, step):
        yield rows[order[begin:begin + step]]


def to_bfloat16(values, name):
    """The upper 16 bits of float32, rounded to nearest even."""
    if not np.isfinite(values).all():
        raise Refused("tensor %s holds values that are not finite" % name)
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype("<u2")


def bfloat16_blocks(file, tensor, heads):
    for rows in stored_rows(file, tensor, heads):
        try:
            values = gguf.quants.dequantize(rows, tensor.kind)
        except NotImplementedError:
            raise Refused("tensor %s is of type %s, which the gguf package cannot dequantize" %
                          (tensor.name, tensor.kind.name)) from None
        yield to_bfloat16(values, tensor.name)


def safetensors_header(matched):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor, _ in matched:
        size = 2 * math.prod(tensor.shape)
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8
    return struct.pack("<Q", len(text)) + text, offset


def write_weights(path, file, matched):
    header, total = safetensors_header(matched)
    written, told = 0, 0
    with open(path, "wb") as f:
        f.write(header)
        for _, tensor, heads in matched:
            for block in bfloat16_blocks(file, tensor, heads):
                f.write(block.data)
                written += block.nbytes
            if written * 4 // total > told:
                told = written * 4 // total
                log("%3d%% of %d MB of weights" % (25 * told, total // 1000000))
        assert written == total
        f.flush()
        os.fsync(f.fileno())


# ---- tokenizer -------------------------------------------------------------------------------------------------------
# A GGUF names its pre-tokenizer (tokenizer.ggml.pre) instead of carrying it; these are the published ones.

def byte_level(flag, use_regex):
    return {"type": "ByteLevel", "add_prefix_space": flag, "trim_offsets": flag, "use_regex": use_regex}


QWEN2_WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
               r"|\s*[\r\n]+|\s+(?!\S)|\s+")

PRE_TOKENIZERS = {
    "smollm": {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
        "post_processor": None,
        "decoder": byte_level(True, True),
    },
    "qwen2": {
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": QWEN2_WORDS}, "behavior": "Isolated", "invert": False},
            byte_level(False, False)]},
        "post_processor": byte_level(False, False),
        "decoder": byte_level(False, False),
    },
}

# What ends an answer beside the eos token: the generation_config.json of Qwen's instruct models also lists the text end
# of the base model. A GGUF has room for one id only.
MORE_STOP_TOKENS = {"qwen2": ["<|endoftext|>"]}

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # tokenizer.ggml.token_type


def pre_tokenizer_name(metadata):
    if metadata.need("tokenizer.ggml.model") != "gpt2":
        raise Refused("tokenizer.ggml.model is %s; known: gpt2 (byte-level BPE)" % metadata.get("tokenizer.ggml.model"))
    pre = metadata.need("tokenizer.ggml.pre")
    if pre not in PRE_TOKENIZERS:
        raise Refused("tokenizer.ggml.pre is %s; known: %s" % (pre, ", ".join(PRE_TOKENIZERS)))
    for key in ("add_bos_token", "add_eos_token", "add_space_prefix"):
        if metadata.get("tokenizer.ggml." + key, False):
            raise Refused("tokenizer.ggml.%s = true is not supported with %s" % (key, pre))
    return pre


def tokenizer(metadata):
    """tokenizer.json. Unused tokens only pad the embedding table: published tokenizers do not have them."""
    vocab, added = {}, []
    for index, (token, kind) in enumerate(zip(*metadata.tokens())):
        if kind == UNUSED:
            continue
        if kind not in (NORMAL, CONTROL, USER_DEFINED):
            raise Refused("tokenizer.ggml.token_type[%d] (%r) is %d, which byte-level BPE does not have" %
                          (index, token, kind))
        vocab[token] = index
        if kind != NORMAL:
            added.append({"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": kind == CONTROL})
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
             "vocab": vocab, "merges": metadata.need("tokenizer.ggml.merges")}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            **PRE_TOKENIZERS[pre_tokenizer_name(metadata)], "model": model}


def tokenizer_config(metadata):
    config = {"add_bos_token": False, "add_prefix_space": False, "clean_up_tokenization_spaces": False,
              "model_max_length": metadata.own_size("context_length"), "tokenizer_class": "PreTrainedTokenizerFast"}
    tokens = metadata.need("tokenizer.ggml.tokens")
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        index = metadata.token_id(key)
        config[name + "_token"] = None if index is None else tokens[index]
    if template := metadata.get("tokenizer.chat_template"):
        config["chat_template"] = template
    return config


def generation_config(metadata):
    ids = token_ids(metadata)
    tokens, _ = metadata.tokens()
    more = [tokens.index(token) for token in MORE_STOP_TOKENS.get(pre_tokenizer_name(metadata), []) if token in tokens]
    return {**ids, "eos_token_id": list(dict.fromkeys([ids["eos_token_id"], *more]))}  # each once, in this order


# ---- the directory ---------------------------------------------------------------------------------------------------

def log(text):
    print("gguf_to_hf: " + text, file=sys.stderr, flush=True)


def write_json(directory, name, value, indent=2):
    with open(os.path.join(directory, name), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=indent)
        f.write("\n")
        f.flush()
        os.fsync(f.fileno())


def convert(file, directory):
    metadata = Metadata(file.metadata)
    config = model_config(metadata, file.tensors)
    matched = matched_tensors(config, file.tensors)
    write_json(directory, "config.json", config)
    write_json(directory, "generation_config.json", generation_config(metadata))
    write_json(directory, "tokenizer_config.json", tokenizer_config(metadata))
    write_json(directory, "tokenizer.json", tokenizer(metadata), indent=None)
    write_weights(os.path.join(directory, "model.safetensors"), file, matched)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", metavar="MODEL.gguf")
    parser.add_argument("directory", metavar="DIRECTORY")
    args = parser.parse_args()
    directory = os.path.abspath(args.directory)
    if os.path.lexists(directory) and not (os.path.isdir(directory) and not os.listdir(directory)):
        log("error: %s exists already; name a new directory" % directory)
        return 64
    try:
        file = open(args.gguf, "rb")
    except OSError as error:
        log("error: cannot read %s: %s" % (args.gguf, error.strerror))
        return 65
    work = directory + ".part"
    shutil.rmtree(work, ignore_errors=True)
    try:
        os.makedirs(work)
        with file:
            convert(GgufFile(file), work)
        os.rename(work, directory)  # replaces an empty directory
    except Refused as error:
        log("error: %s: %s" % (args.gguf, error))
        return 65
    except OSError as error:
        log("error: cannot write %s: %s" % (directory, error))
        return 74
    except KeyboardInterrupt:
        log("interrupted")
        return 130
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
