"""The comparison page and table: every figure where it belongs, and none without what qualifies it."""

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
    render,
    table,
)
from likely.reporting.comparison.charts import APART, Point, _pushed_apart, cost_chart, learning_curve_chart
from likely.reporting.comparison.columns import ACCURACY, PREDICTIONS, family_rows, seed_rows
from likely.reporting.comparison.content import LearningCurve
from likely.reporting.comparison.fidelity import incomparability
from likely.reporting.comparison.sections import chapters, cost_figure
from likely.reporting.comparison.summary import caveats, metric_tiles, summary

TWIN = "softmax"
ACCURACIES = {TWIN: 0.95, "vae": 0.93, "gan": 0.9}


def quality(family: str, seed: int, n: int = 2000) -> AccuracyMetrics:
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(50, 3))
    log_posterior = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    accuracy = ACCURACIES[family] + 0.01 * seed
    ahead = None if family == TWIN else ACCURACIES[family] - ACCURACIES[TWIN]
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
        delta_vs_baseline=ahead,
        delta_interval=None if ahead is None else (ahead - 0.01, ahead + 0.01),
        reliability=ReliabilityBins.from_reliability(reliability(log_posterior, rng.integers(0, 3, 50))),
    )


def cost(family: str, minutes: float = 10.0) -> EfficiencyMetrics:
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
        extractor=f"{TWIN}-0@1b2c, 64 features",
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
        classes=None,
    )


def honesty() -> SampleQuality:
    judged = ClassConsistency(
        classifier="a-twin", n_generated=(100, 100), n_consistent=(90, 80), n_real=200, real_accuracy=0.95
    )
    return SampleQuality(
        seed=0,
        class_consistency=judged,
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
        accuracy=quality(family, seed),
        efficiency=cost(family),
        fidelity=None if family == TWIN else fidelity(family, seed),
        sample_quality=None if family == TWIN else honesty(),
    )


def comparison(*seeds: int) -> Comparison:
    """The twin and two families over some seeds, with all that a page shows."""
    rng = np.random.default_rng(0)
    names = ("apple", NASTY, "pear")
    panels = {title: rng.integers(0, 256, (3, 2, 3, 8, 8), np.uint8) for title in ("real", "vae", "gan")}
    course = LearningCurve(np.arange(1.0, 5), np.array([0.5, 0.8, 0.9, 0.92]))
    return Comparison(
        data="photos/fruit",
        baseline=TWIN,
        families=tuple(ACCURACIES),
        results=tuple(result(family, seed) for seed in seeds for family in ACCURACIES),
        command="likely benchmark <photos>",
        versions={"torch": "2.13"},
        n_classes=3,
        shown=names,
        panels=panels,
        learning_curves=dict.fromkeys(ACCURACIES, course),
        settings={"vae": "width=64"},
        notes=("Mind the <step>.",),
    )


def changed(whole: Comparison, family: str, seed: int, **changes: object) -> Comparison:
    """The same with one result changed."""
    found = (r.model_copy(update=changes) if (r.family, r.seed) == (family, seed) else r for r in whole.results)
    return replace(whole, results=tuple(found))


def anchors(whole: Comparison) -> set[str]:
    return {section.anchor for _, sections in chapters(whole) for section in sections}


@pytest.fixture(scope="module")
def two() -> Comparison:
    return comparison(0, 1)


@pytest.fixture(scope="module")
def html(two: Comparison) -> str:
    return render(two)


def test_the_page_is_whole_and_loads_nothing(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert all(value.startswith("data:") for value in page.values("src"))
    assert all(value.startswith(("#", "data:")) for value in page.values("href"))
    assert not re.search(r"@import|url\(|<script|\ssrcset", html)


def test_its_policy_allows_its_own_style_sheet_alone(html: str) -> None:
    style = re.findall(r"<style>(.*?)</style>", html, flags=re.S)
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    assert len(style) == 1
    assert f"style-src 'sha256-{digest}'" in html
    assert not Page(html).values("style")


def test_charts_are_well_formed_and_say_what_they_show(html: str) -> None:
    drawings = re.findall(r'<svg role="img".*?</svg>(?=</div>)', html, flags=re.S)
    assert len(drawings) == 3 + 1 + 1 + 1  # reliability of each, cost, course, samples
    for drawing in drawings:
        assert ElementTree.fromstring(drawing).get("aria-label")


def test_names_are_escaped(two: Comparison) -> None:
    data = f"a/{NASTY}".replace("/|", "|")
    html = render(replace(two, data=data, notes=(NASTY,), settings={"vae": NASTY}))
    assert NASTY not in html
    assert Page(html).open == []
    assert str(escape("<b>\"x\"&'y'</b>"))[:9] in html


def test_contents_lead_to_the_sections(html: str) -> None:
    page = Page(html)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {value.removeprefix("#") for value in page.values("href") if value.startswith("#")} <= set(ids)


def test_a_family_has_its_mean_and_its_range_over_the_seeds(two: Comparison) -> None:
    rows = family_rows(two, [ACCURACY])
    assert [row.family for row in rows] == list(ACCURACIES)
    assert [row.cells[0].words for row in rows] == ["95.50%", "93.50%", "90.50%"]
    assert [row.cells[0].range for row in rows] == ["95.00 to 96.00", "93.00 to 94.00", "90.00 to 91.00"]
    assert [row.cells[0].is_best for row in rows] == [True, False, False]
    assert [row.seeds for row in rows] == ["mean of 2 seeds"] * 3
    assert len(seed_rows(two, [ACCURACY])) == 6


def test_a_single_seed_has_intervals_instead(two: Comparison) -> None:
    (cell, ahead), *_ = (row.cells[:2] for row in family_rows(comparison(0), PREDICTIONS) if row.family == "vae")
    low, high = map(float, cell.range.split(" to "))
    assert low < 93 < high
    assert ahead.range == "−3.00 to −1.00"
    assert any("only one seed" in words for words in caveats(comparison(0)))
    assert not any("only one seed" in words for words in caveats(two))


def test_a_bound_is_marked_and_what_has_no_figure_has_a_dash(two: Comparison) -> None:
    bits = [figure.title for figure in PREDICTIONS].index("Bits/dim")
    assert [row.cells[bits].words for row in family_rows(two, PREDICTIONS)] == ["–", "≤ 3.500", "–"]
    assert family_rows(two, PREDICTIONS)[0].cells[1].words == "–"


def test_the_verdict_names_the_best_and_the_twin(two: Comparison) -> None:
    words = summary(two)
    assert "vae answers best: 93.50%" in words
    assert "2.00 points fewer than its softmax twin" in words
    assert "images of gan are most like real ones" in words
    assert [(line.label, line.value) for line in metric_tiles(two)] == [
        ("Most accurate", "vae"),
        ("The twin", "95.50%"),
        ("Best likelihood", "vae"),
        ("Most like real", "gan"),
    ]


def test_chance_is_said_where_it_explains_a_difference() -> None:
    found = quality("vae", 0).model_copy(update={"delta_vs_baseline": -0.001, "delta_interval": (-0.01, 0.01)})
    assert "a difference that chance explains" in summary(changed(comparison(0), "vae", 0, accuracy=found))
    assert "chance" not in summary(comparison(0))


def test_a_failure_stands_in_its_place_with_its_sentence(two: Comparison) -> None:
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
    assert any("gan failed with seed 1: the loss went <astray>" in words for words in caveats(failed))
    assert [row.cells[0].words for row in seed_rows(failed, [ACCURACY])][-1] == "failed"
    assert family_rows(failed, [ACCURACY])[-1].seeds == "seed 0"
    assert "the loss went &lt;astray&gt;" in render(failed)
    both = changed(failed, "gan", 0, error="again", accuracy=None, efficiency=None, fidelity=None, sample_quality=None)
    assert [row.cells[0].words for row in family_rows(both, [ACCURACY])] == ["95.50%", "93.50%", "failed"]
    assert "| gan " in table(both)
    assert Page(render(both)).open == []


def test_nothing_but_failures_still_makes_a_page() -> None:
    whole = comparison(0)
    nothing = {"accuracy": None, "efficiency": None, "fidelity": None, "sample_quality": None}
    results = tuple(r.model_copy(update={"error": "out of memory", **nothing}) for r in whole.results)
    failed = Comparison("photos", TWIN, whole.families, results)
    assert "nothing to compare" in summary(failed)
    assert Page(render(failed)).open == []
    assert table(failed).count("out of memory") == 3


def test_likeness_that_cannot_be_compared_has_no_table(two: Comparison) -> None:
    other = fidelity("gan", 0).model_copy(update={"extractor": "another@0000, 10 features"})
    apart = changed(two, "gan", 0, fidelity=other)
    assert "say nothing about each other" in str(incomparability(apart))
    text = table(apart).partition("## Likeness")[2]
    assert "There is no table of likeness" in text
    assert "FID" not in text.partition("## Before")[0]
    assert "most like real" not in summary(apart)
    assert Page(render(apart)).open == []


def test_seeds_with_other_real_images_have_no_mean_of_likeness(two: Comparison) -> None:
    apart = two
    for family in ("vae", "gan"):
        other = fidelity(family, 1).model_copy(update={"real": "01234567"})
        apart = changed(apart, family, 1, fidelity=other)
    assert incomparability(apart) is None
    likeness = table(apart).partition("## Likeness")[2]
    assert "mean of" not in likeness
    assert "most like real" not in summary(apart)
    (section,) = (section for _, sections in chapters(apart) for section in sections if section.anchor == "likeness")
    assert len(section.blocks[0].rows) == 4


def test_figures_of_likeness_never_stand_without_extractor_and_numbers(two: Comparison, html: str) -> None:
    for text in (table(two).replace("\\", ""), "".join(Page(html).words)):
        assert "2,000 generated images beside 2,000 real images" in text
        assert f"{TWIN}-0@1b2c, 64 features" in text
        assert "none of 3 classes has 50 test images" in text


def test_uneven_circumstances_are_a_concern(two: Comparison) -> None:
    assert not any("Not all had the same" in words for words in caveats(two))
    uneven = changed(changed(two, "vae", 0, machine="a phone"), "gan", 1, threads=8, commit="fedcba9876543210")
    said = " ".join(caveats(uneven))
    assert all(words in said for words in ("2 machines (a desk; a phone)", "threads (4; 8)", "fedcba9"))


def test_whoever_stopped_early_is_named(two: Comparison) -> None:
    early = changed(two, "vae", 1, efficiency=cost("vae", minutes=4.2))
    assert [words for words in caveats(early) if "4.2 of 10 minutes" in words]
    assert not [words for words in caveats(two) if "of 10 minutes" in words]


def test_few_test_images_and_few_for_the_features_are_concerns(two: Comparison) -> None:
    few = changed(comparison(0), "vae", 0, fidelity=fidelity("vae", 0).model_copy(update={"n_generated": 60}))
    results = tuple(
        r.model_copy(update={"accuracy": r.accuracy.model_copy(update={"n": 100})}) for r in few.results if r.accuracy
    )
    said = " ".join(caveats(replace(few, results=results)))
    assert "only 100 test images: one more or less that is right is 1.00 points" in said
    assert "60 images with 64 features" in said
    assert "test images:" not in " ".join(caveats(two))


def test_the_table_is_markdown_with_aligned_columns(two: Comparison) -> None:
    lines = [line for line in table(two).splitlines() if line.startswith("|")]
    groups = {len(line) for line in lines}
    assert len(groups) == 3  # answers, costs, likeness: each of one width
    assert len(lines) == 3 * 2 + (3 + 6) + (3 + 6) + (2 + 4)


@pytest.mark.parametrize(
    ("part", "anchor"), [("panels", "pictures"), ("learning_curves", "learning-curves"), ("settings", "options")]
)
def test_a_section_is_absent_with_its_data(part: str, anchor: str, two: Comparison) -> None:
    assert anchors(two) - anchors(replace(two, **{part: {}})) == {anchor}


def test_the_picture_has_a_panel_for_each_family_on_a_clear_ground(two: Comparison) -> None:
    image = cost_figure(two)
    assert image is not None
    assert image.mode == "RGBA"
    assert image.width > 6 * 96
    assert cost_figure(replace(two, panels={"real": two.panels["real"]})) is None


def test_a_class_without_a_real_image_has_an_empty_place(two: Comparison) -> None:
    real = [two.panels["real"][0], two.panels["real"][1][:0], two.panels["real"][2][:1]]
    assert cost_figure(replace(two, panels={**two.panels, "real": real})) is not None


def test_a_result_is_one_line_of_json_and_back() -> None:
    found = result("vae", 1)
    assert Result.model_validate_json(found.line()) == found
    assert "\n" not in found.line()
    bins = found.accuracy.reliability if found.accuracy else None
    assert bins is not None
    np.testing.assert_array_equal(
        ReliabilityBins.from_reliability(bins.reliability).reliability.accuracy, bins.reliability.accuracy
    )


@given(st.lists(st.floats(30, 230), min_size=1, max_size=8))
def test_names_are_pushed_apart_in_their_order(places: list[float]) -> None:
    moved = _pushed_apart(places)
    order = np.argsort(places, kind="stable")
    gaps = np.diff(np.array(moved)[order])
    assert (gaps > 0.6 * APART).all()
    assert len(places) > 1 or moved == places


def test_places_that_are_apart_stay_where_they_are() -> None:
    assert _pushed_apart([100.0, 40.0, 70.0]) == [100.0, 40.0, 70.0]


def test_the_speeds_lie_on_a_logarithmic_axis() -> None:
    points = [Point(name, speed, 0.9, None, False) for name, speed in (("a", 10.0), ("b", 100.0), ("c", 1000.0))]
    x = [float(cx) for cx in re.findall(r'<circle cx="([\d.]+)"', str(cost_chart(points)))]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.02)
    assert "1000" in cost_chart(points)
    ElementTree.fromstring(str(cost_chart(points[:1])))


def test_the_twin_has_its_color_and_no_two_lines_look_alike(two: Comparison) -> None:
    names = [TWIN, *(f"family {i}" for i in range(6))]
    drawn = str(learning_curve_chart(dict.fromkeys(names, two.learning_curves[TWIN]), TWIN))
    paths = re.findall(r'<path d="M[\d.]+ [\d.]+L[^>]*class="curve (s\d)"(?: stroke-dasharray="([^"]*)")?', drawn)
    assert len(set(paths)) == len(names)
    assert [color for color, _ in paths].count("s2") == 1
    assert paths[0][0] == "s2"
