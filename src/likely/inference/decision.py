"""From a model's figures for some images to everything that an answer says: posteriors, p-values, sets, statuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

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
    """What a judge learns from: of N images under their own classes `labels` (N,), the traits (N, D), how `improbable` these
    classes are, −log p(y | x) under a uniform prior (N,), and how they `contrast` with the rest, (N,).

    `log_scores` (N, K) are left out where they are too many."""

    labels: Tensor
    statistics: Tensor
    surprisal: Tensor
    log_ratio: Tensor
    log_scores: Tensor | None

    @classmethod
    def from_outputs(cls, found: ModelOutputs, labels: Tensor, temperature: float) -> CalibrationData:
        """Of the figures for images, under a temperature."""
        scores = found.log_scores
        contrast = log_ratio(scores, scores.shape[1]).gather(1, labels[:, None])[:, 0]
        return cls(
            labels, Statistics.of(found).of_true_class(labels), torch.zeros(len(labels)), contrast, scores
        ).with_temperature(temperature)

    @classmethod
    def concatenate(cls, pieces: Sequence[CalibrationData]) -> CalibrationData:
        """Of the images of all pieces, at least one."""
        return cls(*(concatenate([getattr(piece, f.name) for piece in pieces]) for f in fields(cls)))

    @property
    def labeled_statistics(self) -> StatisticsOfTrueClass:
        """What nonconformity is learned from."""
        return self.statistics, self.labels

    @property
    def n_scores(self) -> int:
        """How many there are; 0 if they were left out."""
        return 0 if self.log_scores is None else self.log_scores.numel()

    def fit_temperature(self, log_prior: Tensor, expected: float = 1.0) -> float:
        """That of the scores, which have to be there."""
        assert self.log_scores is not None
        return fit_temperature(self.log_scores, self.labels, log_prior, expected)

    def with_temperature(self, temperature: float) -> CalibrationData:
        """The same under another temperature; the scores have to be there."""
        assert self.log_scores is not None
        posterior = _under_uniform_prior(self.log_scores, temperature)
        return replace(self, surprisal=-posterior.gather(1, self.labels[:, None])[:, 0])

    def without_scores(self) -> CalibrationData:
        """The same, small whatever the number of classes."""
        return replace(self, log_scores=None)


@dataclass(frozen=True)
class ConformalOutput:
    """What follows for N images at one `alpha`: log p(c | x), nonconformity and both kinds of p-value, (N, K) each."""

    alpha: float
    calibration_scope: tuple[CalibrationScope, ...]  # of each class
    log_posterior: Tensor
    log_likelihood: Tensor | None
    nonconformity: Tensor
    p_values: Tensor  # is the image like those of class c? NaN without calibration
    posterior_p_values: Tensor  # is the posterior of c as high as that of c's own images?
    p_real: Tensor | None = (
        None  # (N,): does the discriminator take the image for real, rather than made by its generator?
    )

    @classmethod
    def concatenate(cls, pieces: Sequence[ConformalOutput]) -> ConformalOutput:
        """Of the images of all pieces, at least one, judged alike."""
        values: dict[str, Any] = {}
        for f in fields(cls):
            each = [getattr(piece, f.name) for piece in pieces]
            values[f.name] = torch.cat(each) if isinstance(each[0], Tensor) else each[0]
        return cls(**values)

    @cached_property
    def predicted(self) -> Tensor:
        """The most probable class of each image, (N,)."""
        return self.log_posterior.argmax(1)

    @cached_property
    def p_value(self) -> Tensor:
        """Is the image like some class? The largest p-value, (N,)."""
        return self.p_values.amax(1)

    @cached_property
    def prediction_sets(self) -> Tensor:
        """The classes that each answer names, (N, K) bool; none for an unknown image."""
        named = prediction_set(self.log_posterior, self.posterior_p_values, self.alpha)
        return named & ~(self.p_value <= self.alpha)[:, None]

    @cached_property
    def statuses(self) -> list[Status]:
        """One status an image."""
        sizes = self.prediction_sets.sum(1).tolist()
        return [status(p, size, self.alpha) for p, size in zip(self.p_value.tolist(), sizes, strict=True)]


@dataclass(frozen=True)
class ConformalClassifier:
    """What was fitted on held-out and on calibration images, and turns a model's figures into a judgment."""

    temperature: float
    nonconformity: NonconformityScore
    typicality: ConformalCalibrator
    posterior: ConformalCalibrator
    bias_correction: BiasCorrection  # the scores' own bias, for whoever estimates another class mix
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
    ) -> ConformalClassifier:
        """NonconformityScore from trained and held-out images, p-values from calibration images: neither has seen the other's.

        `log_prior` (K,) is that of the training; `trained` are the traits (N, D) of many images of the training under their
        own classes (N,), without which the held-out ones have to do. With `contrasted`, what is as near to every class is
        strange as well.
        """
        K = len(log_prior)
        learned = (
            NonconformityScore.fit(training, held_out.labeled_statistics, K),
            _likelihood_ratio(held_out, K) if uses_likelihood_ratio else None,
        )
        return cls._of(
            learned, _true_class_scores(*learned, calibration), held_out, calibration, log_prior, temperature
        )

    @classmethod
    def fit_cross_conformal(
        cls, held_out: CalibrationData | None, folds: Sequence[CalibrationData], log_prior: Tensor, temperature: float
    ) -> ConformalClassifier:
        """NonconformityScore and p-values both from images of the training, in two or more folds, each examined by a model of the
        other folds.

        What is strange to an image's class is again learned from the other folds alone (Vovk 2015), and where no images are
        held out, what is usual as well.
        """
        K = len(log_prior)
        of_held_out = None if held_out is None else _likelihood_ratio(held_out, K)

        def learned(trained: CalibrationData) -> tuple[NonconformityScore, LikelihoodRatioScore | None]:
            if held_out is None:
                return NonconformityScore.fit(None, trained.labeled_statistics, K), _likelihood_ratio(trained, K)
            return NonconformityScore.fit(trained.labeled_statistics, held_out.labeled_statistics, K), of_held_out

        others = (
            CalibrationData.concatenate([each.without_scores() for each in folds if each is not fold]) for fold in folds
        )
        strange = torch.cat(
            [_true_class_scores(*learned(each), fold) for each, fold in zip(others, folds, strict=True)]
        )
        whole = CalibrationData.concatenate(folds)
        return cls._of(learned(whole), strange, held_out or whole, whole, log_prior, temperature)

    @classmethod
    def _of(
        cls,
        learned: tuple[NonconformityScore, LikelihoodRatioScore | None],
        strange: Tensor,
        held_out: CalibrationData,
        calibration: CalibrationData,
        log_prior: Tensor,
        temperature: float,
    ) -> ConformalClassifier:
        """Given how strange the calibration images are to their own classes, (N,)."""
        K, (before, now) = len(log_prior), (held_out.labels, calibration.labels)
        nonconformity, contrast = learned
        scores = calibration.log_scores
        return cls(
            temperature,
            nonconformity,
            ConformalCalibrator.fit(strange, now, _true_class_scores(*learned, held_out), before, K),
            ConformalCalibrator.fit(calibration.surprisal, now, held_out.surprisal, before, K),
            BiasCorrection.unavailable(K)
            if scores is None
            else BiasCorrection.fit(scores, now, log_prior, temperature),
            contrast,
        )

    @classmethod
    def uncalibrated(cls, K: int, temperature: float) -> ConformalClassifier:
        """Of K classes, for figures of a kind that nothing was calibrated for: posteriors, and no p-values."""
        nothing = CalibrationData.from_outputs(ModelOutputs.empty(K), torch.zeros(0, dtype=torch.int64), temperature)
        return cls.fit(nothing, nothing, log_uniform(K), temperature)

    def __call__(self, outputs: ModelOutputs, log_prior: Tensor, alpha: float) -> ConformalOutput:
        """Judge N images under a class prior (K,) at a false-alarm rate."""
        strange = self.nonconformity(Statistics.of(outputs))
        if self.likelihood_ratio is not None:
            strange = combine_max(strange, self.likelihood_ratio(outputs.log_scores))
        improbable = -_under_uniform_prior(outputs.log_scores, self.temperature)
        odds = outputs.log_odds_real
        return ConformalOutput(
            alpha=alpha,
            calibration_scope=self.typicality.scope(alpha),
            log_posterior=log_posterior(outputs.log_scores, log_prior, self.temperature),
            log_likelihood=outputs.log_likelihood,
            nonconformity=strange,
            p_values=self.typicality.p_values(strange, alpha),
            posterior_p_values=self.posterior.p_values(improbable, alpha),
            p_real=None if odds is None else odds.sigmoid(),
        )

    def with_new_class(self, found: ModelOutputs) -> ConformalClassifier:
        """With a class besides, the last: from figures for some of its images by models that learned it without them.

        What was calibrated for the other classes is as before.
        """
        last = torch.full((len(found.log_scores),), found.log_scores.shape[1] - 1)
        nonconformity, strange = self.nonconformity.with_new_class(Statistics.of(found).of_true_class(last))
        contrast = None
        if self.likelihood_ratio is not None:
            contrast, low_contrast = self.likelihood_ratio.with_new_class(found.log_scores)
            strange = combine_max(strange, low_contrast)
        improbable = -_under_uniform_prior(found.log_scores, self.temperature)[:, -1]
        return ConformalClassifier(
            self.temperature,
            nonconformity,
            self.typicality.with_new_class(strange),
            self.posterior.with_new_class(improbable),
            self.bias_correction.with_new_class(),
            contrast,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Everything but the temperature, by name, for a checkpoint."""
        parts = {part: getattr(self, part) for part in _FIELDS}
        named = {f"{part}/{f.name}": getattr(value, f.name) for part, value in parts.items() for f in fields(value)}
        if self.likelihood_ratio is not None:
            named |= {f"{LIKELIHOOD_RATIO}/{name}": tensor for name, tensor in self.likelihood_ratio.tensors().items()}
        return {name: tensor.clone() for name, tensor in named.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], temperature: float) -> ConformalClassifier:
        """What `tensors` wrote."""

        def of(part: str) -> dict[str, Tensor]:
            return {name.removeprefix(f"{part}/"): t for name, t in tensors.items() if name.startswith(f"{part}/")}

        parts = {part: kind(**of(part)) for part, kind in _FIELDS.items()}
        contrast = LikelihoodRatioScore.from_tensors(of(LIKELIHOOD_RATIO)) if of(LIKELIHOOD_RATIO) else None
        return cls(temperature=temperature, likelihood_ratio=contrast, **parts)


LIKELIHOOD_RATIO = "likelihood_ratio"
_FIELDS: dict[str, Callable[..., Any]] = {
    "nonconformity": NonconformityScore,
    "typicality": ConformalCalibrator,
    "posterior": ConformalCalibrator,
    "bias_correction": BiasCorrection,
}


def _likelihood_ratio(images: CalibrationData, K: int) -> LikelihoodRatioScore | None:
    """Of images under their own classes; a single class has none."""
    return LikelihoodRatioScore.fit(images.log_ratio, images.labels, K) if K > 1 else None


def _true_class_scores(
    nonconformity: NonconformityScore, contrast: LikelihoodRatioScore | None, images: CalibrationData
) -> Tensor:
    """Of images to their own classes, (N,)."""
    strange = nonconformity.score_true_class(*images.labeled_statistics)
    return (
        strange
        if contrast is None
        else combine_max(strange, contrast.score_true_class(images.log_ratio, images.labels))
    )


def _under_uniform_prior(log_scores: Tensor, temperature: float) -> Tensor:
    return log_posterior(log_scores, log_uniform(log_scores.shape[1]), temperature)
