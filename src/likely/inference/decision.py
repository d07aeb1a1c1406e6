"""Decision rule: from model outputs to posteriors, conformal p-values, prediction sets and statuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from likely.base import ModelOutputs, concatenate
from likely.inference.conformal import ConformalCalibrator, prediction_set, status
from likely.inference.label_shift import BiasCorrection
from likely.inference.likelihood_ratio import LikelihoodRatioScore, combine_max, log_ratio
from likely.inference.nonconformity import NonconformityScore, Statistics, StatisticsOfTrueClass
from likely.inference.posterior import log_posterior, log_uniform
from likely.inference.temperature_scaling import fit_temperature
from likely.prediction import CalibrationScope, Status


@dataclass(frozen=True)
class CalibrationData:
    """Values of N labeled images under their true classes `labels` (N,), to which a DecisionRule is fitted.

    `statistics` (N, D) are the true-class statistics, `surprisal` (N,) = −log p(y | x) under a uniform prior in nats,
    `log_ratio` (N,) the log-likelihood ratio of the true class to all classes in nats. `log_scores` (N, K) may be left
    out to save memory.
    """

    labels: Tensor
    statistics: Tensor
    surprisal: Tensor
    log_ratio: Tensor
    log_scores: Tensor | None

    @classmethod
    def from_outputs(cls, outputs: ModelOutputs, labels: Tensor, temperature: float) -> CalibrationData:
        """Compute the values from the outputs for labeled images."""
        scores = outputs.log_scores
        ratio = log_ratio(scores, scores.shape[1]).gather(1, labels[:, None])[:, 0]
        statistics = Statistics.of(outputs).of_true_class(labels)
        return cls(labels, statistics, torch.zeros(len(labels)), ratio, scores).with_temperature(temperature)

    @classmethod
    def concatenate(cls, batches: Sequence[CalibrationData]) -> CalibrationData:
        """Concatenate one or more batches."""
        return cls(*(concatenate([getattr(batch, f.name) for batch in batches]) for f in fields(cls)))

    @property
    def labeled_statistics(self) -> StatisticsOfTrueClass:
        """Statistics and labels, to which a nonconformity score is fitted."""
        return self.statistics, self.labels

    @property
    def n_scores(self) -> int:
        """Number of entries of `log_scores`; 0 if they were left out."""
        return 0 if self.log_scores is None else self.log_scores.numel()

    def fit_temperature(self, log_prior: Tensor, prior_temperature: float = 1.0) -> float:
        """Fit the temperature to the scores, which must not have been left out."""
        assert self.log_scores is not None
        return fit_temperature(self.log_scores, self.labels, log_prior, prior_temperature)

    def with_temperature(self, temperature: float) -> CalibrationData:
        """Recompute the surprisal for another temperature; the scores must not have been left out."""
        assert self.log_scores is not None
        posterior = _log_posterior_uniform(self.log_scores, temperature)
        return replace(self, surprisal=-posterior.gather(1, self.labels[:, None])[:, 0])

    def without_scores(self) -> CalibrationData:
        """Leave out the scores, so that the size does not depend on the number of classes."""
        return replace(self, log_scores=None)


@dataclass(frozen=True)
class ConformalOutput:
    """Posteriors, conformal p-values, prediction sets and statuses of N images at significance level `alpha`.

    An image is unknown if `p_value`, the maximum of its p-values over the classes, is at most alpha. Otherwise its prediction
    set holds the most probable class and each class whose posterior p-value exceeds alpha.

    `log_posterior`, `log_likelihood`, `nonconformity`, `p_values` and `posterior_p_values` are (N, K), log values in nats. The
    p-value of class c ranks the image's nonconformity among the calibration images of c; NaN without calibration. The
    posterior p-value ranks the surprisal −log p(c | x) in the same way and defines the prediction set. `p_real` (N,) is
    the discriminator's probability that the image is real and not generated.
    """

    alpha: float
    calibration_scope: tuple[CalibrationScope, ...]
    log_posterior: Tensor
    log_likelihood: Tensor | None
    nonconformity: Tensor
    p_values: Tensor
    posterior_p_values: Tensor
    p_real: Tensor | None = None

    @classmethod
    def concatenate(cls, batches: Sequence[ConformalOutput]) -> ConformalOutput:
        """Concatenate one or more batches of one decision rule at one alpha."""
        columns: dict[str, list[Any]] = {f.name: [getattr(batch, f.name) for batch in batches] for f in fields(cls)}
        values: dict[str, Any] = {
            name: torch.cat(each) if isinstance(each[0], Tensor) else each[0] for name, each in columns.items()
        }
        return cls(**values)

    @cached_property
    def predicted(self) -> Tensor:
        """Most probable class of each image, (N,)."""
        return self.log_posterior.argmax(1)

    @cached_property
    def p_value(self) -> Tensor:
        """Maximum p-value over the classes, max_c p_c, (N,): small if the image is atypical of every class."""
        return self.p_values.amax(1)

    @cached_property
    def prediction_sets(self) -> Tensor:
        """Mask (N, K) of the classes in each prediction set; empty for an unknown image."""
        in_set = prediction_set(self.log_posterior, self.posterior_p_values, self.alpha)
        return in_set & ~(self.p_value <= self.alpha)[:, None]

    @cached_property
    def statuses(self) -> list[Status]:
        """Status of each image."""
        sizes = self.prediction_sets.sum(1).tolist()
        return [status(p, size, self.alpha) for p, size in zip(self.p_value.tolist(), sizes, strict=True)]


@dataclass(frozen=True)
class DecisionRule:
    """Decision rule: maps the model outputs of an image to its posterior, p-values, prediction set and status.

    It holds all that is fitted to held-out images: the `temperature` of the posterior, the `nonconformity` score, and the
    conformal calibrators that turn scores into p-values: `typicality` for the nonconformity score, `posterior` for the
    surprisal. `bias_correction` corrects the scores when a new class prior is estimated. `likelihood_ratio`, if present,
    is combined with the nonconformity score by `combine_max`.
    """

    temperature: float
    nonconformity: NonconformityScore
    typicality: ConformalCalibrator
    posterior: ConformalCalibrator
    bias_correction: BiasCorrection
    likelihood_ratio: LikelihoodRatioScore | None = None

    @classmethod
    def fit(
        cls,
        held_out: CalibrationData,
        calibration: CalibrationData,
        log_prior: Tensor,
        temperature: float,
        training: StatisticsOfTrueClass | None = None,
        *,
        uses_likelihood_ratio: bool = False,
    ) -> DecisionRule:
        """Fit the scores to training and held-out images and the p-values to calibration images, which are disjoint from them.

        `log_prior` (K,) is the training prior. `training` holds the true-class statistics of many training images (N, D) and
        their labels (N,); without it the nonconformity score is fitted to the held-out images alone.
        """
        K = len(log_prior)
        scores = _Scores(
            NonconformityScore.fit(training, held_out.labeled_statistics, K),
            _fit_likelihood_ratio(held_out, K) if uses_likelihood_ratio else None,
        )
        return cls._calibrated(
            scores, scores.of_true_class(calibration), (held_out, calibration), log_prior, temperature
        )

    @classmethod
    def fit_cross_conformal(
        cls, held_out: CalibrationData | None, folds: Sequence[CalibrationData], log_prior: Tensor, temperature: float
    ) -> DecisionRule:
        """Fit scores and p-values to the same training images, in two or more folds (cross-conformal prediction, Vovk 2015).

        The outputs of each fold come from a model fitted to the other folds, and its nonconformity scores are again
        fitted to the other folds alone. Without held-out images, they are standardized with the other folds as well.
        """
        K = len(log_prior)
        held_out_ratio = None if held_out is None else _fit_likelihood_ratio(held_out, K)

        def fit_scores(others: CalibrationData) -> _Scores:
            if held_out is None:
                return _Scores(
                    NonconformityScore.fit(None, others.labeled_statistics, K), _fit_likelihood_ratio(others, K)
                )
            score = NonconformityScore.fit(others.labeled_statistics, held_out.labeled_statistics, K)
            return _Scores(score, held_out_ratio)

        others = (
            CalibrationData.concatenate([each.without_scores() for each in folds if each is not fold]) for fold in folds
        )
        nonconformity = torch.cat(
            [fit_scores(rest).of_true_class(fold) for rest, fold in zip(others, folds, strict=True)]
        )
        whole = CalibrationData.concatenate(folds)
        return cls._calibrated(fit_scores(whole), nonconformity, (held_out or whole, whole), log_prior, temperature)

    @classmethod
    def _calibrated(
        cls,
        scores: _Scores,
        nonconformity: Tensor,
        images: tuple[CalibrationData, CalibrationData],
        log_prior: Tensor,
        temperature: float,
    ) -> DecisionRule:
        """Calibrate with held-out and calibration `images`, of which the latter have the true-class scores `nonconformity`."""
        held_out, calibration = images
        K, labels, log_scores = len(log_prior), calibration.labels, calibration.log_scores
        held_out_nonconformity = scores.of_true_class(held_out)
        return cls(
            temperature,
            scores.nonconformity,
            ConformalCalibrator.fit(nonconformity, labels, held_out_nonconformity, held_out.labels, K),
            ConformalCalibrator.fit(calibration.surprisal, labels, held_out.surprisal, held_out.labels, K),
            BiasCorrection.unavailable(K)
            if log_scores is None
            else BiasCorrection.fit(log_scores, labels, log_prior, temperature),
            scores.likelihood_ratio,
        )

    @classmethod
    def uncalibrated(cls, K: int, temperature: float) -> DecisionRule:
        """Return the rule for K classes without calibration images: posteriors, but no p-values."""
        none = CalibrationData.from_outputs(ModelOutputs.empty(K), torch.zeros(0, dtype=torch.int64), temperature)
        return cls.fit(none, none, log_uniform(K), temperature)

    def __call__(self, outputs: ModelOutputs, log_prior: Tensor, alpha: float) -> ConformalOutput:
        """Apply the rule to N images under a class prior (K,) at significance level `alpha`."""
        nonconformity = self.nonconformity(Statistics.of(outputs))
        if self.likelihood_ratio is not None:
            nonconformity = combine_max(nonconformity, self.likelihood_ratio(outputs.log_scores))
        surprisal = -_log_posterior_uniform(outputs.log_scores, self.temperature)
        log_odds = outputs.log_odds_real
        return ConformalOutput(
            alpha=alpha,
            calibration_scope=self.typicality.scope(alpha),
            log_posterior=log_posterior(outputs.log_scores, log_prior, self.temperature),
            log_likelihood=outputs.log_likelihood,
            nonconformity=nonconformity,
            p_values=self.typicality.p_values(nonconformity, alpha),
            posterior_p_values=self.posterior.p_values(surprisal, alpha),
            p_real=None if log_odds is None else log_odds.sigmoid(),
        )

    def with_new_class(self, outputs: ModelOutputs) -> DecisionRule:
        """Return the rule with class K added, calibrated with outputs (n, K + 1) for its images.

        The outputs come from models that were fitted to the class without the respective image. The calibration of the other
        classes does not change.
        """
        new_class = torch.full((len(outputs.log_scores),), outputs.log_scores.shape[1] - 1)
        score, nonconformity = self.nonconformity.with_new_class(Statistics.of(outputs).of_true_class(new_class))
        ratio = None
        if self.likelihood_ratio is not None:
            ratio, low_ratio = self.likelihood_ratio.with_new_class(outputs.log_scores)
            nonconformity = combine_max(nonconformity, low_ratio)
        surprisal = -_log_posterior_uniform(outputs.log_scores, self.temperature)[:, -1]
        return DecisionRule(
            self.temperature,
            score,
            self.typicality.with_new_class(nonconformity),
            self.posterior.with_new_class(surprisal),
            self.bias_correction.with_new_class(),
            ratio,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return everything but the temperature by name, for a checkpoint."""
        values = {name: getattr(self, name) for name in _COMPONENTS}
        named = {f"{name}/{f.name}": getattr(value, f.name) for name, value in values.items() for f in fields(value)}
        if self.likelihood_ratio is not None:
            named |= {f"{LIKELIHOOD_RATIO}/{name}": tensor for name, tensor in self.likelihood_ratio.tensors().items()}
        return {name: tensor.clone() for name, tensor in named.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], temperature: float) -> DecisionRule:
        """Restore from the result of `tensors`; other names are ignored."""

        def under(prefix: str) -> dict[str, Tensor]:
            start = f"{prefix}/"
            return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}

        components = {name: kind(**under(name)) for name, kind in _COMPONENTS.items()}
        ratio = LikelihoodRatioScore.from_tensors(under(LIKELIHOOD_RATIO)) if under(LIKELIHOOD_RATIO) else None
        return cls(temperature=temperature, likelihood_ratio=ratio, **components)


LIKELIHOOD_RATIO = "likelihood_ratio"
_COMPONENTS: dict[str, Callable[..., Any]] = {
    "nonconformity": NonconformityScore,
    "typicality": ConformalCalibrator,
    "posterior": ConformalCalibrator,
    "bias_correction": BiasCorrection,
}


class _Scores(NamedTuple):
    nonconformity: NonconformityScore
    likelihood_ratio: LikelihoodRatioScore | None

    def of_true_class(self, images: CalibrationData) -> Tensor:
        """Return the combined scores of images under their true classes, (N,)."""
        score = self.nonconformity.score_true_class(*images.labeled_statistics)
        if self.likelihood_ratio is None:
            return score
        return combine_max(score, self.likelihood_ratio.score_true_class(images.log_ratio, images.labels))


def _fit_likelihood_ratio(images: CalibrationData, K: int) -> LikelihoodRatioScore | None:
    """Fit to images under their true classes; None for a single class, which has no background."""
    return LikelihoodRatioScore.fit(images.log_ratio, images.labels, K) if K > 1 else None


def _log_posterior_uniform(log_scores: Tensor, temperature: float) -> Tensor:
    return log_posterior(log_scores, log_uniform(log_scores.shape[1]), temperature)
