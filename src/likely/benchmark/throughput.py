"""Throughput: images per second, timed alternately with the baseline because machines are noisy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from likely.classifier import Predictor
from likely.data import arrays
from likely.data.image_dataset import ImageDataset

MAX_IMAGES = 1000  # per timing
REPEATS = 9


class _Throughput(NamedTuple):
    """Medians over repeats; `relative_to_baseline` is the median ratio over pairs, None without a baseline."""

    images_per_second: float
    relative_to_baseline: float | None
    predictions_per_second: float
    n_timed: int
    n_repeats: int


def measure_throughput(
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
    return _Throughput(len(X) / _median(seconds["model"]), ratio, len(X) / _median(classify), len(X), repeats)


def _posterior(classifier: Predictor, X: NDArray[Any]) -> NDArray[np.float64]:
    return classifier.log_posterior(arrays.images(X, classifier.format))


def interleaved_timing(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, NDArray[np.float64]]:
    """Return the seconds of each call, (repeats,): in alternating order, after one warm-up of each."""
    names = list(calls)
    for name in names:
        calls[name]()
    rounds = [_round(calls, names if i % 2 else names[::-1]) for i in range(repeats)]
    return {name: np.array([seconds[name] for seconds in rounds]) for name in names}


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


def _median(seconds: NDArray[np.float64]) -> float:
    return max(float(np.median(seconds)), 1e-9)
