"""Explanations as images: pixel attributions, a counterfactual path, nearest training images, imputed pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from likely.base import to_eight_bit
from likely.classifier.explanation import CounterfactualPath, Explanation, Imputation
from likely.reporting.images.image_layout import Pixels, TextRenderer, factor_for, gap, hstack, pad, row, vstack

Row = Sequence[tuple[Pixels, str]]  # images with their captions, of one line or more

FOR, AGAINST = (230, 97, 1), (45, 117, 200)  # orange and blue, distinguishable with color blindness
MASK_COLOR = (126, 87, 194)  # violet
MAX_CLASSES = 14
BLUR = 0.03  # of the image side: attributions of single pixels are noisy
FLIPPED = "→ "  # before the image where the prediction flips
SATURATION_QUANTILE = 0.98  # of the attributions: larger ones have full color
EDGE = 112  # pixels: small images are enlarged to about this side
ROW_LENGTH = 7


def explanation_image(found: Explanation, names: Sequence[str], neighbors: Mapping[int, Pixels]) -> Image.Image:
    """Compose attributions, the counterfactual path and the nearest training images, uint8 (n, C, H, W) for each class."""
    a, b = names[found.label], names[found.against]
    x = to_eight_bit(found.image).numpy()
    blocks: list[tuple[str, Row]] = [
        (
            f"{a}, p = {found.probability(found.label):.2f}, against {b}, {found.probability(found.against):.2f}: "
            f"orange supports {a}, blue {b}",
            [(x, ""), (attribution_image(found.attribution, found.image), "")],
        )
    ]
    if found.counterfactual_path is not None:
        blocks.append(
            (
                _heading(found.counterfactual_path, b),
                [_captioned_frame(frame) for frame in frames(found.counterfactual_path)],
            )
        )
    for c, images in neighbors.items():
        if len(images):
            blocks.append((f"nearest training images of {names[c]}", [(image, "") for image in images]))
    return captioned(blocks)


def imputation_image(found: Imputation, names: Sequence[str]) -> Image.Image:
    """Compose the masked image and the pixels that the most probable classes impute."""
    p = found.log_posterior.exp()
    classes = p.argsort(descending=True, stable=True)[:MAX_CLASSES].tolist()
    imputed = [(to_eight_bit(found.images[c]).numpy(), f"{names[c]}\np = {p[c]:.2f}") for c in classes]
    rows = [imputed[i : i + ROW_LENGTH] for i in range(0, len(imputed), ROW_LENGTH)]
    heading = "masked image, and the most probable classes with their imputed pixels"
    observed = (_masked(to_eight_bit(found.image).numpy(), found.mask), "")
    return captioned([(heading, [observed]), *(("", row) for row in rows)])


def attribution_image(attribution: Tensor, x: Tensor) -> Pixels:
    """Draw attributions (C, H, W) in two colors over a pale gray copy of the image x: uint8 (3, H, W)."""
    summed = _blurred(attribution.double().sum(0))
    full = summed.abs().flatten().quantile(SATURATION_QUANTILE).clamp_min(1e-12)
    relative = (summed / full).clamp(-1, 1)
    pale = (0.55 + 0.4 * x.double().mean(0)).expand(3, -1, -1)
    orange, blue = (torch.tensor(color, dtype=torch.float64)[:, None, None] / 255 for color in (FOR, AGAINST))
    ink = torch.where(relative[None] > 0, orange, blue)
    weight = 0.9 * relative.abs()[None]
    return to_eight_bit((1 - weight) * pale + weight * ink).numpy()


def _masked(x: Pixels, mask: Tensor) -> Pixels:
    """Color the unobserved pixels of an image (C, H, W): (3, H, W)."""
    color = np.array(MASK_COLOR, np.uint8)[:, None, None]
    return np.where(mask.numpy(), np.broadcast_to(x, (3, *x.shape[1:])), color)


def _heading(path: CounterfactualPath, b: str) -> str:
    if path.flip is None:
        return f"counterfactual path to {b}: the prediction does not flip"
    if path.flip == 0:
        return f"counterfactual path to {b}, which is predicted already"
    return f"counterfactual path to {b}: {FLIPPED}the first image with this prediction"


class _Frame(NamedTuple):
    """An image of a counterfactual path, uint8 (C, H, W), with the probability of the target class.

    `flips` marks the first image with the prediction of the target class.
    """

    image: Pixels
    probability: float
    flips: bool


def frames(path: CounterfactualPath) -> list[_Frame]:
    """Return a row of images of a path, including the one where the prediction flips."""
    last, flip = len(path.images) - 1, path.flip
    if flip is None or flip in (0, last):
        indices = np.linspace(0, last, ROW_LENGTH)
    else:
        indices = np.concatenate([np.linspace(0, flip, ROW_LENGTH - 2), np.linspace(flip, last, 3)[1:]])
    images = to_eight_bit(path.images).numpy()
    return [
        _Frame(images[i], float(path.probability[i]), bool(flip) and i == flip) for i in indices.round().astype(int)
    ]


def _captioned_frame(frame: _Frame) -> tuple[Pixels, str]:
    return frame.image, f"{FLIPPED if frame.flips else ''}p = {frame.probability:.2f}"


def _blurred(values: Tensor) -> Tensor:
    """Apply a Gaussian blur to (H, W)."""
    deviation = BLUR * max(values.shape)
    radius = int(np.ceil(2.5 * deviation))
    offsets = torch.arange(-radius, radius + 1, dtype=values.dtype)
    kernel = (-(offsets / deviation).square() / 2).exp()
    kernel = kernel / kernel.sum()
    padded: Tensor = F.pad(values[None, None], (radius,) * 4)
    blurred: Tensor = F.conv2d(F.conv2d(padded, kernel[None, None, None]), kernel[None, None, :, None])
    return blurred[0, 0]


# --- captioned rows -------------------------------------------------------------------------------------------------


def captioned(blocks: Sequence[tuple[str, Row]]) -> Image.Image:
    """Compose rows of captioned images of one size under headings, on a transparent background; headings may be empty."""
    first = blocks[0][1][0][0]
    edge = factor_for(first[None], EDGE) * max(first.shape[1:])
    captions = [line for _, row in blocks for _, caption in row for line in caption.splitlines()]
    texts = [heading for heading, _ in blocks] + captions
    layout = _Layout(edge, TextRenderer.for_texts(texts, int(np.clip(edge // 6, 16, 28))))
    return layout.framed([layout.block(heading, row) for heading, row in blocks])


class _Layout:
    def __init__(self, edge: int, renderer: TextRenderer) -> None:
        self.edge, self.renderer, self.gap = edge, renderer, gap(edge)
        self.line_height = round(1.6 * renderer.size)
        self.width = ROW_LENGTH * edge + (ROW_LENGTH - 1) * self.gap

    def block(self, heading: str, row: Row) -> Image.Image:
        images = hstack([self._tile(*captioned) for captioned in row], self.gap)
        if not heading:
            return images
        return vstack([self.renderer.image(heading, (self.width, self.line_height)), images], 0)

    def framed(self, blocks: Sequence[Image.Image]) -> Image.Image:
        whole, margin = vstack(blocks, 2 * self.gap), 2 * self.gap
        return pad(whole, (max(whole.width, self.width) + 2 * margin, whole.height + 2 * margin), (margin, margin))

    def _tile(self, image: Pixels, caption: str) -> Image.Image:
        tile = row(image[None], self.edge)
        lines = [self.renderer.image(line, (tile.width, self.line_height)) for line in caption.splitlines()]
        return vstack([tile, *lines], 0)
