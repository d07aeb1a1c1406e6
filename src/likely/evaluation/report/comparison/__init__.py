"""The comparison: one HTML page and one Markdown table that show what a benchmark measured, families side by side."""

from likely.evaluation.report.comparison.content import ReliabilityBins, Comparison, EfficiencyMetrics, ResultKey, AccuracyMetrics, Result
from likely.evaluation.report.comparison.markdown import table
from likely.evaluation.report.comparison.render import render

__all__ = ["ReliabilityBins", "Comparison", "EfficiencyMetrics", "ResultKey", "AccuracyMetrics", "Result", "render", "table"]
