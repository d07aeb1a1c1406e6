"""Recurrent network with the interface of the causal transformer."""

from __future__ import annotations

from torch import Tensor, nn

from likely.networks.transformer import Cache


class Recurrent(nn.Module):
    """Layers of h + LSTM(norm h) (Hochreiter 1997), whose state is the cache."""

    def __init__(self, width: int, *, depth: int) -> None:
        super().__init__()
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.layers = nn.ModuleList(nn.LSTM(width, width, batch_first=True) for _ in range(depth))

    def forward(self, h: Tensor) -> Tensor:
        """Map a sequence (B, T, d) to (B, T, d); position t sees the positions up to t."""
        for norm, layer in zip(self.norm, self.layers, strict=True):
            h = h + layer(norm(h))[0]
        return h

    def step(self, h: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Map the next position (B, 1, d), with the cache of those before it, empty at first; return its successor too."""
        new: Cache = []
        for i, (norm, layer) in enumerate(zip(self.norm, self.layers, strict=True)):
            change, state = layer(norm(h), tuple(cache[2 * i : 2 * i + 2]) or None)
            h = h + change
            new += state
        return h, new
