"""The picture on the README: images that a model of Fashion-MNIST draws, a row a class, under the names of the clothes.

python bench/picture.py MODEL docs/images/fashion.png
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
    asked = parser.parse_args()
    classifier = Classifier.load(asked.model)
    drawn = [classifier.sample(label, N, seed=SEED + c) for c, label in enumerate(classifier.labels)]
    write_image(asked.out, grid_by_class({"": drawn}, NAMES))


if __name__ == "__main__":
    main()
