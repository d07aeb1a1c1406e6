"""Answers as people and programs read them: a table, JSON lines, CSV, Parquet.

A writer takes one Answer after the other and then None, for the end.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from likely.exceptions import InvalidValueError
from likely.prediction import Prediction, Status

Writer = Callable[[Prediction | None], None]
COLORS = {
    Status.KNOWN: "green",
    Status.AMBIGUOUS: "yellow",
    Status.UNKNOWN: "red",
    Status.UNCALIBRATED: "dim",
    Status.ERROR: "bold red",
}
MIN_PROBABILITY = 0.9  # the probability of a group from which on it is worth a word
MAX_WIDTH = 1000  # characters: enough that a file or a pipe gets every row on one line
COLUMNS = (
    *("input", "status", "label", "probability", "p_value", "set"),
    *("bits_per_dim", "p_real", "calibration", "model", "error"),
)


def table(stream: IO[bytes]) -> Writer:
    """A table, drawn at the end, when the widths are known; in color on a terminal, unbroken elsewhere."""
    answers: list[Prediction] = []

    def write(answer: Prediction | None) -> None:
        if answer is None:
            stream.write(_drawn(_table(answers), on_terminal=stream.isatty()).encode())
            stream.flush()
        else:
            answers.append(answer)

    return write


def jsonl(stream: IO[bytes]) -> Writer:
    """One JSON object a line, written at once."""

    def write(answer: Prediction | None) -> None:
        if answer is not None:
            stream.write(answer.model_dump_json().encode() + b"\n")
            stream.flush()

    return write


def comma_separated(stream: IO[bytes]) -> Writer:
    """CSV with a header, written at once; the set's labels are joined by a vertical bar."""
    line = io.StringIO(newline="")
    rows = csv.DictWriter(line, COLUMNS)
    rows.writeheader()

    def write(answer: Prediction | None) -> None:
        if answer is not None:
            rows.writerow({**_flat(answer), "set": "|".join(answer.prediction_set)})
        stream.write(line.getvalue().encode())
        stream.flush()
        line.seek(0)
        line.truncate()

    return write


def parquet(stream: IO[bytes]) -> Writer:
    """Parquet with the columns of the CSV, the set as a list, and every class's answer as a list of structures."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InvalidValueError("--format parquet needs pyarrow: pip install 'likely[parquet]'") from None
    rows: list[dict[str, Any]] = []

    def write(answer: Prediction | None) -> None:
        if answer is None:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
        else:
            rows.append(answer.model_dump(mode="json"))

    return write


WRITERS: dict[str, Callable[[IO[bytes]], Writer]] = {
    "table": table,
    "jsonl": jsonl,
    "csv": comma_separated,
    "parquet": parquet,
}


def by_suffix(path: Path) -> str:
    """The format that a file's name asks for; JSON lines where it asks for none."""
    return {".csv": "csv", ".parquet": "parquet", ".txt": "table"}.get(path.suffix.lower(), "jsonl")


def _drawn(table: Table, *, on_terminal: bool) -> str:
    width = shutil.get_terminal_size().columns if on_terminal else MAX_WIDTH
    text = io.StringIO()
    Console(file=text, force_terminal=on_terminal, width=width, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _table(answers: Sequence[Prediction]) -> Table:
    """With a column of the finest groups that are rather sure, where classes are nested."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    nested = any(answer.groups for answer in answers)
    for name in ("input", "status", "label", "probability", "p-value", "or else", *(["surely"] if nested else [])):
        drawn.add_column(name, justify="right" if name in ("probability", "p-value") else "left", overflow="fold")
    for answer in answers:
        drawn.add_row(*_cells(answer), *([_surely(answer)] if nested else []))
    return drawn


def _surely(answer: Prediction) -> str:
    sure = [group for group in answer.groups if group.probability >= MIN_PROBABILITY]
    return f"{sure[-1].label} {sure[-1].probability:.3f}" if sure and answer.status is not Status.UNKNOWN else ""


def _cells(answer: Prediction) -> list[Text | str]:
    state = Text(answer.status.value, style=COLORS[answer.status])
    if answer.error is not None:
        return [Text(answer.input), state, Text(answer.error), "", "", ""]
    label = Text(answer.label or "", style="dim" if answer.status is Status.UNKNOWN else "bold")
    others = ", ".join(name for name in answer.prediction_set if name != answer.label)
    p_value = "" if answer.p_value is None else f"{answer.p_value:.3f}"
    return [Text(answer.input), state, label, f"{answer.probability:.3f}", p_value, Text(others)]


def _flat(answer: Prediction) -> dict[str, Any]:
    return {name: value for name, value in answer.model_dump(mode="json").items() if name in COLUMNS}
