"""The pages of a model folder: its report and its card."""

from __future__ import annotations

from pathlib import Path

from likely import checkpoint
from likely.evaluation.card import model_card
from likely.evaluation.report import render
from likely.evaluation.report.content import ReportContent

REPORT, CARD = "report.html", "README.md"


def write_pages(folder: Path, content: ReportContent) -> None:
    """The report and the card of a model folder."""
    checkpoint.write_text(folder / REPORT, render(content))
    checkpoint.write_text(folder / CARD, model_card(content))
