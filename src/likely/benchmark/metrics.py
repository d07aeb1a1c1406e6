"""Everything that is measured of one trained model: its answers, their cost, and the images that it draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from likely.benchmark.throughput import measure_throughput
from likely.checkpoint import read_document
from likely.classifier import Predictor
from likely.data.dataset import LabeledImages
from likely.evaluation.eval_split import EvalSplit
from likely.evaluation.evaluate import evaluate
from likely.evaluation.extractors import Extractor
from likely.evaluation.fidelity import Fidelity, fidelity
from likely.evaluation.metrics import Bools, Floats, Ints, paired_bootstrap, reliability
from likely.evaluation.sample_quality import SampleQuality, sample_images, sample_quality
from likely.evaluation.training_record import TrainingRecord, read_history
from likely.experiment import ALPHA, SAMPLES_PER_CLASS
from likely.reporting.comparison import AccuracyMetrics, EfficiencyMetrics, ReliabilityBins

SAMPLE_SEED = 0  # the same for all: each family is asked for the same images


@dataclass(frozen=True, eq=False)
class BenchmarkData:
    """What all families of a seed are held against: test images, training images, and the twin if it is there."""

    split: EvalSplit
    train: LabeledImages
    baseline: Predictor | None
    extractor: Extractor | None
    samples: int | None


def accuracy(classifier: Predictor, data: BenchmarkData) -> AccuracyMetrics:
    """The figures of `likely evaluate`, and the paired difference to the twin."""
    part = data.split.images
    found = evaluate(classifier, part, alpha=ALPHA, skipped=data.split.n_skipped)
    figures = {name: value for name, value in found.as_json().items() if name in AccuracyMetrics.model_fields}
    bins = ReliabilityBins.from_reliability(reliability(found.log_posterior, found.labels))
    return AccuracyMetrics(**figures, **_baseline_difference(classifier, found.log_posterior, data), reliability=bins)


def efficiency(classifier: Predictor, folder: Path, data: BenchmarkData, peak_gb: float | None) -> EfficiencyMetrics:
    """What training and answering took."""
    record = TrainingRecord.model_validate(read_document(folder)["record"])
    n_train = sum(record.counts["train"]) + record.n_unlabeled
    epochs, per_second = _training(folder, classifier.training_.batch_size or 1, n_train)
    return EfficiencyMetrics(
        n_parameters=sum(t.numel() for t in classifier.model_.state_dict().values() if t.is_floating_point()),
        n_train=n_train,
        epochs_done=epochs,
        minutes_spent=record.minutes,
        train_images_per_second=per_second,
        peak_memory_gb=peak_gb,
        **measure_throughput(classifier, data.baseline, data.split.images.images)._asdict(),
    )


def measure_fidelity(classifier: Predictor, data: BenchmarkData) -> Fidelity | None:
    """How like real ones its images are; None if it draws none, or there is nothing to measure them with."""
    if not classifier.generates_images or data.extractor is None:
        return None
    return fidelity(classifier, data.split.images, data.extractor, data.samples, SAMPLE_SEED)


def measure_sample_quality(classifier: Predictor, data: BenchmarkData) -> SampleQuality | None:
    """Whether its images show what they should, by the twin's judgment, and are no training images again."""
    if not classifier.generates_images or data.baseline is None:
        return None
    made = sample_images(classifier, SAMPLES_PER_CLASS, SAMPLE_SEED)
    return sample_quality(made, data.baseline, data.train, data.split.images, seed=SAMPLE_SEED)


def _baseline_difference(classifier: Predictor, log_posterior: Floats, data: BenchmarkData) -> dict[str, object]:
    """The paired difference to the twin, which has none to itself."""
    part = data.split.images
    if data.baseline is None or data.baseline.id == classifier.id:
        return {}
    ours, theirs = (
        _correct(answers, part.labels) for answers in (log_posterior, data.baseline.log_posterior(part.images))
    )
    sure = paired_bootstrap(ours, theirs, np.random.default_rng(0))
    return {"delta_vs_baseline": float(ours.mean() - theirs.mean()), "delta_interval": (sure.low, sure.high)}


def _correct(log_posterior: Floats, labels: Ints) -> Bools:
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
