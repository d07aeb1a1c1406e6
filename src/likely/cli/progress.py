"""What one sees while something runs: a bar on a terminal, plain lines elsewhere. All of it on stderr."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from likely.cli.console import console
from likely.training.loop import Step

PLAIN_EVERY = 5.0  # seconds from one epoch's plain line to another's
MAX_SILENCE = 30.0  # seconds without a plain line, however long the epoch


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for work that is counted: the function takes how many are done and of how many."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, lines = bar.add_task(what, total=None), _PlainLines()

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if lines.are_due():
                console.print(f"{what}: {done:,} of {total:,}")

        yield report


def track_steps(steps: Iterable[Step], what: str, *, lines: bool = True) -> Iterator[Step]:
    """The same steps, drawn as they pass; Ctrl-C ends them after the step at hand instead of in its middle.

    Without `lines`, epochs pass unsaid: these are not the epochs that the user counts.
    """
    stopped, plain = _Interrupt(), _PlainLines()
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with stopped, Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, pace = bar.add_task(what, total=1.0, figures=""), _Pace()
        for step in steps:
            pace.add(step)
            bar.update(task, completed=step.fraction, figures=_figures(step, pace))
            if step.note:
                console.print(f"[yellow]{step.note}")
            if plain.are_due(at_milestone=lines and step.ends_epoch):
                where = f"epoch {step.epoch + 1:>3}" if lines else what
                console.print(f"{where}  {_figures(step, pace)}{pace.left}", soft_wrap=True)
            yield step
            if stopped.asked:
                return


class _PlainLines:
    """When it is time for a plain line, where there is no terminal for a bar."""

    def __init__(self) -> None:
        self.began, self.last = time.monotonic(), -math.inf

    def are_due(self, *, at_milestone: bool = False) -> bool:
        now = time.monotonic()
        silence = now - max(self.began, self.last)
        due = (at_milestone and now - self.last >= PLAIN_EVERY) or silence >= MAX_SILENCE
        if due:
            self.last = now
        return due and not console.is_terminal


class _Pace:
    """Images a second, and the time left."""

    def __init__(self) -> None:
        self.n, self.start = 0, time.monotonic()
        self.first, self.fraction = (self.start, math.inf), 0.0
        self.validation = ""

    def add(self, step: Step) -> None:
        self.n += step.n_images
        if step.fraction < max(
            self.fraction, self.first[1]
        ):  # the first step, or that of the next of several trainings
            self.first = time.monotonic(), step.fraction
        self.fraction = step.fraction
        if step.validation:
            self.validation = "  ".join(f"val {name} {value:.4f}" for name, value in step.validation.items())

    @property
    def images_per_second(self) -> float:
        return self.n / max(time.monotonic() - self.start, 1e-9)

    @property
    def left(self) -> str:
        """How much longer at the pace since the first step, in words; nothing while that cannot be known."""
        began, fraction = self.first
        if self.fraction <= fraction:
            return ""
        seconds = (time.monotonic() - began) * (1 - self.fraction) / (self.fraction - fraction)
        return f"  {timedelta(seconds=round(seconds))} left"


class _Interrupt:
    """Notes the first Ctrl-C; the second is heard at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> _Interrupt:
        self.before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self.before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _figures(step: Step, pace: _Pace) -> str:
    losses = "  ".join(f"{name} {loss:.3f}" for name, loss in step.losses.items())
    return f"{losses}  {pace.validation}  {pace.images_per_second:,.0f} images/s"
