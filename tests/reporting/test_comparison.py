"""The comparison page and table: metrics with intervals, images, summary and caveats."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape
from report_contents import NASTY
from test_html_report import Page

from likely.evaluation.fidelity import KID, Fidelity, IntraClassFID
from likely.evaluation.metrics import reliability
from likely.evaluation.sample_quality import ClassConsistency, NearDuplicates, SampleQuality
from likely.reporting.comparison import (
    AccuracyMetrics,
    Comparison,
    EfficiencyMetrics,
    ReliabilityBins,
    Result,
    markdown_table,
    render,
)
from likely.reporting.comparison.charts import Point, cost_chart, learning_curve_chart
from likely.reporting.comparison.columns import ACCURACY, PREDICTIONS, MetricTable
from likely.reporting.comparison.content import LearningCurve
from likely.reporting.comparison.page import samples_image
from likely.reporting.comparison.summary import summarize

BASELINE = "softmax"
ACCURACIES = {BASELINE: 0.95, "vae": 0.93, "gan": 0.9}


def accuracy_metrics(family: str, seed: int, n: int = 2000) -> AccuracyMetrics:
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(50, 3))
    log_posterior = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    accuracy = ACCURACIES[family] + 0.01 * seed
    delta = None if family == BASELINE else ACCURACIES[family] - ACCURACIES[BASELINE]
    return AccuracyMetrics(
        n=n,
        skipped=0,
        accuracy=accuracy,
        balanced_accuracy=accuracy,
        nll=0.2,
        ece=0.02,
        brier=0.1,
        bits_per_dim=3.5 if family == "vae" else None,
        likelihood_kind="lower bound on pixels8" if family == "vae" else None,
        false_alarm_rate=0.05,
        alpha=0.05,
        ambiguous_rate=0.1,
        delta_vs_baseline=delta,
        delta_interval=None if delta is None else (delta - 0.01, delta + 0.01),
        reliability=ReliabilityBins.from_reliability(reliability(log_posterior, rng.integers(0, 3, 50))),
    )


def efficiency_metrics(family: str, minutes: float = 10.0) -> EfficiencyMetrics:
    speed = 1000.0 * (1 + list(ACCURACIES).index(family))
    return EfficiencyMetrics(
        n_parameters=123_456,
        n_train=5000,
        epochs_done=21.5,
        minutes_spent=minutes,
        train_images_per_second=180.0,
        peak_memory_gb=0.8,
        images_per_second=speed,
        relative_to_baseline=speed / 1000,
        predictions_per_second=500.0,
        n_timed=1000,
        n_repeats=9,
    )


def fidelity(family: str, seed: int) -> Fidelity:
    return Fidelity(
        model=f"{family}-{seed}@3f2a",
        extractor=f"{BASELINE}-0@1b2c, 64 features",
        n_features=64,
        n_real=2000,
        n_generated=2000,
        real="89abcdef",
        seed=0,
        frechet={"vae": 20.0, "gan": 10.0}[family] + seed,
        kernel=KID(distance=0.1, mean=0.1, deviation=0.01, n_subsets=100, subset_size=1000),
        precision=0.7,
        recall=0.4,
        density=0.9,
        coverage=0.6,
        intra_class_fid=IntraClassFID(frechet=None, n_classes=0, n_excluded=3, min_images=50),
        class_consistency=None,
    )


def sample_quality() -> SampleQuality:
    consistency = ClassConsistency(
        classifier="a-baseline", n_generated=(100, 100), n_consistent=(90, 80), n_real=200, real_accuracy=0.95
    )
    return SampleQuality(
        seed=0,
        class_consistency=consistency,
        near_duplicates=NearDuplicates(n=200, n_duplicates=2, n_real=2000, n_real_duplicates=0, n_train=5000),
    )


def result(family: str, seed: int) -> Result:
    return Result(
        data="photos/fruit",
        family=family,
        options={"width": 32},
        seed=seed,
        minutes=10.0,
        date="2026-03-14",
        version="0.1.0",
        commit="0123456789abcdef",
        machine="a desk",
        threads=4,
        model=f"{family}-{seed}@3f2a",
        accuracy=accuracy_metrics(family, seed),
        efficiency=efficiency_metrics(family),
        fidelity=None if family == BASELINE else fidelity(family, seed),
        sample_quality=None if family == BASELINE else sample_quality(),
    )


def comparison(*seeds: int) -> Comparison:
    """The baseline and two families over some seeds, with all content of a page."""
    rng = np.random.default_rng(0)
    names = ("apple", NASTY, "pear")
    panels = {title: rng.integers(0, 256, (3, 2, 3, 8, 8), np.uint8) for title in ("real", "vae", "gan")}
    curve = LearningCurve(np.arange(1.0, 5), np.array([0.5, 0.8, 0.9, 0.92]))
    return Comparison(
        data="photos/fruit",
        baseline=BASELINE,
        families=tuple(ACCURACIES),
        results=tuple(result(family, seed) for seed in seeds for family in ACCURACIES),
        command="likely benchmark <photos>",
        versions={"torch": "2.13"},
        n_classes=3,
        shown=names,
        panels=panels,
        learning_curves=dict.fromkeys(ACCURACIES, curve),
        settings={"vae": "width=64"},
        notes=("Mind the <step>.",),
    )


def changed(whole: Comparison, family: str, seed: int, **changes: object) -> Comparison:
    """Return the comparison with one result changed."""
    found = (r.model_copy(update=changes) if (r.family, r.seed) == (family, seed) else r for r in whole.results)
    return replace(whole, results=tuple(found))


def anchors(whole: Comparison) -> set[str]:
    page = Page(render(whole))
    return {anchor for anchor in page.values("id") if f"{anchor}-title" in page.values("id")}


def kinds(whole: Comparison) -> list[str]:
    return [caveat.kind for caveat in summarize(whole).caveats]


@pytest.fixture(scope="module")
def two() -> Comparison:
    return comparison(0, 1)


@pytest.fixture(scope="module")
def html(two: Comparison) -> str:
    return render(two)


def test_page_is_well_formed_and_loads_nothing(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert all(value.startswith("data:") for value in page.values("src"))
    assert all(value.startswith(("#", "data:")) for value in page.values("href"))
    assert not re.search(r"@import|url\(|<script|\ssrcset", html)


def test_policy_allows_only_the_style_sheet(html: str) -> None:
    style = re.findall(r"<style>(.*?)</style>", html, flags=re.S)
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    assert len(style) == 1
    assert f"style-src 'sha256-{digest}'" in html
    assert not Page(html).values("style")


def test_charts_are_well_formed_and_labeled(html: str) -> None:
    drawings = re.findall(r'<svg role="img".*?</svg>(?=</div>)', html, flags=re.S)
    assert len(drawings) == 3 + 1 + 1 + 1  # reliability of each, cost, learning curves, samples
    for drawing in drawings:
        assert ElementTree.fromstring(drawing).get("aria-label")


def test_names_are_escaped(two: Comparison) -> None:
    data = f"a/{NASTY}".replace("/|", "|")
    html = render(replace(two, data=data, notes=(NASTY,), settings={"vae": NASTY}))
    assert NASTY not in html
    assert Page(html).open == []
    assert str(escape("<b>\"x\"&'y'</b>"))[:9] in html


def test_links_have_targets(html: str) -> None:
    page = Page(html)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {value.removeprefix("#") for value in page.values("href") if value.startswith("#")} <= set(ids)


def test_family_row_has_mean_and_range_over_seeds(two: Comparison) -> None:
    rows = MetricTable(two, [ACCURACY]).family_rows()
    assert [row.family for row in rows] == list(ACCURACIES)
    assert [row.cells[0].text for row in rows] == ["95.50%", "93.50%", "90.50%"]
    assert [row.cells[0].range for row in rows] == ["95.00 to 96.00", "93.00 to 94.00", "90.00 to 91.00"]
    assert [row.cells[0].is_best for row in rows] == [True, False, False]
    assert [row.seeds for row in rows] == ["mean of 2 seeds"] * 3
    assert len(MetricTable(two, [ACCURACY]).seed_rows()) == 6


def test_single_seed_has_intervals(two: Comparison) -> None:
    (cell, delta), *_ = (
        row.cells[:2] for row in MetricTable(comparison(0), PREDICTIONS).family_rows() if row.family == "vae"
    )
    low, high = map(float, cell.range.split(" to "))
    assert low < 93 < high
    assert delta.range == "−3.00 to −1.00"
    assert "one_seed" in kinds(comparison(0))
    assert "one_seed" not in kinds(two)


def test_bounds_are_marked_and_missing_values_are_dashes(two: Comparison) -> None:
    bits = [column.title for column in PREDICTIONS].index("Bits/dim")
    assert [row.cells[bits].text for row in MetricTable(two, PREDICTIONS).family_rows()] == ["–", "≤ 3.500", "–"]
    assert MetricTable(two, PREDICTIONS).family_rows()[0].cells[1].text == "–"


def test_summary_names_the_best_family_and_the_baseline(two: Comparison) -> None:
    words = summarize(two).result
    assert words.startswith("vae ")
    assert all(number in words for number in ("93.50%", "2.00 points below"))
    assert "gan" in words
    assert [(tile.label, tile.value) for tile in summarize(two).tiles] == [
        ("Most accurate", "vae"),
        ("Baseline", "95.50%"),
        ("Best likelihood", "vae"),
        ("Lowest FID", "gan"),
    ]


def test_insignificant_difference_is_marked() -> None:
    found = accuracy_metrics("vae", 0).model_copy(update={"delta_vs_baseline": -0.001, "delta_interval": (-0.01, 0.01)})
    assert "(not significant)" in summarize(changed(comparison(0), "vae", 0, accuracy=found)).result
    assert "significant" not in summarize(comparison(0)).result


def test_failures_are_shown_with_their_message(two: Comparison) -> None:
    failed = changed(
        two,
        "gan",
        1,
        error="the loss went <astray>",
        accuracy=None,
        efficiency=None,
        fidelity=None,
        sample_quality=None,
    )
    (failure,) = (caveat for caveat in summarize(failed).caveats if caveat.kind == "failure")
    assert all(word in failure.text for word in ("gan", "seed 1", "the loss went <astray>"))
    assert [row.cells[0].text for row in MetricTable(failed, [ACCURACY]).seed_rows()][-1] == "failed"
    assert MetricTable(failed, [ACCURACY]).family_rows()[-1].seeds == "seed 0"
    assert "the loss went &lt;astray&gt;" in render(failed)
    both = changed(failed, "gan", 0, error="again", accuracy=None, efficiency=None, fidelity=None, sample_quality=None)
    assert [row.cells[0].text for row in MetricTable(both, [ACCURACY]).family_rows()] == ["95.50%", "93.50%", "failed"]
    assert "| gan " in markdown_table(both)
    assert Page(render(both)).open == []


def test_comparison_of_failures_only_is_rendered() -> None:
    whole = comparison(0)
    nothing = {"accuracy": None, "efficiency": None, "fidelity": None, "sample_quality": None}
    results = tuple(r.model_copy(update={"error": "out of memory", **nothing}) for r in whole.results)
    failed = Comparison("photos", BASELINE, whole.families, results)
    assert summarize(failed).tiles == ()
    assert summarize(failed).result
    assert Page(render(failed)).open == []
    assert markdown_table(failed).count("out of memory") == 3


def test_incomparable_fidelity_has_no_table(two: Comparison) -> None:
    other = fidelity("gan", 0).model_copy(update={"extractor": "another@0000, 10 features"})
    apart = changed(two, "gan", 0, fidelity=other)
    assert apart.incomparability is not None
    text = markdown_table(apart).partition("## Sample quality")[2].partition("## Caveats")[0]
    assert "another@0000" in text
    assert "|" not in text
    assert "Lowest FID" not in [tile.label for tile in summarize(apart).tiles]
    assert Page(render(apart)).open == []


def test_fidelity_is_not_averaged_over_different_real_images(two: Comparison) -> None:
    apart = two
    for family in ("vae", "gan"):
        other = fidelity(family, 1).model_copy(update={"real": "01234567"})
        apart = changed(apart, family, 1, fidelity=other)
    assert apart.incomparability is None
    text = markdown_table(apart).partition("## Sample quality")[2].partition("## Caveats")[0]
    assert "mean of" not in text
    assert "Lowest FID" not in [tile.label for tile in summarize(apart).tiles]
    assert sum(line.startswith("|") for line in text.splitlines()) == 2 + 4


def test_fidelity_names_its_extractor_and_its_images(two: Comparison, html: str) -> None:
    for text in (markdown_table(two).replace("\\", ""), "".join(Page(html).words)):
        assert "2,000 generated images and 2,000 real images" in text
        assert f"{BASELINE}-0@1b2c, 64 features" in text
        assert "none of 3 classes has 50 test images" in text


def test_different_environments_are_a_caveat(two: Comparison) -> None:
    assert "different_environments" not in kinds(two)
    uneven = changed(changed(two, "vae", 0, machine="a phone"), "gan", 1, threads=8, commit="fedcba9876543210")
    texts = [caveat.text for caveat in summarize(uneven).caveats if caveat.kind == "different_environments"]
    assert len(texts) == 3
    assert all(word in " ".join(texts) for word in ("a desk; a phone", "4; 8", "fedcba9"))


def test_early_stop_is_a_caveat(two: Comparison) -> None:
    early = changed(two, "vae", 1, efficiency=efficiency_metrics("vae", minutes=4.2))
    (caveat,) = (caveat for caveat in summarize(early).caveats if caveat.kind == "early_stop")
    assert "vae (seed 1)" in caveat.text
    assert "early_stop" not in kinds(two)


def test_few_test_images_and_few_images_for_the_features_are_caveats(two: Comparison) -> None:
    few = changed(comparison(0), "vae", 0, fidelity=fidelity("vae", 0).model_copy(update={"n_generated": 60}))
    results = tuple(
        r.model_copy(update={"accuracy": r.accuracy.model_copy(update={"n": 100})}) for r in few.results if r.accuracy
    )
    found = kinds(replace(few, results=results))
    assert {"few_test_images", "few_images_for_features"} <= set(found)
    assert not {"few_test_images", "few_images_for_features"} & set(kinds(two))


def test_markdown_columns_are_aligned(two: Comparison) -> None:
    lines = [line for line in markdown_table(two).splitlines() if line.startswith("|")]
    groups = {len(line) for line in lines}
    assert len(groups) == 3  # predictions, costs, sample quality: each of one width
    assert len(lines) == 3 * 2 + (3 + 6) + (3 + 6) + (2 + 4)


@pytest.mark.parametrize(
    ("field", "anchor"), [("panels", "samples"), ("learning_curves", "learning-curves"), ("settings", "options")]
)
def test_section_is_absent_without_its_data(field: str, anchor: str, two: Comparison) -> None:
    assert anchors(two) - anchors(replace(two, **{field: {}})) == {anchor}


def test_samples_image_has_a_panel_per_family(two: Comparison) -> None:
    image = samples_image(two)
    assert image is not None
    assert image.mode == "RGBA"
    assert image.width > 6 * 96
    assert samples_image(replace(two, panels={"real": two.panels["real"]})) is None


def test_class_without_real_images_has_an_empty_row(two: Comparison) -> None:
    real = [two.panels["real"][0], two.panels["real"][1][:0], two.panels["real"][2][:1]]
    assert samples_image(replace(two, panels={**two.panels, "real": real})) is not None


def test_result_round_trips_through_one_line_of_json() -> None:
    found = result("vae", 1)
    assert Result.model_validate_json(found.line()) == found
    assert "\n" not in found.line()
    bins = found.accuracy.reliability if found.accuracy else None
    assert bins is not None
    np.testing.assert_array_equal(
        ReliabilityBins.from_reliability(bins.reliability).reliability.accuracy, bins.reliability.accuracy
    )


@given(st.lists(st.integers(300, 990), min_size=1, max_size=8, unique=True))
def test_names_do_not_overlap_and_are_ordered_like_their_dots(per_mille: list[int]) -> None:
    accuracies = [value / 1000 for value in per_mille]
    points = [Point(str(i), 100.0, accuracy, None, False) for i, accuracy in enumerate(accuracies)]
    texts = ElementTree.fromstring(str(cost_chart(points))).iter("text")
    y = [float(text.get("y", "")) for text in texts if text.get("class") == "name"]
    order = np.argsort([-accuracy for accuracy in accuracies], kind="stable")
    assert (np.diff(np.array(y)[order]) > 8).all()


def test_throughput_axis_is_logarithmic() -> None:
    points = [Point(name, speed, 0.9, None, False) for name, speed in (("a", 10.0), ("b", 100.0), ("c", 1000.0))]
    x = [float(cx) for cx in re.findall(r'<circle cx="([\d.]+)"', str(cost_chart(points)))]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.02)
    assert "1000" in cost_chart(points)
    ElementTree.fromstring(str(cost_chart(points[:1])))


def test_lines_have_distinct_styles_and_the_baseline_its_color(two: Comparison) -> None:
    names = [BASELINE, *(f"family {i}" for i in range(6))]
    svg = str(learning_curve_chart(dict.fromkeys(names, two.learning_curves[BASELINE]), BASELINE))
    paths = re.findall(r'<path d="M[\d.]+ [\d.]+L[^>]*class="curve (s\d)"(?: stroke-dasharray="([^"]*)")?', svg)
    assert len(set(paths)) == len(names)
    assert [color for color, _ in paths].count("s2") == 1
    assert paths[0][0] == "s2"
