"""Sketches: what the images of a class look like a few pixels a side, as a density that takes no training."""

from __future__ import annotations

from typing import Self

import torch
from torch import Generator, Tensor, nn

from likely.features.feature_extractors import FeatureScaler
from likely.networks.blocks import standard_normal
from likely.networks.covariance import ScatterStatistics

MAX_THUMBNAILS = 100  # of a class are kept
PSEUDO_COUNT = 0.3  # share of the mean variance in the covariance, which a few thousand images alone do not settle


class ThumbnailKDE(nn.Module):
    """p(s | c) of images (3, side, side), by a kernel about each of the class's own.

    In principal components u, of variance 1 over all images, and with i any image of the class,

        u ~ N(m_c + √(1 − h²) (u_i − m_c), h² Σ),

    Σ the covariance within classes: mean and covariance stay those of the images, whatever the bandwidth h (Silverman 1986,
    Density Estimation, section 6.4: the smoothed bootstrap). h = 0 gives the images themselves, h = 1 a Gaussian.
    """

    def __init__(self, side: int, n_components: int, bandwidth: float, n_kept: int = 0) -> None:
        super().__init__()
        self.side, self.bandwidth = side, bandwidth
        self.to_code = FeatureScaler("whiten", (3 * side * side,), n_components)
        n = self.to_code.n_features
        self.codes: Tensor
        self.labels: Tensor
        self.spread: Tensor
        self.register_buffer("codes", torch.zeros(n_kept, n))
        self.register_buffer("labels", torch.zeros(n_kept, dtype=torch.long))
        self.register_buffer("spread", torch.eye(n))  # lower triangular, its square Σ

    @torch.no_grad()
    def fit(self, s: Tensor, c: Tensor) -> Tensor:
        """Learn from images (N, 3, side, side) of classes (N,); their codes (N, n)."""
        self.to_code.fit(s.flatten(1))
        u: Tensor = self.to_code(s.flatten(1))
        n, D = int(c.max()) + 1, u.shape[1]
        sums = ScatterStatistics.empty(torch.Size((n, D)), torch.Size((1, D, D)))
        sums.update(u.double().cpu(), c.cpu())
        S = (sums.scatter[0] / sums.freedom).to(u)
        S = (1 - PSEUDO_COUNT) * S + PSEUDO_COUNT * S.diagonal().mean() * torch.eye(len(S)).to(S)
        self.spread = torch.linalg.cholesky(S) if S.any() else torch.zeros_like(S)  # of one image there is no spread
        self._keep(u, c)
        return u

    def with_new_class(self, s: Tensor, c: int) -> Self:
        """With images (N, 3, side, side) of one class more."""
        new = type(self)(self.side, self.to_code.n_features, self.bandwidth)
        new.to_code, new.spread = self.to_code, self.spread
        u: Tensor = self.to_code(s.flatten(1).to(self.codes))
        new._keep(torch.cat([self.codes, u]), torch.cat([self.labels, torch.full((len(u),), c).to(self.labels)]))
        return new

    def encode(self, c: Tensor, rng: Generator | None) -> Tensor:
        """u ~ p(u | c), classes (B,) -> (B, n); the classes' means without `rng`. Of no class's images, any."""
        found = torch.empty(len(c), self.codes.shape[1], device=self.codes.device)
        for k in sorted(set(c.tolist())):
            own, there = self.codes[self.labels == k], c == k
            found[there] = self._drawn(own if len(own) else self.codes, int(there.sum()), rng)
        return found

    def _drawn(self, own: Tensor, n: int, rng: Generator | None) -> Tensor:
        """n codes of the class that has these, (n, D)."""
        mean, h = own.mean(0).expand(n, -1), self.bandwidth
        if rng is None:
            return mean
        i = torch.randint(len(own), (n,), generator=rng, device=rng.device).to(own.device)
        noise = standard_normal(mean, rng) @ self.spread.mT
        u: Tensor = mean + (1 - h * h) ** 0.5 * (own[i] - mean) + h * noise
        return u

    def forward(self, u: Tensor) -> Tensor:
        """Codes (B, n) -> sketches (B, 3, side, side), about in [0, 1]."""
        return self.to_code.inverse(u).reshape(-1, 3, self.side, self.side)

    def _keep(self, u: Tensor, c: Tensor) -> None:
        """Of each class as many as are kept, at even distances among those that there are."""
        kept = []
        for k in sorted(set(c.tolist())):
            (own,) = torch.nonzero(c == k, as_tuple=True)
            kept.append(
                own[torch.linspace(0, len(own) - 1, min(MAX_THUMBNAILS, len(own))).round().long().to(own.device)]
            )
        places = torch.cat(kept)
        self.codes, self.labels = u[places].clone(), c[places].clone()
