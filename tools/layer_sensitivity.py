#!/usr/bin/env python3
"""How many slots each layer's cache needs, or each KV head's: weights for --kv-schedule weighted.

Answers that `cairn eval` has got with the full cache are read again, token by token as they were, while R-KV compresses
one layer alone to a few sizes, in decoding (the prompt is left alone until the first buffer is full); with --heads one
KV head of a layer alone. The damage at a size is the mean Kullback-Leibler divergence of the next token's distribution
from the full cache's. What is printed: that table, and the budgets of mean --budget whose damages have the least sum
(between the measured sizes the damage is read off a straight line in logarithms; at the longest answer's length it is
nothing). The weights are for that --budget: at another mean they may do more damage than equal budgets.

  python3 tools/layer_sensitivity.py --model DIR --eval OUT [--heads] [--num 4] [--budget 128] [--buffer 64] [--window 8]

With --compare WEIGHTS, settings of the whole model stand side by side instead: R-KV with and without pooling, with uniform
budgets and with these weights, and random eviction. Beside the divergence it counts lost tokens: those of which the full
cache is sure (over 0.9) and which get less than 0.5.

DIR: a checkpoint of the Qwen2 or Llama family. OUT: the output directory of a `cairn eval` of chat questions. Needs torch,
safetensors and tokenizers (CPU is enough: 3 minutes an answer for 1.5 billion parameters on two cores; as many times as
long with --heads as a layer has KV heads).
"""

import argparse
import json
import math
import pathlib
import random

import safetensors.torch
import torch
from tokenizers import Tokenizer

LAMBDA, THRESHOLD = 0.1, 0.5


class Model:
    def __init__(self, directory):
        self.config = config = json.loads((directory / "config.json").read_text())
        self.weights = {}
        for file in sorted(directory.glob("*.safetensors")):
            self.weights.update(safetensors.torch.load_file(file))
        self.weights = {name: tensor.to(torch.bfloat16) for name, tensor in self.weights.items()}
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.kv_heads = config["num_key_value_heads"]
        self.dim = config.get("head_dim") or config["hidden_size"] // self.heads
        if config.get("rope_scaling") or "model.layers.0.self_attn.q_norm.weight" in self.weights:
            raise SystemExit("this model's rotary scaling or query norm is not written here")
        self.frequencies = config["rope_theta"] ** -(torch.arange(0, self.dim, 2).float() / self.dim)
        head = "lm_head.weight" if "lm_head.weight" in self.weights else "model.embed_tokens.weight"
        self.head = self.weights[head]

    def linear(self, x, name):
        return torch.nn.functional.linear(x, self.weights[name + ".weight"], self.weights.get(name + ".bias"))

    def norm(self, x, name):
        x = x.float()
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.config["rms_norm_eps"])
        return (x * scale * self.weights[name + ".weight"].float()).to(torch.bfloat16)

    def rotate(self, x, positions):
        angles = positions.float()[:, None] * self.frequencies
        cos, sin = angles.cos(), angles.sin()
        a, b = x[..., : self.dim // 2].float(), x[..., self.dim // 2 :].float()
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def forward(self, tokens, positions, caches):
        """Hidden states [caches, tokens, hidden] before the last product; appends to each cache.

        A cache of which no layer below `first` is compressed shares those layers with caches[0], the full one; the
        caches are in the order of `first`.
        """
        count = len(tokens)
        x = self.weights["model.embed_tokens.weight"][tokens][None]
        for layer in range(self.layers):
            rows = 1 + sum(cache.first <= layer for cache in caches[1:])
            x = torch.cat([x, x[:1].expand(rows - len(x), -1, -1)])
            at = f"model.layers.{layer}."
            h = self.norm(x, at + "input_layernorm")
            split = lambda name, heads: self.linear(h, at + name).view(rows, count, heads, self.dim).transpose(1, 2)
            q = self.rotate(split("self_attn.q_proj", self.heads), positions)
            k = self.rotate(split("self_attn.k_proj", self.kv_heads), positions)
            v = split("self_attn.v_proj", self.kv_heads).float()
            out = torch.stack([self.attend(q[i], *caches[i].append(layer, q[i], k[i], v[i])) for i in range(rows)])
            x = x + self.linear(out, at + "self_attn.o_proj")
            h = self.norm(x, at + "post_attention_layernorm")
            gate = torch.nn.functional.silu(self.linear(h, at + "mlp.gate_proj"))
            x = x + self.linear(gate * self.linear(h, at + "mlp.up_proj"), at + "mlp.down_proj")
        return self.norm(x, "model.norm")

    def attend(self, q, keys, values):
        """Of KV heads that may hold different numbers of tokens."""
        return torch.cat([self.attend_head(*head) for head in zip(q.chunk(self.kv_heads), keys, values)], -1)

    def attend_head(self, q, keys, values):
        count, n = q.shape[1], len(keys)
        logits = q @ keys.T / math.sqrt(self.dim)
        later = torch.arange(n)[None] > n - count + torch.arange(count)[:, None]
        mixed = torch.softmax(logits.masked_fill(later, -math.inf), -1) @ values
        return mixed.transpose(0, 1).reshape(count, -1).to(torch.bfloat16)

    def log_probabilities(self, hidden):
        return torch.log_softmax(torch.nn.functional.linear(hidden, self.head).float(), -1)


class Cache:
    """Keys and values of one sequence. Of the layers with budgets, one for each KV head, the heads are apart."""

    def __init__(self, model, budgets, window=8, kernel=1, is_random=False):
        self.budgets, self.window, self.kernel, self.is_random = budgets, window, kernel, is_random
        self.first = min(budgets, default=0)
        self.layers = [None] * model.layers
        self.numbers = {layer: [torch.rand(1 << 15) for _ in heads] for layer, heads in budgets.items() if is_random}

    def start(self, full):
        """Takes over what another cache holds."""
        for layer, (q, k, v) in enumerate(full.layers):
            self.layers[layer] = (q, list(k), list(v)) if layer in self.budgets else (q, k, v)
        return self

    def append(self, layer, q, k, v):
        old = self.layers[layer]
        if old is not None:
            q = torch.cat([old[0], q], 1)
            if layer in self.budgets:
                k, v = ([torch.cat(pair) for pair in zip(*pairs)] for pairs in ((old[1], k), (old[2], v)))
            else:
                k, v = torch.cat([old[1], k], 1), torch.cat([old[2], v], 1)
        self.layers[layer] = (q[:, -self.window :], k, v)
        return k, v

    def compress(self):
        for layer, budgets in self.budgets.items():
            q, keys, values = self.layers[layer]
            for head, (queries, budget) in enumerate(zip(q.chunk(len(budgets)), budgets)):
                n = len(keys[head])
                if n <= budget:
                    continue
                m = n - self.window
                score = self.numbers[layer][head][:m] if self.is_random else self.score(queries, keys[head])
                kept = torch.topk(score, budget - self.window).indices.sort().values
                kept = torch.cat([kept, torch.arange(m, n)])
                if self.is_random:  # a token keeps its number
                    numbers = self.numbers[layer][head]
                    self.numbers[layer][head] = torch.cat([numbers[kept], numbers[n:]])
                keys[head], values[head] = keys[head][kept], values[head][kept]

    def score(self, q, k):
        n, dim = k.shape
        m = n - self.window
        logits = q @ k[:m].T / math.sqrt(dim)
        importance = torch.softmax(logits.max(0).values, -1).mean(0)
        importance = torch.nn.functional.max_pool1d(importance[None, None], self.kernel, 1, self.kernel // 2)[0, 0]
        units = k / (k.norm(dim=-1, keepdim=True) + 1e-8)
        similar = units @ units.T
        slots = torch.arange(n)
        similar[slots, slots] = 0
        newest = torch.where(similar > THRESHOLD, slots, 0).max(-1).values
        similar.scatter_(1, newest[:, None], 0)
        redundancy = torch.softmax(similar.mean(0), -1)[:m]
        return LAMBDA * importance - (1 - LAMBDA) * redundancy


def chains(model, directory, number):
    """Token ids of question and answer, of the first `number` answers in a shuffled order."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    requests = [json.loads(line) for line in (directory / "requests.jsonl").open()]
    prompts = {request["custom_id"]: request["body"]["messages"] for request in requests}
    answers = {}
    for line in (directory / "answers" / "full.jsonl").open():
        result = json.loads(line)
        answers[result["custom_id"]] = result["response"]["body"]["choices"][0]["message"]["content"]
    names = sorted(answers)
    random.Random(0).shuffle(names)
    for name in names[:number]:
        text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in prompts[name])
        if prompts[name][0]["role"] != "system":
            text = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n" + text
        prompt = tokenizer.encode(text + "<|im_start|>assistant\n", add_special_tokens=False).ids
        yield prompt, tokenizer.encode(answers[name] + "<|im_end|>", add_special_tokens=False).ids


def comparison(model, options):
    weights = [float(weight) for weight in options.compare.split(",")]
    per_layer = len(weights) // model.layers
    if per_layer not in (1, model.kv_heads) or len(weights) % model.layers != 0:
        raise SystemExit(f"--compare: {len(weights)} weights, for {model.layers} layers of {model.kv_heads} KV heads")
    uniform = {layer: [options.budget] * model.kv_heads for layer in range(model.layers)}
    slots = (options.budget - options.window - 1) * len(weights) / sum(weights)
    budgets = [options.window + 1 + round(slots * weight) for weight in weights]
    weighted = {
        layer: budgets[layer * per_layer : (layer + 1) * per_layer] * (model.kv_heads // per_layer)
        for layer in range(model.layers)
    }
    return {
        "rkv, kernel 7, uniform": dict(budgets=uniform, kernel=7),
        "rkv, kernel 1, uniform": dict(budgets=uniform),
        "rkv, kernel 7, weighted": dict(budgets=weighted, kernel=7),
        "rkv, kernel 1, weighted": dict(budgets=weighted),
        "random, uniform": dict(budgets=uniform, is_random=True),
        "random, weighted": dict(budgets=weighted, is_random=True),
    }


def measure(model, options, settings):
    """Damage and lost tokens of each setting, means over the answers' tokens, and the longest length."""
    damage, lost, tokens, longest = torch.zeros(len(settings)), torch.zeros(len(settings)), 0, 0
    for number, (prompt, answer) in enumerate(chains(options.model, options.eval, options.num)):
        torch.manual_seed(number)
        ids = torch.tensor(prompt + answer)
        longest = max(longest, len(ids))
        first = min(len(prompt) + options.buffer, len(ids) - 1)  # nothing is compressed until then
        full = Cache(model, {}, window=options.window)
        model.forward(ids[:first], torch.arange(first), [full])
        tokens += first - len(prompt)
        caches = [full, *(Cache(model, window=options.window, **setting).start(full) for setting in settings)]
        for at in range(first, len(ids) - 1, options.buffer):
            for cache in caches:
                cache.compress()
            end = min(at + options.buffer, len(ids) - 1)
            hidden = model.forward(ids[at:end], torch.arange(at, end), caches)
            right = model.log_probabilities(hidden[0])
            sure = (right.max(-1).values > math.log(0.9)).nonzero()[:, 0]
            token = right.argmax(-1)
            for i, row in enumerate(hidden[1:]):
                logs = model.log_probabilities(row)
                damage[i] += (right.exp() * (right - logs)).sum()
                lost[i] += (logs[sure, token[sure]] < math.log(0.5)).sum()
            tokens += end - at
        print(f"{number + 1} answers, {tokens} tokens", flush=True)
    return damage / tokens, lost / tokens, longest


def best_budgets(sizes, damage, longest, options):
    """The budgets, one a layer (or head), of the given mean and of least total damage; damage: [layers, sizes]."""
    layers, step, floor = len(damage), 4, 1e-7
    damage = torch.flip(torch.cummax(torch.flip(damage, [1]), 1).values, [1])  # fewer slots never help
    x = torch.log(torch.tensor([*sizes, max(longest, sizes[-1] + 1)], dtype=torch.float64))
    y = torch.log(torch.cat([damage, torch.zeros(layers, 1)], 1).double() + floor)
    choices = torch.arange(sizes[0], int(x[-1].exp()) + step, step)
    at = torch.log(choices.double()).clamp(x[0], x[-1])
    right = torch.searchsorted(x, at).clamp(1, len(x) - 1)
    share = (at - x[right - 1]) / (x[right] - x[right - 1])
    curve = (y[:, right - 1] * (1 - share) + y[:, right] * share).exp()
    # Least sum over the first l layers with u steps beyond the smallest size; exact, layer by layer.
    units = (options.budget - sizes[0]) * layers // step
    best, taken = torch.zeros(units + 1, dtype=torch.float64), []
    for l in range(layers):
        count = min(len(choices), units + 1)
        padded = torch.cat([torch.full((count - 1,), math.inf, dtype=torch.float64), best])
        sums = padded.unfold(0, count, 1).flip(1) + curve[l, :count]
        best, choice = sums.min(1)
        taken.append(choice)
    budgets = []
    for choice in reversed(taken):
        budgets.append(sizes[0] + step * int(choice[units]))
        units -= int(choice[units])
    uniform = curve[:, torch.searchsorted(choices, options.budget)].sum()
    return budgets[::-1], float(best[-1]), float(uniform)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--eval", type=pathlib.Path, required=True)
    parser.add_argument("--num", type=int, default=4)
    parser.add_argument("--budget", type=int, default=128)
    parser.add_argument("--buffer", type=int, default=64)
    parser.add_argument("--window", type=int, default=8)
    parser.add_argument("--sizes", default="16,32,64,128,256", help="slots of the one compressed layer, rising")
    parser.add_argument("--heads", action="store_true", help="for each KV head of a layer: --kv-head-weights")
    parser.add_argument("--compare", metavar="WEIGHTS", help="a comma list, one for each layer or KV head")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_flush_denormal(True)
    model = Model(options.model)
    if options.compare:
        settings = comparison(model, options)
        damage, lost, _ = measure(model, options, list(settings.values()))
        for name, d, share in zip(settings, damage, lost):
            print(f"{name}: KL {d:.5f}, lost tokens {share:.3%}")
        return
    sizes = [int(size) for size in options.sizes.split(",")]
    if sorted(set(sizes)) != sizes or not options.window < sizes[0] <= options.budget:
        raise SystemExit(
            f"--sizes={options.sizes}: must rise, and begin over --window={options.window} and within --budget={options.budget}"
        )
    whole = 1 << 30
    if options.heads:
        units = [(layer, [head]) for layer in range(model.layers) for head in range(model.kv_heads)]
    else:
        units = [(layer, range(model.kv_heads)) for layer in range(model.layers)]
    settings = [
        dict(budgets={layer: [size if head in heads else whole for head in range(model.kv_heads)]})
        for layer, heads in units
        for size in sizes
    ]
    damage, _, longest = measure(model, options, settings)
    damage = damage.view(len(units), len(sizes))
    print("layer head" if options.heads else "layer", *(f"{size:>8}" for size in sizes))
    for (layer, heads), row in zip(units, damage):
        print(f"{layer:5} {heads[0]:4}" if options.heads else f"{layer:5}", *(f"{d:8.5f}" for d in row))
    budgets, least, uniform = best_budgets(sizes, damage, longest, options)
    print(f"sum of damages: {least:.5f} with the budgets below, {uniform:.5f} with {options.budget} slots for each")
    print("budgets", ",".join(map(str, budgets)))
    flag = "--kv-head-weights" if options.heads else "--kv-layer-weights"
    print(flag, ",".join(str(budget - options.window - 1) for budget in budgets))


if __name__ == "__main__":
    main()
