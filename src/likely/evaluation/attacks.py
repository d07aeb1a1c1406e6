"""Attacks: the smallest changes that somebody who knows the model makes to images so that it answers wrongly and unsuspecting.

A change succeeds if the most probable class is wrong and the image is still taken for known: a classifier that can say
"none of these" has to be attack_success_rate twice (Carlini & Wagner 2017, Adversarial Examples Are Not Easily Detected).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Generator, Tensor

from likely.classifier import Predictor
from likely.classifier.scoring import model_outputs
from likely.data.dataset import LabeledImages
from likely.exceptions import InvalidValueError
from likely.inference.decision import ConformalOutput
from likely.networks.pixel_scaling import to_eight_bit, to_unit
from likely.options import Options

N_STEPS = 40  # of gradient ascent
N_RESTARTS = 2  # beginning elsewhere
STEP = 2.5  # times the budget over the number of steps: the whole budget can be crossed (Madry 2018)
BATCH_SIZE = 64  # images attacked together

Progress = Callable[[int, int], None]


class AttackResult(Options):
    """What became of labeled images under one attack."""

    attack: str
    epsilon: float = Field(description="The largest change of a pixel, of 255.")
    n: int = Field(description="Images that were attacked: all, whatever the answer was before.")
    accuracy: float = Field(description="The share whose most probable class is still their label.")
    attack_success_rate: float = Field(description="The share answered wrongly and taken for known.")
    rejection_rate: float = Field(description="The share taken for unknown.")


@dataclass(frozen=True)
class Target:
    """A classifier as an attacker sees it, at one false-alarm rate."""

    classifier: Predictor
    alpha: float

    def output(self, x: Tensor) -> ConformalOutput:
        """Everything that an answer rests on, with gradients where there are any."""
        classifier = self.classifier
        return classifier.conformal_(
            model_outputs(classifier.model_, [classifier.input_pipeline.differentiable(x)]),
            classifier.log_prior_,
            self.alpha,
        )

    @torch.no_grad()
    def verdict(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Of images as a file would hold them: whether the class is wrong, and whether they are taken for unknown, (B,)."""
        judgment = self.output(to_unit(to_eight_bit(x)))
        return judgment.predicted != y.cpu(), judgment.p_value <= self.alpha


def attack(
    classifier: Predictor,
    images: LabeledImages,
    *,
    epsilon: float,
    alpha: float,
    seed: int,
    progress: Progress | None = None,
) -> tuple[AttackResult, ...]:
    """The images as they are, and under gradient ascent.

    `budget` is the largest change of a pixel, of 255. A ValueError if no image has a label, or the model takes vectors.
    """
    if classifier.format_ is None:
        raise InvalidValueError(f"{classifier.family!r} was trained on vectors; a model of images was expected")
    known = images.labeled()
    if not len(known):
        raise InvalidValueError(
            f"none of {len(images)} images has a label; at least one image of a known class was expected"
        )
    target, rng = Target(classifier, alpha), torch.Generator().manual_seed(seed)
    size = epsilon / 255
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in ATTACKS}
    for start in range(0, len(known), BATCH_SIZE):
        block = range(start, min(start + BATCH_SIZE, len(known)))
        x = to_unit(known.images.batch(block)).to(classifier.device)
        y = torch.from_numpy(known.labels[block.start : block.stop])
        for name, attack in ATTACKS.items():
            found[name].append(target.verdict(attack(target, x, y, size, rng), y))
        if progress is not None:
            progress(block.stop, len(known))
    return tuple(_counted(name, epsilon, verdicts) for name, verdicts in found.items())


def _counted(name: str, budget: float, verdicts: list[tuple[Tensor, Tensor]]) -> AttackResult:
    wrong, unknown = (torch.cat(part).double() for part in zip(*verdicts, strict=True))
    return AttackResult(
        attack=name,
        epsilon=0.0 if name == "none" else budget,
        n=len(wrong),
        accuracy=float(1 - wrong.mean()),
        attack_success_rate=float((wrong * (1 - unknown)).mean()),
        rejection_rate=float(unknown.mean()),
    )


def identity(target: Target, x: Tensor, y: Tensor, size: float, rng: Generator) -> Tensor:
    """The images as they are."""
    return x


def gradient(target: Target, x: Tensor, y: Tensor, size: float, rng: Generator) -> Tensor:
    """Projected gradient ascent within ±size of each pixel (Madry 2018), through the posterior and through the nonconformity.

    While an image is of its class, the lead of another one is raised; once it is not, its nonconformity to the class that
    leads is lowered (selective ascent, Bryniarski 2022, Evading Adversarial Example Detection Defenses). Of all images on
    the way the best is kept, judged as a file would hold it; what has no gradient, as a file's size, is taken as it is
    there. The model is asked without noise, as it is when it answers.
    """
    best, worth = x.clone(), _worth(*target.verdict(x, y))
    own = torch.nn.functional.one_hot(y, len(target.classifier.labels)).bool()
    for _ in range(N_RESTARTS):
        moved = (x + size * (2 * torch.rand(x.shape, generator=rng).to(x) - 1)).clamp(0, 1)
        for _ in range(N_STEPS):
            slope = _slope(target, moved, own)
            moved = torch.clamp(moved + STEP * size / N_STEPS * slope.sign(), x - size, x + size).clamp(0, 1)
            found = _worth(*target.verdict(moved, y))
            better = found > worth
            best[better], worth[better] = moved[better], found[better]
    return best


def _slope(target: Target, x: Tensor, own: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        judgment = target.output(x)
        others = judgment.log_posterior.masked_fill(own, -torch.inf)
        lead, rival = others.max(1)
        lead = lead - judgment.log_posterior[own]
        strange = judgment.nonconformity.gather(1, rival[:, None])[:, 0]
        (slope,) = torch.autograd.grad(torch.where(lead < 0, lead, -strange).sum(), x)
    return slope


def _worth(wrong: Tensor, unknown: Tensor) -> Tensor:
    """What an attacker wants most: wrong and known, 2; then wrong, 1."""
    return wrong.long() + (wrong & ~unknown).long()


ATTACKS: dict[str, Callable[[Target, Tensor, Tensor, float, Generator], Tensor]] = {
    "none": identity,
    "gradient": gradient,
}
