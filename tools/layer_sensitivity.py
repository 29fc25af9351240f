#!/usr/bin/env python3
"""How much each layer's cache matters to a model's answers: weights for --kv-schedule weighted.

Answers that `cairn eval` has got with the full cache are read again, token by token as they were, while R-KV compresses
one group of layers alone. The damage is the mean Kullback-Leibler divergence of the next token's distribution from the
full cache's. If the damage of a layer falls as 1 / slots, slots in proportion to the square root of the damage make the
sum least; that is what is printed.

  python3 tools/layer_sensitivity.py --model DIR --eval OUT [--num 6] [--budget 128] [--buffer 64] [--group 4]

With --compare WEIGHTS, settings of the whole model stand side by side instead: R-KV with and without pooling, with uniform
budgets and with these weights, and random eviction.

DIR: a checkpoint of the Qwen2 or Llama family. OUT: the output directory of a `cairn eval` of chat questions. Needs torch,
safetensors and tokenizers (CPU is enough: 30 s a question for 1.5 billion parameters).
"""

import argparse
import json
import math
import pathlib
import random

import safetensors.torch
import torch
from tokenizers import Tokenizer

WINDOW, LAMBDA, THRESHOLD = 8, 0.1, 0.5


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
        """Log-probabilities [caches, tokens, vocabulary] of what comes next; appends to each cache."""
        rows, count = len(caches), len(tokens)
        group = self.heads // self.kv_heads
        x = self.weights["model.embed_tokens.weight"][tokens].expand(rows, count, -1)
        for layer in range(self.layers):
            at = f"model.layers.{layer}."
            h = self.norm(x, at + "input_layernorm")
            split = lambda name, heads: self.linear(h, at + name).view(rows, count, heads, self.dim).transpose(1, 2)
            q = self.rotate(split("self_attn.q_proj", self.heads), positions)
            k = self.rotate(split("self_attn.k_proj", self.kv_heads), positions)
            v = split("self_attn.v_proj", self.kv_heads).float()
            out = torch.empty(rows, count, self.heads * self.dim, dtype=torch.bfloat16)
            for row, cache in enumerate(caches):
                keys, values = cache.append(layer, q[row], k[row], v[row])
                n = keys.shape[1]
                logits = q[row].reshape(self.kv_heads, group * count, self.dim) @ keys.transpose(1, 2)
                logits = logits.view(self.kv_heads, group, count, n) / math.sqrt(self.dim)
                later = torch.arange(n)[None] > n - count + torch.arange(count)[:, None]
                shares = torch.softmax(logits.masked_fill(later, -math.inf), -1)
                mixed = shares.view(self.kv_heads, group * count, n) @ values
                out[row] = mixed.view(self.heads, count, self.dim).transpose(0, 1).reshape(count, -1).to(torch.bfloat16)
            x = x + self.linear(out, at + "self_attn.o_proj")
            h = self.norm(x, at + "post_attention_layernorm")
            gate = torch.nn.functional.silu(self.linear(h, at + "mlp.gate_proj"))
            x = x + self.linear(gate * self.linear(h, at + "mlp.up_proj"), at + "mlp.down_proj")
        return torch.log_softmax(torch.nn.functional.linear(self.norm(x, "model.norm"), self.head).float(), -1)


class Cache:
    """Keys and values of one sequence, of which the layers with a budget are reduced."""

    def __init__(self, model, budgets, kernel=1, is_random=False):
        self.budgets, self.kernel, self.is_random = budgets, kernel, is_random
        self.layers = [None] * model.layers
        self.numbers = [torch.rand(model.kv_heads, 1 << 15) for _ in range(model.layers)] if is_random else None

    def append(self, layer, q, k, v):
        old = self.layers[layer]
        if old is not None:
            q, k, v = torch.cat([old[0], q], 1), torch.cat([old[1], k], 1), torch.cat([old[2], v], 1)
        self.layers[layer] = (q[:, -WINDOW:], k, v)
        return k, v

    def compress(self):
        for layer, budget in self.budgets.items():
            q, k, v = self.layers[layer]
            kv_heads, n, dim = k.shape
            if n <= budget:
                continue
            m = n - WINDOW
            score = self.score(layer, q, k, m)
            kept = torch.topk(score, budget - WINDOW, dim=-1).indices.sort(-1).values
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
        logits = q.view(kv_heads, -1, WINDOW, dim) @ k[:, None, :m].transpose(2, 3) / math.sqrt(dim)
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
    slots = (options.budget - WINDOW - 1) * model.layers / sum(weights)
    weighted = {layer: WINDOW + 1 + round(slots * weight) for layer, weight in enumerate(weights)}
    return {
        "rkv, kernel 7, uniform": dict(budgets=uniform, kernel=7),
        "rkv, kernel 1, uniform": dict(budgets=uniform, kernel=1),
        "rkv, kernel 7, weighted": dict(budgets=weighted, kernel=7),
        "rkv, kernel 1, weighted": dict(budgets=weighted, kernel=1),
        "random, uniform": dict(budgets=uniform, is_random=True),
        "random, weighted": dict(budgets=weighted, is_random=True),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--eval", type=pathlib.Path, required=True)
    parser.add_argument("--num", type=int, default=6)
    parser.add_argument("--budget", type=int, default=128)
    parser.add_argument("--buffer", type=int, default=64)
    parser.add_argument("--kernel", type=int, default=1)
    parser.add_argument("--group", type=int, default=4, help="layers that are compressed together")
    parser.add_argument("--compare", metavar="WEIGHTS", help="a comma list, one for each layer")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    model = Model(options.model)
    if options.compare:
        settings = comparison(model, options)
    else:
        groups = [range(i, min(i + options.group, model.layers)) for i in range(0, model.layers, options.group)]
        settings = {
            f"layers {group.start}-{group.stop - 1}": dict(budgets=dict.fromkeys(group, options.budget), kernel=options.kernel)
            for group in groups
        }
    damage, tokens = torch.zeros(len(settings), dtype=torch.float64), 0
    for number, (prompt, answer) in enumerate(chains(options.model, options.eval, options.num)):
        torch.manual_seed(number)
        ids = torch.tensor(prompt + answer)
        caches = [Cache(model, {}), *(Cache(model, **setting) for setting in settings.values())]
        model.forward(ids[: len(prompt)], torch.arange(len(prompt)), caches)
        at = len(prompt)
        full = options.budget + options.buffer
        event = max(at, full)
        while at < len(ids) - 1:
            if at == event:
                for cache in caches:
                    cache.compress()
                event += options.buffer
            end = min(event, len(ids) - 1)
            logs = model.forward(ids[at:end], torch.arange(at, end), caches)
            damage += (logs[0].exp() * (logs[0] - logs[1:])).sum((1, 2))
            tokens += end - at
            at = end
        print(f"{number + 1} answers, {tokens} tokens:", " ".join(f"{d:.5f}" for d in damage / tokens), flush=True)
    for name, d in zip(settings, damage / tokens):
        print(f"{name}: KL {d:.5f}")
    if not options.compare:
        weights = torch.sqrt(damage / damage.max())
        print("--kv-layer-weights", ",".join(f"{weights[l // options.group]:.3f}" for l in range(model.layers)))


if __name__ == "__main__":
    main()
