"""Prediction writers: table, JSON lines, CSV and Parquet.

A writer is called with one Prediction after the other and then with None, for the end.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Sequence
from typing import IO, Any, TypeAlias

from rich.console import Console
from rich.table import Table
from rich.text import Text

from likely.exceptions import InvalidValueError
from likely.prediction import Prediction, Status

Writer: TypeAlias = Callable[[Prediction | None], None]
COLORS = {
    Status.KNOWN: "green",
    Status.AMBIGUOUS: "yellow",
    Status.UNKNOWN: "red",
    Status.UNCALIBRATED: "dim",
    Status.ERROR: "bold red",
}
MIN_GROUP_PROBABILITY = 0.9  # of the groups that the table shows
MAX_WIDTH = 1000  # characters: in a file or a pipe, every row fits on one line
COLUMNS = (
    *("input", "status", "label", "probability", "p_value", "prediction_set"),
    *("bits_per_dim", "p_real", "guarantee", "calibration", "model", "error"),
)


def _write_table(stream: IO[bytes]) -> Writer:
    """Write a table at the end, when the column widths are known; in color and folded on a terminal only."""
    rows: list[Prediction] = []

    def write(prediction: Prediction | None) -> None:
        if prediction is None:
            stream.write(_render(_table(rows), on_terminal=stream.isatty()).encode())
            stream.flush()
        else:
            rows.append(prediction)

    return write


def _jsonl(stream: IO[bytes]) -> Writer:
    """Write one JSON object per line, each at once."""

    def write(prediction: Prediction | None) -> None:
        if prediction is not None:
            stream.write(prediction.model_dump_json().encode() + b"\n")
            stream.flush()

    return write


def _csv(stream: IO[bytes]) -> Writer:
    """Write CSV with a header, each row at once; the labels of the prediction set are joined by vertical bars."""
    line = io.StringIO(newline="")
    rows = csv.DictWriter(line, COLUMNS, extrasaction="ignore")
    rows.writeheader()

    def write(prediction: Prediction | None) -> None:
        if prediction is not None:
            values = prediction.model_dump(mode="json")
            rows.writerow({**values, "prediction_set": "|".join(prediction.prediction_set)})
        stream.write(line.getvalue().encode())
        stream.flush()
        line.seek(0)
        line.truncate()

    return write


def _parquet(stream: IO[bytes]) -> Writer:
    """Write Parquet at the end, with the fields of the JSON as columns."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InvalidValueError("--format parquet needs pyarrow: pip install 'likely[parquet]'") from None
    rows: list[dict[str, Any]] = []

    def write(prediction: Prediction | None) -> None:
        if prediction is None:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
        else:
            rows.append(prediction.model_dump(mode="json"))

    return write


WRITERS: dict[str, Callable[[IO[bytes]], Writer]] = {
    "table": _write_table,
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
}
FORMAT_BY_SUFFIX = {".csv": "csv", ".parquet": "parquet", ".txt": "table"}  # any other: jsonl


def _render(table: Table, *, on_terminal: bool) -> str:
    width = shutil.get_terminal_size().columns if on_terminal else MAX_WIDTH
    text = io.StringIO()
    Console(file=text, force_terminal=on_terminal, width=width, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _table(rows: Sequence[Prediction]) -> Table:
    """Build the table; nested classes add a column for the finest group that is probable enough."""
    result = Table(box=None, pad_edge=False, header_style="bold")
    nested = any(row.groups for row in rows)
    for name in ("input", "status", "label", "probability", "p-value", "other labels", *(["group"] if nested else [])):
        result.add_column(name, justify="right" if name in ("probability", "p-value") else "left", overflow="fold")
    for row in rows:
        result.add_row(*_cells(row), *([_group(row)] if nested else []))
    return result


def _cells(row: Prediction) -> list[Text | str]:
    """Return the cells of a row; an unknown image has no probability, because no class is right."""
    state = Text(row.status.value, style=COLORS[row.status])
    if row.error is not None:
        return [Text(row.input), state, Text(row.error), "", "", ""]
    is_unknown = row.status is Status.UNKNOWN
    label = Text(f"nearest: {row.label}" if is_unknown else row.label or "", style="dim" if is_unknown else "bold")
    others = "" if is_unknown else ", ".join(name for name in row.prediction_set if name != row.label)
    probability = "" if is_unknown else f"{row.probability:.3f}"
    p_value = "" if row.p_value is None else f"{row.p_value:.3f}"
    return [Text(row.input), state, label, probability, p_value, Text(others)]


def _group(row: Prediction) -> str:
    probable = [group for group in row.groups if group.probability >= MIN_GROUP_PROBABILITY]
    if not probable or row.status is Status.UNKNOWN:
        return ""
    return f"{probable[-1].label} {probable[-1].probability:.3f}"
