"""Images one after another: p(c_t | x_1..t) ∝ p(x_t | c_t) Σ_c' p(c_t | c') p(c_{t−1} = c' | x_1..t−1).

A hidden Markov model whose class stays with probability ρ, the persistence, and is else drawn afresh from the prior:
p(c | c') = ρ [c = c'] + (1 − ρ) π_c, so that a step costs K and not K² (Rabiner 1989, A tutorial on hidden Markov models,
section III.A). Images count as independent once their class is known; frames alike because the camera stands still say less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from likely.exceptions import InvalidValueError
from likely.inference.posterior import log_posterior


@dataclass(frozen=True)
class HMMFilter:
    """What is believed after the images so far: log p(c_t | x_1..t), (K,) float64, the prior π before the first.

    `log_prior` (K,) is normalized; `persistence` is from 0, every image for itself, to 1, all images of one class.
    """

    log_prior: Tensor
    persistence: float
    log_posterior: Tensor

    @classmethod
    def start(cls, log_prior: Tensor, persistence: float) -> HMMFilter:
        """Before the first image. ValueError for a persistence that is no probability."""
        if not 0 <= persistence <= 1:
            raise InvalidValueError(f"the persistence is {persistence:g}: expected a probability from 0 to 1")
        return cls(log_prior.double(), persistence, log_prior.double())

    @property
    def log_predicted(self) -> Tensor:
        """log p(c_{t+1} | x_1..t) = log(ρ p(c_t | x_1..t) + (1 − ρ) π), (K,)."""
        return _mixed(self.log_posterior, self.log_prior, self.persistence)

    def update(self, log_scores: Tensor, temperature: float = 1.0) -> HMMFilter:
        """The filter after one more image, of scores (K,)."""
        return replace(self, log_posterior=log_posterior(log_scores[None], self.log_predicted, temperature)[0])


def filtered(log_scores: Tensor, log_prior: Tensor, persistence: float, temperature: float = 1.0) -> Tensor:
    """log p(c_t | x_1..t), from each image and those before it: (T, K), (K,) -> (T, K) float64."""
    state, rows = HMMFilter.start(log_prior, persistence), []
    for row in log_scores:
        state = state.update(row, temperature)
        rows.append(state.log_posterior)
    return torch.stack(rows) if rows else log_scores.double()


def smoothed(log_scores: Tensor, log_prior: Tensor, persistence: float, temperature: float = 1.0) -> Tensor:
    """log p(c_t | x_1..T) ∝ p(c_t | x_1..t) p(x_t+1..T | c_t), from all images: (T, K), (K,) -> (T, K) float64.

    Backwards (Rabiner 1989, eq. 25): p(x_t+1..T | c) = ρ m_c + (1 − ρ) Σ_k π_k m_k with m_k = p(x_t+1 | k) p(x_t+2..T | k).
    """
    before = filtered(log_scores, log_prior, persistence, temperature)
    ahead = torch.zeros_like(before)  # log p(x_t+1..T | c_t), up to one constant a row
    for t in range(len(before) - 1, 0, -1):
        m = torch.log_softmax(log_scores[t].double() / temperature + ahead[t], 0)
        anew = torch.logsumexp(log_prior.double() + m, 0)
        ahead[t - 1] = _mixed(m, anew, persistence)
    return torch.log_softmax(before + ahead, dim=1)


def _mixed(log_p: Tensor, log_q: Tensor, weight: float) -> Tensor:
    """log(share · p + (1 − share) · q)."""
    log_share, log_rest = torch.tensor([weight, 1 - weight], dtype=torch.float64).log()
    return torch.logaddexp(log_share + log_p, log_rest + log_q)
