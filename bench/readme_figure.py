"""The image in the README: generated images of a Fashion-MNIST model, one row per class.

python bench/readme_figure.py MODEL docs/images/fashion.png
"""

from __future__ import annotations

import argparse

from likely import Classifier
from likely.data.preprocessing import write_image
from likely.reporting.images.image_grid import grid_by_class

# Of the classes 0 to 9 (Xiao 2017, Fashion-MNIST), for the data's own files hold numbers only.
NAMES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
N, SEED = 14, 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out")
    args = parser.parse_args()
    classifier = Classifier.load(args.model)
    generated = [classifier.sample(label, N, seed=SEED + c) for c, label in enumerate(classifier.classes_)]
    write_image(args.out, grid_by_class({"": generated}, NAMES))


if __name__ == "__main__":
    main()
