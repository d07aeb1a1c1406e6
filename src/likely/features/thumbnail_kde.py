"""Kernel density estimate of the thumbnails of each class."""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from likely.features.feature_extractors import FeatureScaler
from likely.networks.blocks import standard_normal
from likely.networks.covariance import ScatterStatistics
from likely.options import Options


class ThumbnailKDEOptions(Options):
    """Options of the kernel density estimate of thumbnails."""

    n_components: int = Field(64, ge=1, description="Principal components of the thumbnails.")
    bandwidth: float = Field(0.5, ge=0, le=1, description="Bandwidth h: 0 resamples the thumbnails, 1 is a Gaussian.")
    max_per_class: int = Field(100, ge=1, description="Thumbnails stored per class.")
    shrinkage: float = Field(
        0.3, ge=0, le=1, description="Shrinkage of the covariance toward a multiple of the identity."
    )


class ThumbnailKDE(nn.Module):
    """p(s | c) of thumbnails (3, side, side) as a smoothed bootstrap of the class's own.

    In whitened principal components u, with i uniform over the images of the class,

        u ~ N(m_c + √(1 − h²) (u_i − m_c), h² Σ),

    Σ the within-class covariance: mean and covariance are those of the images for any bandwidth h (Silverman 1986, Density
    Estimation, section 6.4). h = 0 resamples the images, h = 1 is a Gaussian.
    """

    def __init__(self, side: int, options: ThumbnailKDEOptions, n_thumbnails: int = 0) -> None:
        super().__init__()
        self.side, self.options = side, options
        self.to_code = FeatureScaler("whiten", (3 * side * side,), options.n_components)
        n = self.to_code.n_features
        self.codes: Tensor
        self.labels: Tensor
        self.cholesky: Tensor
        self.register_buffer("codes", torch.zeros(n_thumbnails, n))
        self.register_buffer("labels", torch.zeros(n_thumbnails, dtype=torch.long))
        self.register_buffer("cholesky", torch.eye(n))  # lower triangular factor of Σ

    @torch.no_grad()
    def fit(self, s: Tensor, c: Tensor) -> Tensor:
        """Fit to thumbnails (N, 3, side, side) of classes (N,); return their codes (N, n)."""
        self.to_code.fit(s.flatten(1))
        u: Tensor = self.to_code(s.flatten(1))
        n, D = int(c.max()) + 1, u.shape[1]
        sums = ScatterStatistics.empty(torch.Size((n, D)), torch.Size((1, D, D)))
        sums.update(u.double().cpu(), c.cpu())
        S = (sums.scatter[0] / sums.freedom).to(u)
        rho = self.options.shrinkage
        S = (1 - rho) * S + rho * S.diagonal().mean() * torch.eye(len(S)).to(S)
        self.cholesky = torch.linalg.cholesky(S) if S.any() else torch.zeros_like(S)  # a single image has no covariance
        self._store(u, c)
        return u

    def with_new_class(self, s: Tensor, c: int) -> Self:
        """Return a copy with a new class c of thumbnails (N, 3, side, side)."""
        new = type(self)(self.side, self.options)
        new.to_code, new.cholesky = self.to_code, self.cholesky
        u: Tensor = self.to_code(s.flatten(1).to(self.codes))
        new._store(torch.cat([self.codes, u]), torch.cat([self.labels, torch.full((len(u),), c).to(self.labels)]))
        return new

    def sample_codes(self, c: Tensor, rng: Generator | None) -> Tensor:
        """Sample codes u ~ p(u | c): classes (B,) -> (B, n); without `rng` the class means. Classes without images use all."""
        codes = torch.empty(len(c), self.codes.shape[1], device=self.codes.device)
        for k in sorted(set(c.tolist())):
            own, of_class = self.codes[self.labels == k], c == k
            codes[of_class] = self._sample_of_class(own if len(own) else self.codes, int(of_class.sum()), rng)
        return codes

    def _sample_of_class(self, own: Tensor, n: int, rng: Generator | None) -> Tensor:
        """Sample n codes from the stored codes of a class."""
        mean, h = own.mean(0).expand(n, -1), self.options.bandwidth
        if rng is None:
            return mean
        i = torch.randint(len(own), (n,), generator=rng, device=rng.device).to(own.device)
        noise = standard_normal(mean, rng) @ self.cholesky.mT
        u: Tensor = mean + (1 - h * h) ** 0.5 * (own[i] - mean) + h * noise
        return u

    def forward(self, u: Tensor) -> Tensor:
        """Decode codes (B, n) as thumbnails (B, 3, side, side), approximately in [0, 1]."""
        return self.to_code.inverse(u).reshape(-1, 3, self.side, self.side)

    def _store(self, u: Tensor, c: Tensor) -> None:
        """Store up to `max_per_class` codes per class, evenly spaced."""
        indices = []
        for k in sorted(set(c.tolist())):
            (own,) = torch.nonzero(c == k, as_tuple=True)
            n = min(self.options.max_per_class, len(own))
            indices.append(own[torch.linspace(0, len(own) - 1, n).round().long().to(own.device)])
        chosen = torch.cat(indices)
        self.codes, self.labels = u[chosen].clone(), c[chosen].clone()
