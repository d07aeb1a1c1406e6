from __future__ import annotations

from dataclasses import replace

import pytest

from likely.base import Domain, LikelihoodKind, LikelihoodType
from likely.evaluation.metrics import Metrics, RejectionMetrics
from likely.reporting.metric_tiles import metric_tiles

METRICS = Metrics(n=400, n_correct=380, balanced_accuracy=0.94, nll=0.21, ece=0.012, brier=0.1, bits_per_dim=2.314)
BOUND = LikelihoodType(LikelihoodKind.LOWER_BOUND, Domain.PIXELS8)


def shown(metrics: Metrics, evidence: LikelihoodType | None = BOUND) -> dict[str, tuple[str, str]]:
    return {row.label: (row.value, row.note) for row in metric_tiles(metrics, evidence, 10)}


def test_accuracy_tile_has_interval_and_split() -> None:
    value, note = shown(METRICS)["Accuracy"]
    assert value == "95.0%"
    assert note == "of 400 test images; 95% interval 92.4–96.9%"
    assert "400 validation images" in shown(replace(METRICS, split="validation"))["Accuracy"][1]


@pytest.mark.parametrize(
    ("evidence", "value", "note"),
    [
        (BOUND, "2.31", "upper bound"),
        (LikelihoodType(LikelihoodKind.EXACT, Domain.PIXELS8), "2.31", "exact"),
        (LikelihoodType(LikelihoodKind.UNNORMALIZED, Domain.PIXELS8), "–", "not a normalized likelihood"),
        (LikelihoodType(LikelihoodKind.EXACT, Domain.FEATURES), "–", "a likelihood of features"),
        (None, "–", "not a generative model"),
    ],
)
def test_bits_per_dim_needs_a_normalized_pixel_likelihood(
    evidence: LikelihoodType | None, value: str, note: str
) -> None:
    bits = shown(METRICS, evidence)["Bits/dim"]
    assert bits[0] == value
    assert note in bits[1]


def test_unmeasured_metrics_have_no_tile() -> None:
    assert not {"False-alarm rate", "Ambiguous", "AUROC", "Throughput"} & shown(METRICS).keys()


def test_false_alarm_rate_is_compared_with_alpha() -> None:
    value, note = shown(replace(METRICS, rejection=RejectionMetrics(0.05, 16, 8)))["False-alarm rate"]
    assert value == "4.0%"
    assert "at most 5%" in note
