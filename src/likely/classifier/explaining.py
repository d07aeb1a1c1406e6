"""Why this answer and not another: what speaks for it, and what would have to change."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from likely.contract import GenerativeModel, LatentClassMixture, PartialEvidence, Scorer, Space
from likely.inference.attribution import evidence_map
from likely.inference.counterfactual import path, transported, turning
from likely.inference.posterior import log_posterior

N_POINTS = 65  # of the way from class to class, to find where the answer turns


@dataclass(frozen=True)
class Rivals:
    """Two classes between which an answer is to be explained, and what the answer rests on besides the model."""

    label: int
    against: int
    log_prior: Tensor
    temperature: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why an image x (C, H, W), or a vector (D,), is of class a, the label, rather than b.

    `evidence` (C, H, W) holds nats for a against b, pixel by pixel; together they come to `lead`, less the lead that an
    image of no class has. `way` is there for families with one latent space for all classes.
    """

    image: Tensor
    label: int
    against: int
    log_posterior: Tensor
    lead: float
    evidence: Tensor
    way: Way | None

    def probability(self, c: int) -> float:
        """p(c | x)."""
        return float(self.log_posterior[c].exp())


@dataclass(frozen=True, eq=False)
class Way:
    """From what the model sees in an image to the same of another class: images (n, C, H, W) in [0, 1].

    `probability` (n,) is that of the other class, as the model classifies each image anew; from `turn` on it leads. None if
    it never comes to lead.
    """

    images: Tensor
    probability: Tensor
    turn: int | None


@dataclass(frozen=True, eq=False)
class Imagined:
    """An image x (C, H, W) of which the pixels `observed` (H, W) are seen: log p(c | x_o) (K,), and what each class would most
    likely have behind the mask, (K, C, H, W) in [0, 1]."""

    image: Tensor
    observed: Tensor
    log_posterior: Tensor
    images: Tensor


@torch.inference_mode()
def imagined(model: PartialEvidence, x: Tensor, observed: Tensor, log_prior: Tensor, temperature: float) -> Imagined:
    """Of one image x (1, C, H, W) behind a mask (1, H, W)."""
    K = len(log_prior)
    found = model.observed_log_likelihood(x, observed).cpu()
    images = model.imagined(x.expand(K, -1, -1, -1), observed.expand(K, -1, -1), torch.arange(K, device=x.device))
    return Imagined(x[0].cpu(), observed[0].cpu(), log_posterior(found, log_prior, temperature)[0], images.cpu())


def explanation(model: Scorer, x: Tensor, rivals: Rivals) -> Explanation:
    """Of one image x (1, C, H, W)."""
    a, b = (torch.tensor([c], device=x.device) for c in (rivals.label, rivals.against))

    def scores(x: Tensor) -> Tensor:
        return model.log_scores(x) / rivals.temperature

    evidence = evidence_map(scores, x, a, b, neutral(model, x))
    with torch.inference_mode():
        found = model.log_scores(x).cpu()
    lead = found[0, rivals.label] - found[0, rivals.against]
    return Explanation(
        image=x[0].cpu(),
        label=rivals.label,
        against=rivals.against,
        log_posterior=log_posterior(found, rivals.log_prior, rivals.temperature)[0],
        lead=float(lead) / rivals.temperature,
        evidence=evidence[0].cpu(),
        way=_way(model, x, rivals) if isinstance(model, LatentClassMixture) else None,
    )


@torch.inference_mode()
def neutral(model: Scorer, x: Tensor) -> Tensor:
    """An image that speaks for no class, (C, H, W): the mean of all classes' most typical images; of a twin, mid-grey."""
    if not isinstance(model, GenerativeModel):
        return torch.full_like(x[0], 0.5)
    each = model.sample(torch.arange(model.task.n_classes, device=x.device))
    return (each * model.log_prior.exp().reshape(-1, *[1] * (each.ndim - 1))).sum(0).to(x).clone()


@torch.inference_mode()
def _way(model: LatentClassMixture, x: Tensor, rivals: Rivals) -> Way:
    """x_t = decode((1 − t) z + t z') + (1 − t) (x − decode(z)), t from 0 to 1: from the image itself to one of class b.

    What the decoder does not know of the image fades on the way. Every point is classified anew: what a picture shows
    counts, not where it was meant to lie.
    """
    assert isinstance(model, Scorer)
    a, b = (torch.tensor([c], device=x.device) for c in (rivals.label, rivals.against))
    z, classes = model.encode(x), model.drawn_from()
    left = torch.linspace(1, 0, N_POINTS, device=x.device).reshape(-1, *[1] * (x.ndim - 1))
    beyond, is_image = (x - model.decode(z)) * left, model.task.space is Space.PIXELS8
    for end in (transported(z, a, b, classes), classes[0][b]):  # the typical image, should its own not do
        made = model.decode(path(z, end, N_POINTS)[0]) + beyond
        images = made.clamp(0, 1) if is_image else made
        posterior = log_posterior(model.log_scores(images).cpu(), rivals.log_prior, rivals.temperature)
        turn = int(turning(posterior[None], b.cpu()))
        if turn < N_POINTS:
            break
    return Way(images.cpu(), posterior[:, rivals.against].exp(), turn if turn < N_POINTS else None)
