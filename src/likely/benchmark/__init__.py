"""A benchmark of model families against the softmax baseline, for equal training time on the same machine."""

from likely.benchmark.config import BASELINE, BenchmarkConfig
from likely.benchmark.report import build_comparison, write_report
from likely.benchmark.runner import Benchmark, BenchmarkInterrupted, ProgressObserver, RunOutcome
from likely.exceptions import BenchmarkError

__all__ = [
    "BASELINE",
    "Benchmark",
    "BenchmarkConfig",
    "BenchmarkError",
    "BenchmarkInterrupted",
    "ProgressObserver",
    "RunOutcome",
    "build_comparison",
    "write_report",
]
