"""The HTML report: one self-contained page with a model's metrics, images, diagnostics and provenance."""

from likely.reporting.html.content import ReportContent
from likely.reporting.html.report import render

__all__ = ["ReportContent", "render"]
