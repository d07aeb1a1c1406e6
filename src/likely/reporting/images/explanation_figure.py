"""The picture of an explanation: what speaks for an answer, what would have to change, and what the model was reminded of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from likely.classifier.explanation import CounterfactualPath, Explanation, Imputation
from likely.networks.pixel_scaling import to_eight_bit
from likely.reporting.images.captions import IN_A_ROW, Pixels, Row, captioned

FOR, AGAINST = (230, 97, 1), (45, 117, 200)  # orange and blue, which nobody's eyes confuse
MASK_OPACITY = (126, 87, 194)  # violet: neither gray nor what speaks for or against
MAX_CLASSES = 14
BLUR = 0.03  # of the image's side: single pixels' evidence is too restless to look at
FLIPPED = "→ "  # before the image where the answer turns
FULL = 0.98  # of the pixels have less evidence than is shown in full color


def explanation_figure(found: Explanation, names: Sequence[str], neighbors: Mapping[int, Pixels]) -> Image.Image:
    """Evidence, the way to the other class, and for some classes training images that are `alike`, (n, C, H, W) uint8 each,
    under headings, on a clear ground."""
    a, b = names[found.label], names[found.against]
    x = to_eight_bit(found.image).numpy()
    blocks: list[tuple[str, Row]] = [
        (
            f"why {a}, p = {found.probability(found.label):.2f}, and not {b}, {found.probability(found.against):.2f}: "
            f"orange speaks for {a}, blue for {b}",
            [(x, ""), (attribution_image(found.attribution, found.image), "")],
        )
    ]
    if found.counterfactual_path is not None:
        blocks.append(
            (_heading(found.counterfactual_path, b), [_captioned(stop) for stop in frames(found.counterfactual_path)])
        )
    for c, images in neighbors.items():
        if len(images):
            blocks.append(
                (f"training images of {names[c]} that the model finds most alike", [(each, "") for each in images])
            )
    return captioned(blocks)


def imputation_figure(found: Imputation, names: Sequence[str]) -> Image.Image:
    """What is seen, and what the most probable classes would have behind the mask, on a clear ground."""
    p = found.log_posterior.exp()
    chosen = p.argsort(descending=True, stable=True)[:MAX_CLASSES].tolist()
    shown = [(to_eight_bit(found.images[c]).numpy(), f"{names[c]}\np = {p[c]:.2f}") for c in chosen]
    rows = [shown[i : i + IN_A_ROW] for i in range(0, len(shown), IN_A_ROW)]
    heading = "what is seen, and the most probable classes with what the model imagines behind the mask"
    seen = (masked(to_eight_bit(found.image).numpy(), found.mask), "")
    return captioned([(heading, [seen]), *(("", row) for row in rows)])


def masked(x: Pixels, mask: Tensor) -> Pixels:
    """An image (C, H, W) with what is not observed under a colored veil: (3, H, W)."""
    veil = np.array(MASK_OPACITY, np.uint8)[:, None, None]
    return np.where(mask.numpy(), np.broadcast_to(x, (3, *x.shape[1:])), veil)


def attribution_image(e: Tensor, x: Tensor) -> Pixels:
    """Evidence (C, H, W) in two colors over the image, which is shown pale and gray: uint8 (3, H, W)."""
    summed = _blurred(e.double().sum(0))
    full = summed.abs().flatten().quantile(FULL).clamp_min(1e-12)
    share = (summed / full).clamp(-1, 1)
    pale = (0.55 + 0.4 * x.double().mean(0)).expand(3, -1, -1)
    orange, blue = (torch.tensor(color, dtype=torch.float64)[:, None, None] / 255 for color in (FOR, AGAINST))
    ink = torch.where(share[None] > 0, orange, blue)
    weight = 0.9 * share.abs()[None]
    return to_eight_bit((1 - weight) * pale + weight * ink).numpy()


def _heading(way: CounterfactualPath, b: str) -> str:
    if way.flip is None:
        return f"on the way to {b}: the model never comes to see one"
    if way.flip == 0:
        return f"on the way to {b}, which leads already"
    return f"what would have to change for it to be {b}: {FLIPPED}the first that the model takes for one"


class Frame(NamedTuple):
    """An image of the way, uint8 (C, H, W), with p of the other class; and whether the answer turns there."""

    image: Pixels
    probability: float
    flips: bool


def frames(path: CounterfactualPath) -> list[Frame]:
    """A row of images of the way, the one among them where the answer turns."""
    last, turn = len(path.images) - 1, path.flip
    if turn is None or turn in (0, last):
        chosen = np.linspace(0, last, IN_A_ROW)
    else:
        chosen = np.concatenate([np.linspace(0, turn, IN_A_ROW - 2), np.linspace(turn, last, 3)[1:]])
    images = to_eight_bit(path.images).numpy()
    return [Frame(images[i], float(path.probability[i]), bool(turn) and i == turn) for i in chosen.round().astype(int)]


def _captioned(stop: Frame) -> tuple[Pixels, str]:
    return stop.image, f"{FLIPPED if stop.flips else ''}p = {stop.probability:.2f}"


def _blurred(e: Tensor) -> Tensor:
    """(H, W) under a Gaussian."""
    spread = BLUR * max(e.shape)
    reach = int(np.ceil(2.5 * spread))
    at = torch.arange(-reach, reach + 1, dtype=e.dtype)
    kernel = (-(at / spread).square() / 2).exp()
    kernel = kernel / kernel.sum()
    padded: Tensor = F.pad(e[None, None], (reach,) * 4)
    blurred: Tensor = F.conv2d(F.conv2d(padded, kernel[None, None, None]), kernel[None, None, :, None])
    return blurred[0, 0]
