"""Numbers made normal, each kind of number by a curve of its own: heavy tails drawn in, skewness straightened."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

N_STEPS = 80
LEARNING_RATE = 0.08
MAX_SAMPLES = 4000  # numbers of a kind, by which its curve is fitted
PSEUDO_COUNT = 5.0  # numbers' worth of belief that they are normal as they are
MAX_PARAMETER = 3.0  # |ξ|, |log η| and |ε|
MAX_LOG_TAIL = 2.0  # |log δ|
MAX_ARGUMENT = 25.0  # where the curve ends: squares of what it says have to fit into float32


@dataclass(frozen=True)
class SinhArcsinh:
    """t = sinh(δ arsinh((z − ξ) / η) − ε), standard normal if z has a sinh-arcsinh distribution (Jones & Pewsey 2009, eq. 1).

    `parameters` (4, D) holds ξ, log η, log δ and ε of D kinds of numbers; δ < 1 stands for tails heavier than normal. Of
    none, (4, 0), numbers stay as they are.
    """

    parameters: Tensor

    @classmethod
    def identity(cls) -> SinhArcsinh:
        return cls(torch.zeros(4, 0))

    @classmethod
    def fit(cls, z: Tensor) -> SinhArcsinh:
        """The curves under which numbers (N, D), of about unit size, are most likely normal."""
        chosen = torch.randperm(len(z), generator=torch.Generator().manual_seed(0))[:MAX_SAMPLES]
        z = z[chosen].float()
        with torch.inference_mode(False), torch.enable_grad():
            z, bounds = z.clone(), torch.tensor([MAX_PARAMETER, MAX_PARAMETER, MAX_LOG_TAIL, MAX_PARAMETER])[:, None]
            free = torch.zeros(4, z.shape[1], requires_grad=True)
            optimizer = torch.optim.Adam([free], lr=LEARNING_RATE)
            for _ in range(N_STEPS):
                curve = cls(bounds * (free / bounds).tanh())
                likelihood = curve.log_derivative(z) - curve(z).square() / 2
                loss = PSEUDO_COUNT / len(z) * free.square().sum() / 2 - likelihood.mean(0).sum()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            return cls((bounds * (free.detach() / bounds).tanh()).contiguous())

    @property
    def changes(self) -> bool:
        return self.parameters.shape[1] > 0

    def __call__(self, z: Tensor) -> Tensor:
        """t, (..., D) -> (..., D)."""
        return self._inner(z).sinh() if self.changes else z

    def log_derivative(self, z: Tensor) -> Tensor:
        """log |dt/dz|, (..., D)."""
        if not self.changes:
            return torch.zeros_like(z)
        location, log_scale, log_tail, _ = self.parameters
        u = (z - location) * (-log_scale).exp()
        found: Tensor = self._inner(z).cosh().log() + log_tail - log_scale - u.square().log1p() / 2
        return found

    def _inner(self, z: Tensor) -> Tensor:
        location, log_scale, log_tail, skew = self.parameters
        w: Tensor = log_tail.exp() * ((z - location) * (-log_scale).exp()).asinh() - skew
        return w.clamp(-MAX_ARGUMENT, MAX_ARGUMENT)
