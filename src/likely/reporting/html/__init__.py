"""The report: one HTML file that shows a model's figures, its pictures and its record, and says what is off."""

from likely.reporting.html.content import ReportContent
from likely.reporting.html.render import render

__all__ = ["ReportContent", "render"]
