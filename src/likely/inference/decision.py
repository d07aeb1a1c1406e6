"""Decision rule: from model outputs to posteriors, conformal p-values, prediction sets and statuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from likely.base import ModelOutputs
from likely.inference.calibration_data import CalibrationData
from likely.inference.conformal import ConformalCalibrator, ImageCalibrator, prediction_set, status
from likely.inference.image_score import ImageScore, components
from likely.inference.known_unknowns import KnownUnknowns
from likely.inference.label_shift import BiasCorrection
from likely.inference.nonconformity import NonconformityScore, Statistics, StatisticsOfTrueClass
from likely.inference.posterior import log_posterior, log_posterior_uniform, log_uniform
from likely.prediction import CalibrationMethod, CalibrationScope, Guarantee, Status


@dataclass(frozen=True)
class ConformalOutput:
    """Posteriors, conformal p-values, prediction sets and statuses of N images at significance level `alpha`.

    An image is unknown if `p_value` is at most alpha. Otherwise its prediction set holds the most probable class and each
    class whose posterior p-value exceeds alpha.

    `log_posterior`, `log_likelihood`, `nonconformity`, `p_values` and `posterior_p_values` are (N, K), log values in nats. The
    p-value of class c ranks the image's nonconformity among the calibration images of c; NaN without calibration. The
    posterior p-value ranks the surprisal −log p(c | x) in the same way and defines the prediction set. `image_score` (N,) is
    the nonconformity score of each image, and `image_p_value` (N,) ranks it among calibration images of all classes.
    `calibration_scope` describes the p-values of the classes. `p_real` (N,) is the discriminator's probability that the
    image is real and not generated. `rejected` (N,) bool, if present, replaces the comparison of `p_value` with alpha.
    """

    alpha: float
    guarantee: Guarantee
    calibration_method: CalibrationMethod
    calibration_scope: tuple[CalibrationScope, ...]
    log_posterior: Tensor
    log_likelihood: Tensor | None
    nonconformity: Tensor
    p_values: Tensor
    posterior_p_values: Tensor
    image_score: Tensor
    image_p_value: Tensor
    p_real: Tensor | None = None
    rejected: Tensor | None = None

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
        """p-value of each image by the guarantee, (N,): that of its score, or for `class` the maximum over the classes."""
        return self.image_p_value if self.guarantee is Guarantee.OVERALL else self.p_values.amax(1)

    @cached_property
    def score(self) -> Tensor:
        """Nonconformity score of each image by the guarantee, (N,): its own, or for `class` the minimum over the classes."""
        return self.image_score if self.guarantee is Guarantee.OVERALL else self.nonconformity.amin(1)

    @property
    def scope(self) -> CalibrationScope:
        """Scope of the guarantee of `p_value`; for `class`, the weakest of all classes."""
        if self.guarantee is Guarantee.CLASS:
            order = (CalibrationScope.NONE, CalibrationScope.POOLED, CalibrationScope.PER_CLASS)
            return next(scope for scope in order if scope in self.calibration_scope)
        return CalibrationScope.NONE if self.image_p_value.isnan().any() else CalibrationScope.POOLED

    @property
    def calibration(self) -> str | None:
        """Method that calibrated `p_value`, with "-pooled" if small classes share their images for the guarantee `class`."""
        if self.scope is CalibrationScope.NONE:
            return None
        pooled = self.guarantee is Guarantee.CLASS and self.scope is CalibrationScope.POOLED
        return f"{self.calibration_method}{'-pooled' * pooled}"

    @cached_property
    def is_unknown(self) -> Tensor:
        """Mask (N,) of the images that are rejected as unknown."""
        return self.p_value <= self.alpha if self.rejected is None else self.rejected

    @cached_property
    def prediction_sets(self) -> Tensor:
        """Mask (N, K) of the classes in each prediction set; empty for an unknown image."""
        in_set = prediction_set(self.log_posterior, self.posterior_p_values, self.alpha)
        return in_set & ~self.is_unknown[:, None]

    @cached_property
    def statuses(self) -> list[Status]:
        """Status of each image."""
        sizes = self.prediction_sets.sum(1).tolist()
        levels = self.is_unknown.double().tolist()  # at level 1 every p-value rejects, at level 0 none
        return [status(*each) for each in zip(self.p_value.tolist(), sizes, levels, strict=True)]


class TrueClassScores(NamedTuple):
    """Scores of N labeled images under their true classes: `labels`, `nonconformity` and `surprisal`, (N,) each."""

    labels: Tensor
    nonconformity: Tensor
    surprisal: Tensor


@dataclass(frozen=True)
class DecisionRule:
    """Decision rule: maps the model outputs of an image to its posterior, p-values, prediction set and status.

    It holds all that is fitted to held-out images: the `temperature` of the posterior, the `nonconformity` score, and the
    conformal calibrators that turn scores into p-values: `typicality` for the nonconformity score, `posterior` for the
    surprisal. `image_score` is one nonconformity score per image, which `image_calibrator` turns into a p-value. The p-values
    of classes were calibrated by `method`, those of images by `image_method`. Scores use posteriors at the temperature
    `score_temperature`, which stays when that of the posterior is fitted again. `bias_correction` corrects the scores when a
    new class prior is estimated. `known_unknowns` makes images more atypical that are like given unknown images.
    """

    temperature: float
    score_temperature: float
    nonconformity: NonconformityScore
    typicality: ConformalCalibrator
    posterior: ConformalCalibrator
    image_score: ImageScore
    image_calibrator: ImageCalibrator
    bias_correction: BiasCorrection
    known_unknowns: KnownUnknowns = field(default_factory=KnownUnknowns.none)
    method: CalibrationMethod = CalibrationMethod.SPLIT
    image_method: CalibrationMethod = CalibrationMethod.SPLIT

    @classmethod
    def fit(
        cls,
        held_out: CalibrationData,
        calibration: CalibrationData,
        log_prior: Tensor,
        temperature: float,
        training: StatisticsOfTrueClass | None = None,
    ) -> DecisionRule:
        """Fit the scores to training and held-out images and the p-values to calibration images, which are disjoint from them.

        `log_prior` (K,) is the training prior. `training` holds the true-class statistics of many training images (N, D) and
        their labels (N,); without it the nonconformity score is fitted to the held-out images alone.
        """
        K = len(log_prior)
        scores = _Scores.fit(held_out, K, training)
        return cls._calibrated(scores, scores.of(calibration), (held_out, calibration), log_prior, temperature)

    @classmethod
    def fit_cross_conformal(
        cls, folds: Sequence[CalibrationData], log_prior: Tensor, temperature: float
    ) -> DecisionRule:
        """Fit scores and p-values to the same training images, in two or more folds (cross-conformal prediction, Vovk 2015).

        The outputs of each fold come from a model fitted to the other folds, and its nonconformity scores and reference
        distributions are again fitted to the other folds alone. Test images are scored by the model and the scores of all
        folds.
        """
        K = len(log_prior)
        others = (
            CalibrationData.concatenate([each.without_scores() for each in folds if each is not fold]) for fold in folds
        )
        found = [_Scores.fit(rest, K).of(fold) for rest, fold in zip(others, folds, strict=True)]
        whole = CalibrationData.concatenate(folds)
        true_class, of_image = (torch.cat(each) for each in zip(*found, strict=True))
        rule = cls._calibrated(_Scores.fit(whole, K), (true_class, of_image), (whole, whole), log_prior, temperature)
        return replace(rule, method=CalibrationMethod.CROSS_CONFORMAL, image_method=CalibrationMethod.CROSS_CONFORMAL)

    @classmethod
    def _calibrated(
        cls,
        scores: _Scores,
        found: tuple[Tensor, Tensor],
        images: tuple[CalibrationData, CalibrationData],
        log_prior: Tensor,
        temperature: float,
    ) -> DecisionRule:
        """Calibrate with held-out and calibration `images`; `found` are the true-class and image scores of the latter."""
        held_out, calibration = images
        K, labels, log_scores = len(log_prior), calibration.labels, calibration.log_scores
        held_out_nonconformity = scores.of_true_class(held_out)
        return cls(
            temperature=temperature,
            score_temperature=temperature,
            nonconformity=scores.nonconformity,
            typicality=ConformalCalibrator.fit(found[0], labels, held_out_nonconformity, held_out.labels, K),
            posterior=ConformalCalibrator.fit(calibration.surprisal, labels, held_out.surprisal, held_out.labels, K),
            image_score=scores.image,
            image_calibrator=ImageCalibrator.fit(found[1]),
            bias_correction=BiasCorrection.unavailable(K)
            if log_scores is None
            else BiasCorrection.fit(log_scores, labels, log_prior, temperature),
        )

    @classmethod
    def uncalibrated(cls, K: int, temperature: float) -> DecisionRule:
        """Return the rule for K classes without calibration images: posteriors, but no p-values."""
        none = CalibrationData.from_outputs(ModelOutputs.empty(K), torch.zeros(0, dtype=torch.int64), temperature)
        return cls.fit(none, none, log_uniform(K), temperature)

    def __call__(
        self, outputs: ModelOutputs, log_prior: Tensor, alpha: float, guarantee: Guarantee = Guarantee.OVERALL
    ) -> ConformalOutput:
        """Apply the rule to N images under a class prior (K,) at significance level `alpha`."""
        nonconformity = self.nonconformity(Statistics.of(outputs))
        uniform = log_posterior_uniform(outputs.log_scores, self.score_temperature)
        image_score = self.image_score(components(outputs, uniform, nonconformity))
        image_score = image_score + self.known_unknowns.log_p_values(outputs)
        log_odds = outputs.log_odds_real
        return ConformalOutput(
            alpha=alpha,
            guarantee=guarantee,
            calibration_method=self.method if guarantee is Guarantee.CLASS else self.image_method,
            calibration_scope=self.typicality.scope(alpha),
            log_posterior=log_posterior(outputs.log_scores, log_prior, self.temperature),
            log_likelihood=outputs.log_likelihood,
            nonconformity=nonconformity,
            p_values=self.typicality.p_values(nonconformity, alpha),
            posterior_p_values=self.posterior.p_values(-uniform, alpha),
            image_score=image_score,
            image_p_value=self.image_calibrator.p_values(image_score, alpha),
            p_real=None if log_odds is None else log_odds.sigmoid(),
        )

    def smallest_p_value(self, alpha: float, guarantee: Guarantee) -> float:
        """Return the p-value of an image that is farther from the known images than all calibration images."""
        farthest = torch.full((1, len(self.typicality.median)), torch.inf)
        if guarantee is Guarantee.OVERALL:
            return float(self.image_calibrator.p_values(farthest[0, :1], alpha))
        return float(self.typicality.p_values(farthest, alpha).amax())

    def with_new_class(self, outputs: ModelOutputs) -> DecisionRule:
        """Return the rule with class K added, calibrated with outputs (n, K + 1) for its images.

        The outputs come from models that were fitted to the class without the respective image. The calibration of the other
        classes does not change.
        """
        K = outputs.log_scores.shape[1] - 1
        new_class = torch.full((len(outputs.log_scores),), K)
        statistics, uniform = Statistics.of(outputs), log_posterior_uniform(outputs.log_scores, self.score_temperature)
        score, nonconformity = self.nonconformity.with_new_class(statistics.of_true_class(new_class))
        of_all_classes = torch.cat([self.nonconformity(statistics.first_classes(K)), nonconformity[:, None]], 1)
        image_score = self.image_score(components(outputs, uniform, of_all_classes))
        return replace(
            self,
            nonconformity=score,
            typicality=self.typicality.with_new_class(nonconformity),
            posterior=self.posterior.with_new_class(-uniform[:, -1]),
            image_calibrator=self.image_calibrator.with_class_images(image_score, 1 / K),
            bias_correction=self.bias_correction.with_new_class(),
        )

    def with_more_images(self, outputs: ModelOutputs, c: int) -> DecisionRule:
        """Return the rule calibrated with further images of class c as well.

        The outputs (n, K) come from models that the class learned without the respective image.
        """
        labels = torch.full((len(outputs.log_scores),), c)
        images = CalibrationData.from_outputs(outputs, labels, self.score_temperature)
        scores = _Scores(self.nonconformity, self.image_score)
        nonconformity, image_scores = scores.of(images)
        return replace(
            self,
            typicality=self.typicality.with_more_images(nonconformity, c),
            posterior=self.posterior.with_more_images(images.surprisal, c),
            image_calibrator=self.image_calibrator.with_class_images(
                image_scores, 1 / max(1, outputs.log_scores.shape[1] - 1)
            ),
        )

    def recalibrated(self, image_scores: Tensor, of_classes: TrueClassScores, temperature: float) -> DecisionRule:
        """Return the rule calibrated with the image scores (N,) of other images alone, with another posterior temperature.

        `of_classes` are scores of images of some classes, which replace the scores of these classes. Nothing that the scores
        are computed from changes, so that their guarantee is exact.
        """
        labels, nonconformity, surprisal = of_classes
        covers_all = len(set(labels.tolist())) == len(self.typicality.median)
        return replace(
            self,
            temperature=temperature,
            typicality=self.typicality.with_other_images(nonconformity, labels),
            posterior=self.posterior.with_other_images(surprisal, labels),
            image_calibrator=ImageCalibrator.fit(image_scores),
            method=CalibrationMethod.SPLIT if covers_all else self.method,
            image_method=CalibrationMethod.SPLIT,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return everything but temperatures and methods by name, for a checkpoint."""
        values = {name: getattr(self, name) for name in _COMPONENTS}
        named = {f"{name}/{f.name}": getattr(value, f.name) for name, value in values.items() for f in fields(value)}
        named |= {f"{IMAGE_SCORE}/{name}": tensor for name, tensor in self.image_score.tensors().items()}
        if len(self.known_unknowns.distance):
            named |= {f"{KNOWN_UNKNOWNS}/{f.name}": getattr(self.known_unknowns, f.name) for f in fields(KnownUnknowns)}
        return {name: tensor.clone() for name, tensor in named.items()}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], temperature: float, method: CalibrationMethod = CalibrationMethod.SPLIT
    ) -> DecisionRule:
        """Restore from the result of `tensors`, with one temperature and one method; other names are ignored."""

        def under(prefix: str) -> dict[str, Tensor]:
            start = f"{prefix}/"
            return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}

        restored = {name: kind(**under(name)) for name, kind in _COMPONENTS.items()}
        image_score = ImageScore.from_tensors(under(IMAGE_SCORE))
        unknown = under(KNOWN_UNKNOWNS)
        return cls(
            temperature=temperature,
            score_temperature=temperature,
            image_score=image_score,
            known_unknowns=KnownUnknowns(**unknown) if unknown else KnownUnknowns.none(),
            method=method,
            image_method=method,
            **restored,
        )


IMAGE_SCORE, KNOWN_UNKNOWNS = "image_score", "known_unknowns"
_COMPONENTS: dict[str, Callable[..., Any]] = {
    "nonconformity": NonconformityScore,
    "typicality": ConformalCalibrator,
    "posterior": ConformalCalibrator,
    "image_calibrator": ImageCalibrator,
    "bias_correction": BiasCorrection,
}


class _Scores(NamedTuple):
    nonconformity: NonconformityScore
    image: ImageScore

    @classmethod
    def fit(cls, reference: CalibrationData, K: int, training: StatisticsOfTrueClass | None = None) -> _Scores:
        """Fit both scores to reference images, or that of the classes to training images, if there are any."""
        nonconformity = NonconformityScore.fit(training or reference.labeled_statistics, K)
        return cls(nonconformity, ImageScore.fit(reference.components(nonconformity)))

    def of(self, images: CalibrationData) -> tuple[Tensor, Tensor]:
        """Return the scores of images under their true classes, and those of the images themselves, (N,) each."""
        return self.of_true_class(images), self.image(images.components(self.nonconformity)) + images.log_unknown_p

    def of_true_class(self, images: CalibrationData) -> Tensor:
        """Return the scores of images under their true classes, (N,)."""
        return self.nonconformity.score_true_class(*images.labeled_statistics)
