"""The comparison of model families that a benchmark measured: one HTML page and one Markdown table."""

from likely.reporting.comparison.content import (
    AccuracyMetrics,
    Comparison,
    EfficiencyMetrics,
    ReliabilityBins,
    Result,
    ResultKey,
)
from likely.reporting.comparison.markdown import markdown_table
from likely.reporting.comparison.page import render

__all__ = [
    "AccuracyMetrics",
    "Comparison",
    "EfficiencyMetrics",
    "ReliabilityBins",
    "Result",
    "ResultKey",
    "markdown_table",
    "render",
]
