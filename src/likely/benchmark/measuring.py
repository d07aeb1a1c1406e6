"""Everything that is measured of one trained model: its answers, their cost, and the images that it draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from likely.benchmark.speed import speed
from likely.checkpoint import read_document
from likely.classifier import BayesClassifier
from likely.data.parts import Part
from likely.evaluation.assessment import assess
from likely.evaluation.extractors import Extractor
from likely.evaluation.fidelity import Fidelity, fidelity
from likely.evaluation.metrics import Bools, Floats, Ints, paired_bootstrap, reliability
from likely.evaluation.record import Record, read_history
from likely.evaluation.report.comparison import Bins, Cost, Quality
from likely.evaluation.samples import Honesty, drawn, honesty
from likely.evaluation.selection import Selection
from likely.run import ALPHA, N_JUDGED

DRAWING_SEED = 0  # the same for all: each family is asked for the same images


@dataclass(frozen=True, eq=False)
class Bench:
    """What all families of a seed are held against: test images, training images, and the twin if it is there."""

    chosen: Selection
    train: Part
    twin: BayesClassifier | None
    extractor: Extractor | None
    samples: int | None


def quality(classifier: BayesClassifier, bench: Bench) -> Quality:
    """The figures of `likely evaluate`, and the paired difference to the twin."""
    part = bench.chosen.part
    found = assess(classifier, part, alpha=ALPHA, skipped=bench.chosen.n_skipped)
    figures = {name: value for name, value in found.as_json().items() if name in Quality.model_fields}
    bins = Bins.of(reliability(found.log_posterior, found.labels))
    return Quality(**figures, **_beside(classifier, found.log_posterior, bench), reliability=bins)


def cost(classifier: BayesClassifier, folder: Path, bench: Bench, peak_gb: float | None) -> Cost:
    """What training and answering took."""
    record = Record.model_validate(read_document(folder)["record"])
    n_train = sum(record.counts["train"]) + record.n_unlabelled
    epochs, per_second = _training(folder, classifier.training_.batch_size or 1, n_train)
    return Cost(
        n_parameters=sum(t.numel() for t in classifier.model_.state_dict().values() if t.is_floating_point()),
        n_train=n_train,
        epochs_done=epochs,
        minutes_spent=record.minutes,
        train_images_per_second=per_second,
        peak_memory_gb=peak_gb,
        **speed(classifier, bench.twin, bench.chosen.part.images)._asdict(),
    )


def likeness(classifier: BayesClassifier, bench: Bench) -> Fidelity | None:
    """How like real ones its images are; None if it draws none, or there is nothing to measure them with."""
    if not classifier.draws_images or bench.extractor is None:
        return None
    return fidelity(classifier, bench.chosen.part, bench.extractor, bench.samples, DRAWING_SEED)


def candour(classifier: BayesClassifier, bench: Bench) -> Honesty | None:
    """Whether its images show what they should, by the twin's judgement, and are no training images again."""
    if not classifier.draws_images or bench.twin is None:
        return None
    made = drawn(classifier, N_JUDGED, DRAWING_SEED)
    return honesty(made, bench.twin, bench.train, bench.chosen.part, seed=DRAWING_SEED)


def _beside(classifier: BayesClassifier, log_posterior: Floats, bench: Bench) -> dict[str, object]:
    """The paired difference to the twin, which has none to itself."""
    part = bench.chosen.part
    if bench.twin is None or bench.twin.id == classifier.id:
        return {}
    ours, theirs = (_right(answers, part.labels) for answers in (log_posterior, bench.twin.log_posterior(part.images)))
    sure = paired_bootstrap(ours, theirs, np.random.default_rng(0))
    return {"ahead_of_twin": float(ours.mean() - theirs.mean()), "ahead_interval": (sure.low, sure.high)}


def _right(log_posterior: Floats, labels: Ints) -> Bools:
    right: Bools = np.equal(log_posterior.argmax(1), labels)
    return right


def _training(folder: Path, batch_size: int, n_train: int) -> tuple[float | None, float | None]:
    """Passes over the training images, and how many of them a second; None for what was trained in no steps."""
    rows = read_history(folder)
    if not rows:
        return None, None
    # The first of several epochs was whole; of a single one, nobody knows whether it was.
    per_epoch = rows[0]["step"] if len(rows) > 1 else max(rows[0]["step"], math.ceil(n_train / batch_size))
    epochs = rows[-1]["step"] / per_epoch
    return epochs, epochs * n_train / max(rows[-1]["seconds"], 1e-9)
