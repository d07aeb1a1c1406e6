"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

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

EPOCH_INTERVAL = 5.0  # minimum seconds between the plain lines of two epochs
MAX_SILENCE = 30.0  # maximum seconds without a plain line


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show the progress of counted work: the function takes the number done and the total."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, lines = bar.add_task(title, total=None), _PlainLines()

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if lines.are_due():
                console.print(f"{title}: {done:,} of {total:,}")

        yield report


def track_steps(steps: Iterable[Step], title: str, *, lines: bool = True) -> Iterator[Step]:
    """Yield the steps and show them; the first Ctrl-C ends the iteration after the current step.

    Without `lines` no line marks the end of an epoch: for auxiliary trainings, whose epochs the user did not ask for.
    """
    interrupt, plain = _Interrupt(), _PlainLines()
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[metrics]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with interrupt, Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, pace = bar.add_task(title, total=1.0, metrics=""), Pace()
        for step in steps:
            pace.add(step)
            bar.update(task, completed=step.fraction, metrics=pace.metrics(step))
            if step.note:
                console.print(f"[yellow]{step.note}")
            if plain.are_due(at_milestone=lines and step.ends_epoch):
                where = f"epoch {step.epoch + 1:>3}" if lines else title
                console.print(f"{where}  {pace.metrics(step)}{pace.left}", soft_wrap=True)
            yield step
            if interrupt.requested:
                return


class _PlainLines:
    """Decides when a plain line is due, where there is no terminal for a bar."""

    def __init__(self) -> None:
        self.start, self.last = time.monotonic(), -math.inf

    def are_due(self, *, at_milestone: bool = False) -> bool:
        now = time.monotonic()
        silence = now - max(self.start, self.last)
        due = (at_milestone and now - self.last >= EPOCH_INTERVAL) or silence >= MAX_SILENCE
        if due:
            self.last = now
        return due and not console.is_terminal


class Pace:
    """Images per second, and the time left."""

    def __init__(self) -> None:
        self.n, self.start = 0, time.monotonic()
        self.first, self.fraction = (self.start, math.inf), 0.0
        self.validation = ""

    def add(self, step: Step) -> None:
        self.n += step.n_images
        if step.fraction < max(self.fraction, self.first[1]):  # the first step of the next training
            self.first = time.monotonic(), step.fraction
        self.fraction = step.fraction
        if step.validation:
            self.validation = "  ".join(f"val {name} {value:.4f}" for name, value in step.validation.items())

    def metrics(self, step: Step) -> str:
        losses = "  ".join(f"{name} {loss:.3f}" for name, loss in step.losses.items())
        images_per_second = self.n / max(time.monotonic() - self.start, 1e-9)
        return f"{losses}  {self.validation}  {images_per_second:,.0f} images/s"

    @property
    def left(self) -> str:
        """Return the time left at the pace since the first step, or nothing while it cannot be estimated."""
        began, fraction = self.first
        if self.fraction <= fraction:
            return ""
        seconds = (time.monotonic() - began) * (1 - self.fraction) / (self.fraction - fraction)
        return f"  {timedelta(seconds=round(seconds))} left"


class _Interrupt:
    """Remembers the first Ctrl-C; the second one raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> _Interrupt:
        self.before = signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self.before)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
