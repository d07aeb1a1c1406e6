"""Execution of a benchmark: train, measure, record; existing models and results are reused."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch

from likely import models
from likely.benchmark.config import BASELINE, BenchmarkConfig, BenchmarkRun
from likely.benchmark.environment import PeakMemory, commit
from likely.benchmark.metrics import BenchmarkData, accuracy, efficiency, measure_fidelity, measure_sample_quality
from likely.benchmark.results import ResultsLog
from likely.checkpoint import DOCUMENT, read_document
from likely.classifier import Predictor, load
from likely.data.listing import list_data
from likely.data.sources.base import LoadError
from likely.evaluation.eval_split import eval_split
from likely.evaluation.extractors import Extractor, ModelExtractor, extractor
from likely.exceptions import BenchmarkError, LikelyError
from likely.experiment import (
    TRAINING_STATE,
    TrainConfig,
    Training,
    load_config,
    load_unfinished_config,
    prepare,
    resume_run,
    start_run,
)
from likely.reporting.comparison import Result, ResultKey
from likely.training.device import describe_machine, free_cores, select_device
from likely.training.loop import Step
from likely.version import __version__

RESULTS, TABLE, PAGE, SAMPLES_IMAGE, MODELS = "results.jsonl", "table.md", "index.html", "samples.png", "models"
# Failures of one family that do not stop the others: divergence, unsuitable data, lack of memory.
FAILURES = (ArithmeticError, ValueError, RuntimeError, MemoryError)
Progress = Callable[[int, int], None]


class BenchmarkInterrupted(Exception):
    """The observer ended a training early; the training is saved, and the benchmark can be resumed."""


class RunOutcome(NamedTuple):
    """The result of a run; `is_new` if it was measured now."""

    run: BenchmarkRun
    result: Result
    is_new: bool


class ProgressObserver:
    """An observer that shows nothing. Subclasses show progress and may end `steps` early to stop."""

    def steps(self, steps: Iterable[Step], run: BenchmarkRun) -> Iterator[Step]:
        """Pass on the training steps of a run."""
        return iter(steps)

    def reading(self) -> AbstractContextManager[Progress | None]:
        """Return a context for reading images that provides a progress callback."""
        return nullcontext()

    def evaluating(self, run: BenchmarkRun) -> AbstractContextManager[Any]:
        """Return a context for the evaluation of a run."""
        return nullcontext()

    def skipped(self, problems: tuple[LoadError, ...]) -> None:
        """Receive the files of DATA that could not be read."""


class Benchmark:
    """A benchmark in a folder with models/ and results.jsonl."""

    def __init__(
        self, config: BenchmarkConfig, out: Path, *, command: str = "", observer: ProgressObserver | None = None
    ) -> None:
        _check_output_folder(out)
        self.out, self.command, self.observer = out, command, observer or ProgressObserver()
        threads = config.training.threads or _previous_threads(out) or free_cores()
        training = config.training.model_copy(update={"threads": threads})
        self.config = config.model_copy(update={"training": training})
        self._validate()
        self.results_log = ResultsLog(out / RESULTS)
        self._extractor = extractor(config.extractor, device=self.device) if config.extractor else None
        self._benchmark_data: dict[int, BenchmarkData] = {}
        self._has_reported_skipped = False

    def outcomes(self) -> Iterator[RunOutcome]:
        """Yield the outcome of each run after recording it; raise BenchmarkInterrupted if the observer stops a training."""
        torch.set_num_threads(self.config.training.threads or 1)
        for run in self.config.runs:
            known = self.find_result(run)
            yield RunOutcome(run, known or self._recorded(self._try(run)), known is None)

    def find_result(self, run: BenchmarkRun) -> Result | None:
        """Return the recorded result of a run and its present model; None if there is none or if it failed."""
        found = self.results_log.last(self.key(run))
        is_valid = found is not None and found.error is None and found.model == _model_id(self.folder(run))
        return found if is_valid else None

    def key(self, run: BenchmarkRun) -> ResultKey:
        """Return the key of the result of a run."""
        extractor = self.extractor
        return self.config.key(run, extractor.name if extractor else None)

    def folder(self, run: BenchmarkRun) -> Path:
        """Return the model folder of a run."""
        return self.out / MODELS / run.folder

    @property
    def device(self) -> str:
        return select_device(self.config.training.device).type

    @property
    def extractor(self) -> Extractor | None:
        """Extractor of all fidelity measurements: the configured one, or the baseline of the first seed once it is trained."""
        if self._extractor is None:
            baseline = self.model(BenchmarkRun(BASELINE, self.config.seeds[0]))
            self._extractor = ModelExtractor(baseline) if baseline and baseline.format is not None else None
        return self._extractor

    def model(self, run: BenchmarkRun) -> Predictor | None:
        """Return the trained model of a run; None if there is none."""
        folder = self.folder(run)
        return load(folder, device=self.device) if _is_finished(folder) else None

    def others(self) -> list[Result]:
        """Return recorded results that do not belong to this benchmark."""
        keys = [self.key(run) for run in self.config.runs]
        return [result for result in self.results_log.results if result.key not in keys]

    def _try(self, run: BenchmarkRun) -> Result:
        training = self._training(run)
        self._report_skipped(training)
        try:
            memory = self._train(run, training)
            with self.observer.evaluating(run):
                return self._evaluate(run, training, memory)
        except FAILURES as error:
            return self._result(run, error=_error_message(error))

    def _training(self, run: BenchmarkRun) -> Training:
        """Return the training of a run: new, resumed, or finished, which still provides the splits."""
        folder, config = self.folder(run), self.config.train_config(run)
        with self.observer.reading() as progress:
            if _is_finished(folder):
                return Training(prepare(config, progress), folder, command=self.command)
            if (folder / TRAINING_STATE).exists():
                return resume_run(folder, data=self.config.data, command=self.command, progress=progress)
            return start_run(config, folder, command=self.command, progress=progress)

    def _train(self, run: BenchmarkRun, training: Training) -> float | None:
        """Train unless the model is finished; return the peak memory in GB if it is known."""
        if _is_finished(training.folder):
            return None
        memory, peak = PeakMemory(), None
        for phase in training.phases():
            if not phase.is_main:
                phase.run()
                continue
            for _ in self.observer.steps(phase.steps, run):
                pass
            if not training.is_complete:
                training.save_progress()
                raise BenchmarkInterrupted(str(run))
            peak = memory.peak_gb
        return peak

    def _evaluate(self, run: BenchmarkRun, training: Training, memory: float | None) -> Result:
        classifier = self.model(run)
        assert classifier is not None  # just trained
        data = self._data(run, classifier, training)
        return self._result(
            run,
            model=classifier.id,
            left_out=len({problem.source for problem in (*training.setup.dataset.errors, *data.split.errors)}),
            accuracy=accuracy(classifier, data),
            efficiency=efficiency(classifier, training.folder, data, memory),
            fidelity=measure_fidelity(classifier, data),
            sample_quality=measure_sample_quality(classifier, data),
        )

    def _data(self, run: BenchmarkRun, classifier: Predictor, training: Training) -> BenchmarkData:
        """Return the data that all families of a seed have in common, read once."""
        if run.seed not in self._benchmark_data:
            baseline = classifier if run.family == BASELINE else self.model(BenchmarkRun(BASELINE, run.seed))
            with self.observer.reading() as progress:
                split = eval_split(classifier, self.config.data, progress)
            data = BenchmarkData(split, training.setup.splits.train, baseline, self.extractor, self.config.samples)
            self._benchmark_data = {run.seed: data}  # without the images of the previous seed
        return self._benchmark_data[run.seed]

    def _result(self, run: BenchmarkRun, **measured: Any) -> Result:
        return Result(
            **self.key(run).model_dump(),
            date=date.today().isoformat(),
            version=__version__,
            commit=commit(),
            machine=describe_machine(),
            threads=self.config.training.threads or 1,
            **measured,
        )

    def _recorded(self, result: Result) -> Result:
        self.results_log.append(result)
        return result

    def _report_skipped(self, training: Training) -> None:
        if not self._has_reported_skipped:
            self.observer.skipped(training.setup.dataset.errors)
        self._has_reported_skipped = True

    def _validate(self) -> None:
        """Raise BenchmarkError before any training if models have another configuration or if there are too few real images."""
        select_device(self.config.training.device)
        test = list_data(self.config.data).splits.get("test")
        n_test = sum(label is not None for label in test.labels) if test else None
        if n_test and self.config.samples and self.config.samples > n_test:
            raise BenchmarkError(
                f"--samples {self.config.samples}; expected at most {n_test:,}, the number of labeled test images of "
                f"{self.config.data}"
            )
        for run in self.config.runs:
            _require_same_config(self.folder(run), self.config.train_config(run))


def _is_finished(folder: Path) -> bool:
    """Return True if a folder holds a model whose training is complete."""
    return (folder / DOCUMENT).exists() and not (folder / TRAINING_STATE).exists()


def _model_id(folder: Path) -> str | None:
    """Return the id of the model in a folder; None without one."""
    if not _is_finished(folder):
        return None
    document = read_document(folder)
    return f"{document['name']}@{document['sha256'][:4]}"


def _check_output_folder(out: Path) -> None:
    """Raise BenchmarkError if a folder holds files that no benchmark writes."""
    if out.exists() and not out.is_dir():
        raise BenchmarkError(f"--out {out} is a file; expected a folder, new or of an earlier benchmark")
    known = {RESULTS, TABLE, PAGE, SAMPLES_IMAGE, MODELS}
    names = sorted(path.name for path in out.iterdir()) if out.exists() else []
    foreign = [name for name in names if name.removesuffix(".part") not in known]
    if foreign:
        listed = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise BenchmarkError(f"{out} holds files that no benchmark wrote: {listed}; choose another folder with --out")


def _error_message(error: BaseException) -> str:
    """Return the first paragraph of an error message on one line, marked if it is not written for users."""
    message = " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
    return message if isinstance(error, LikelyError) else f"internal error: {type(error).__name__}: {message}"


def _previous_threads(out: Path) -> int | None:
    """Return the threads of existing models, which the other trainings must have too."""
    for folder in sorted((out / MODELS).glob("*-*")):
        config = _previous_config(folder)
        if config is not None and config.training.threads is not None:
            return config.training.threads
    return None


def _previous_config(folder: Path) -> TrainConfig | None:
    """Return the configuration of a finished or unfinished training in a folder; None for an empty folder."""
    if (folder / TRAINING_STATE).exists():
        return load_unfinished_config(folder)
    if (folder / DOCUMENT).exists():
        return load_config(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BenchmarkError(f"{folder} holds neither a model nor an unfinished training; remove it")
    return None


def _require_same_config(folder: Path, config: TrainConfig) -> None:
    previous = _previous_config(folder)
    if previous is None:
        return
    now, then = _flat_config(config), _flat_config(previous) | _previous_options(folder)
    for name in dict.fromkeys((*now, *then)):
        if now.get(name) != then.get(name):
            raise BenchmarkError(
                f"{folder} holds a model of another configuration: {name} was {then.get(name)!r} and is now "
                f"{now.get(name)!r}; choose another folder with --out, or remove that one"
            )


def _previous_options(folder: Path) -> dict[str, Any]:
    """Return the family options of a finished model; another version may have other options or defaults."""
    return dict(read_document(folder)["options"]) if _is_finished(folder) else {}


def _flat_config(config: TrainConfig) -> dict[str, Any]:
    """Return all options that determine a training, by their command-line names."""
    options = models.family(config.model).options_type.from_any(config.options)
    training = config.training.with_defaults(options.training_defaults).model_dump(mode="json")
    own = {
        "data": os.path.realpath(config.data),
        "model": config.model,
        "seed": config.seed,
        "label_check_folds": config.label_check_folds,
    }
    return own | options.model_dump(mode="json") | training | config.images.model_dump(mode="json")
