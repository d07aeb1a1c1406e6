"""The class-conditional Gaussian: p(x | c) = N(x; mean_c, Σ_c), the template for a family and its analytic oracle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from likely.contract import (
    Diagnostics,
    Evidence,
    EvidenceKind,
    GenerativeModel,
    Measured,
    Objective,
    Options,
    Space,
    Task,
)
from likely.nets.blocks import standard_normal

LARGEST = 4096  # dimensions: a full covariance of more would fill gigabytes
BIN = 1 / 255  # the width of one of the 256 values of an 8-bit pixel, in units of [0, 1]


class GaussianOptions(Options):
    """Options of `gaussian`."""

    covariance: Literal["tied", "per_class", "diagonal"] = Field(
        "tied", description="One covariance for all classes, one for each, or variances alone."
    )
    shrinkage: float | None = Field(
        None, ge=0, le=1, description="Share of a multiple of the identity in the covariance; estimated when left out."
    )


class Gaussian(GenerativeModel, Diagnostics, Measured):
    """log p(x | c) = −½ (‖W_c (x − mean_c)‖² + log|2π Σ_c|), with W_cᵀ W_c = Σ_c⁻¹.

    On 8-bit pixels the density is averaged over uniform noise within each pixel's bin, in closed form:
    E_u log N(x + u) = log N(x) − BIN²/24 tr Σ⁻¹, a lower bound on the log-probability of the bin (Theis 2016, eq. 4).
    """

    options_type = GaussianOptions

    def __init__(self, task: Task, options: GaussianOptions) -> None:
        super().__init__(task, options)
        self.covariance = options.covariance
        self.shrinkage = options.shrinkage
        K, D = task.n_classes, task.n_dims
        self._refuse_too_large(D)
        n_covariances = 1 if self.covariance == "tied" else K
        whitening = (K, D) if self.covariance == "diagonal" else (n_covariances, D, D)
        self.mean: Tensor
        self.whitening: Tensor
        # float64: a quadratic form of hundreds of dimensions loses the digits that tell near classes apart in float32.
        self.register_buffer("mean", torch.zeros(K, D, dtype=torch.float64))
        self.register_buffer("whitening", torch.zeros(whitening, dtype=torch.float64))
        self._count = torch.zeros(K, dtype=torch.float64)
        self._sum = torch.zeros(K, D, dtype=torch.float64)
        self._moment = torch.zeros(whitening, dtype=torch.float64)

    @property
    def evidence(self) -> Evidence:
        kind = EvidenceKind.LOWER_BOUND if self.task.space is Space.PIXELS8 else EvidenceKind.EXACT
        return Evidence(kind, self.task.space)

    def log_likelihood(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self._log_density(x).float()  # (B, K)

    def log_scores(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        L = self._log_density(x)
        return (L - L.amax(1, keepdim=True)).float()  # (B, K); the constant goes before the rounding does harm

    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        squared = self._squared_distance(x)
        D = self.task.n_dims
        L = self._log_normaliser() - 0.5 * squared
        return {"log_likelihood": (L / D).float(), "mahalanobis": (squared / D).sqrt().float()}

    def sample(self, c: Tensor, *, rng: Generator | None = None) -> Tensor:
        mean = self.mean[c]
        noise = torch.zeros_like(mean) if rng is None else self._unwhiten(standard_normal(mean, rng), c)
        x = (mean + noise).float().reshape(-1, *self.task.shape)
        return x.clamp(0, 1) if self.task.space is Space.PIXELS8 else x

    def objectives(self) -> Sequence[Objective]:
        return ()  # nothing is learned by gradient: the maximum of the likelihood is known in closed form

    def measure(self, x: Tensor, y: Tensor) -> None:
        x, y = x[y >= 0].flatten(1).double().cpu(), y[y >= 0].cpu()
        self._count += torch.bincount(y, minlength=self.task.n_classes)
        self._sum.index_add_(0, y, x)
        if self.covariance == "diagonal":
            self._moment.index_add_(0, y, x.square())
        elif self.covariance == "tied":
            self._moment[0] += x.mT @ x
        else:
            for c in range(self.task.n_classes):
                self._moment[c] += x[y == c].mT @ x[y == c]

    def conclude(self) -> None:
        n = self._count.clamp_min(1)
        mean = self._sum / n[:, None]
        if self.covariance == "diagonal":
            # With few images a class's own variances are noise: it borrows those of all classes together.
            variance = self._borrowed(self._moment - n[:, None] * mean.square(), n)
            whitening = self._shrunk_variance(variance, n[:, None]).rsqrt()
        else:
            whitening = torch.stack([_inverse_root(self._shrunk(S, m)) for S, m in self._scatters(mean, n)])
        self.mean.copy_(mean)
        self.whitening.copy_(whitening)
        self._count, self._sum, self._moment = (torch.zeros_like(t) for t in (self._count, self._sum, self._moment))

    def _log_density(self, x: Tensor) -> Tensor:
        return self._log_normaliser() - 0.5 * self._squared_distance(x)  # (B, K)

    def _squared_distance(self, x: Tensor) -> Tensor:
        """‖W_c (x − mean_c)‖², (B, K)."""
        x = x.flatten(1).double()
        if self.covariance == "diagonal":
            P = self.whitening.square()  # (K, D)
            squared = x.square() @ P.mT - 2 * x @ (P * self.mean).mT + (P * self.mean.square()).sum(1)
            return squared.clamp_min(0)
        if self.covariance == "tied":
            W = self.whitening[0].mT
            return torch.cdist(x @ W, self.mean @ W, compute_mode="donot_use_mm_for_euclid_dist").square()
        distances = [((x - m) @ W.mT).square().sum(1) for m, W in zip(self.mean, self.whitening, strict=True)]
        return torch.stack(distances, 1)

    def _log_normaliser(self) -> Tensor:
        """−½ log|2π Σ_c|, and on 8-bit pixels the bin's volume and the noise within it; (K,) or (1,)."""
        scale = self.whitening if self.covariance == "diagonal" else self.whitening.diagonal(dim1=1, dim2=2)
        log_normaliser = scale.log().sum(1) - 0.5 * self.task.n_dims * math.log(2 * math.pi)
        if self.task.space is Space.FEATURES:
            return log_normaliser
        trace = self.whitening.square().flatten(1).sum(1)
        return log_normaliser + self.task.n_dims * math.log(BIN) - trace * BIN**2 / 24

    def _unwhiten(self, noise: Tensor, c: Tensor) -> Tensor:
        if self.covariance == "diagonal":
            return noise / self.whitening[c]
        W = self.whitening.expand(self.task.n_classes, -1, -1)[c]
        x: Tensor = torch.linalg.solve_triangular(W, noise[..., None], upper=False)
        return x[..., 0]

    def _scatters(self, mean: Tensor, n: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each covariance to estimate, (D, D), with the number of images that it rests on."""
        if self.covariance == "tied":
            centred = self._moment[0] - (mean * n[:, None]).mT @ mean
            return [(centred / n.sum(), n.sum())]
        pairs = zip(self._moment, mean, n, strict=True)
        return [(S / m - torch.outer(mu, mu), m) for S, mu, m in pairs]

    def _shrunk(self, S: Tensor, n: Tensor) -> Tensor:
        """(1 − ρ) S + ρ tr(S)/D I, and at least the variance of rounding to 8 bits."""
        D = len(S)
        rho = _oracle_shrinkage(S, n) if self.shrinkage is None else S.new_tensor(self.shrinkage)
        scale = S.diagonal().mean()
        identity = torch.eye(D, dtype=S.dtype)
        return (1 - rho) * S + (rho * scale + self._floor(scale)) * identity

    def _borrowed(self, scatter: Tensor, n: Tensor) -> Tensor:
        pooled = scatter.sum(0) / n.sum()
        weight = (n / (n + 10))[:, None]
        return weight * scatter / n[:, None] + (1 - weight) * pooled

    def _shrunk_variance(self, variance: Tensor, n: Tensor) -> Tensor:
        scale = variance.mean(1, keepdim=True)
        rho = 1 / (n + 1) if self.shrinkage is None else self.shrinkage
        return (1 - rho) * variance.clamp_min(0) + rho * scale + self._floor(scale)

    def _floor(self, scale: Tensor) -> Tensor:
        """The least variance: that of rounding on pixels; on vectors, whose unit is unknown, a sliver of their own."""
        if self.task.space is Space.PIXELS8:
            return torch.full_like(scale, BIN**2 / 12)
        return torch.where(scale > 0, 1e-6 * scale, 1.0)

    def _refuse_too_large(self, D: int) -> None:
        if D > LARGEST and self.covariance != "diagonal":
            raise ValueError(
                f"covariance {self.covariance!r} over {D:,} numbers an image would need {D * D * 8 / 1e9:.1f} GB; "
                f"use covariance 'diagonal', or images of at most {LARGEST:,} numbers (a smaller size)"
            )


def _inverse_root(covariance: Tensor) -> Tensor:
    """W, lower triangular, with Wᵀ W = Σ⁻¹."""
    cholesky = torch.linalg.cholesky(covariance)
    identity = torch.eye(len(covariance), dtype=covariance.dtype)
    inverse: Tensor = torch.linalg.solve_triangular(cholesky, identity, upper=False)
    return inverse


def _oracle_shrinkage(S: Tensor, n: Tensor) -> Tensor:
    """ρ of oracle approximating shrinkage from the sample covariance (D, D) of n images (Chen 2010, eq. 23)."""
    D = len(S)
    squared, trace = S.square().sum(), S.diagonal().sum()
    numerator = (1 - 2 / D) * squared + trace.square()
    denominator = (n + 1 - 2 / D) * (squared - trace.square() / D)
    rho = numerator / denominator.clamp_min(torch.finfo(S.dtype).tiny)
    return rho.clamp(0, 1)
