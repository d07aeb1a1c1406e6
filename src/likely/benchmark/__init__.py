"""A benchmark: families and their softmax twin, on equal minutes of the same machine, measured alike and in turn."""

from likely.benchmark.runner import Benchmark, BenchmarkError, RunOutcome, BenchmarkInterrupted, ProgressObserver
from likely.benchmark.report import build_comparison, write_report
from likely.benchmark.config import BASELINE, BenchmarkConfig

__all__ = ["BASELINE", "Benchmark", "BenchmarkError", "RunOutcome", "BenchmarkConfig", "BenchmarkInterrupted", "ProgressObserver", "build_comparison", "write_report"]
