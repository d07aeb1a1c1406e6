"""A benchmark: families and their discriminative twin, on equal minutes of the same machine, measured alike and in turn."""

from likely.benchmark.course import Benchmark, BenchmarkError, Outcome, Stopped, Watch
from likely.benchmark.pages import compared, write
from likely.benchmark.plan import TWIN, Plan

__all__ = ["TWIN", "Benchmark", "BenchmarkError", "Outcome", "Plan", "Stopped", "Watch", "compared", "write"]
