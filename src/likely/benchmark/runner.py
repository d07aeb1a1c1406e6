"""The course of a benchmark: train, measure, write down; whatever is there already is neither trained nor measured again."""

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
from likely.classifier import Predictor
from likely.data.sources.base import LoadError
from likely.data.sources.listing import listings
from likely.evaluation.eval_split import eval_split
from likely.evaluation.extractors import Extractor, ModelExtractor, extractor
from likely.exceptions import BenchmarkError
from likely.experiment import (
    TRAINING_STATE,
    TrainConfig,
    TrainingRun,
    load_unfinished_config,
    resume_run,
    start_run,
)
from likely.reporting.comparison import Result, ResultKey
from likely.training.device import describe_machine, free_cores, select_device
from likely.training.loop import Step
from likely.version import __version__

RESULTS, TABLE, PAGE, PICTURE, MODELS = "results.jsonl", "table.md", "index.html", "samples.png", "models"
# What one family may fail of while the others go on: a training that diverges, data that it cannot take, lack of memory.
FAILURES = (ArithmeticError, ValueError, RuntimeError, MemoryError)
Progress = Callable[[int, int], None]


class BenchmarkInterrupted(Exception):
    """Whoever watches has ended a training early; it is saved, and the same benchmark goes on with it."""


class RunOutcome(NamedTuple):
    """What an entry came to, and whether it was measured just now."""

    run: BenchmarkRun
    result: Result
    is_new: bool


class ProgressObserver:
    """What is seen meanwhile: nothing. Whoever shows something overrides it, and may end `steps` early to stop."""

    def steps(self, steps: Iterable[Step], entry: BenchmarkRun) -> Iterator[Step]:
        """The same steps, drawn as they pass."""
        return iter(steps)

    def reading(self) -> AbstractContextManager[Progress | None]:
        """Images are read: takes how many are done and of how many."""
        return nullcontext()

    def evaluating(self, entry: BenchmarkRun) -> AbstractContextManager[Any]:
        """A model is measured."""
        return nullcontext()

    def skipped(self, problems: tuple[LoadError, ...]) -> None:
        """Files of DATA that cannot be used."""


class Benchmark:
    """A plan carried out in a folder: models/, results.jsonl and, by `write`, a table, a page and a picture."""

    def __init__(
        self, plan: BenchmarkConfig, out: Path, *, command: str = "", watch: ProgressObserver | None = None
    ) -> None:
        check_output_folder(out)
        self.out, self.command, self.observer = out, command, watch or ProgressObserver()
        threads = plan.training.threads or _threads_before(out) or free_cores()
        training = plan.training.model_copy(update={"threads": threads})
        self.plan = plan.model_copy(update={"training": training})
        self._refuse_what_cannot_be()
        self.results_log = ResultsLog(out / RESULTS)
        self._named = extractor(plan.extractor, device=self.device) if plan.extractor else None
        self._benchmark_data: dict[int, BenchmarkData] = {}
        self._has_said_problems = False

    def outcomes(self) -> Iterator[RunOutcome]:
        """One entry after the other, each measured and written down before it is yielded; Stopped on the watcher's wish."""
        torch.set_num_threads(self.plan.training.threads or 1)
        for entry in self.plan.runs:
            known = self.find_result(entry)
            yield RunOutcome(entry, known or self._written(self._try(entry)), known is None)

    def find_result(self, entry: BenchmarkRun) -> Result | None:
        """The result of just this, and of the model that is there, if it was measured before; failures are tried again."""
        found = self.results_log.last(self.key(entry))
        there = found is not None and found.error is None and found.model == model_id(self.folder(entry))
        return found if there else None

    def key(self, entry: BenchmarkRun) -> ResultKey:
        """What a result of the entry is known by."""
        chosen = self.extractor
        return self.plan.key(entry, chosen.name if chosen else None)

    def folder(self, entry: BenchmarkRun) -> Path:
        return self.out / MODELS / entry.folder

    @property
    def device(self) -> str:
        return select_device(self.plan.training.device).type

    @property
    def extractor(self) -> Extractor | None:
        """The one of all rows: as asked, or else the first seed's twin; None before that is trained."""
        if self._named is None:
            twin = self.model(BenchmarkRun(BASELINE, self.plan.seeds[0]))
            self._named = ModelExtractor(twin) if twin and twin.format_ is not None else None
        return self._named

    def model(self, entry: BenchmarkRun) -> Predictor | None:
        """The entry's trained model, None if there is none."""
        folder = self.folder(entry)
        return Predictor.load(folder, device=self.device) if is_finished(folder) else None

    def others(self) -> list[Result]:
        """Results in the folder that are none of this benchmark's: measured otherwise, or of something else."""
        keys = [self.key(entry) for entry in self.plan.runs]
        return [result for result in self.results_log.results if result.key not in keys]

    def _try(self, entry: BenchmarkRun) -> Result:
        session = self._session(entry)
        self._report_skipped(session)
        try:
            memory = self._train(entry, session)
            with self.observer.evaluating(entry):
                return self._evaluate(entry, session, memory)
        except FAILURES as error:
            return self._result(entry, error=error_message(error))

    def _session(self, entry: BenchmarkRun) -> TrainingRun:
        """The entry's training: new, to go on, or done, which still says how the data are divided."""
        folder, run = self.folder(entry), self.plan.train_config(entry)
        with self.observer.reading() as progress:
            if is_finished(folder):
                return TrainingRun(run, folder, command=self.command, progress=progress)
            if (folder / TRAINING_STATE).exists():
                return resume_run(folder, data=self.plan.data, command=self.command, progress=progress)
            return start_run(run, folder, command=self.command, progress=progress)

    def _train(self, entry: BenchmarkRun, session: TrainingRun) -> float | None:
        """Train unless that is done; the peak of the memory meanwhile, if anybody knows."""
        if is_finished(session.out):
            return None
        memory = PeakMemory()
        for _ in self.observer.steps(session.steps(), entry):
            pass
        if not session.is_complete:
            session.save_progress()
            raise BenchmarkInterrupted(str(entry))
        peak = memory.peak_gb
        session.finish()
        return peak

    def _evaluate(self, entry: BenchmarkRun, session: TrainingRun, memory: float | None) -> Result:
        classifier = self.model(entry)
        assert classifier is not None  # it has just been trained
        bench = self._bench(entry, classifier, session)
        return self._result(
            entry,
            model=classifier.id,
            left_out=len({problem.source for problem in (*session.dataset.errors, *bench.split.errors)}),
            accuracy=accuracy(classifier, bench),
            efficiency=efficiency(classifier, session.out, bench, memory),
            fidelity=measure_fidelity(classifier, bench),
            sample_quality=measure_sample_quality(classifier, bench),
        )

    def _bench(self, entry: BenchmarkRun, classifier: Predictor, session: TrainingRun) -> BenchmarkData:
        """What is the same for all families of a seed, read once."""
        if entry.seed not in self._benchmark_data:
            twin = classifier if entry.family == BASELINE else self.model(BenchmarkRun(BASELINE, entry.seed))
            with self.observer.reading() as progress:
                chosen = eval_split(classifier, self.plan.data, progress)
            bench = BenchmarkData(chosen, session.parts.train, twin, self.extractor, self.plan.samples)
            self._benchmark_data = {entry.seed: bench}  # the last seed's images have served
        return self._benchmark_data[entry.seed]

    def _result(self, entry: BenchmarkRun, **measured: Any) -> Result:
        return Result(
            **self.key(entry).model_dump(),
            date=date.today().isoformat(),
            version=__version__,
            commit=commit(),
            machine=describe_machine(),
            threads=self.plan.training.threads or 1,
            **measured,
        )

    def _written(self, result: Result) -> Result:
        self.results_log.append(result)
        return result

    def _report_skipped(self, session: TrainingRun) -> None:
        if not self._has_said_problems:
            self.observer.skipped(session.dataset.errors)
        self._has_said_problems = True

    def _refuse_what_cannot_be(self) -> None:
        """Now, and not after hours: models in the folder that were trained otherwise, and more samples than real images."""
        select_device(self.plan.training.device)
        test = listings(self.plan.data).get("test")
        n_test = sum(label is not None for label in test.labels) if test else None
        if n_test and self.plan.samples and self.plan.samples > n_test:
            raise BenchmarkError(
                f"--samples {self.plan.samples} are more than there are real ones to compare with: {self.plan.data} has "
                f"{n_test:,} labeled test images; at most so many were expected"
            )
        for entry in self.plan.runs:
            _refuse_other_model(self.folder(entry), self.plan.train_config(entry))


def is_finished(folder: Path) -> bool:
    """Whether a model folder holds a model whose training came to its end."""
    return (folder / DOCUMENT).exists() and not (folder / TRAINING_STATE).exists()


def model_id(folder: Path) -> str | None:
    """What the model of a folder is called, as `Classifier.id` has it; None without one."""
    if not is_finished(folder):
        return None
    document = read_document(folder)
    return f"{document['name']}@{document['sha256'][:4]}"


def check_output_folder(out: Path) -> None:
    """A BenchmarkError if a folder holds anything that no benchmark writes."""
    if out.exists() and not out.is_dir():
        raise BenchmarkError(f"--out {out} is a file; a folder, new or of an earlier benchmark, was expected")
    known = {RESULTS, TABLE, PAGE, PICTURE, MODELS}
    names = sorted(path.name for path in out.iterdir()) if out.exists() else []
    foreign = [name for name in names if name.removesuffix(".part") not in known]
    if foreign:
        named = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise BenchmarkError(
            f"{out} holds what no benchmark wrote, so nothing is written there: {named}; name another folder with --out"
        )


def error_message(error: BaseException) -> str:
    """What went wrong, on one line; by the kind of error where it has no words of its own."""
    words = " ".join(str(error).split("\n\n")[0].split())
    return words or type(error).__name__


def _threads_before(out: Path) -> int | None:
    """What the models that are there were trained with: the others of the benchmark are to have the same."""
    for folder in sorted((out / MODELS).glob("*-*")):
        run = _run_before(folder)
        if run is not None and run.training.threads is not None:
            return run.training.threads
    return None


def _run_before(folder: Path) -> TrainConfig | None:
    """The run that a model folder comes from, finished or not; None for an empty one."""
    if (folder / TRAINING_STATE).exists():
        return load_unfinished_config(folder)
    if (folder / DOCUMENT).exists():
        return TrainConfig.model_validate(read_document(folder)["run"])
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BenchmarkError(f"{folder} holds neither a model nor the beginnings of one; remove it")
    return None


def _refuse_other_model(folder: Path, asked: TrainConfig) -> None:
    before = _run_before(folder)
    if before is None:
        return
    now, then = _settled(asked), _settled(before) | _options_before(folder)
    for name in dict.fromkeys((*now, *then)):
        if now.get(name) != then.get(name):
            raise BenchmarkError(
                f"{folder} holds a model that was trained otherwise: {name} was {then.get(name)!r} and is now "
                f"{now.get(name)!r}; name another folder with --out, or remove that one"
            )


def _options_before(folder: Path) -> dict[str, Any]:
    """What a finished model's family was set to: another version may have other options, or other defaults."""
    return dict(read_document(folder)["options"]) if is_finished(folder) else {}


def _settled(run: TrainConfig) -> dict[str, Any]:
    """Everything that makes a training what it is, by the names that people type."""
    options = models.family(run.model).options_type.model_validate(run.options)
    training = run.training.with_defaults(options.training_defaults).model_dump(mode="json")
    own = {"data": os.path.realpath(run.data), "model": run.model, "seed": run.seed, "folds": run.label_check_folds}
    return own | options.model_dump(mode="json") | training | run.images.model_dump(mode="json")
