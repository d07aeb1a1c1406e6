"""The comparison: one HTML page and one Markdown table that show what a benchmark measured, families side by side."""

from likely.reporting.comparison.content import (
    ReliabilityBins,
    Comparison,
    EfficiencyMetrics,
    ResultKey,
    AccuracyMetrics,
    Result,
)
from likely.reporting.comparison.markdown import table
from likely.reporting.comparison.render import render

__all__ = ["ReliabilityBins", "Comparison", "EfficiencyMetrics", "ResultKey", "AccuracyMetrics", "Result", "render", "table"]
