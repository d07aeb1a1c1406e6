"""Recalibration: p-values and temperature of a trained model from images of the place where it is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from likely.base import ModelOutputs
from likely.classifier.calibration import n_for_temperature
from likely.classifier.predictor import Predictor, require_level
from likely.data.dataset import LabeledImages
from likely.exceptions import InvalidValueError
from likely.inference.conformal import n_for_level
from likely.inference.decision import TrueClassScores
from likely.inference.posterior import log_posterior_uniform
from likely.inference.temperature_scaling import fit_temperature


@dataclass(frozen=True, eq=False)
class Recalibration:
    """A predictor calibrated with N images, and what these say about the calibration before.

    `p_values` (N,) are those of the images, called `names`, by the calibration before; NaN if it had too few images. The most
    atypical image is the first.
    `n_labeled` of the images have a label; `updated` are the classes whose scores they replace.
    `n_skipped` further images were left out, because the model was trained on them.
    """

    predictor: Predictor
    temperature_before: float
    p_values: Tensor
    names: tuple[str, ...]
    n_labeled: int
    updated: tuple[str, ...]
    n_skipped: int

    def n_rejected(self, alpha: float) -> int | None:
        """Return the number of images that the calibration before rejects; None if it had too few images."""
        return None if self.p_values.isnan().any() else int((self.p_values <= alpha).sum())


def recalibrate(
    predictor: Predictor,
    images: LabeledImages,
    alpha: float = 0.05,
    progress: Callable[[int, int], None] | None = None,
) -> Recalibration:
    """Calibrate with images of known classes, labeled or not, which replace the calibration images of the training.

    At most a fraction alpha of images exchangeable with them is rejected (Vovk 2012). Labels, −1 for none, also fit the
    temperature, and calibrate each class with at least 1 / alpha of the images. Images that the model was trained on are left
    out, as are all but one of each group. Raises InvalidValueError if fewer than 1 / alpha − 1 images are left. `progress`
    receives the number of images done and their total.
    """
    require_level(alpha)
    is_known = np.isin(images.hashes, predictor.hashes)
    n_skipped, images = int(is_known.sum()), images.subset(np.flatnonzero(~is_known))
    images = images.subset(images.one_per_group(predictor.seed))
    _require_enough(len(images), len(images) + n_skipped, alpha)
    # The first images fit the temperature.
    images = images.subset(np.random.default_rng(predictor.seed).permutation(len(images)))
    found = _Scores(*map(torch.cat, zip(*_scores(predictor, images, alpha, progress), strict=True)))
    counts = torch.bincount(found.labels, minlength=len(predictor.labels))
    has_enough = counts >= math.ceil(1 / alpha - 1e-9)
    calibrates = has_enough[found.labels]
    of_classes = TrueClassScores(*(each[calibrates] for each in (found.labels, found.nonconformity, found.surprisal)))
    rule = predictor.decision_rule.recalibrated(found.image, of_classes, _temperature(predictor, found))
    order = found.image.argsort(descending=True)
    return Recalibration(
        predictor=replace(predictor, decision_rule=rule, id=None),
        temperature_before=predictor.decision_rule.temperature,
        p_values=found.p_values[order],
        names=tuple(map(images.images.name, order.tolist())),
        n_labeled=len(found.labels),
        updated=tuple(predictor.labels[c] for c in has_enough.nonzero()[:, 0].tolist()),
        n_skipped=n_skipped,
    )


class _Scores(NamedTuple):
    """Scores of images and their p-values, (N,) each, and values of the M labeled ones among them, the last (m ≤ M, K)."""

    image: Tensor
    p_values: Tensor
    labels: Tensor
    nonconformity: Tensor
    surprisal: Tensor
    log_scores: Tensor

    @classmethod
    def of(cls, predictor: Predictor, outputs: ModelOutputs, y: Tensor, alpha: float) -> _Scores:
        """Compute the values from the outputs for images with the labels y (N,), −1 for none."""
        output = predictor.decide(outputs, alpha=alpha)
        (i,), log_scores = (y >= 0).nonzero(as_tuple=True), outputs.log_scores
        posterior = log_posterior_uniform(log_scores, predictor.decision_rule.score_temperature)
        return cls(
            output.image_score,
            output.image_p_value,
            y[i],
            output.nonconformity[i, y[i]],
            -posterior[i, y[i]],
            log_scores[i],
        )


def _scores(
    predictor: Predictor, images: LabeledImages, alpha: float, progress: Callable[[int, int], None] | None
) -> Iterator[_Scores]:
    """Yield the scores of images in batches, with as many log scores as the temperature is fitted to."""
    n_done, n_left = 0, n_for_temperature(len(predictor.labels))
    for block, outputs in predictor.batches(images.images):
        y = torch.from_numpy(images.labels[n_done : n_done + len(block)])
        found = _Scores.of(predictor, outputs, y, alpha)
        found = found._replace(log_scores=found.log_scores[:n_left].clone())
        n_done, n_left = n_done + len(block), n_left - len(found.log_scores)
        if progress is not None:
            progress(n_done, len(images))
        yield found


def _temperature(predictor: Predictor, found: _Scores) -> float:
    """Fit the temperature as if it had been fitted to no other new images before, so that repetition changes nothing."""
    rule, y = predictor.decision_rule, found.labels[: len(found.log_scores)]
    return (
        fit_temperature(found.log_scores, y, predictor.log_prior, rule.score_temperature)
        if len(y)
        else rule.temperature
    )


def _require_enough(n_unseen: int, n: int, alpha: float) -> None:
    needed = max(1, n_for_level(alpha))
    if n_unseen >= needed:
        return
    others = f", and the model was trained on {n - n_unseen:,} others" if n_unseen < n else ""
    raise InvalidValueError(
        f"alpha {alpha:g} needs at least {needed:,} images for the calibration; there are {n_unseen:,}{others}"
    )
