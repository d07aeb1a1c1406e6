"""From a model's figures for some images to everything that an answer says: posteriors, p-values, sets, statuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from likely.answer import Calibration, Status
from likely.inference.calibration import fit_temperature
from likely.inference.contrast import Contrast, contrasts, either
from likely.inference.label_shift import Offsets
from likely.inference.posterior import log_posterior, uniform
from likely.inference.rejection import ConformalScores, prediction_set, status
from likely.inference.strangeness import OwnTraits, Strangeness, Traits


@dataclass(frozen=True)
class Examination:
    """What a model says of N images: scores (N, K), log p(x | c) (N, K) or None, and statistics (N, K, n).

    `description` (N, F) is what else it sees in them, whatever the class. `log_odds_real` (N,) is log p(real | x) /
    p(made | x) of a model with a discriminator, None of others.
    """

    log_scores: Tensor
    log_likelihood: Tensor | None
    statistics: Tensor
    log_odds_real: Tensor | None = None
    description: Tensor | None = None

    @classmethod
    def joined(cls, pieces: Sequence[Examination], K: int, n: int = 1) -> Examination:
        """Of the images of all pieces; of none, with K classes and n statistics, if there are no pieces."""
        if not pieces:
            return cls(torch.zeros(0, K), None, torch.zeros(0, K, n))
        return cls(*(_together([getattr(piece, f.name) for piece in pieces]) for f in fields(cls)))

    def subset(self, indices: Tensor) -> Examination:
        """Of the images at `indices` alone."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        chosen: dict[str, Any] = {name: None if value is None else value[indices] for name, value in values.items()}
        return Examination(**chosen)

    @property
    def traits(self) -> Traits:
        """All that strangeness goes by."""
        nothing = self.statistics.new_zeros(len(self.statistics), 0)
        return Traits(nothing if self.description is None else self.description, self.statistics)


@dataclass(frozen=True)
class Labelled:
    """What a judge learns from: of N images under their own classes `labels` (N,), the traits (N, D), how `improbable` these
    classes are, −log p(y | x) under a uniform prior (N,), and how they `contrast` with the rest, (N,).

    `log_scores` (N, K) are left out where they are too many."""

    labels: Tensor
    traits: Tensor
    improbable: Tensor
    contrast: Tensor
    log_scores: Tensor | None

    @classmethod
    def of(cls, found: Examination, labels: Tensor, temperature: float) -> Labelled:
        """Of the figures for images, under a temperature."""
        scores = found.log_scores
        contrast = contrasts(scores, scores.shape[1]).gather(1, labels[:, None])[:, 0]
        return cls(labels, found.traits.own(labels), torch.zeros(len(labels)), contrast, scores).under(temperature)

    @classmethod
    def joined(cls, pieces: Sequence[Labelled]) -> Labelled:
        """Of the images of all pieces, at least one."""
        return cls(*(_together([getattr(piece, f.name) for piece in pieces]) for f in fields(cls)))

    @property
    def own(self) -> OwnTraits:
        """What strangeness is learned from."""
        return self.traits, self.labels

    @property
    def n_scores(self) -> int:
        """How many there are; 0 if they were left out."""
        return 0 if self.log_scores is None else self.log_scores.numel()

    def temperature(self, log_prior: Tensor, expected: float = 1.0) -> float:
        """That of the scores, which have to be there."""
        assert self.log_scores is not None
        return fit_temperature(self.log_scores, self.labels, log_prior, expected)

    def under(self, temperature: float) -> Labelled:
        """The same under another temperature; the scores have to be there."""
        assert self.log_scores is not None
        posterior = _under_uniform_prior(self.log_scores, temperature)
        return replace(self, improbable=-posterior.gather(1, self.labels[:, None])[:, 0])

    def without_scores(self) -> Labelled:
        """The same, small whatever the number of classes."""
        return replace(self, log_scores=None)


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

    @classmethod
    def joined(cls, pieces: Sequence[Judgement]) -> Judgement:
        """Of the images of all pieces, at least one, judged alike."""
        values: dict[str, Any] = {}
        for f in fields(cls):
            each = [getattr(piece, f.name) for piece in pieces]
            values[f.name] = torch.cat(each) if isinstance(each[0], Tensor) else each[0]
        return cls(**values)

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
    offsets: Offsets  # the scores' own bias, for whoever estimates another class mix
    contrast: Contrast | None = None

    @classmethod
    def fit(
        cls,
        held_out: Labelled,
        calibration: Labelled,
        log_prior: Tensor,
        temperature: float,
        trained: OwnTraits | None = None,
        *,
        contrasted: bool = False,
    ) -> Judge:
        """Strangeness from trained and held-out images, p-values from calibration images: neither has seen the other's.

        `log_prior` (K,) is that of the training; `trained` are the traits (N, D) of many images of the training under their
        own classes (N,), without which the held-out ones have to do. With `contrasted`, what is as near to every class is
        strange as well.
        """
        K = len(log_prior)
        learned = Strangeness.fit(trained, held_out.own, K), _contrast(held_out, K) if contrasted else None
        return cls._of(learned, _strange(*learned, calibration), held_out, calibration, log_prior, temperature)

    @classmethod
    def fit_crossed(
        cls, held_out: Labelled | None, folds: Sequence[Labelled], log_prior: Tensor, temperature: float
    ) -> Judge:
        """Strangeness and p-values both from images of the training, in two or more folds, each examined by a model of the
        other folds.

        What is strange to an image's class is again learned from the other folds alone (Vovk 2015), and where no images are
        held out, what is usual as well.
        """
        K = len(log_prior)
        of_held_out = None if held_out is None else _contrast(held_out, K)

        def learned(trained: Labelled) -> tuple[Strangeness, Contrast | None]:
            if held_out is None:
                return Strangeness.fit(None, trained.own, K), _contrast(trained, K)
            return Strangeness.fit(trained.own, held_out.own, K), of_held_out

        others = (Labelled.joined([each.without_scores() for each in folds if each is not fold]) for fold in folds)
        strange = torch.cat([_strange(*learned(each), fold) for each, fold in zip(others, folds, strict=True)])
        whole = Labelled.joined(folds)
        return cls._of(learned(whole), strange, held_out or whole, whole, log_prior, temperature)

    @classmethod
    def _of(
        cls,
        learned: tuple[Strangeness, Contrast | None],
        strange: Tensor,
        held_out: Labelled,
        calibration: Labelled,
        log_prior: Tensor,
        temperature: float,
    ) -> Judge:
        """Given how strange the calibration images are to their own classes, (N,)."""
        K, (before, now) = len(log_prior), (held_out.labels, calibration.labels)
        strangeness, contrast = learned
        scores = calibration.log_scores
        return cls(
            temperature,
            strangeness,
            ConformalScores.fit(strange, now, _strange(*learned, held_out), before, K),
            ConformalScores.fit(calibration.improbable, now, held_out.improbable, before, K),
            Offsets.unknown(K) if scores is None else Offsets.fit(scores, now, log_prior, temperature),
            contrast,
        )

    @classmethod
    def without_promises(cls, K: int, temperature: float) -> Judge:
        """Of K classes, for figures of a kind that nothing was calibrated for: posteriors, and no p-values."""
        nothing = Labelled.of(Examination.joined([], K), torch.zeros(0, dtype=torch.int64), temperature)
        return cls.fit(nothing, nothing, uniform(K), temperature)

    def __call__(self, examination: Examination, log_prior: Tensor, alpha: float) -> Judgement:
        """Judge N images under a class prior (K,) at a false-alarm rate."""
        strange = self.strangeness(examination.traits)
        if self.contrast is not None:
            strange = either(strange, self.contrast(examination.log_scores))
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

    def of_one_class_more(self, found: Examination) -> Judge:
        """With a class besides, the last: from figures for some of its images by models that learned it without them.

        What was calibrated for the other classes is as before.
        """
        last = torch.full((len(found.log_scores),), found.log_scores.shape[1] - 1)
        strangeness, strange = self.strangeness.of_one_class_more(found.traits.own(last))
        contrast = None
        if self.contrast is not None:
            contrast, low_contrast = self.contrast.of_one_class_more(found.log_scores)
            strange = either(strange, low_contrast)
        improbable = -_under_uniform_prior(found.log_scores, self.temperature)[:, -1]
        return Judge(
            self.temperature,
            strangeness,
            self.typicality.of_one_class_more(strange),
            self.posterior.of_one_class_more(improbable),
            self.offsets.of_one_class_more(),
            contrast,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Everything but the temperature, by name, for a checkpoint."""
        parts = {part: getattr(self, part) for part in _PARTS}
        named = {f"{part}/{f.name}": getattr(value, f.name) for part, value in parts.items() for f in fields(value)}
        if self.contrast is not None:
            named |= {f"{CONTRAST}/{name}": tensor for name, tensor in self.contrast.tensors().items()}
        return {name: tensor.clone() for name, tensor in named.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], temperature: float) -> Judge:
        """What `tensors` wrote."""

        def of(part: str) -> dict[str, Tensor]:
            return {name.removeprefix(f"{part}/"): t for name, t in tensors.items() if name.startswith(f"{part}/")}

        parts = {part: kind(**of(part)) for part, kind in _PARTS.items()}
        contrast = Contrast.from_tensors(of(CONTRAST)) if of(CONTRAST) else None
        return cls(temperature=temperature, contrast=contrast, **parts)


CONTRAST = "contrast"
_PARTS: dict[str, Callable[..., Any]] = {
    "strangeness": Strangeness,
    "typicality": ConformalScores,
    "posterior": ConformalScores,
    "offsets": Offsets,
}


def _contrast(images: Labelled, K: int) -> Contrast | None:
    """Of images under their own classes; a single class has none."""
    return Contrast.fit(images.contrast, images.labels, K) if K > 1 else None


def _strange(strangeness: Strangeness, contrast: Contrast | None, images: Labelled) -> Tensor:
    """Of images to their own classes, (N,)."""
    strange = strangeness.compared(*images.own)
    return strange if contrast is None else either(strange, contrast.compared(images.contrast, images.labels))


def _together(parts: Sequence[Tensor | None]) -> Any:
    """One tensor of all parts, or None where a model has no such figure."""
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


def _under_uniform_prior(log_scores: Tensor, temperature: float) -> Tensor:
    return log_posterior(log_scores, uniform(log_scores.shape[1]), temperature)
