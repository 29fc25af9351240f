"""KV-cache compression in PyTorch: reference policies for evaluating the demo model, per COMPRESSION.md's definitions.

A policy maps what a compaction sees to scores of the candidates (all slots but the last `window`); higher is kept. Shapes:
keys [B, kv_heads, n, d] after RoPE, queries [B, heads, w, d], positions [B, kv_heads, n]; scores [B, kv_heads, n - w].
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

POLICIES = ["full", "oracle", "rkv", "snapkv", "h2o", "keydiff", "streamingllm", "recent", "recent+prompt", "random"]


@dataclass
class Settings:
    policy: str = "full"
    budget: int = 0          # slots that a layer's KV head keeps, window included
    buffer: int = 32         # tokens between compactions
    window: int = 8
    mix_lambda: float = 0.1
    threshold: float = 0.5
    kernel: int = 7
    sinks: int = 4
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))


@dataclass
class Event:
    """What a compaction of one layer sees."""
    keys: torch.Tensor
    queries: torch.Tensor
    positions: torch.Tensor
    mass: torch.Tensor           # running attention mass [B, kv_heads, n] (h2o); changed in place
    prompt_length: int
    needed: torch.Tensor         # [B, tokens] bool: positions that the generator says are needed (oracle)


def window_attention(e, w):
    """Causal attention of the window's queries: [B, kv_heads, group, w, n]."""
    b, heads, _, d = e.queries.shape
    kv_heads, n = e.keys.shape[1:3]
    logits = e.queries.view(b, kv_heads, heads // kv_heads, w, d) @ e.keys[:, :, None].transpose(-1, -2) * d**-0.5
    hidden = torch.ones(w, n, dtype=torch.bool).triu(n - w + 1)
    return logits.masked_fill(hidden, float("-inf")).softmax(-1)


def pool(scores, kernel):
    return F.max_pool1d(scores.flatten(0, 1)[:, None], kernel, 1, kernel // 2)[:, 0].view_as(scores)


def rkv_importance(e, s):
    b, heads, w, d = e.queries.shape
    kv_heads, n = e.keys.shape[1:3]
    logits = e.queries.view(b, kv_heads, heads // kv_heads, w, d) @ e.keys[:, :, None, :n - w].transpose(-1, -2)
    return pool((logits * d**-0.5).amax(2).softmax(-1).mean(2), s.kernel)


def rkv_redundancy(e, s):
    """Softmax over all slots of the column means of the cosine matrix, without each row's newest similar slot."""
    normed = e.keys / (e.keys.norm(dim=-1, keepdim=True) + 1e-8)
    out = torch.empty(normed.shape[:3])
    for b in range(normed.shape[0]):
        cosine = normed[b] @ normed[b].transpose(-1, -2)
        cosine.diagonal(dim1=-2, dim2=-1).zero_()
        n = cosine.shape[-1]
        index = torch.arange(n)
        newest = torch.where(cosine > s.threshold, index, 0).amax(-1)      # [kv_heads, n]; slot 0 where there is none
        cosine.scatter_(-1, newest[..., None], 0.0)
        out[b] = cosine.mean(-2).softmax(-1)
    return out


def scores(e, s):
    w, n = s.window, e.keys.shape[2]
    m = n - w
    if s.policy == "rkv":
        return s.mix_lambda * rkv_importance(e, s) - (1 - s.mix_lambda) * rkv_redundancy(e, s)[..., :m]
    if s.policy == "snapkv":
        return pool(window_attention(e, w).sum(3).mean(2)[..., :m], s.kernel)
    if s.policy == "h2o":
        e.mass += window_attention(e, w).mean((2, 3))
        return e.mass[..., :m]
    if s.policy == "keydiff":
        normed = e.keys / (e.keys.norm(dim=-1, keepdim=True) + 1e-8)
        mean = normed.mean(2, keepdim=True)
        return -((normed * mean).sum(-1) / (mean.norm(dim=-1) + 1e-8))[..., :m]
    if s.policy == "random":
        return torch.rand(e.keys.shape[:2] + (m,), generator=s.generator)
    recency = torch.arange(m).expand(e.keys.shape[:2] + (m,)) / 1e6
    if s.policy == "streamingllm":
        return recency + (torch.arange(m) < s.sinks)
    if s.policy == "recent+prompt":
        return recency + (e.positions[..., :m] < e.prompt_length)
    if s.policy == "oracle":    # what is needed, then the most recent
        flat = e.positions[..., :m].flatten(1)
        return recency + e.needed.gather(1, flat).view(recency.shape)
    assert s.policy == "recent", s.policy
    return recency


def select(score, keep, window):
    """Slots kept, ascending [B, kv_heads, keep + window]: the best candidates (ties to the lower slot), then the window."""
    m = score.shape[-1]
    order = score.sort(dim=-1, descending=True, stable=True).indices[..., :keep].sort(-1).values
    tail = torch.arange(m, m + window).expand(score.shape[:2] + (window,))
    return torch.cat([order, tail], -1)
