"""Why this answer and not another: what speaks for it, and what would have to change."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from likely.base import Domain, GenerativeModel, LatentClassMixture, Scorer, SupportsMissingPixels
from likely.inference.attribution import integrated_gradients
from likely.inference.counterfactual import flip_index, interpolate, transport
from likely.inference.posterior import log_posterior

N_PATH_POINTS = 65  # of the way from class to class, to find where the answer turns


@dataclass(frozen=True)
class ContrastPair:
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
    log_odds: float
    attribution: Tensor
    counterfactual_path: CounterfactualPath | None

    def probability(self, c: int) -> float:
        """p(c | x)."""
        return float(self.log_posterior[c].exp())


@dataclass(frozen=True, eq=False)
class CounterfactualPath:
    """From what the model sees in an image to the same of another class: images (n, C, H, W) in [0, 1].

    `probability` (n,) is that of the other class, as the model classifies each image anew; from `turn` on it leads. None if
    it never comes to lead.
    """

    images: Tensor
    probability: Tensor
    flip: int | None


@dataclass(frozen=True, eq=False)
class Imputation:
    """An image x (C, H, W) of which the pixels `observed` (H, W) are seen: log p(c | x_o) (K,), and what each class would most
    likely have behind the mask, (K, C, H, W) in [0, 1]."""

    image: Tensor
    mask: Tensor
    log_posterior: Tensor
    images: Tensor


@torch.inference_mode()
def impute(model: SupportsMissingPixels, x: Tensor, mask: Tensor, log_prior: Tensor, temperature: float) -> Imputation:
    """Of one image x (1, C, H, W) behind a mask (1, H, W)."""
    K = len(log_prior)
    found = model.observed_log_likelihood(x, mask).cpu()
    images = model.impute(x.expand(K, -1, -1, -1), mask.expand(K, -1, -1), torch.arange(K, device=x.device))
    return Imputation(x[0].cpu(), mask[0].cpu(), log_posterior(found, log_prior, temperature)[0], images.cpu())


def explain(model: Scorer, x: Tensor, pair: ContrastPair) -> Explanation:
    """Of one image x (1, C, H, W)."""
    a, b = (torch.tensor([c], device=x.device) for c in (pair.label, pair.against))

    def scores(x: Tensor) -> Tensor:
        return model.log_scores(x) / pair.temperature

    evidence = integrated_gradients(scores, x, a, b, baseline_image(model, x))
    with torch.inference_mode():
        found = model.log_scores(x).cpu()
    lead = found[0, pair.label] - found[0, pair.against]
    return Explanation(
        image=x[0].cpu(),
        label=pair.label,
        against=pair.against,
        log_posterior=log_posterior(found, pair.log_prior, pair.temperature)[0],
        log_odds=float(lead) / pair.temperature,
        attribution=evidence[0].cpu(),
        counterfactual_path=_counterfactual_path(model, x, pair) if isinstance(model, LatentClassMixture) else None,
    )


@torch.inference_mode()
def baseline_image(model: Scorer, x: Tensor) -> Tensor:
    """An image that speaks for no class, (C, H, W): the mean of all classes' most typical images; of a twin, mid-gray."""
    if not isinstance(model, GenerativeModel):
        return torch.full_like(x[0], 0.5)
    each = model.sample(torch.arange(model.task.n_classes, device=x.device))
    return (each * model.log_prior.exp().reshape(-1, *[1] * (each.ndim - 1))).sum(0).to(x).clone()


@torch.inference_mode()
def _counterfactual_path(model: LatentClassMixture, x: Tensor, rivals: ContrastPair) -> CounterfactualPath:
    """x_t = decode((1 − t) z + t z') + (1 − t) (x − decode(z)), t from 0 to 1: from the image itself to one of class b.

    What the decoder does not know of the image fades on the way. Every point is classified anew: what a picture shows
    counts, not where it was meant to lie.
    """
    assert isinstance(model, Scorer)
    a, b = (torch.tensor([c], device=x.device) for c in (rivals.label, rivals.against))
    z, classes = model.encode(x), model.sampling_distribution()
    left = torch.linspace(1, 0, N_PATH_POINTS, device=x.device).reshape(-1, *[1] * (x.ndim - 1))
    beyond, is_image = (x - model.decode(z)) * left, model.task.domain is Domain.PIXELS8
    for end in (transport(z, a, b, classes), classes[0][b]):  # the typical image, should its own not do
        made = model.decode(interpolate(z, end, N_PATH_POINTS)[0]) + beyond
        images = made.clamp(0, 1) if is_image else made
        posterior = log_posterior(model.log_scores(images).cpu(), rivals.log_prior, rivals.temperature)
        turn = int(flip_index(posterior[None], b.cpu()))
        if turn < N_PATH_POINTS:
            break
    return CounterfactualPath(images.cpu(), posterior[:, rivals.against].exp(), turn if turn < N_PATH_POINTS else None)
