"""Measurements of one trained model: accuracy, efficiency, and the quality of its generated images."""

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

SAMPLE_SEED = 0  # the same for all families


@dataclass(frozen=True, eq=False)
class BenchmarkData:
    """Data for measuring all families of a seed: evaluation images, training images, and the baseline if trained."""

    split: EvalSplit
    train: LabeledImages
    baseline: Predictor | None
    extractor: Extractor | None
    samples: int | None


def accuracy(classifier: Predictor, data: BenchmarkData) -> AccuracyMetrics:
    """Measure the metrics of `likely evaluate` and the paired difference to the baseline."""
    found = evaluate(classifier, data.split.images, alpha=ALPHA, skipped=data.split.n_skipped)
    values = {name: value for name, value in found.as_json().items() if name in AccuracyMetrics.model_fields}
    bins = ReliabilityBins.from_reliability(reliability(found.log_posterior, found.labels))
    return AccuracyMetrics(**values, **_baseline_difference(classifier, found.log_posterior, data), reliability=bins)


def efficiency(classifier: Predictor, folder: Path, data: BenchmarkData, peak_gb: float | None) -> EfficiencyMetrics:
    """Measure size, training time, memory and throughput."""
    record = TrainingRecord.from_stored(read_document(folder)["record"])
    n_train = sum(record.counts["train"]) + record.n_unlabeled
    epochs, per_second = _training(folder, classifier.training.batch_size or 1, n_train)
    return EfficiencyMetrics(
        n_parameters=sum(t.numel() for t in classifier.model.state_dict().values() if t.is_floating_point()),
        n_train=n_train,
        epochs_done=epochs,
        minutes_spent=record.minutes,
        train_images_per_second=per_second,
        peak_memory_gb=peak_gb,
        **measure_throughput(classifier, data.baseline, data.split.images.images)._asdict(),
    )


def measure_fidelity(classifier: Predictor, data: BenchmarkData) -> Fidelity | None:
    """Measure fidelity; None for models that generate no images, or without an extractor."""
    if not classifier.generates_images or data.extractor is None:
        return None
    return fidelity(classifier, data.split.images, data.extractor, data.samples, SAMPLE_SEED)


def measure_sample_quality(classifier: Predictor, data: BenchmarkData) -> SampleQuality | None:
    """Measure class consistency, by the baseline, and near-duplicates; None without a baseline or generated images."""
    if not classifier.generates_images or data.baseline is None:
        return None
    generated = sample_images(classifier, SAMPLES_PER_CLASS, SAMPLE_SEED)
    return sample_quality(generated, data.baseline, data.train, data.split.images, seed=SAMPLE_SEED)


def _baseline_difference(classifier: Predictor, log_posterior: Floats, data: BenchmarkData) -> dict[str, object]:
    """Return the paired difference to the baseline; empty for the baseline itself."""
    images = data.split.images
    if data.baseline is None or data.baseline.id == classifier.id:
        return {}
    own = _correct(log_posterior, images.labels)
    baseline = _correct(data.baseline.log_posterior(images.images), images.labels)
    bounds = paired_bootstrap(own, baseline, np.random.default_rng(0))
    return {"delta_vs_baseline": float(own.mean() - baseline.mean()), "delta_interval": tuple(bounds)}


def _correct(log_posterior: Floats, labels: Ints) -> Bools:
    correct: Bools = np.equal(log_posterior.argmax(1), labels)
    return correct


def _training(folder: Path, batch_size: int, n_train: int) -> tuple[float | None, float | None]:
    """Return epochs and training images per second; None for closed-form families."""
    rows = read_history(folder)
    if not rows:
        return None, None
    # The first of several epochs was complete; a single one may not have been.
    per_epoch = rows[0]["step"] if len(rows) > 1 else max(rows[0]["step"], math.ceil(n_train / batch_size))
    epochs = rows[-1]["step"] / per_epoch
    return epochs, epochs * n_train / max(rows[-1]["seconds"], 1e-9)
