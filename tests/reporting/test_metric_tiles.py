from __future__ import annotations

from dataclasses import replace

from likely.base import Domain, LikelihoodKind, LikelihoodType
from likely.evaluation.metrics import Metrics, RejectionMetrics
from likely.reporting.formatting import interval
from likely.reporting.metric_tiles import metric_tiles

METRICS = Metrics(n=400, n_correct=380, balanced_accuracy=0.94, nll=0.21, ece=0.012, brier=0.1, bits_per_dim=2.314)
BOUND = LikelihoodType(LikelihoodKind.LOWER_BOUND, Domain.PIXELS8)


def shown(metrics: Metrics, likelihood_type: LikelihoodType | None = BOUND) -> dict[str, tuple[str, str]]:
    return {row.label: (row.value, row.note) for row in metric_tiles(metrics, likelihood_type, 10)}


def test_accuracy_tile_has_interval_and_split() -> None:
    value, note = shown(METRICS)["Accuracy"]
    assert value == "95.0%"
    assert "400" in note
    assert interval(METRICS.accuracy_interval) in note
    assert "validation" in shown(replace(METRICS, split="validation"))["Accuracy"][1]


def test_accuracy_tile_has_the_network_evaluations_if_there_are_several() -> None:
    assert "evaluation" not in shown(METRICS)["Accuracy"][1]
    assert "4 network evaluations" in shown(replace(METRICS, evaluations_per_image=4))["Accuracy"][1]


def test_bits_per_dim_needs_a_normalized_pixel_likelihood() -> None:
    types = {
        BOUND: "2.31",
        LikelihoodType(LikelihoodKind.EXACT, Domain.PIXELS8): "2.31",
        LikelihoodType(LikelihoodKind.UNNORMALIZED, Domain.PIXELS8): "–",
        LikelihoodType(LikelihoodKind.EXACT, Domain.FEATURES): "–",
        LikelihoodType(LikelihoodKind.EXACT, Domain.TOKENS): "–",
        None: "–",
    }
    tiles = [shown(METRICS, likelihood_type)["Bits/dim"] for likelihood_type in types]
    assert [value for value, _ in tiles] == list(types.values())
    assert len({note for _, note in tiles}) == len(types)  # each with its reason


def test_unmeasured_metrics_have_no_tile() -> None:
    assert not {"False-alarm rate", "Ambiguous", "AUROC", "Throughput"} & shown(METRICS).keys()


def test_false_alarm_rate_is_compared_with_alpha() -> None:
    value, note = shown(replace(METRICS, rejection=RejectionMetrics(0.05, 16, 8)))["False-alarm rate"]
    assert value == "4.0%"
    assert "at most 5%" in note
