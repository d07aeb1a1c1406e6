"""From a model's figures for some images to everything that an answer says: posteriors, p-values, sets, statuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property

from torch import Tensor

from likely.answer import Calibration, Status
from likely.inference.posterior import log_posterior, uniform
from likely.inference.rejection import ConformalScores, Strangeness, prediction_set, status


@dataclass(frozen=True)
class Examination:
    """What a model says of N images: scores (N, K), log p(x | c) (N, K) or None, and statistics (N, K, n).

    `log_odds_real` (N,) is log p(real | x) / p(made | x) of a model with a discriminator, None of others.
    """

    log_scores: Tensor
    log_likelihood: Tensor | None
    statistics: Tensor
    log_odds_real: Tensor | None = None


@dataclass(frozen=True)
class Judgement:
    """What follows for N images at one `alpha`: log p(c | x), strangeness and both kinds of p-value, (N, K) each."""

    alpha: float
    calibration: tuple[Calibration, ...]  # of each class
    log_posterior: Tensor
    log_likelihood: Tensor | None
    strangeness: Tensor
    p_values: Tensor  # is the image like those of class c? NaN without calibration
    set_p_values: Tensor  # is the posterior of c as high as that of c's own images?
    p_real: Tensor | None = (
        None  # (N,): does the discriminator take the image for real, rather than made by its generator?
    )

    @cached_property
    def best(self) -> Tensor:
        """The most probable class of each image, (N,)."""
        return self.log_posterior.argmax(1)

    @cached_property
    def p_value(self) -> Tensor:
        """Is the image like some class? The largest p-value, (N,)."""
        return self.p_values.amax(1)

    @cached_property
    def sets(self) -> Tensor:
        """The classes that each answer names, (N, K) bool; none for an unknown image."""
        named = prediction_set(self.log_posterior, self.set_p_values, self.alpha)
        return named & ~(self.p_value <= self.alpha)[:, None]

    @cached_property
    def statuses(self) -> list[Status]:
        """One status an image."""
        sizes = self.sets.sum(1).tolist()
        return [status(p, size, self.alpha) for p, size in zip(self.p_value.tolist(), sizes, strict=True)]


@dataclass(frozen=True)
class Judge:
    """What was fitted on held-out and on calibration images, and turns a model's figures into a judgement."""

    temperature: float
    strangeness: Strangeness
    typicality: ConformalScores
    posterior: ConformalScores

    @classmethod
    def fit(
        cls,
        held_out: Examination,
        held_out_labels: Tensor,
        calibration: Examination,
        labels: Tensor,
        temperature: float,
    ) -> Judge:
        """Strangeness from held-out images, p-values from calibration images: neither has seen the other's."""
        strangeness = Strangeness.fit(held_out.statistics, held_out_labels)
        scores = [
            (strangeness(e.statistics), -_under_uniform_prior(e.log_scores, temperature))
            for e in (calibration, held_out)
        ]
        (strange, improbable), (strange_before, improbable_before) = scores
        return cls(
            temperature,
            strangeness,
            ConformalScores.fit(strange, labels, strange_before, held_out_labels),
            ConformalScores.fit(improbable, labels, improbable_before, held_out_labels),
        )

    def __call__(self, examination: Examination, log_prior: Tensor, alpha: float) -> Judgement:
        """Judge N images under a class prior (K,) at a false-alarm rate."""
        strange = self.strangeness(examination.statistics)
        improbable = -_under_uniform_prior(examination.log_scores, self.temperature)
        odds = examination.log_odds_real
        return Judgement(
            alpha=alpha,
            calibration=self.typicality.calibration(alpha),
            log_posterior=log_posterior(examination.log_scores, log_prior, self.temperature),
            log_likelihood=examination.log_likelihood,
            strangeness=strange,
            p_values=self.typicality.p_values(strange, alpha),
            set_p_values=self.posterior.p_values(improbable, alpha),
            p_real=None if odds is None else odds.sigmoid(),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Everything but the temperature, by name, for a checkpoint."""
        parts = {part: getattr(self, part) for part in _PARTS}
        return {
            f"{part}/{f.name}": getattr(value, f.name).clone() for part, value in parts.items() for f in fields(value)
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], temperature: float) -> Judge:
        """What `tensors` wrote."""
        fields = {
            part: {name.removeprefix(f"{part}/"): t for name, t in tensors.items() if name.startswith(f"{part}/")}
            for part in _PARTS
        }
        strangeness = Strangeness(**fields["strangeness"])
        return cls(temperature, strangeness, *(ConformalScores(**fields[part]) for part in _PARTS[1:]))


_PARTS = ("strangeness", "typicality", "posterior")


def _under_uniform_prior(log_scores: Tensor, temperature: float) -> Tensor:
    return log_posterior(log_scores, uniform(log_scores.shape[1]), temperature)
