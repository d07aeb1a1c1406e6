"""Measurements of one trained model: accuracy, efficiency, and the quality of its generated images.

Throughput is timed alternately with the baseline because machines are noisy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from likely.classifier import Predictor
from likely.data import arrays
from likely.data.dataset import LabeledImages
from likely.data.image_dataset import ImageDataset
from likely.evaluation.eval_split import EvalSplit
from likely.evaluation.evaluate import evaluate
from likely.evaluation.extractors import Extractor
from likely.evaluation.fidelity import Fidelity, fidelity
from likely.evaluation.metrics import Bools, Floats, Ints, paired_bootstrap, reliability
from likely.evaluation.sample_quality import SampleQuality, sample_images, sample_quality
from likely.evaluation.training_record import load_record, read_history
from likely.experiment import ALPHA, SAMPLES_PER_CLASS
from likely.reporting.comparison import AccuracyMetrics, EfficiencyMetrics, ReliabilityBins

SAMPLE_SEED = 0  # the same for all families
MAX_IMAGES = 1000  # per timing
REPEATS = 9


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
    record = load_record(folder)
    n_train = sum(record.counts["train"]) + record.n_unlabeled
    epochs, per_second = _training(folder, classifier.training.batch_size or 1, n_train)
    return EfficiencyMetrics(
        n_parameters=sum(t.numel() for t in classifier.model.state_dict().values() if t.is_floating_point()),
        n_train=n_train,
        epochs_done=epochs,
        minutes_spent=record.minutes,
        train_images_per_second=per_second,
        peak_memory_gb=peak_gb,
        **_throughput(classifier, data.baseline, data.split.images.images)._asdict(),
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


def interleaved_timing(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, NDArray[np.float64]]:
    """Return the seconds of each call, (repeats,): in alternating order, after one warm-up of each."""
    names = list(calls)
    for name in names:
        calls[name]()
    rounds = [_round(calls, names if i % 2 else names[::-1]) for i in range(repeats)]
    return {name: np.array([seconds[name] for seconds in rounds]) for name in names}


def _baseline_difference(classifier: Predictor, log_posterior: Floats, data: BenchmarkData) -> dict[str, object]:
    """Return the paired difference to the baseline; empty for the baseline itself."""
    images = data.split.images
    if data.baseline is None or data.baseline.id == classifier.id:
        return {}
    own = _correct(log_posterior, images.labels)
    baseline = _correct(data.baseline.log_posterior(images.images), images.labels)
    bounds = paired_bootstrap(own, baseline, np.random.default_rng(0), groups=images.groups)
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


class _Throughput(NamedTuple):
    """Medians over repeats; `relative_to_baseline` is the median ratio over pairs, None without a baseline."""

    images_per_second: float
    relative_to_baseline: float | None
    predictions_per_second: float
    n_timed: int
    n_repeats: int


def _throughput(
    classifier: Predictor, baseline: Predictor | None, images: ImageDataset, repeats: int = REPEATS
) -> _Throughput:
    """Time a classifier, alternately with the baseline, on the same images in memory."""
    X = _inputs(images)
    calls = {"model": lambda: _posterior(classifier, X)}
    if baseline is not None and baseline is not classifier:
        calls["baseline"] = lambda: _posterior(baseline, X)
    seconds = interleaved_timing(calls, repeats)
    # `classify` comes after all pairs: its many objects would leave a cold cache to the next call.
    classify = interleaved_timing({"classify": lambda: classifier.classify(X)}, max(3, repeats // 3))["classify"]
    ratio = None if baseline is None else float(np.median(seconds.get("baseline", seconds["model"]) / seconds["model"]))
    return _Throughput(
        len(X) / _median_seconds(seconds["model"]), ratio, len(X) / _median_seconds(classify), len(X), repeats
    )


def _posterior(classifier: Predictor, X: NDArray[Any]) -> NDArray[np.float64]:
    return classifier.log_posterior(arrays.images(X, classifier.format))


def _round(calls: Mapping[str, Callable[[], object]], names: Sequence[str]) -> dict[str, float]:
    seconds = {}
    for name in names:
        start = time.perf_counter()
        calls[name]()
        seconds[name] = time.perf_counter() - start
    return seconds


def _inputs(images: ImageDataset) -> NDArray[Any]:
    """Return the first images as (N, H, W, C), or vectors (N, D)."""
    batch = images.batch(np.arange(min(MAX_IMAGES, len(images))))
    return (batch.permute(0, 2, 3, 1) if batch.ndim == 4 else batch).numpy()


def _median_seconds(seconds: NDArray[np.float64]) -> float:
    return max(float(np.median(seconds)), 1e-9)
