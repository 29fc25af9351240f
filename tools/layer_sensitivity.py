#!/usr/bin/env python3
"""How many slots each layer's cache needs: weights for --kv-schedule weighted.

Answers that `cairn eval` has got with the full cache are read again, token by token as they were, while R-KV compresses
one layer alone to a few sizes, in decoding (the prompt is left alone until the first buffer is full). A layer's damage at
a size is the mean Kullback-Leibler divergence of the next token's distribution from the full cache's. What is printed:
that table, and the budgets of mean --budget whose damages have the least sum (between the measured sizes the damage is
read off a straight line in logarithms; at the longest answer's length it is nothing). The weights are for that
--budget: at another mean they may do more damage than equal budgets.

  python3 tools/layer_sensitivity.py --model DIR --eval OUT [--num 4] [--budget 128] [--buffer 64] [--window 8]

With --compare WEIGHTS, settings of the whole model stand side by side instead: R-KV with and without pooling, with uniform
budgets and with these weights, and random eviction. Beside the divergence it counts lost tokens: those of which the full
cache is sure (over 0.9) and which get less than 0.5.

DIR: a checkpoint of the Qwen2 or Llama family. OUT: the output directory of a `cairn eval` of chat questions. Needs torch,
safetensors and tokenizers (CPU is enough: 3 minutes an answer for 1.5 billion parameters on two cores).
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
        heads, count, dim = q.shape
        n = keys.shape[1]
        logits = q.reshape(self.kv_heads, -1, dim) @ keys.transpose(1, 2) / math.sqrt(dim)
        later = torch.arange(n)[None] > n - count + torch.arange(count)[:, None]
        logits = logits.view(self.kv_heads, -1, count, n).masked_fill(later, -math.inf)
        mixed = torch.softmax(logits, -1).view(self.kv_heads, -1, n) @ values
        return mixed.view(heads, count, dim).transpose(0, 1).reshape(count, -1).to(torch.bfloat16)

    def log_probabilities(self, hidden):
        return torch.log_softmax(torch.nn.functional.linear(hidden, self.head).float(), -1)


class Cache:
    """Keys and values of one sequence, of which the layers with a budget are reduced."""

    def __init__(self, model, budgets, window=8, kernel=1, is_random=False):
        self.budgets, self.window, self.kernel, self.is_random = budgets, window, kernel, is_random
        self.first = min(budgets, default=0)
        self.layers = [None] * model.layers
        self.numbers = [torch.rand(model.kv_heads, 1 << 15) for _ in range(model.layers)] if is_random else None

    def append(self, layer, q, k, v):
        old = self.layers[layer]
        if old is not None:
            q, k, v = torch.cat([old[0], q], 1), torch.cat([old[1], k], 1), torch.cat([old[2], v], 1)
        self.layers[layer] = (q[:, -self.window :], k, v)
        return k, v

    def compress(self):
        for layer, budget in self.budgets.items():
            q, k, v = self.layers[layer]
            kv_heads, n, dim = k.shape
            if n <= budget:
                continue
            m = n - self.window
            score = self.score(layer, q, k, m)
            kept = torch.topk(score, budget - self.window, dim=-1).indices.sort(-1).values
            kept = torch.cat([kept, torch.arange(m, n).expand(kv_heads, -1)], 1)
            if self.is_random:  # a token keeps its number
                numbers = self.numbers[layer]
                self.numbers[layer] = torch.cat([numbers[:, :n].gather(1, kept), numbers[:, n:]], 1)
            kept = kept[..., None].expand(-1, -1, dim)
            self.layers[layer] = (q, k.gather(1, kept), v.gather(1, kept))

    def score(self, layer, q, k, m):
        kv_heads, n, dim = k.shape
        if self.is_random:
            return self.numbers[layer][:, :m]
        logits = q.view(kv_heads, -1, self.window, dim) @ k[:, None, :m].transpose(2, 3) / math.sqrt(dim)
        importance = torch.softmax(logits.max(1).values, -1).mean(1)
        importance = torch.nn.functional.max_pool1d(importance[:, None], self.kernel, 1, self.kernel // 2)[:, 0]
        units = k / (k.norm(dim=-1, keepdim=True) + 1e-8)
        similar = units @ units.transpose(1, 2)
        slots = torch.arange(n)
        similar[:, slots, slots] = 0
        newest = torch.where(similar > THRESHOLD, slots, 0).max(-1).values
        similar.scatter_(2, newest[..., None], 0)
        redundancy = torch.softmax(similar.mean(1), -1)[:, :m]
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
    uniform = dict.fromkeys(range(model.layers), options.budget)
    slots = (options.budget - options.window - 1) * model.layers / sum(weights)
    weighted = {layer: options.window + 1 + round(slots * weight) for layer, weight in enumerate(weights)}
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
        full = Cache(model, {})
        model.forward(ids[: len(prompt)], torch.arange(len(prompt)), [full])
        caches = [full, *(Cache(model, window=options.window, **setting) for setting in settings)]
        for cache in caches[1:]:
            cache.layers = [(q[:, -cache.window :], k, v) for q, k, v in full.layers]
        for at in range(len(prompt), len(ids) - 1, options.buffer):
            if at > len(prompt):
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
    """The budgets, one a layer, of the given mean and of least total damage; damage: [layers, sizes]."""
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
    parser.add_argument("--compare", metavar="WEIGHTS", help="a comma list, one for each layer")
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
    settings = [dict(budgets={layer: size}) for layer in range(model.layers) for size in sizes]
    damage, _, longest = measure(model, options, settings)
    damage = damage.view(model.layers, len(sizes))
    print("layer", *(f"{size:>8}" for size in sizes))
    for layer in range(model.layers):
        print(f"{layer:5}", *(f"{d:8.5f}" for d in damage[layer]))
    budgets, least, uniform = best_budgets(sizes, damage, longest, options)
    print(f"sum of damages: {least:.5f} with the budgets below, {uniform:.5f} with {options.budget} slots for each layer")
    print("budgets", ",".join(map(str, budgets)))
    print("--kv-layer-weights", ",".join(str(budget - options.window - 1) for budget in budgets))


if __name__ == "__main__":
    main()
