"""What is written of a benchmark for people: the table, the page, the picture."""

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
from likely.benchmark.runner import PAGE, PICTURE, TABLE, Benchmark
from likely.checkpoint import write_text
from likely.classifier import Predictor
from likely.evaluation.eval_split import eval_split
from likely.evaluation.training_record import read_history
from likely.reporting.comparison import Comparison, Result, ResultKey, markdown_table, render
from likely.reporting.comparison.content import LearningCurve, Pixels
from likely.reporting.comparison.page import samples_image
from likely.reporting.formatting import listing, plural

IMAGES_PER_ROW = 16  # images of a class, in all panels together
FEWEST, MOST = 2, 6  # in one panel
MAX_CLASSES = 20
REAL = "real"


def write_report(benchmark: Benchmark, comparison: Comparison) -> None:
    """table.md, index.html and samples.png, each complete at any moment."""
    out = benchmark.out
    write_text(out / TABLE, markdown_table(comparison))
    write_text(out / PAGE, render(comparison))
    image = samples_image(comparison)
    if image is not None:
        beside = out / f"{PICTURE}.part"
        image.save(beside, format="PNG", optimize=True)
        beside.replace(out / PICTURE)


def build_comparison(benchmark: Benchmark, results: Sequence[Result]) -> Comparison:
    """The results with what a page shows beside them: images, courses of training, options, warnings."""
    plan = benchmark.plan
    first = _first_model(benchmark, results)
    return Comparison(
        data=plan.data,
        baseline=BASELINE,
        families=plan.families,
        results=tuple(results),
        command=benchmark.command,
        versions={"torch": torch.__version__, "python": platform.python_version()},
        n_classes=len(first.labels) if first else 0,
        **(_pictures(benchmark, results, first) if first else {}),
        learning_curves=dict(_courses(benchmark, results)),
        settings=dict(_settings(benchmark)),
        notes=tuple(_notes(benchmark)),
    )


def _first_model(benchmark: Benchmark, results: Sequence[Result]) -> Predictor | None:
    """Whichever knows the classes and which images are new to it."""
    found = next((result for result in results if result.error is None), None)
    return benchmark.model(BenchmarkRun(found.family, found.seed)) if found else None


def _pictures(benchmark: Benchmark, results: Sequence[Result], first: Predictor) -> dict[str, Any]:
    """Real test images beside those that each family draws, as many of each class."""
    artists = dict(_artists(benchmark, results))
    if not artists or first.format_ is None:
        return {}
    n = int(np.clip(IMAGES_PER_ROW // (1 + len(artists)), FEWEST, MOST))
    names = first.labels[:MAX_CLASSES]
    panels: dict[str, Sequence[Pixels]] = {REAL: _real(benchmark, first, names, n)}
    for family, artist in artists.items():
        panels[family] = [artist.sample(name, n, seed=SAMPLE_SEED + artist.index(name)) for name in names]
    return {"shown": names, "panels": panels}


def _artists(benchmark: Benchmark, results: Sequence[Result]) -> Iterator[tuple[str, Predictor]]:
    """Each family that draws, by its first seed that did not fail."""
    for family in benchmark.plan.families:
        seeds = [result.seed for result in results if result.family == family and result.error is None]
        if seeds and issubclass(models.family(family), GenerativeModel):
            model = benchmark.model(BenchmarkRun(family, seeds[0]))
            if model is not None:
                yield family, model


def _real(benchmark: Benchmark, first: Predictor, names: Sequence[str], n: int) -> list[NDArray[np.uint8]]:
    with benchmark.observer.reading() as progress:
        part = eval_split(first, benchmark.plan.data, progress).images
    places = [np.flatnonzero(part.labels == first.index(name))[:n] for name in names]
    return [part.images.batch(at).numpy() for at in places]


def _courses(benchmark: Benchmark, results: Sequence[Result]) -> Iterator[tuple[str, LearningCurve]]:
    """The trainings of the first seed."""
    for result in results:
        if result.seed != benchmark.plan.seeds[0] or result.error is not None:
            continue
        rows = read_history(benchmark.folder(BenchmarkRun(result.family, result.seed)))
        points = [(row["seconds"] / 60, row["validation/accuracy"]) for row in rows if "validation/accuracy" in row]
        if points:
            minutes, accuracy = np.array(points, np.float64).T
            yield result.family, LearningCurve(minutes, accuracy)


def _settings(benchmark: Benchmark) -> Iterator[tuple[str, str]]:
    for family in benchmark.plan.families:
        given: Mapping[str, Any] = benchmark.plan.options.get(family, {})
        if given:
            yield family, ", ".join(f"{name}={value}" for name, value in given.items())


def _notes(benchmark: Benchmark) -> Iterator[str]:
    """What lies in the folder beside these results."""
    others = benchmark.others()
    if others:
        known = [benchmark.key(entry) for entry in benchmark.plan.runs]
        why = tuple(dict.fromkeys(name for other in others for name in _apart(other.key, known)))
        yield (
            f"{plural(len(others), 'line')} of results.jsonl {'was' if len(others) == 1 else 'were'} measured otherwise "
            f"({listing(why)}) and left out here."
        )
    if benchmark.results_log.n_unreadable:
        yield f"{plural(benchmark.results_log.n_unreadable, 'line')} of results.jsonl could not be read and are left alone."


def _apart(key: ResultKey, known: Sequence[ResultKey]) -> list[str]:
    """In what a line differs from that of this benchmark which it is most like."""
    return min(
        ([n for n in ResultKey.model_fields if getattr(key, n) != getattr(other, n)] for other in known), key=len
    )
