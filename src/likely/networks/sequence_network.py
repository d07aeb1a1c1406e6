"""Any-order sequence network: p(s_o(t) | s_o(<t), c) for every class c, with a readout that all classes share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from likely.base import FamilyOptions
from likely.exceptions import InvalidValueError
from likely.networks.recurrent import Recurrent
from likely.networks.transformer import Cache, Transformer

CausalNetwork: TypeAlias = Transformer | Recurrent


class SequenceOptions(FamilyOptions):
    """Options of the sequence network."""

    network: Literal["transformer", "lstm"] = Field("transformer", description="Network of the sequences.")
    channels: int = Field(96, ge=4, description="Channels of the network.")
    layers: int = Field(2, ge=1, description="Layers of the network.")
    heads: int = Field(4, ge=1, description="Attention heads of the transformer; they divide the channels.")
    conditioning: Literal["readout", "late", "full"] = Field(
        "readout",
        description="Layers that see the class: the readout alone, which scores all classes in one pass, the last layer too, "
        "or all layers.",
    )

    @property
    def n_conditional(self) -> int:
        """Number of layers that see the class."""
        return {"readout": 0, "late": 1, "full": self.layers}[self.conditioning]


@dataclass(frozen=True)
class Tokens:
    """Tokens of B images: codes (B, T), their vectors (B, T, v), and which of them are observed, (B, T) bool."""

    codes: Tensor
    vectors: Tensor
    observed: Tensor

    def __getitem__(self, rows: slice) -> Tokens:
        return Tokens(self.codes[rows], self.vectors[rows], self.observed[rows])

    def split(self, n: int) -> Iterator[Tokens]:
        """Yield the tokens of n images at a time."""
        yield from (self[i : i + n] for i in range(0, len(self.codes), n))

    def order(self, keys: Tensor) -> Tensor:
        """Sort positions by keys (T,) or (B, T) in [0, 1], the observed ones before all others: orders (B, T)."""
        return (keys + 2.0 * ~self.observed).argsort(dim=1, stable=True)


class SequenceNetwork(nn.Module):
    """p(· | s_o(<t), c) = softmax(W GELU((1 + γ_c) ⊙ norm h_t + β_c)), h_t = f(start, s_o(1), …, s_o(t−1)).

    Each input of the causal network f is the sum of the code's embedding, its own position and the position to predict
    (Pannatier 2024, σ-GPTs). A class vector holds γ_c and β_c (Perez 2018, FiLM), and what is added to the input of the
    layers that see the class, if any do.
    """

    def __init__(self, n_tokens: int, code_vectors: Tensor, options: SequenceOptions) -> None:
        super().__init__()
        d, (n_codes, v) = options.channels, code_vectors.shape
        self.n_class_values = (3 if options.n_conditional else 2) * d
        self.embed = nn.Sequential(nn.Linear(v, d), nn.GELU(), nn.Linear(d, d))
        self.start = nn.Parameter(torch.zeros(d))
        self.position, self.target = (nn.Parameter(0.1 * torch.randn(n_tokens, d)) for _ in range(2))
        self.trunk = _causal_network(options, options.layers - options.n_conditional)
        self.conditional = _causal_network(options, options.n_conditional) if options.n_conditional else None
        self.norm, self.to_codes = nn.LayerNorm(d), nn.Linear(d, n_codes)

    def forward(self, s: Tokens, order: Tensor) -> Tensor:
        """Return h (B, T, d), from which the tokens at the positions order[:, t] are predicted."""
        before = order[:, :-1]
        content = self.embed(s.vectors.gather(1, before[:, :, None].expand(-1, -1, s.vectors.shape[2])))
        start = self.start.expand(len(order), 1, -1)
        h: Tensor = self.trunk(torch.cat([start, content + self.position[before]], 1) + self.target[order])
        return h

    def log_p(self, s: Tokens, h: Tensor, order: Tensor, class_vectors: Tensor) -> Tensor:
        """Return log p of every token by position, (B, K, T) nats, for class vectors (B or 1, K, n)."""

        def conditioned(h: Tensor, network: CausalNetwork) -> Tensor:
            found: Tensor = network(h)
            return found

        logits = self._logits(h, class_vectors, conditioned)
        target = s.codes.gather(1, order)[:, None].expand(logits.shape[:-1])
        log_p = -F.cross_entropy(logits.flatten(0, 2).float(), target.flatten(), reduction="none").view(target.shape)
        return torch.zeros_like(log_p).scatter(2, order[:, None].expand(target.shape), log_p)

    def generate(
        self, s: Tokens, order: Tensor, class_vectors: Tensor, code_vectors: Tensor, choose: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Replace the unobserved tokens one by one by what `choose` takes from logits (B, V): codes (B, T).

        `class_vectors` (B, n) hold one class for each sequence, `code_vectors` (V, v) one vector for each code.
        """
        codes, row = s.codes.clone(), torch.arange(len(order), device=order.device)
        trunk_cache: Cache = []
        cache: Cache = []

        def conditioned(h: Tensor, network: CausalNetwork) -> Tensor:
            nonlocal cache
            h, cache = network.step(h, cache)
            return h

        content = self.start.expand(len(order), -1)
        for t in order.T:
            h, trunk_cache = self.trunk.step((content + self.target[t])[:, None], trunk_cache)
            code = choose(self._logits(h, class_vectors[:, None], conditioned)[:, 0, 0].float())
            codes[row, t] = torch.where(s.observed[row, t], codes[row, t], code)
            content = self.embed(code_vectors[codes[row, t]]) + self.position[t]
        return codes

    def _logits(
        self, h: Tensor, class_vectors: Tensor, conditioned: Callable[[Tensor, CausalNetwork], Tensor]
    ) -> Tensor:
        """Return logits (B, K, T, V) from h (B, T, d) and class vectors (B or 1, K, n)."""
        gain, shift, *added = torch.split(class_vectors[:, :, None], h.shape[2], 3)  # (B or 1, K, 1, d)
        h = h[:, None]
        if self.conditional is not None:
            h = h + added[0]  # (B, K, T, d)
            h = conditioned(h.flatten(0, 1), self.conditional).reshape(h.shape)
        logits: Tensor = self.to_codes(F.gelu(self.norm(h) * (1 + gain) + shift, approximate="tanh"))
        return logits


def _causal_network(options: SequenceOptions, depth: int) -> CausalNetwork:
    if options.network == "lstm":
        return Recurrent(options.channels, depth=depth)
    if options.channels % options.heads:
        raise InvalidValueError(f"channels {options.channels} is no multiple of heads {options.heads}")
    return Transformer(options.channels, depth=depth, n_heads=options.heads)
