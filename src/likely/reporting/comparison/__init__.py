"""The comparison: one HTML page and one Markdown table that show what a benchmark measured, families side by side."""

from likely.reporting.comparison.content import (
    AccuracyMetrics,
    Comparison,
    EfficiencyMetrics,
    ReliabilityBins,
    Result,
    ResultKey,
)
from likely.reporting.comparison.markdown import table
from likely.reporting.comparison.render import render

__all__ = [
    "AccuracyMetrics",
    "Comparison",
    "EfficiencyMetrics",
    "ReliabilityBins",
    "Result",
    "ResultKey",
    "render",
    "table",
]
