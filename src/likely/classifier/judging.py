"""From a trained model to the judge of its answers: what held-out and calibration images say of its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from likely.classifier.examining import Seen, examine, own_traits
from likely.classifier.sight import BATCH
from likely.contract import Measured, Scorer, Space, Task
from likely.data.parts import Part, joined
from likely.data.splits import Parts
from likely.inference.calibration import fit_temperature
from likely.inference.judgement import Judge, Labelled
from likely.training import hardware
from likely.training.feed import Batches
from likely.training.loop import measure

if TYPE_CHECKING:
    from likely.classifier.classifier import BayesClassifier

MOST_TRAITS = 30_000  # images of the training that strangeness is learned from, or
MOST_OF_A_CLASS = 100  # of each class, if that is more
MOST_SCORES = 50_000_000  # of images under all classes that are kept together
LEAST_FOR_TEMPERATURE = 1000  # images, however many the classes, or
MOST_FOR_TEMPERATURE = 10_000_000  # scores of images under all classes, if these are more
MOST_CROSSED = 20_000  # images that calibrate although they are learned from, or one of each class
N_FOLDS = 5  # of these


def judge_of(classifier: BayesClassifier, parts: Parts) -> Judge:
    """Temperature, strangeness and p-values: from validation images, from calibration images, and from those trained on."""
    enough = len(parts.validation) > 0
    held_out = parts.validation if enough else parts.train.labelled()
    T = _temperature(classifier, held_out)
    T = T if enough else max(1.0, T)  # sureness on the images of the training itself is no measure
    before = labelled(classifier, classifier.model_, held_out, T)
    calibration = parts.calibration
    if classifier.crosses(classifier.shape):
        folds = crossed(classifier, parts, T, classifier.seed)
        if len(folds) > 1:
            return _crossed_judge(folds, before if enough else None, classifier.log_prior_, T)
        calibration = calibration.subset([])  # of so few images each is needed to learn from
    now = labelled(classifier, classifier.model_, calibration, T)
    trained = trained_traits(classifier, parts.train) if describes(classifier, held_out) else None
    return Judge.fit(before, now, classifier.log_prior_, T, trained, contrasted=is_contrasted(classifier))


def describes(classifier: BayesClassifier, part: Part) -> bool:
    """Whether the model itself says what it sees in an image: that differs little between images trained on and others,
    unlike how well they are explained."""
    one = next(classifier.sight.inputs(part.images.subset([0])))
    with torch.inference_mode():
        return examine(classifier.model_, [Seen(one)]).description is not None


def is_contrasted(classifier: BayesClassifier) -> bool:
    """Whether what is as near to every class is strange: in features, where much moves an image away from all alike."""
    return classifier.model_.task.space is Space.FEATURES


def labelled(classifier: BayesClassifier, model: Scorer, part: Part, temperature: float) -> Labelled:
    """What a judge learns from, of labelled images as a model of the classifier's kind sees them."""
    few, pieces = len(part) * len(classifier.labels) <= MOST_SCORES, []
    for start in range(0, max(1, len(part)), BATCH):
        block = part.subset(np.arange(start, min(start + BATCH, len(part))))
        with torch.inference_mode():
            found = examine(model, classifier.sight.seen(block.images))
        piece = Labelled.of(found, torch.from_numpy(block.labels), temperature)
        pieces.append(piece if few else piece.without_scores())
    return Labelled.joined(pieces)


def crossed(classifier: BayesClassifier, parts: Parts, temperature: float, seed: int) -> list[Labelled]:
    """What a judge learns from, of images of the training, in folds: each is examined by a model that has not seen it, nor a
    copy of it. Folds without an image are left out.

    A class of a single image is left out, for without it nothing is known of the class. Of very many images so many of each
    class calibrate.
    """
    pool = parts.lesson(calibration=True, generated=False).labelled()
    vectors = _seen_by(classifier, pool)
    added = [] if parts.generated is None else [_seen_by(classifier, parts.generated)]
    fold, several = _dealt(pool, seed), np.bincount(pool.labels)[pool.labels] > 1
    K = len(classifier.labels)
    calibrates = several & np.isin(np.arange(len(pool)), _of_each(pool.labels, K, max(1, MOST_CROSSED // K), seed))
    pieces = []
    for k in np.unique(fold[calibrates]):
        without = _measured(classifier, joined([vectors.subset(np.flatnonzero(fold != k)), *added]))
        pieces.append(labelled(classifier, without, pool.subset(np.flatnonzero((fold == k) & calibrates)), temperature))
    scores_fit = sum(len(piece.labels) for piece in pieces) * K <= MOST_SCORES
    return pieces if scores_fit else [piece.without_scores() for piece in pieces]


@torch.inference_mode()
def trained_traits(classifier: BayesClassifier, train: Part) -> tuple[Tensor, Tensor]:
    """Of the labelled images, or of so many of each class drawn by the seed."""
    K = len(classifier.labels)
    part = train.subset(_of_each(train.labels, K, max(MOST_OF_A_CLASS, MOST_TRAITS // K), classifier.seed))
    batches = zip(classifier.sight.seen(part.images), torch.split(torch.from_numpy(part.labels), BATCH), strict=True)
    return own_traits(classifier.model_, batches)


def _temperature(classifier: BayesClassifier, held_out: Part) -> float:
    held_out = not_too_many(held_out, len(classifier.labels), classifier.seed)
    scores = classifier.examine(held_out.images).log_scores
    return fit_temperature(scores, torch.from_numpy(held_out.labels), classifier.log_prior_)


def _crossed_judge(folds: list[Labelled], held_out: Labelled | None, log_prior: Tensor, temperature: float) -> Judge:
    """At the temperature of the held-out images, of which, for they may be few and all right, that of the folds is expected;
    at the one given where the scores are too many."""
    pool = Labelled.joined(folds)
    if all(images.n_scores in range(1, MOST_FOR_TEMPERATURE) for images in (pool, held_out) if images is not None):
        temperature = max(1.0, pool.temperature(log_prior))
        if held_out is not None:
            temperature = held_out.temperature(log_prior, temperature)
            held_out = held_out.under(temperature)
        folds = [fold.under(temperature) for fold in folds]
    return Judge.fit_crossed(held_out, folds, log_prior, temperature)


def not_too_many(part: Part, K: int, seed: int) -> Part:
    """The part, or so many of its images, drawn by the seed, as have scores under K classes that fit into memory."""
    n = max(LEAST_FOR_TEMPERATURE, MOST_FOR_TEMPERATURE // K)
    return part if len(part) <= n else part.subset(np.random.default_rng(seed).permutation(len(part))[:n])


def _seen_by(classifier: BayesClassifier, part: Part) -> Part:
    """The part as vectors, which the classifier's model is of."""
    return part if classifier.features_ is None else classifier.features_.over(part)


def _measured(classifier: BayesClassifier, part: Part) -> Scorer:
    """A model like the classifier's of other images, vectors all."""
    like = classifier.model_
    assert isinstance(like, Measured)
    task = Task(part.images.shape, part.class_counts(len(classifier.labels)))
    model = hardware.placed(type(like)(task, like.settled(like.options)), classifier.device)
    feed = Batches(part.images, part.labels, batch_size=BATCH, seed=classifier.seed, augment=None)
    for _ in measure(model, feed.to(classifier.device)):
        pass
    return model.eval()


def _of_each(labels: NDArray[np.int64], K: int, n: int, seed: int) -> NDArray[np.int64]:
    """Which images are drawn if n of each class are, or all that it has: indices, ascending."""
    rng = np.random.default_rng(seed)
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:n] for c in range(K)]))


def _dealt(part: Part, seed: int) -> NDArray[np.int64]:
    """A fold for every image, (N,): the images of each class are dealt out evenly, copies of one together."""
    fold, rng = np.zeros(len(part), np.int64), np.random.default_rng(seed)
    _, first, copy_of = np.unique(part.hashes, return_index=True, return_inverse=True)
    is_first = np.zeros(len(part), np.bool_)
    is_first[first] = True
    for c in np.unique(part.labels):
        of_class = rng.permutation(np.flatnonzero((part.labels == c) & is_first))
        fold[of_class] = (np.arange(len(of_class)) + rng.integers(N_FOLDS)) % N_FOLDS
    return fold[first][copy_of]
