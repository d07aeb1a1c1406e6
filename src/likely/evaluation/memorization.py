"""What a model has learned by heart: whether its training images can be told from others by what it says, or draws."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from likely.base import GenerativeModel
from likely.classifier import Predictor
from likely.data.dataset import LabeledImages
from likely.data.quality.near_duplicates import make_thumbnails
from likely.evaluation.metrics import Floats, Ints, auroc
from likely.options import Options

N_BOOTSTRAP = 500
LEVEL = 0.95
BLOCK = 256


class MembershipInference(Options):
    """How well training images can be told from as many held-out ones by log p(x) alone."""

    n: int = Field(description="Images of each kind, classes alike among both.")
    gap: float = Field(description="Mean log p(x) of the training images less that of the others, nats a dimension.")
    auroc: float = Field(
        description="How often a training image has the higher log p(x) of the two: 0.5 if nothing tells them apart "
        "(membership inference)."
    )
    low: float = Field(description="Of the AUROC, the lower end of its 95% interval (bootstrap).")
    high: float = Field(description="Its upper end.")


class NearestNeighborMemorization(Options):
    """Whether generated images lie nearer to training images than to others from the same source."""

    n: int = Field(description="Generated images.")
    n_nearest: int = Field(description="Different real images that are the nearest one to a generated image.")
    n_training: int = Field(description="How many of those were trained on.")
    expected: float = Field(description="How many would be, did the training make no difference.")
    p_value: float = Field(description="The probability of as many or more of them by chance.")
    distance_to_training: float = Field(
        description="Median distance of a generated image to the nearest training image."
    )
    held_out_distance_to_training: float = Field(description="The same of a held-out image.")


class Memorization(Options):
    """Both, where there are images to measure by."""

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
    """`held_out` was kept from the training altogether; `made` are images that the model drew, None if it draws none."""
    rng = np.random.default_rng(seed)
    held_out = held_out.labeled()
    with_images = isinstance(classifier.model_, GenerativeModel) and len(held_out) > 0
    return Memorization(
        membership_inference=membership_inference(classifier, train, held_out, rng) if with_images else None,
        nn_memorization=nn_memorization(generated, train, held_out)
        if generated is not None and len(generated) and len(held_out)
        else None,
    )


def membership_inference(
    classifier: Predictor, train: LabeledImages, held_out: LabeledImages, rng: np.random.Generator
) -> MembershipInference:
    """Yeom 2018 (Privacy Risk in Machine Learning) of a likelihood: a model that overfits gives its members away."""
    ours, theirs = _paired(train.labels, held_out.labels, rng)
    inside, outside = (
        classifier.log_evidence(part.subset(chosen).images) for part, chosen in ((train, ours), (held_out, theirs))
    )
    n = len(inside)
    resampled = [auroc(inside[rng.integers(n, size=n)], outside[rng.integers(n, size=n)]) for _ in range(N_BOOTSTRAP)]
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return MembershipInference(
        n=n,
        gap=float(inside.mean() - outside.mean()) / classifier.model_.task.n_dims,
        auroc=auroc(inside, outside),
        low=float(low),
        high=float(high),
    )


def nn_memorization(
    generated: LabeledImages, train: LabeledImages, held_out: LabeledImages
) -> NearestNeighborMemorization:
    """Of all real images, trained on or not, which are nearest to generated ones?

    Had the training made no difference, those of a class would be a random choice of D_c among N_c trained and M_c held-out
    images, the number of trained ones among them hypergeometric, and their number over all classes a sum of such: an exact
    test, whatever the distance, and however blurred or plain the generated images are. (Comparing distances themselves, as
    Meehan 2020 does, takes images that lack detail for copies, for they are near to everything.)
    """
    train, held_out = train.labeled(), held_out.labeled()
    of_train, of_held_out, of_made = (
        make_thumbnails(part).thumbnails.reshape(len(part), -1) for part in (train, held_out, generated)
    )
    (near_train, apart_train), (near_held_out, apart_held_out) = (
        nearest(of_made, to) for to in (of_train, of_held_out)
    )
    trained = apart_train < apart_held_out
    K = 1 + max(train.labels.max(), held_out.labels.max())
    hits, misses = np.unique(near_train[trained]), np.unique(near_held_out[~trained])
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
        distance_to_training=float(np.median(apart_train)),
        held_out_distance_to_training=float(np.median(nearest(of_held_out, of_train)[1])),
    )


def exact_p_value(n_training: int, N: Ints, M: Ints, D: Ints) -> float:
    """P(Σ_c X_c ≥ n_trained) of independent X_c ~ Hypergeometric: D_c drawn among N_c + M_c of which N_c count; (K,) each."""
    from scipy.stats import hypergeom

    chances = np.ones(1)
    for n, m, d in zip(N, M, D, strict=True):
        chances = np.convolve(chances, hypergeom.pmf(np.arange(d + 1), n + m, n, d))
    return float(min(1.0, chances[n_training:].sum()))


def nearest(these: Floats, those: Floats) -> tuple[Ints, Floats]:
    """For each of these (n, d) the index of the nearest of those (m, d), and how far it is."""
    index, apart = np.empty(len(these), np.int64), np.empty(len(these))
    size = (those**2).sum(1)
    for start in range(0, len(these), BLOCK):
        rows = these[start : start + BLOCK]
        squared = size - 2 * rows @ those.T
        found = squared.argmin(1)
        index[start : start + BLOCK] = found
        apart[start : start + BLOCK] = np.sqrt(np.maximum(squared[np.arange(len(rows)), found] + (rows**2).sum(1), 0))
    return index, apart


def _paired(ours: Ints, theirs: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """As many of ours as of theirs of every class, drawn at random."""
    pairs = []
    for c in np.unique(theirs):
        a, b = (rng.permutation(np.flatnonzero(labels == c)) for labels in (ours, theirs))
        n = min(len(a), len(b))
        pairs.append((a[:n], b[:n]))
    a, b = (np.sort(np.concatenate(part)) for part in zip(*pairs, strict=True))
    return a, b
