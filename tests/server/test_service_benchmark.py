"""The benchmark of the service at its smallest setting."""

import json
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.slow
def test_service_benchmark_records_all_kinds_of_load(trained, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    import interleaved_timing
    import service

    results = tmp_path / "service.jsonl"
    monkeypatch.setattr(interleaved_timing, "PATIENCE", 0.0)  # timing does not matter here
    monkeypatch.setattr(service, "TURN", 0.5)
    monkeypatch.setattr(service, "RESULTS_FILE", results)
    words = [trained, "digits", "--seconds", 0.5, "--minutes", 0.02, "--threads", 1, "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["service.py", *map(str, words)])
    service.main()
    row = json.loads(results.read_text())
    rounds = [each for each in row.values() if isinstance(each, dict) and "per_second" in each]
    assert len(rounds) == 5
    assert all(each["statuses"].get("200", 0) > 0 and each["broken"] == 0 for each in rounds)
    assert len(row["memory_mb"]) == 2
    assert results.with_suffix(".md").read_text().startswith("|")
