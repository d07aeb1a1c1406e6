"""The comparison: one HTML page and one Markdown table that show what a benchmark measured, families side by side."""

from likely.evaluation.report.comparison.content import Bins, Comparison, Cost, Key, Quality, Result
from likely.evaluation.report.comparison.markdown import table
from likely.evaluation.report.comparison.render import render

__all__ = ["Bins", "Comparison", "Cost", "Key", "Quality", "Result", "render", "table"]
