#!/usr/bin/env python3
"""Make the small random checkpoints of tests/data/checkpoints and the answers the engine must give for them.

  python3 -m venv V && V/bin/pip install torch transformers safetensors
  V/bin/python tools/make_checkpoints.py [--out tests/data/checkpoints] [FAMILY ...]

One directory per family, under 1 MB each, all of four layers, and rope.json: inverse frequencies of rotary embeddings.
Their text is noise; they pin the arithmetic. The answers (expected.json) are computed by Hugging Face transformers, in
float32, on the weights as stored (after rounding to bf16 or f16) and as loaded back from the directory.

Prompts are drawn at random until greedy decoding is decided clearly (the two largest logits never closer than MIN_GAP),
varied (at least MIN_DISTINCT different tokens in 32) and free of the end token.
"""
import argparse
import json
import os
import shutil

import tokenizers
import torch
import transformers

NUM_GREEDY = 32
PROMPT_LENGTHS = (1, 7, 40, 100)
LENGTH_WITH_ALL_LOGITS = 40
WEIGHT_SEED, PROMPT_SEED = 0, 1
MIN_GAP = 0.01
MIN_DISTINCT = 12
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# Only to give the tokenizer some merges.
TOKENIZER_TEXT = """
A cairn is a stack of stones that walkers leave at the side of a path, so that those who come after them find the way in
fog and snow. Each walker adds a stone. The stones of a good cairn carry one another: take one away from the middle and
the others must be laid anew, but take one from the top and nobody will miss it. When the path forks there are two
cairns, and when two paths meet there is a large one, which the walkers of both paths have built together. In the
mountains of the north the oldest cairns are said to be older than the villages. They have no names and no dates, and
still they answer the only question that matters to someone who is lost: which way did the others go, and how far is it
to the next one? 0 1 2 3 4 5 6 7 8 9 10 12 25 50 100 1000. What is the sum of two and two? The sum of two and two is four.
"""


class Family:
    """config: keyword arguments of the transformers config; dtype: as stored; tokens: the tokenizer's size."""

    def __init__(self, config_class, dtype, tokens=None, max_shard_size="5GB", old_style=False, chat_template=None, **config):
        self.config_class, self.dtype, self.config = config_class, dtype, config
        self.tokens = tokens or config["vocab_size"]
        self.max_shard_size, self.old_style, self.chat_template = max_shard_size, old_style, chat_template


COMMON = dict(
    hidden_size=64, intermediate_size=160, num_hidden_layers=4, num_attention_heads=4, max_position_embeddings=512,
    bos_token_id=1, eos_token_id=2, pad_token_id=None,
)
FAMILIES = {
    # As Llama 2 was published: multi-head, untied, a config without the fields that came later. The vocabulary leaves a
    # remainder for tp 2 and 4.
    "llama2": Family(
        transformers.LlamaConfig, torch.float32, old_style=True,
        **COMMON | dict(vocab_size=299, rms_norm_eps=1e-5, tie_word_embeddings=False)),
    # Llama 3.1's rope scaling, scaled down so that some frequencies are kept, some blended and some divided; two KV heads
    # for four query heads, so that tp 4 replicates them.
    "llama3": Family(
        transformers.LlamaConfig, torch.bfloat16,
        **COMMON | dict(
            vocab_size=384, num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-5, tie_word_embeddings=False,
            rope_parameters=dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0,
                                 high_freq_factor=4.0, original_max_position_embeddings=64))),
    # A sliding window shorter than the longer prompts.
    "mistral": Family(
        transformers.MistralConfig, torch.float16,
        **COMMON | dict(
            vocab_size=322, num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-5, tie_word_embeddings=False,
            sliding_window=24, rope_parameters=dict(rope_type="default", rope_theta=10000.0))),
    # QKV biases, tied embeddings, eight query heads on two KV heads, several files, more embedding rows than tokens.
    "qwen2": Family(
        transformers.Qwen2Config, torch.bfloat16, tokens=381, max_shard_size="120KB", chat_template=CHATML,
        **COMMON | dict(
            vocab_size=384, num_attention_heads=8, num_key_value_heads=2, rms_norm_eps=1e-6, tie_word_embeddings=True,
            eos_token_id=4, rope_parameters=dict(rope_type="default", rope_theta=1000000.0))),
    # q/k norms and heads * head_dim != hidden_size.
    "qwen3": Family(
        transformers.Qwen3Config, torch.float32,
        **COMMON | dict(
            vocab_size=301, intermediate_size=128, num_key_value_heads=2, head_dim=32, rms_norm_eps=1e-6,
            tie_word_embeddings=True, eos_token_id=4, rope_parameters=dict(rope_type="default", rope_theta=1000000.0))),
}


def randomize(model, seed, tied):
    """Weights of a scale at which attention is neither flat nor one-hot and every layer changes the answer."""
    generator = torch.Generator().manual_seed(seed)

    def normal(shape, std):
        return torch.randn(shape, generator=generator) * std

    for name, parameter in sorted(model.named_parameters()):
        shape = parameter.shape
        if name.endswith("norm.weight"):
            value = 0.5 + torch.rand(shape, generator=generator)
        elif name.endswith("bias"):
            value = normal(shape, 0.5)
        elif name.endswith("embed_tokens.weight"):
            # A tied head's logits are products of embedding rows: larger ones would only repeat the last token.
            value = normal(shape, 0.35 if tied else 1.0)
        elif name.endswith("lm_head.weight"):
            value = normal(shape, 3.0 * shape[1] ** -0.5)
        else:
            value = normal(shape, 1.4 * shape[1] ** -0.5)
        parameter.data.copy_(value)


@torch.no_grad()
def decode(model, prompt):
    """Greedy decoding, recomputing the whole sequence for every token: no cache that could be wrong. None where the
    prompt does not make a good test."""
    ids, steps, min_gap = list(prompt), [], float("inf")
    for _ in range(NUM_GREEDY):
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1].float()
        best = logits.topk(2)
        min_gap = min(min_gap, float(best.values[0] - best.values[1]))
        steps.append(logits)
        ids.append(int(best.indices[0]))
        if min_gap < MIN_GAP or ids[-1] == model.config.eos_token_id:
            return None
    greedy = ids[len(prompt):]
    if len(set(greedy)) < MIN_DISTINCT:
        return None
    top = steps[0].topk(8)
    return {
        "prompt_ids": list(prompt),
        "top8_ids": top.indices.tolist(),
        "top8_logits": rounded(top.values),
        "greedy_ids": greedy,
        "greedy_logits": rounded([step[token] for step, token in zip(steps, greedy)]),
        "greedy_logprobs": rounded([step.log_softmax(-1)[token] for step, token in zip(steps, greedy)]),
        "min_top2_gap": min_gap,
        "logits": rounded(steps[0]),
    }


def find_case(model, length, generator):
    for _ in range(1000):
        prompt = torch.randint(len(SPECIAL_TOKENS), model.config.vocab_size, (length,), generator=generator).tolist()
        if case := decode(model, prompt):
            return case
    raise SystemExit("no prompt of %d tokens among 1000 gives a clear and varied answer" % length)


def rounded(values):
    return [round(float(v), 6) for v in values]


def write_old_style(directory):
    """Respells config.json as transformers 4 wrote it for Llama 2, leaving out what was introduced later."""
    path = os.path.join(directory, "config.json")
    with open(path) as f:
        config = json.load(f)
    rope = config.pop("rope_parameters")
    assert rope["rope_type"] == "default" and config["num_key_value_heads"] == config["num_attention_heads"]
    config["rope_theta"] = rope["rope_theta"]
    config["rope_scaling"] = None
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.31.0"
    for field in ("head_dim", "num_key_value_heads", "attention_bias", "mlp_bias", "attention_dropout"):
        config.pop(field, None)
    with open(path, "w") as f:
        json.dump(config, f, indent=2)
        f.write("\n")


def write_tokenizer(directory, family):
    """Byte-level BPE with GPT-2's pre-tokenizer."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    bpe.train_from_iterator(TOKENIZER_TEXT.split("\n"), tokenizers.trainers.BpeTrainer(
        vocab_size=family.tokens, special_tokens=SPECIAL_TOKENS, show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()))
    assert bpe.get_vocab_size() == family.tokens, bpe.get_vocab_size()
    bpe.save(os.path.join(directory, "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": SPECIAL_TOKENS[family.config["eos_token_id"]],
        "unk_token": "<unk>",
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": family.config["max_position_embeddings"],
    }
    if family.chat_template:
        config["chat_template"] = family.chat_template
    with open(os.path.join(directory, "tokenizer_config.json"), "w") as f:
        json.dump(config, f, indent=2)
        f.write("\n")


def write_checkpoint(directory, family):
    config = family.config_class(**family.config)
    model = transformers.AutoModelForCausalLM.from_config(config)
    randomize(model, WEIGHT_SEED, config.tie_word_embeddings)
    shutil.rmtree(directory, ignore_errors=True)
    model.to(family.dtype).save_pretrained(directory, max_shard_size=family.max_shard_size)
    if family.old_style:
        write_old_style(directory)
    write_tokenizer(directory, family)


def answers(directory):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(PROMPT_SEED)
    cases = [find_case(model, length, generator) for length in PROMPT_LENGTHS]
    for case in cases:
        if len(case["prompt_ids"]) != LENGTH_WITH_ALL_LOGITS:
            del case["logits"]
    return {
        "arithmetic": "float32 on the stored weights, transformers %s" % transformers.__version__,
        "min_top2_gap": min(case["min_top2_gap"] for case in cases),
        "cases": cases,
    }


# Theta, head size and scaling of models that are in use.
ROPES = [
    (16, dict(rope_type="default", rope_theta=10000.0)),
    (64, dict(rope_type="default", rope_theta=100000.0)),
    (80, dict(rope_type="default", rope_theta=10000.0)),
    (128, dict(rope_type="default", rope_theta=1000000.0)),
    (128, dict(rope_type="linear", rope_theta=10000.0, factor=4.0)),
    (16, dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)),
    (64, dict(rope_type="llama3", rope_theta=500000.0, factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=8192)),
    (128, dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
               original_max_position_embeddings=8192)),
]


def make_ropes(path):
    """The inverse frequencies transformers computes for ROPES."""
    cases = []
    for head_dim, parameters in ROPES:
        config = transformers.LlamaConfig(head_dim=head_dim, max_position_embeddings=131072, rope_parameters=parameters)
        rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
        # Nine digits give back the same float32.
        frequencies = [float("%.9g" % f) for f in rotary.inv_freq.tolist()]
        cases.append({"head_dim": head_dim, **parameters, "inverse_frequencies": frequencies})
    with open(path, "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


def make(out, name, family):
    directory = os.path.join(out, name)
    write_checkpoint(directory, family)
    expected = answers(directory)
    with open(os.path.join(directory, "expected.json"), "w") as f:
        # One number a line would triple the file: one case a line.
        f.write(json.dumps(expected).replace('{"prompt_ids"', '\n{"prompt_ids"') + "\n")
    for file in os.listdir(directory):  # save_pretrained leaves the weights to their owner alone
        os.chmod(os.path.join(directory, file), 0o644)
    size = sum(os.path.getsize(os.path.join(directory, file)) for file in os.listdir(directory))
    print("%s: smallest gap %.3f, distinct tokens %s, %d kB" % (
        name, expected["min_top2_gap"], [len(set(case["greedy_ids"])) for case in expected["cases"]], size // 1000),
        flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default=os.path.join(os.path.dirname(__file__), "..", "tests", "data", "checkpoints"))
    parser.add_argument("families", nargs="*", default=list(FAMILIES), metavar="FAMILY")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)  # matrices this small gain nothing from more
    os.makedirs(arguments.out, exist_ok=True)
    make_ropes(os.path.join(arguments.out, "rope.json"))
    for name in arguments.families:
        make(arguments.out, name, FAMILIES[name])


if __name__ == "__main__":
    main()
