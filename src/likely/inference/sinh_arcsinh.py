"""Sinh-arcsinh transform to normality: removes heavy tails and skewness of each variable (Jones & Pewsey 2009)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SinhArcsinhOptions:
    """Constants of the maximum a posteriori fit by Adam.

    `n_steps`, `learning_rate`: of Adam. `max_samples`: values per variable that the curve is fitted to. `pseudo_count`:
    values by which the prior, a standard normal for each parameter, counts. `max_parameter`: bound of |ξ|, |log η| and
    |ε|. `max_log_tail`: bound of |log δ|. `max_argument`: bound of the argument of sinh, so that squares of t fit into
    float32.
    """

    n_steps: int = 80
    learning_rate: float = 0.08
    max_samples: int = 4000
    pseudo_count: float = 5.0
    max_parameter: float = 3.0
    max_log_tail: float = 2.0
    max_argument: float = 25.0


DEFAULT_OPTIONS = SinhArcsinhOptions()


@dataclass(frozen=True)
class SinhArcsinh:
    """t = sinh(δ arsinh((z − ξ) / η) − ε), standard normal if z has a sinh-arcsinh distribution (Jones & Pewsey 2009, eq. 1).

    `parameters` (4, D) holds ξ, log η, log δ and ε of D variables; δ < 1 means tails heavier than normal. Parameters
    (4, 0) are the identity.
    """

    parameters: Tensor

    @classmethod
    def identity(cls) -> SinhArcsinh:
        return cls(torch.zeros(4, 0))

    @classmethod
    def fit(cls, z: Tensor, options: SinhArcsinhOptions = DEFAULT_OPTIONS) -> SinhArcsinh:
        """Fit to standardized values (N, D) by maximum a posteriori; deterministic."""
        chosen = torch.randperm(len(z), generator=torch.Generator().manual_seed(0))[: options.max_samples]
        z, most = z[chosen].float(), options.max_parameter
        with torch.inference_mode(False), torch.enable_grad():
            z, bounds = z.clone(), torch.tensor([most, most, options.max_log_tail, most])[:, None]
            free = torch.zeros(4, z.shape[1], requires_grad=True)
            optimizer = torch.optim.Adam([free], lr=options.learning_rate)
            for _ in range(options.n_steps):
                curve = cls(bounds * (free / bounds).tanh())
                log_likelihood = curve.log_derivative(z) - curve(z).square() / 2
                loss = options.pseudo_count / len(z) * free.square().sum() / 2 - log_likelihood.mean(0).sum()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            return cls((bounds * (free.detach() / bounds).tanh()).contiguous())

    @property
    def changes(self) -> bool:
        """False for the identity."""
        return self.parameters.shape[1] > 0

    def __call__(self, z: Tensor) -> Tensor:
        """Return t, (..., D) -> (..., D)."""
        return self._argument(z).sinh() if self.changes else z

    def log_derivative(self, z: Tensor) -> Tensor:
        """Return log |dt/dz|, (..., D)."""
        if not self.changes:
            return torch.zeros_like(z)
        location, log_scale, log_tail, _ = self.parameters
        u = (z - location) * (-log_scale).exp()
        found: Tensor = self._argument(z).cosh().log() + log_tail - log_scale - u.square().log1p() / 2
        return found

    def _argument(self, z: Tensor) -> Tensor:
        location, log_scale, log_tail, skew = self.parameters
        w: Tensor = log_tail.exp() * ((z - location) * (-log_scale).exp()).asinh() - skew
        return w.clamp(-DEFAULT_OPTIONS.max_argument, DEFAULT_OPTIONS.max_argument)
