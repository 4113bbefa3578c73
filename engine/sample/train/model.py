"""The Qwen3 architecture in plain PyTorch: what engine/src/model/qwen3 computes, for training and for reference logits.

Knows shapes and weights; knows no text, no loss and no file. Linear layers have no bias, queries and keys are normalised
per head before RoPE, keys and values are shared by groups of query heads, the embedding is also the output matrix.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Config:
    """Shape of a model; the fields are those of a GGUF file's metadata."""

    vocab: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    rope_theta: float = 1e6
    norm_eps: float = 1e-6
    context_length: int = 32768

    @property
    def group(self):
        """Query heads that share one key and value head."""
        return self.heads // self.kv_heads


# Standard deviation of the embedding at the start, and its first part, which is the same for all tokens. The blocks'
# outputs grow to many times their size at the start: a smaller embedding is drowned by them, and with it which word it was.
EMBEDDING_STD, COMMON_PART = 0.5, 4.0


def rope_table(config, positions):
    """Cosines and sines of the rotary angles, (..., n_positions, head_dim / 2) each; the angles are computed in f64."""
    exponents = torch.arange(0, config.head_dim, 2, device=positions.device).double() / config.head_dim
    angles = positions.double()[..., None] / config.rope_theta**exponents
    return angles.cos().float(), angles.sin().float()


def rotate(x, rope):
    """RoPE in the half-split form; x is (batch, n_tokens, heads, head_dim)."""
    cos, sin = (table.unsqueeze(-2).to(x.dtype) for table in rope)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class RmsNorm(nn.Module):
    """x * weight / rms(x), in f32 whatever the type of x."""

    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight.float()).to(x.dtype)


class Block(nn.Module):
    """One layer: causal grouped-query attention and SwiGLU, each on the normalised residual stream.

    In pieces, so that a training pass may ask at few positions only and look at what single heads see.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        query_width, kv_width = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.attention_norm = RmsNorm(config.width, config.norm_eps)
        self.q = nn.Linear(config.width, query_width, bias=False)
        self.k = nn.Linear(config.width, kv_width, bias=False)
        self.v = nn.Linear(config.width, kv_width, bias=False)
        self.q_norm = RmsNorm(config.head_dim, config.norm_eps)
        self.k_norm = RmsNorm(config.head_dim, config.norm_eps)
        self.output = nn.Linear(query_width, config.width, bias=False)
        self.ffn_norm = RmsNorm(config.width, config.norm_eps)
        self.gate = nn.Linear(config.width, config.ffn, bias=False)
        self.up = nn.Linear(config.width, config.ffn, bias=False)
        self.down = nn.Linear(config.ffn, config.width, bias=False)

    def queries(self, x, rope):
        """(batch, heads, n_tokens, head_dim), normalised and rotated."""
        split = self.q(self.attention_norm(x)).unflatten(-1, (self.config.heads, self.config.head_dim))
        return rotate(self.q_norm(split), rope).transpose(1, 2)

    def keys_values(self, x, rope):
        """Keys, normalised and rotated, and values: (batch, kv_heads, n_tokens, head_dim) each."""
        normed = self.attention_norm(x)
        heads = (self.config.kv_heads, self.config.head_dim)
        keys = rotate(self.k_norm(self.k(normed).unflatten(-1, heads)), rope).transpose(1, 2)
        return keys, self.v(normed).unflatten(-1, heads).transpose(1, 2)

    def attend(self, x, queries, keys, values, mask=None):
        """x plus attention. Without a mask there is a query per key, and it sees the keys up to its own."""
        keys = keys.repeat_interleave(self.config.group, 1)
        values = values.repeat_interleave(self.config.group, 1)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=mask is None)
        return x + self.output(mixed.transpose(1, 2).flatten(2))

    def feed_forward(self, x):
        """x plus the SwiGLU of its norm."""
        normed = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))


class Qwen3(nn.Module):
    """The whole model. `forward` gives logits of every position; training and decoding walk the blocks themselves."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RmsNorm(config.width, config.norm_eps)
        self._initialise()

    def _initialise(self):
        """Truncated normals of variance 1/fan-in; what writes to the residual stream is scaled down by depth."""
        for name, weight in self.named_parameters():
            if weight.ndim != 2:
                continue
            std = EMBEDDING_STD if name == "embedding.weight" else 1 / math.sqrt(weight.shape[1])
            if name.endswith(("output.weight", "down.weight")):
                std /= math.sqrt(2 * self.config.layers)
            nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std)
        with torch.no_grad():
            # Heads that look by position alone need something that all tokens have in common.
            self.embedding.weight[:, 0] = COMMON_PART
            # The embedding is the output matrix too: logits begin with a standard deviation of about one.
            self.norm.weight.fill_(1 / (EMBEDDING_STD * math.sqrt(self.config.width)))

    def logits(self, hidden):
        """Logits of residual streams that have left the last block."""
        return F.linear(self.norm(hidden), self.embedding.weight)

    def hidden(self, tokens):
        """Residual streams (batch, n_tokens, width) behind the last block, of tokens at positions from 0 on."""
        rope = rope_table(self.config, torch.arange(tokens.shape[1], device=tokens.device))
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block.attend(x, block.queries(x, rope), *block.keys_values(x, rope))
            x = block.feed_forward(x)
        return x

    def forward(self, tokens):
        """Logits (batch, n_tokens, vocab)."""
        return self.logits(self.hidden(tokens))


def n_parameters(model):
    """Number of weights."""
    return sum(weight.numel() for weight in model.parameters())
