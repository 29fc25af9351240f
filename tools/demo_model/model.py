"""A Qwen3-shaped transformer in plain PyTorch, with Hugging Face's parameter names (without the "model." prefix)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    vocab_size: int = 264
    hidden_size: int = 128
    intermediate_size: int = 256
    num_layers: int = 8
    num_heads: int = 8
    num_kv_heads: int = 4
    head_dim: int = 32
    rope_theta: float = 1e8
    rms_norm_eps: float = 1e-6
    embedding_std: float = 1.0


class RmsNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


def rotate(x, cos, sin):
    """Rotary embedding, Hugging Face's halves. x [B, T, heads, head_dim]; cos, sin [B, T, 1, head_dim]."""
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


def causal_attention(q, k, v, chunk=256, chunked_below=640):
    """Causal attention of q [B, heads, T, d] over k, v [B, kv_heads, T, d].

    Short rows on a CPU go through plain matrix products by blocks of rows: the backward pass of PyTorch's fused kernel is
    two to three times slower there.
    """
    b, heads, t, d = q.shape
    kv_heads = k.shape[1]
    group = heads // kv_heads
    if q.is_cuda or t >= chunked_below:
        return F.scaled_dot_product_attention(q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1),
                                              is_causal=True)
    q = q * d**-0.5
    hidden = torch.full((chunk, chunk), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    blocks = []
    for start in range(0, t, chunk):
        end = min(t, start + chunk)
        rows = end - start
        mask = F.pad(hidden[:rows, :rows], (start, 0))
        logits = q[:, :, start:end].reshape(b, kv_heads, group * rows, d) @ k[:, :, :end].transpose(-1, -2)
        p = (logits.view(b, kv_heads, group, rows, end) + mask).softmax(-1).view(b, kv_heads, group * rows, end)
        blocks.append((p @ v[:, :, :end]).view(b, heads, rows, d))
    return torch.cat(blocks, 2)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.q_proj = nn.Linear(c.hidden_size, c.num_heads * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, c.num_kv_heads * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, c.num_kv_heads * c.head_dim, bias=False)
        self.o_proj = nn.Linear(c.num_heads * c.head_dim, c.hidden_size, bias=False)
        self.q_norm, self.k_norm = RmsNorm(c.head_dim, c.rms_norm_eps), RmsNorm(c.head_dim, c.rms_norm_eps)
        self.record = False   # keep q and k of the last forward, for attention supervision

    def qkv(self, x, cos, sin):
        """q [B, heads, T, d], k and v [B, kv_heads, T, d], q and k after RoPE."""
        b, t, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(b, t, -1, self.c.head_dim))
        k = self.k_norm(self.k_proj(x).view(b, t, -1, self.c.head_dim))
        v = self.v_proj(x).view(b, t, -1, self.c.head_dim)
        return rotate(q, cos, sin).transpose(1, 2), rotate(k, cos, sin).transpose(1, 2), v.transpose(1, 2)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        q, k, v = self.qkv(x, cos, sin)
        if self.record:
            self.last = q, k
        o = causal_attention(q, k, v)
        return self.o_proj(o.transpose(1, 2).reshape(b, t, -1))


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = RmsNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RmsNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = Mlp(c)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Block(c) for _ in range(c.num_layers))
        self.norm = RmsNorm(c.hidden_size, c.rms_norm_eps)
        self.lm_head = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        for name, p in self.named_parameters():
            if p.dim() != 2:
                continue
            # An input embedding much smaller than the first layer's output drowns which token it was: std 1.
            std = c.embedding_std if name.startswith("embed") else p.shape[1] ** -0.5
            if "o_proj" in name or "down_proj" in name:
                std /= math.sqrt(2 * c.num_layers)
            nn.init.normal_(p, 0, std)
        inverse = c.rope_theta ** (-torch.arange(0, c.head_dim, 2, dtype=torch.float64) / c.head_dim)
        self.register_buffer("inverse_frequency", inverse.float(), persistent=False)

    def rope(self, positions, dtype=torch.float32):
        """cos and sin [B, T, 1, head_dim] of positions [B, T]."""
        angle = positions.float()[..., None] * self.inverse_frequency
        angle = torch.cat([angle, angle], dim=-1)[:, :, None]
        return angle.cos().to(dtype), angle.sin().to(dtype)

    def hidden(self, ids, positions):
        """The last hidden state, normed. ids, positions [B, T] -> [B, T, hidden_size]."""
        x = self.embed_tokens(ids)
        if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            x = x.bfloat16()
        cos, sin = self.rope(positions, x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)
