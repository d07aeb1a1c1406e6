"""What one sees while something runs: a bar on a terminal, plain lines elsewhere. All of it on stderr."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from likely.training.loop import Step

console = Console(stderr=True, highlight=False)
PLAIN_EVERY = 5.0  # seconds between two plain lines


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for work that is counted: the function takes how many are done and of how many."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def watched(steps: Iterable[Step], what: str, *, lines: bool = True) -> Iterator[Step]:
    """The same steps, drawn as they pass; Ctrl-C ends them after the step at hand instead of in its middle."""
    stopped = _Interrupt()
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
            if lines and step.ends_epoch and pace.line_is_due(console.is_terminal):
                console.print(f"epoch {step.epoch + 1:>3}  {_figures(step, pace)}", soft_wrap=True)
            yield step
            if stopped.asked:
                return


class _Pace:
    """Images a second, and when the last plain line was."""

    def __init__(self) -> None:
        self.n, self.start, self.last_line = 0, time.monotonic(), -PLAIN_EVERY
        self.validation = ""

    def add(self, step: Step) -> None:
        self.n += step.n_images
        if step.validation:
            self.validation = "  ".join(f"val {name} {value:.4f}" for name, value in step.validation.items())

    @property
    def images_per_second(self) -> float:
        return self.n / max(time.monotonic() - self.start, 1e-9)

    def line_is_due(self, is_terminal: bool) -> bool:
        now = time.monotonic()
        due = not is_terminal and (now - self.last_line > PLAIN_EVERY)
        if due:
            self.last_line = now
        return due


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
