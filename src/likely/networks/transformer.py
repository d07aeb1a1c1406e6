"""Causal transformer with a cache of keys and values."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Cache: TypeAlias = list[Tensor]  # keys and values of every layer, or the states of a recurrent network


class Transformer(nn.Module):
    """Pre-normalized causal blocks (Radford 2019, GPT-2): h + attention(norm h), then h + MLP(norm h)."""

    def __init__(self, width: int, *, depth: int, n_heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(width, n_heads) for _ in range(depth))

    def forward(self, h: Tensor) -> Tensor:
        """Map a sequence (B, T, d) to (B, T, d); position t sees the positions up to t."""
        for block in self.blocks:
            h, _ = block(h)
        return h

    def step(self, h: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Map the next position (B, 1, d), with the cache of those before it, empty at first; return its extension too."""
        new: Cache = []
        for i, block in enumerate(self.blocks):
            h, pair = block(h, cache[2 * i : 2 * i + 2])
            new += pair
        return h, new


class _Block(nn.Module):
    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.to_heads, self.from_heads = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, before: Cache | None = None) -> tuple[Tensor, Cache]:
        query, *pair = self.to_heads(self.norm[0](h)).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        if before:
            pair = [torch.cat(each, 2) for each in zip(before, pair, strict=True)]
        # In float32: on CPUs the gradient of short sequences takes seven times as long in bfloat16.
        with torch.autocast(h.device.type, enabled=False):
            q, k, v = (each.float() for each in (query, *pair))
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=before is None)
        h = h + self.from_heads(attended.transpose(1, 2).flatten(2))
        return h + self.mlp(self.norm[1](h)), pair
