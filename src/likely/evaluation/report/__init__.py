"""The report: one HTML file that shows a model's figures, its pictures and its record, and says what is off."""

from likely.evaluation.report.content import ReportContent
from likely.evaluation.report.render import render

__all__ = ["ReportContent", "render"]
