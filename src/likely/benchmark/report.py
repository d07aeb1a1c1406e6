"""Report of a benchmark: table.md, index.html and samples.png."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from likely import models
from likely.base import GenerativeModel
from likely.benchmark.config import BASELINE, BenchmarkRun
from likely.benchmark.metrics import SAMPLE_SEED
from likely.benchmark.runner import PAGE, SAMPLES_IMAGE, TABLE, Benchmark
from likely.checkpoint import write_atomically
from likely.classifier import Predictor
from likely.classifier.sampling import sample
from likely.evaluation.eval_split import eval_split
from likely.evaluation.training_record import read_history
from likely.reporting.comparison import Comparison, Result, ResultKey, markdown_table, render
from likely.reporting.comparison.content import LearningCurve, Pixels
from likely.reporting.comparison.page import samples_image
from likely.reporting.formatting import listing, plural

IMAGES_PER_ROW = 16  # of a class, over all panels
MIN_IMAGES, MAX_IMAGES = 2, 6  # of a class, in one panel
MAX_CLASSES = 20
REAL = "real"


def write_report(benchmark: Benchmark, comparison: Comparison) -> None:
    """Write table.md, index.html and samples.png, each atomically."""
    out = benchmark.out
    write_atomically(out / TABLE, markdown_table(comparison).encode())
    write_atomically(out / PAGE, render(comparison).encode())
    image = samples_image(comparison)
    if image is not None:
        temporary = out / f"{SAMPLES_IMAGE}.part"
        image.save(temporary, format="PNG", optimize=True)
        temporary.replace(out / SAMPLES_IMAGE)


def build_comparison(benchmark: Benchmark, results: Sequence[Result]) -> Comparison:
    """Return the results with images, learning curves, options and caveats."""
    plan = benchmark.config
    first = _first_model(benchmark, results)
    return Comparison(
        data=plan.data,
        baseline=BASELINE,
        families=plan.families,
        results=tuple(results),
        command=benchmark.command,
        versions={"torch": torch.__version__, "python": platform.python_version()},
        n_classes=len(first.labels) if first else 0,
        **(_panels(benchmark, results, first) if first else {}),
        learning_curves=dict(_learning_curves(benchmark, results)),
        settings=dict(_settings(benchmark)),
        notes=tuple(_notes(benchmark)),
    )


def _first_model(benchmark: Benchmark, results: Sequence[Result]) -> Predictor | None:
    """Return the first trained model, which knows the classes and its training images."""
    found = next((result for result in results if result.error is None), None)
    return benchmark.model(BenchmarkRun(found.family, found.seed)) if found else None


def _panels(benchmark: Benchmark, results: Sequence[Result], first: Predictor) -> dict[str, Any]:
    """Return real test images and as many generated images of each family, by class."""
    generators = dict(_generators(benchmark, results))
    if not generators or first.format is None:
        return {}
    n = int(np.clip(IMAGES_PER_ROW // (1 + len(generators)), MIN_IMAGES, MAX_IMAGES))
    names = first.labels[:MAX_CLASSES]
    panels: dict[str, Sequence[Pixels]] = {REAL: _real(benchmark, first, names, n)}
    for family, generator in generators.items():
        panels[family] = [sample(generator, name, n, seed=SAMPLE_SEED + generator.index(name)) for name in names]
    return {"shown": names, "panels": panels}


def _generators(benchmark: Benchmark, results: Sequence[Result]) -> Iterator[tuple[str, Predictor]]:
    """Yield the model of the first successful seed of each family that generates images."""
    for family in benchmark.config.families:
        seeds = [result.seed for result in results if result.family == family and result.error is None]
        if seeds and issubclass(models.family(family), GenerativeModel):
            model = benchmark.model(BenchmarkRun(family, seeds[0]))
            if model is not None:
                yield family, model


def _real(benchmark: Benchmark, first: Predictor, names: Sequence[str], n: int) -> list[NDArray[np.uint8]]:
    with benchmark.observer.reading() as progress:
        test = eval_split(first, benchmark.config.data, progress).images
    indices = (np.flatnonzero(test.labels == first.index(name))[:n] for name in names)
    return [test.images.batch(i).numpy() for i in indices]


def _learning_curves(benchmark: Benchmark, results: Sequence[Result]) -> Iterator[tuple[str, LearningCurve]]:
    """Yield the learning curves of the first seed."""
    for result in results:
        if result.seed != benchmark.config.seeds[0] or result.error is not None:
            continue
        rows = read_history(benchmark.folder(BenchmarkRun(result.family, result.seed)))
        points = [(row["seconds"] / 60, row["validation/accuracy"]) for row in rows if "validation/accuracy" in row]
        if points:
            minutes, accuracy = np.array(points, np.float64).T
            yield result.family, LearningCurve(minutes, accuracy)


def _settings(benchmark: Benchmark) -> Iterator[tuple[str, str]]:
    for family in benchmark.config.families:
        options: Mapping[str, Any] = benchmark.config.options.get(family, {})
        if options:
            yield family, ", ".join(f"{name}={value}" for name, value in options.items())


def _notes(benchmark: Benchmark) -> Iterator[str]:
    """Yield notes on other and on unreadable lines of results.jsonl."""
    others = benchmark.others()
    if others:
        keys = [benchmark.key(run) for run in benchmark.config.runs]
        names = tuple(dict.fromkeys(name for other in others for name in _different_fields(other.key, keys)))
        yield (
            f"{plural(len(others), 'line')} of results.jsonl {'has' if len(others) == 1 else 'have'} another "
            f"configuration ({listing(names)}) and {'is' if len(others) == 1 else 'are'} omitted here."
        )
    if benchmark.results_log.n_unreadable:
        yield f"{plural(benchmark.results_log.n_unreadable, 'line')} of results.jsonl could not be read."


def _different_fields(key: ResultKey, known: Sequence[ResultKey]) -> list[str]:
    """Return the fields in which a key differs from the most similar known key."""
    return min(
        ([n for n in ResultKey.model_fields if getattr(key, n) != getattr(other, n)] for other in known), key=len
    )
