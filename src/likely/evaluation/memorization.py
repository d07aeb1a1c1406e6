"""Memorization: membership inference by likelihood, and nearest neighbors of generated images."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from likely.base import GenerativeModel
from likely.classifier import Predictor
from likely.data.dataset import LabeledImages
from likely.data.quality.near_duplicates import Thumbnails
from likely.evaluation.metrics import Floats, Ints, auroc
from likely.options import Options

N_BOOTSTRAP = 500
LEVEL = 0.95
BLOCK = 256


class MembershipInference(Options):
    """Separation of training images from as many held-out images by log p(x)."""

    n: int = Field(description="Images of each kind, with equal class frequencies.")
    gap: float = Field(description="Mean log p(x) of training minus held-out images, in nats per dimension.")
    auroc: float = Field(
        description="Probability that a training image has a higher log p(x) than a held-out image; 0.5 without memorization."
    )
    low: float = Field(description="Lower end of the 95% bootstrap interval of the AUROC.")
    high: float = Field(description="Upper end of the interval.")


class NearestNeighborMemorization(Options):
    """Training images among the nearest real neighbors of generated images."""

    n: int = Field(description="Generated images.")
    n_nearest: int = Field(description="Distinct real images that are nearest to a generated image.")
    n_training: int = Field(description="Training images among them.")
    expected: float = Field(description="Expected number under the null hypothesis of no memorization.")
    p_value: float = Field(description="p-value of the exact one-sided test.")
    distance_to_training: float = Field(
        description="Median distance of a generated image to the nearest training image."
    )
    held_out_distance_to_training: float = Field(
        description="Median distance of a held-out image to the nearest training image."
    )


class Memorization(Options):
    """Both tests; None where there are no images for a test."""

    membership_inference: MembershipInference | None
    nn_memorization: NearestNeighborMemorization | None


def measure_memorization(
    classifier: Predictor,
    train: LabeledImages,
    held_out: LabeledImages,
    generated: LabeledImages | None,
    *,
    seed: int = 0,
) -> Memorization:
    """Run both tests.

    `held_out` images had no influence on the training; `generated` is None for models that generate no images.
    """
    rng = np.random.default_rng(seed)
    held_out = held_out.labeled()
    has_likelihood = isinstance(classifier.model, GenerativeModel) and len(held_out) > 0
    return Memorization(
        membership_inference=_membership_inference(classifier, train, held_out, rng) if has_likelihood else None,
        nn_memorization=_nn_memorization(generated, train, held_out)
        if generated is not None and len(generated) and len(held_out)
        else None,
    )


def _membership_inference(
    classifier: Predictor, train: LabeledImages, held_out: LabeledImages, rng: np.random.Generator
) -> MembershipInference:
    """Infer membership from log p(x) (Yeom 2018, Privacy Risk in Machine Learning)."""
    members, others = _class_matched(train.labels, held_out.labels, rng)
    inside, outside = (
        classifier.log_evidence(images.subset(indices).images)
        for images, indices in ((train, members), (held_out, others))
    )
    n = len(inside)
    resampled = [auroc(inside[rng.integers(n, size=n)], outside[rng.integers(n, size=n)]) for _ in range(N_BOOTSTRAP)]
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return MembershipInference(
        n=n,
        gap=float(inside.mean() - outside.mean()) / classifier.model.task.n_dims,
        auroc=auroc(inside, outside),
        low=float(low),
        high=float(high),
    )


def _nn_memorization(
    generated: LabeledImages, train: LabeledImages, held_out: LabeledImages
) -> NearestNeighborMemorization:
    """Test whether generated images lie closer to training images than to held-out images.

    Under the null hypothesis, the D_c real images of class c that are nearest to generated ones are a random choice among
    N_c training and M_c held-out images, so the number of training images among them is hypergeometric, and their number
    over all classes a sum of such variables: an exact test for any distance and any blur of the generated images.
    (Comparing the distances themselves, as in Meehan 2020, mistakes images that lack detail for copies.)
    """
    train, held_out = train.labeled(), held_out.labeled()
    x_train, x_held_out, x_generated = (
        Thumbnails.from_images(images).thumbnails.reshape(len(images), -1) for images in (train, held_out, generated)
    )
    nearest_train, distance_to_train = _nearest(x_generated, x_train)
    nearest_held_out, distance_to_held_out = _nearest(x_generated, x_held_out)
    is_closer = distance_to_train < distance_to_held_out
    K = 1 + max(train.labels.max(), held_out.labels.max())
    hits, misses = np.unique(nearest_train[is_closer]), np.unique(nearest_held_out[~is_closer])
    counts = [
        np.bincount(labels, minlength=K)
        for labels in (train.labels, held_out.labels, train.labels[hits], held_out.labels[misses])
    ]
    N, M, _, D = counts[0], counts[1], counts[2], counts[2] + counts[3]
    return NearestNeighborMemorization(
        n=len(generated),
        n_nearest=int(D.sum()),
        n_training=len(hits),
        expected=float((D * N / np.maximum(1, N + M)).sum()),
        p_value=exact_p_value(len(hits), N, M, D),
        distance_to_training=float(np.median(distance_to_train)),
        held_out_distance_to_training=float(np.median(_nearest(x_held_out, x_train)[1])),
    )


def exact_p_value(n_training: int, N: Ints, M: Ints, D: Ints) -> float:
    """Return P(Σ_c X_c ≥ n_training) for independent hypergeometric X_c: D_c draws from N_c + M_c, N_c of them successes."""
    from scipy.stats import hypergeom

    pmf = np.ones(1)
    for n, m, d in zip(N, M, D, strict=True):
        pmf = np.convolve(pmf, hypergeom.pmf(np.arange(d + 1), n + m, n, d))
    return float(min(1.0, pmf[n_training:].sum()))


def _nearest(queries: Floats, references: Floats) -> tuple[Ints, Floats]:
    """Return for each query (n, d) the index of the nearest reference (m, d) and the distance to it, (n,) each."""
    index, distance = np.empty(len(queries), np.int64), np.empty(len(queries))
    size = (references**2).sum(1)
    for start in range(0, len(queries), BLOCK):
        rows = queries[start : start + BLOCK]
        squared = size - 2 * rows @ references.T
        found = squared.argmin(1)
        index[start : start + BLOCK] = found
        least = squared[np.arange(len(rows)), found] + (rows**2).sum(1)
        distance[start : start + BLOCK] = np.sqrt(np.maximum(least, 0))
    return index, distance


def _class_matched(members: Ints, others: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Return random indices into both label arrays with the same number of each class."""
    pairs = []
    for c in np.unique(others):
        a, b = (rng.permutation(np.flatnonzero(labels == c)) for labels in (members, others))
        n = min(len(a), len(b))
        pairs.append((a[:n], b[:n]))
    a, b = (np.sort(np.concatenate(indices)) for indices in zip(*pairs, strict=True))
    return a, b
