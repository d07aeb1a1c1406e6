"""The pages of a model folder: its report and its card."""

from __future__ import annotations

from pathlib import Path

from likely import checkpoint
from likely.reporting.html import render
from likely.reporting.html.content import ReportContent
from likely.reporting.model_card import model_card

REPORT, CARD = "report.html", "README.md"


def write_pages(folder: Path, content: ReportContent) -> None:
    """The report and the card of a model folder."""
    checkpoint.write_text(folder / REPORT, render(content))
    checkpoint.write_text(folder / CARD, model_card(content))
