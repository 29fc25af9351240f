"""Writes a trained demo model as a Hugging Face directory, with its tokenizer and its held-out problems.

    python tools/demo_model/export.py --checkpoint OUT/checkpoint.pt --log OUT/training_log.jsonl --out models/demo

Weights are rounded to bfloat16. The tokenizer is byte-level BPE without merges: one token a byte, and the special tokens.
"""

import argparse
import json
import os
import shutil

import torch

from model import Config
from task import SHAPES, SPECIALS, VOCAB_SIZE, oracle_needs, problem_for, token_id

HELD_OUT_PER_LENGTH = 200


def byte_alphabet():
    """GPT-2's printable character for each byte."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]


def tokenizer():
    vocab = {s: i for i, s in enumerate(SPECIALS)}
    vocab.update({c: len(SPECIALS) + b for b, c in enumerate(byte_alphabet())})
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    bos = SPECIALS[0]
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": s, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": s not in ("<think>", "</think>")} for i, s in enumerate(SPECIALS)],
        "normalizer": None, "pre_tokenizer": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": bos, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {bos: {"id": bos, "ids": [0], "tokens": [bos]}},
        },
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocab, "merges": []},
    }


def config(c):
    return {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size, "intermediate_size": c.intermediate_size, "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads, "num_key_value_heads": c.num_kv_heads, "head_dim": c.head_dim,
        "hidden_act": "silu", "rms_norm_eps": c.rms_norm_eps, "rope_theta": c.rope_theta, "rope_scaling": None,
        "max_position_embeddings": 8192, "attention_bias": False, "attention_dropout": 0.0, "use_sliding_window": False,
        "sliding_window": None, "tie_word_embeddings": False, "initializer_range": 0.02, "use_cache": True,
        "bos_token_id": token_id("<|bos|>"), "eos_token_id": token_id("<|eos|>"), "pad_token_id": token_id("<|pad|>"),
        "torch_dtype": "bfloat16",
    }


def write_json(path, value):
    with open(path, "w") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def held_out(path):
    """One problem a line: a prompt, its exact answer, what it is, and the oracle's set sizes."""
    with open(path, "w") as file:
        for length, (cells, rounds) in SHAPES.items():
            for i in range(HELD_OUT_PER_LENGTH):
                p = problem_for(0, "heldout", length, i)
                sizes = [len(kept) for kept in oracle_needs(p)[p.prompt_length:]]
                file.write(json.dumps({"id": f"demo-{length}-{i}", "prompt": p.prompt, "answer": p.answer, "length": length,
                                       "tokens": len(p.ids), "prompt_tokens": p.prompt_length, "cells": cells,
                                       "rounds": rounds, "oracle_mean": round(sum(sizes) / len(sizes), 1),
                                       "oracle_max": max(sizes)}) + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--checkpoint", required=True)
    p.add_argument("--log")
    p.add_argument("--out", required=True)
    args = p.parse_args()
    from safetensors.torch import save_file
    os.makedirs(args.out, exist_ok=True)
    weights = torch.load(args.checkpoint, map_location="cpu")["model"]
    save_file({(k if k.startswith("lm_head") else "model." + k): v.bfloat16().contiguous() for k, v in weights.items()},
              os.path.join(args.out, "model.safetensors"), metadata={"format": "pt"})
    c = Config()
    assert c.vocab_size == VOCAB_SIZE
    write_json(os.path.join(args.out, "config.json"), config(c))
    write_json(os.path.join(args.out, "generation_config.json"),
               {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 4, "do_sample": False, "max_new_tokens": 4200})
    write_json(os.path.join(args.out, "tokenizer.json"), tokenizer())
    write_json(os.path.join(args.out, "tokenizer_config.json"),
               {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIALS[0], "eos_token": SPECIALS[1],
                "pad_token": SPECIALS[4], "clean_up_tokenization_spaces": False, "model_max_length": 8192})
    held_out(os.path.join(args.out, "heldout.jsonl"))
    if args.log:
        shutil.copyfile(args.log, os.path.join(args.out, "training_log.jsonl"))


if __name__ == "__main__":
    main()
