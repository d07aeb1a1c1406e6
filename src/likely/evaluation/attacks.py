"""White-box adversarial attacks (PGD, L-infinity) against prediction and rejection.

An attack succeeds if the predicted class is wrong and the image is not rejected: it must mislead both the
classifier and the detector (Carlini & Wagner 2017, Adversarial Examples Are Not Easily Detected).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Generator, Tensor

from likely.base import ModelOutputs, to_eight_bit, to_unit
from likely.classifier import Predictor
from likely.classifier.scoring import model_outputs
from likely.data.dataset import LabeledImages
from likely.exceptions import InvalidValueError
from likely.inference.decision import ConformalOutput
from likely.inference.image_score import components
from likely.inference.nonconformity import Statistics
from likely.inference.posterior import log_posterior_uniform
from likely.options import Options
from likely.prediction import Guarantee

N_STEPS = 40  # of gradient ascent
N_RESTARTS = 2  # from random points
STEP = 2.5  # times epsilon / N_STEPS: enough to cross the whole ball (Madry 2018)
BATCH_SIZE = 64

Progress = Callable[[int, int], None]


class AttackResult(Options):
    """Predictions for labeled images under one attack."""

    attack: str
    epsilon: float = Field(description="L-infinity bound on the change of a pixel, of 255.")
    n: int = Field(description="Attacked images, whatever the prediction before the attack.")
    accuracy: float = Field(description="Fraction whose predicted class is their label.")
    attack_success_rate: float = Field(description="Fraction with a wrong prediction that is not rejected.")
    rejection_rate: float = Field(description="Fraction of the images that are rejected.")


@dataclass(frozen=True)
class Target:
    """The attacked classifier at one false-alarm rate alpha, which `guarantee` is about."""

    classifier: Predictor
    alpha: float
    guarantee: Guarantee = Guarantee.OVERALL

    def outputs(self, x: Tensor) -> ModelOutputs:
        """Return the model outputs for images x (B, C, H, W) in [0, 1], differentiable where the model is."""
        classifier = self.classifier
        return model_outputs(classifier.model, [classifier.input_pipeline.differentiable(x)])

    def decide(self, outputs: ModelOutputs) -> ConformalOutput:
        """Return the conformal output for model outputs."""
        return self.classifier.decision_rule(outputs, self.classifier.log_prior, self.alpha, self.guarantee)

    def score(self, outputs: ModelOutputs, output: ConformalOutput, c: Tensor) -> Tensor:
        """Return a differentiable score that decreases with the score that rejects images, (B,).

        The guarantee `overall` rejects by the image score, `class` by the nonconformity of a class, here classes c (B,).
        """
        if self.guarantee is Guarantee.CLASS:
            return output.nonconformity.gather(1, c[:, None])[:, 0]
        rule = self.classifier.decision_rule
        uniform = log_posterior_uniform(outputs.log_scores, rule.temperature)
        return rule.image_score.linearized(components(outputs, uniform, rule.nonconformity(Statistics.of(outputs))))

    @torch.no_grad()
    def errors_and_rejections(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return masks (B,) of wrong predictions and of rejections for images x after rounding to 8 bits."""
        output = self.decide(self.outputs(to_unit(to_eight_bit(x))))
        return output.predicted != y.cpu(), output.is_unknown


def attack(
    target: Target, images: LabeledImages, *, epsilon: float, seed: int, progress: Progress | None = None
) -> tuple[AttackResult, ...]:
    """Attack labeled images with every method of ATTACKS, each pixel changing by at most `epsilon` of 255.

    Raise InvalidValueError if no image has a label or if the model takes vectors.
    """
    classifier, rng = target.classifier, torch.Generator().manual_seed(seed)
    if classifier.format is None:
        raise InvalidValueError(f"{classifier.family!r} was trained on vectors; a model of images was expected")
    known = images.labeled()
    if not len(known):
        raise InvalidValueError(
            f"none of {len(images)} images has a label; at least one image of a known class was expected"
        )
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in ATTACKS}
    for start in range(0, len(known), BATCH_SIZE):
        block = range(start, min(start + BATCH_SIZE, len(known)))
        x = to_unit(known.images.batch(block)).to(classifier.device)
        y = torch.from_numpy(known.labels[block.start : block.stop])
        for name, method in ATTACKS.items():
            found[name].append(target.errors_and_rejections(method(target, x, y, epsilon / 255, rng), y))
        if progress is not None:
            progress(block.stop, len(known))
    return tuple(_result(name, epsilon, batches) for name, batches in found.items())


def _result(name: str, epsilon: float, batches: list[tuple[Tensor, Tensor]]) -> AttackResult:
    wrong, unknown = (torch.cat(masks).double() for masks in zip(*batches, strict=True))
    return AttackResult(
        attack=name,
        epsilon=0.0 if name == "none" else epsilon,
        n=len(wrong),
        accuracy=float(1 - wrong.mean()),
        attack_success_rate=float((wrong * (1 - unknown)).mean()),
        rejection_rate=float(unknown.mean()),
    )


def _identity(target: Target, x: Tensor, y: Tensor, epsilon: float, rng: Generator) -> Tensor:
    """Return the images unchanged."""
    return x


def _gradient_attack(target: Target, x: Tensor, y: Tensor, epsilon: float, rng: Generator) -> Tensor:
    """Projected gradient ascent within ±epsilon of each pixel (Madry 2018), on the posterior and the score that rejects.

    While the prediction is correct, ascend the log-odds of the best wrong class; then descend the score (selective ascent,
    Bryniarski 2022, Evading Adversarial Example Detection Defenses). Return the best iterate after rounding to 8 bits.
    Statistics without a gradient, such as the compressed file size, are constant. The model is evaluated without noise, as
    in prediction.
    """
    best, best_rank = x.clone(), _rank(*target.errors_and_rejections(x, y))
    own = torch.nn.functional.one_hot(y, len(target.classifier.labels)).bool()
    for _ in range(N_RESTARTS):
        moved = (x + epsilon * (2 * torch.rand(x.shape, generator=rng).to(x) - 1)).clamp(0, 1)
        for _ in range(N_STEPS):
            step = STEP * epsilon / N_STEPS * _ascent_direction(target, moved, own)
            moved = torch.clamp(moved + step, x - epsilon, x + epsilon).clamp(0, 1)
            rank = _rank(*target.errors_and_rejections(moved, y))
            better = rank > best_rank
            best[better], best_rank[better] = moved[better], rank[better]
    return best


def _ascent_direction(target: Target, x: Tensor, own: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        outputs = target.outputs(x)
        output = target.decide(outputs)
        wrong_log_posterior, wrong_class = output.log_posterior.masked_fill(own, -torch.inf).max(1)
        log_odds = wrong_log_posterior - output.log_posterior[own]
        score = target.score(outputs, output, wrong_class)
        (gradient,) = torch.autograd.grad(torch.where(log_odds < 0, log_odds, -score).sum(), x)
    return gradient.nan_to_num(0).sign()  # the entropy of a posterior with a zero has no gradient


def _rank(wrong: Tensor, unknown: Tensor) -> Tensor:
    """Return 2 for a wrong prediction that is not rejected, 1 for one that is, 0 for a correct prediction."""
    return wrong.long() + (wrong & ~unknown).long()


ATTACKS: dict[str, Callable[[Target, Tensor, Tensor, float, Generator], Tensor]] = {
    "none": _identity,
    "gradient": _gradient_attack,
}
