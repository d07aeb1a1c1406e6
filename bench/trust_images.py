"""Images for the documentation: OOD images with p-values, imputed pixels, and an explanation.

    python bench/trust_images.py MODEL $DATA/fashion-mnist docs/images

MODEL was trained on Fashion-MNIST; the OOD images are the first of each kind of bench/unknowns.py. The shirt is the
first of the test split that is answered rightly.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import ood_images
import torch
from PIL import Image
from readme_figure import NAMES

from likely import Classifier
from likely.classifier.explanation import nearest_images
from likely.data.preprocessing import write_image
from likely.evaluation.eval_split import eval_split, training_images
from likely.reporting.images.explanation import captioned, explanation_image, imputation_image

N, N_ALIKE = 7, 7
SHIRT, COAT = 6, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    classifier = Classifier.load(args.model)
    write_image(args.out / "unknown.png", unknown(classifier, args.data))
    write_image(args.out / "hidden.png", hidden(classifier, args.data))
    write_image(args.out / "why.png", explanation(classifier, args.data))


def unknown(classifier: Classifier, data: str) -> Image.Image:
    """Render known images and OOD images of every kind with their p-values."""
    assert classifier.predictor_.format is not None
    known = eval_split(classifier.predictor_, data).images.images.batch(np.arange(100)).numpy()
    rows = {"test images": known} | ood_images.of(Path(data), known, classifier.predictor_.format, 0)
    blocks = []
    for name, pixels in rows.items():
        predictions = classifier.classify(list(pixels[:N].transpose(0, 2, 3, 1)))
        blocks.append((name, [(x, f"p = {each.p_value:.3f}") for x, each in zip(pixels, predictions, strict=False)]))
    return captioned(blocks)


def hidden(classifier: Classifier, data: str) -> Image.Image:
    """Render the imputation of the first shirt, of which only the lowest third is observed."""
    image = first(classifier, data, SHIRT)
    mask = (np.arange(len(image)) >= 2 * len(image) / 3)[:, None].repeat(image.shape[1], 1)
    return imputation_image(classifier.impute(image, mask), NAMES)


def explanation(classifier: Classifier, data: str) -> Image.Image:
    """Render the explanation of the first shirt against the class of coats."""
    found = classifier.explain(first(classifier, data, SHIRT), against=classifier.predictor_.labels[COAT])
    labeled = training_images(classifier.predictor_, data)
    near = {
        c: nearest_images(classifier.predictor_, found.image, labeled, c, N_ALIKE) for c in (found.label, found.against)
    }
    return explanation_image(found, NAMES, {c: each.images.batch(range(len(each))).numpy() for c, each in near.items()})


def first(classifier: Classifier, data: str, c: int) -> np.ndarray:
    """Return the first correctly classified test image of a class, (H, W)."""
    labeled = eval_split(classifier.predictor_, data).images
    own = labeled.subset(np.flatnonzero(labeled.labels == c)[:20])
    right = torch.from_numpy(classifier.predictor_.log_posterior(own.images)).argmax(1) == c
    return own.images.batch([int(right.nonzero()[0])])[0, 0].numpy()


if __name__ == "__main__":
    main()
