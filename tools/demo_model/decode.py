"""Greedy decoding of a batch of demo problems of one shape, with compression by one of policies.py."""

import torch
import torch.nn.functional as F

from policies import Event, scores, select
from task import oracle_needs, token_id

EOS = token_id("<|eos|>")


class Cache:
    """Slots of one layer: keys, values [B, kv_heads, capacity, d], positions and mass [B, kv_heads, capacity]."""

    def __init__(self, batch, kv_heads, capacity, d):
        self.keys, self.values = (torch.zeros(batch, kv_heads, capacity, d) for _ in range(2))
        self.positions = torch.zeros(batch, kv_heads, capacity, dtype=torch.long)
        self.mass = torch.zeros(batch, kv_heads, capacity)
        self.n = 0
        self.queries = None     # the last `window` queries [B, heads, w, d]

    def append(self, q, k, v, start, window):
        t = k.shape[2]
        self.keys[:, :, self.n:self.n + t], self.values[:, :, self.n:self.n + t] = k, v
        self.positions[:, :, self.n:self.n + t] = torch.arange(start, start + t)
        self.mass[:, :, self.n:self.n + t] = 0
        self.n += t
        self.queries = (q if self.queries is None else torch.cat([self.queries, q], 2))[:, :, -window:]

    def compact(self, kept):
        for plane in (self.positions, self.mass):
            plane[:, :, :kept.shape[-1]] = plane.gather(2, kept)
        for plane in (self.keys, self.values):
            plane[:, :, :kept.shape[-1]] = plane.gather(2, kept[..., None].expand(*kept.shape, plane.shape[-1]))
        self.n = kept.shape[-1]


def needed_table(problems):
    """needed[t] [B, tokens] bool for each length t: the oracle's sets as masks."""
    total = len(problems[0].ids)
    sets = [oracle_needs(p) for p in problems]

    def at(t):
        mask = torch.zeros(len(problems), total + 64, dtype=torch.bool)
        for row, needs in zip(mask, sets):
            row[needs[min(t, total)]] = True
            row[0] = True       # the first token, where heads that look for nothing rest
        return mask
    return at


@torch.no_grad()
def generate(model, problems, settings, spare=24, forced=False):
    """Generated ids of each problem, up to and with <|eos|>. All problems have one prompt length.

    forced: the reference chain is fed whatever the model says; the ids are its predictions of the reference's tokens.
    """
    prompt = torch.tensor([p.ids[:p.prompt_length] for p in problems])
    batch, length = prompt.shape
    reference = torch.tensor([p.ids for p in problems]) if forced else None
    limit = max(len(p.ids) for p in problems) + (0 if forced else spare)
    c, s = model.c, settings
    compressing = s.policy != "full"
    capacity = max(length, s.budget + s.buffer) + 1 if compressing else limit
    caches = [Cache(batch, c.num_kv_heads, capacity, c.head_dim) for _ in model.layers]
    needed_at = needed_table(problems) if s.policy == "oracle" else None
    group = c.num_heads // c.num_kv_heads

    def forward(ids, start):
        t = ids.shape[1]
        x = model.embed_tokens(ids)
        cos, sin = model.rope(torch.arange(start, start + t)[None].expand(batch, t))
        for layer, cache in zip(model.layers, caches):
            q, k, v = layer.self_attn.qkv(layer.input_layernorm(x), cos, sin)
            cache.append(q, k, v, start, s.window)
            keys, values = cache.keys[:, :, :cache.n], cache.values[:, :, :cache.n]
            if t > 1:
                o = F.scaled_dot_product_attention(q, keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1),
                                                   is_causal=True).transpose(1, 2)
            else:
                p = (q.view(batch, c.num_kv_heads, group, c.head_dim) @ keys.transpose(-1, -2) * c.head_dim**-0.5).softmax(-1)
                o = p @ values
            x = x + layer.self_attn.o_proj(o.reshape(batch, t, -1))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return model.lm_head(model.norm(x[:, -1])).argmax(-1)

    def compact(t):
        for cache in caches:
            n = cache.n
            event = Event(cache.keys[:, :, :n], cache.queries, cache.positions[:, :, :n], cache.mass[:, :, :n], length,
                          needed_at(t) if needed_at else None)
            cache.compact(select(scores(event, s), s.budget - s.window, s.window))

    tokens, finished = [], torch.zeros(batch, dtype=torch.bool)
    following = forward(prompt, 0)
    t = length
    if compressing and length >= s.budget + s.buffer:
        compact(t)
    while True:
        tokens.append(following)
        if forced:
            following = reference[:, t]
        finished |= following == EOS
        if bool(finished.all()) or t + 1 >= limit:
            break
        following = forward(following[:, None], t)
        t += 1
        if compressing and caches[0].n - s.budget >= s.buffer:
            compact(t)
    rows = torch.stack(tokens, 1).tolist()
    if forced:
        return rows
    return [row[:row.index(EOS) + 1] if EOS in row else row for row in rows]
