from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from likely.evaluation import metrics
from likely.reporting.html import charts
from likely.reporting.html.charts import compact_matrix, confusion_matrix
from likely.reporting.html.content import FalseAlarmRow
from likely.reporting.html.svg import Scale

NASTY = '<b>"x"&'


def parsed(svg: str) -> ElementTree.Element:
    assert "nan" not in svg
    assert "inf" not in svg.replace("info", "")
    return ElementTree.fromstring(svg)


def count(svg: str, tag: str, kind: str = "") -> int:
    return sum(kind in element.get("class", "").split() or not kind for element in parsed(svg).iter(tag))


@given(st.floats(-50, 50), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_are_few_evenly_spaced_and_inside(start: float, length: float, n: int) -> None:
    low = start * length
    found = Scale(low, low + length, 0, 400).ticks(n)
    assert n // 2 <= len(found) <= 2 * n + 1
    assert all(low - 1e-6 * length <= tick <= low + length * (1 + 1e-6) for tick in found)
    assert np.allclose(np.diff(found), np.diff(found)[:1], rtol=1e-3, atol=1e-6)


def test_empty_scale_maps_to_the_middle() -> None:
    assert Scale(3, 3, 0, 10)(3) == 5
    assert Scale(0, 2, 0, 10)(1.5) == 7.5


@pytest.mark.parametrize("n", [1, 2, 30, 5000])
def test_curves_of_any_length(n: int) -> None:
    epochs = np.arange(1, n + 1)
    svg = charts.line_chart(epochs, {"training": 1 / epochs, "validation": 2 / epochs}, NASTY)
    assert count(svg, "path", "curve") == 2
    assert len(svg) < 30_000


def test_curve_is_interrupted_at_missing_values() -> None:
    values = np.array([np.nan, 3.0, 2.0, np.inf, 1.0])
    path = next(parsed(charts.line_chart(np.arange(5), {"training": values}, "loss")).iter("path"))
    assert path.get("d", "").count("M") == 2
    assert count(charts.line_chart(np.arange(5), {"training": np.full(5, np.nan)}, "loss"), "path") == 0


def test_constant_curve_has_a_path() -> None:
    assert count(charts.line_chart(np.arange(5), {"training": np.zeros(5)}, "loss"), "path") == 1


def test_reliability_diagram_has_a_dot_per_nonempty_bin() -> None:
    log_posterior = np.log([[0.95, 0.05], [0.9, 0.1], [0.45, 0.55]])
    bins = metrics.reliability(log_posterior, np.array([0, 1, 1]), 10)
    assert np.count_nonzero(bins.counts) == 3
    assert count(charts.reliability_diagram(bins), "circle") == 3
    assert count(charts.reliability_diagram(bins), "line", "whisker") == 3


def test_rates_above_the_bound_are_marked() -> None:
    rows = (
        FalseAlarmRow(NASTY, 50, 2, 6),
        FalseAlarmRow("b", 50, 9, 6),
        FalseAlarmRow("c", 50, 9, None),
        FalseAlarmRow("d", 50, 0, 0),
    )
    svg = charts.false_alarm_chart(rows, 0.05)
    assert [row.above for row in rows] == [False, True, False, False]
    assert count(svg, "text", "above") == 1
    assert count(svg, "rect", "limit") == 1 + 3  # in the legend and in the rows with a promise


@pytest.mark.parametrize("unknown", [None, np.zeros(5)])
def test_p_value_histogram_has_twenty_bars_per_group(unknown: np.ndarray | None) -> None:
    svg = charts.p_value_histogram(np.linspace(0, 1, 50), unknown, 0.05)
    assert count(svg, "rect", "s1") == 20 + 1
    assert count(svg, "rect", "warm") == (0 if unknown is None else 20 + 1)


@pytest.mark.parametrize("k", [2, 10, 30])
def test_confusion_matrix_has_a_cell_per_occurring_pair(k: int) -> None:
    rng = np.random.default_rng(k)
    counts = rng.poisson(0.5, (k, k)) + 20 * np.eye(k, dtype=int)
    counts[1] = 0  # a class without test images
    svg = confusion_matrix(counts, tuple(f"{NASTY}/{'long' * 9} {i}" for i in range(k)))
    assert count(svg, "rect", "right") == k - 1
    assert count(svg, "rect", "wrong") == np.count_nonzero(counts) - (k - 1)


@pytest.mark.parametrize("name", ["{}", "Fruit/Apple/{}"])
def test_compact_matrix_of_a_hundred_classes_is_small(name: str) -> None:
    counts = np.random.default_rng(0).poisson(0.1, (100, 100)) + 50 * np.eye(100, dtype=int)
    svg = compact_matrix(counts, tuple(name.format(i) for i in range(100)))
    assert count(svg, "rect", "right") + count(svg, "rect", "wrong") == np.count_nonzero(counts)
    assert len(svg) < 400_000


def test_compact_matrix_names_the_groups_of_nested_classes() -> None:
    names = tuple(f"{group}/{i}" for group in ("Fruit", "Packages", NASTY) for i in range(20))
    svg = compact_matrix(np.eye(60, dtype=int), names)
    labels = [element.text for element in parsed(svg).iter("text")]
    assert [labels.count(group) for group in ("Fruit", "Packages", NASTY)] == [2, 2, 2]
    assert count(svg, "line", "grid") == 2 * 2


def test_meter_of_nan_is_empty() -> None:
    assert charts.meter(float("nan")) == ""
    assert count(charts.meter(0.5), "rect") == 2
