"""The pictures of docs/benchmarks/unknown-images.md: strangers turned away, what lies behind a mask, and reasons.

    python bench/trust_pictures.py MODEL $DATA/fashion-mnist docs/images

MODEL is one of Fashion-MNIST; the strangers are those of bench/unknowns.py, the first of each kind. The shirt is the first of
the test part that is answered rightly.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import strangers
import torch
from picture import NAMES
from PIL import Image

from likely import Classifier
from likely.data.preprocessing import write_image
from likely.evaluation.eval_split import eval_split, training_images
from likely.evaluation.nearest_neighbors import nearest_images
from likely.reporting.images.captions import captioned
from likely.reporting.images.explanation_figure import explanation_figure, imputation_figure

N, N_ALIKE = 7, 7
SHIRT, COAT = 6, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    classifier = Classifier.load(asked.model)
    write_image(asked.out / "unknown.png", unknown(classifier, asked.data))
    write_image(asked.out / "hidden.png", hidden(classifier, asked.data))
    write_image(asked.out / "why.png", why(classifier, asked.data))


def unknown(classifier: Classifier, data: str) -> Image.Image:
    """Known images and strangers of every kind with their p-values."""
    assert classifier.predictor_.format is not None
    known = eval_split(classifier, data).images.images.batch(np.arange(100)).numpy()
    rows = {"test images": known} | strangers.of(Path(data), known, classifier.predictor_.format, 0)
    blocks = []
    for name, pixels in rows.items():
        answers = classifier.classify(list(pixels[:N].transpose(0, 2, 3, 1)))
        blocks.append((name, [(x, f"p = {answer.p_value:.3f}") for x, answer in zip(pixels, answers, strict=False)]))
    return captioned(blocks)


def hidden(classifier: Classifier, data: str) -> Image.Image:
    """The first shirt, of which only the lowest third is seen."""
    image = first(classifier, data, SHIRT)
    mask = (np.arange(len(image)) >= 2 * len(image) / 3)[:, None].repeat(image.shape[1], 1)
    return imputation_figure(classifier.impute(image, mask), NAMES)


def why(classifier: Classifier, data: str) -> Image.Image:
    """Why the first shirt is none of the coats."""
    found = classifier.explain(first(classifier, data, SHIRT), against=classifier.labels[COAT])
    part = training_images(classifier, data)
    near = {c: nearest_images(classifier, found.image, part, c, N_ALIKE) for c in (found.label, found.against)}
    return explanation_figure(
        found, NAMES, {c: each.images.batch(range(len(each))).numpy() for c, each in near.items()}
    )


def first(classifier: Classifier, data: str, c: int) -> np.ndarray:
    """The first test image of a class, (H, W), that the model answers rightly."""
    part = eval_split(classifier, data).images
    own = part.subset(np.flatnonzero(part.labels == c)[:20])
    right = torch.from_numpy(classifier.log_posterior(own.images)).argmax(1) == c
    return own.images.batch([int(right.nonzero()[0])])[0, 0].numpy()


if __name__ == "__main__":
    main()
