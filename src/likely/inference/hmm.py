"""Hidden Markov model over a sequence of images, such as the frames of a camera: filtering and smoothing.

p(c_t | x_1..t) ∝ p(x_t | c_t) Σ_c' p(c_t | c') p(c_{t−1} = c' | x_1..t−1)

The class persists with probability ρ, the persistence, and is otherwise sampled from the prior: p(c | c') = ρ [c = c']
+ (1 − ρ) π_c, so that a step costs K instead of K² operations (Rabiner 1989, A tutorial on hidden Markov models,
section III.A). Images are independent conditional on their class; near-identical frames of a static scene therefore
count for too much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from likely.exceptions import InvalidValueError
from likely.inference.posterior import log_posterior


@dataclass(frozen=True)
class HMMFilter:
    """State of the forward algorithm: log p(c_t | x_1..t), (K,) float64, or the prior log π before the first image.

    `log_prior` (K,) is normalized; `persistence` is between 0 (independent images) and 1 (a single class for all images).
    """

    log_prior: Tensor
    persistence: float
    log_posterior: Tensor

    @classmethod
    def start(cls, log_prior: Tensor, persistence: float) -> HMMFilter:
        """Return the state before the first image. Raise InvalidValueError if the persistence is not a probability."""
        if not 0 <= persistence <= 1:
            raise InvalidValueError(f"the persistence is {persistence:g}: expected a probability from 0 to 1")
        return cls(log_prior.double(), persistence, log_prior.double())

    @property
    def log_predicted(self) -> Tensor:
        """log p(c_{t+1} | x_1..t) = log(ρ p(c_t | x_1..t) + (1 − ρ) π), (K,)."""
        return _log_mixture(self.log_posterior, self.log_prior, self.persistence)

    def update(self, log_scores: Tensor, temperature: float = 1.0) -> HMMFilter:
        """Return the state after one more image with scores (K,)."""
        return replace(self, log_posterior=log_posterior(log_scores[None], self.log_predicted, temperature)[0])

    def filter(self, log_scores: Tensor, temperature: float = 1.0) -> Tensor:
        """Return log p(c_t | x_1..t), given each image and all earlier ones: (T, K) -> (T, K) float64."""
        state, rows = self, []
        for row in log_scores:
            state = state.update(row, temperature)
            rows.append(state.log_posterior)
        return torch.stack(rows) if rows else log_scores.double()

    def smooth(self, log_scores: Tensor, temperature: float = 1.0) -> Tensor:
        """Return log p(c_t | x_1..T) ∝ p(c_t | x_1..t) p(x_t+1..T | c_t), given all images: (T, K) -> (T, K) float64.

        Backward recursion (Rabiner 1989, eq. 25): p(x_t+1..T | c) = ρ m_c + (1 − ρ) Σ_k π_k m_k with
        m_k = p(x_t+1 | k) p(x_t+2..T | k).
        """
        forward = self.filter(log_scores, temperature)
        backward = torch.zeros_like(forward)  # log p(x_t+1..T | c_t), up to one constant per row
        for t in range(len(forward) - 1, 0, -1):
            m = torch.log_softmax(log_scores[t].double() / temperature + backward[t], 0)
            mean = torch.logsumexp(self.log_prior + m, 0)
            backward[t - 1] = _log_mixture(m, mean, self.persistence)
        return torch.log_softmax(forward + backward, dim=1)


def _log_mixture(log_p: Tensor, log_q: Tensor, weight: float) -> Tensor:
    """Return log(weight · p + (1 − weight) · q)."""
    log_weight, log_rest = torch.tensor([weight, 1 - weight], dtype=torch.float64).log()
    return torch.logaddexp(log_weight + log_p, log_rest + log_q)
