"""Summary of a comparison: sentences, metric tiles and caveats for the top of the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from likely.reporting.comparison.columns import ACCURACY, BITS, DELTA, FID, MetricColumn, mean, points, value_range
from likely.reporting.comparison.comparability import is_comparable
from likely.reporting.comparison.content import Comparison, Result
from likely.reporting.formatting import listing, number, percent, plural
from likely.reporting.html.caveats import Caveat
from likely.reporting.metric_tiles import MetricTile

_EARLY = 0.9  # of the training minutes
_FEW_IMAGES = 1000


def summary(comparison: Comparison) -> str:
    """Return the most accurate family, its difference to the baseline, and the family with the lowest FID."""
    families = _generative_families(comparison)
    if not families:
        return "There is nothing to compare: only the baseline was measured."
    return " ".join(filter(None, (_most_accurate(comparison, families), _lowest_fid(comparison))))


def setup(comparison: Comparison) -> str:
    """Return the training length, threads, seeds and test images that all families have in common, as a sentence."""
    first = comparison.results[0]
    minutes = f"{first.minutes:g} {'minute' if first.minutes == 1 else 'minutes'}" if first.minutes else ""
    length = minutes or plural(first.epochs or 0, "epoch")
    start = f"Each family was trained for {length} with {plural(first.threads, 'thread')}, {_seeds(comparison)}"
    n = next((result.accuracy.n for result in comparison.results if result.accuracy), 0)
    return f"{start}, and measured on {plural(n, 'test image')} that no training used." if n else f"{start}."


def comparison_tiles(comparison: Comparison) -> tuple[MetricTile, ...]:
    """Return the best value of each kind as metric tiles."""
    return tuple(_tiles(comparison))


def comparison_caveats(comparison: Comparison) -> tuple[Caveat, ...]:
    """Return the caveats of a comparison, then its notes."""
    checks = {
        "failure": _failures,
        "one_seed": _one_seed,
        "few_test_images": _few_test_images,
        "different_environments": _different_environments,
        "early_stop": _early_stops,
        "few_images_for_features": _few_images_for_features,
    }
    found = [Caveat(kind, text) for kind, check in checks.items() for text in check(comparison)]
    return (*found, *(Caveat("note", note) for note in comparison.notes))


def _generative_families(comparison: Comparison) -> tuple[str, ...]:
    return tuple(family for family in comparison.measured if family != comparison.baseline)


def _best(column: MetricColumn, comparison: Comparison, families: Sequence[str]) -> tuple[str, float] | None:
    means = {family: value for family in families if (value := mean(column, comparison.of(family))) is not None}
    if not means:
        return None
    choose = max if column.better == "highest" else min
    best = choose(means, key=means.__getitem__)
    return best, means[best]


def _most_accurate(comparison: Comparison, families: Sequence[str]) -> str:
    best = _best(ACCURACY, comparison, families)
    assert best is not None  # every result has an accuracy
    family, accuracy = best
    subject = f"{family} is the most accurate of {len(families)} generative families" if len(families) > 1 else family
    verb = ", with" if len(families) > 1 else " has"
    return f"{subject}{verb} an accuracy of {percent(accuracy, 2)}{_difference_to_baseline(comparison, family)}."


def _difference_to_baseline(comparison: Comparison, family: str) -> str:
    delta = mean(DELTA, comparison.of(family))
    if delta is None:
        return ""
    if percent(abs(delta), 2) == percent(0, 2):
        return f", equal to the {comparison.baseline} baseline"
    side = "above" if delta > 0 else "below"
    significance = _significance(comparison, family)
    return f", {abs(delta) * 100:.2f} points {side} the {comparison.baseline} baseline{significance}"


def _significance(comparison: Comparison, family: str) -> str:
    bounds = value_range(DELTA, comparison.of(family))
    if bounds is None or not bounds.low <= 0 <= bounds.high:
        return ""
    if len(comparison.of(family)) == 1:
        return " (not significant)"
    return " (but not for every seed)"


def _lowest_fid(comparison: Comparison) -> str:
    best = _best(FID, comparison, comparison.measured) if is_comparable(comparison) else None
    several = sum(mean(FID, comparison.of(family)) is not None for family in comparison.measured) > 1
    return f"Images of {best[0]} have the lowest FID." if best and several else ""


def _tiles(comparison: Comparison) -> Iterator[MetricTile]:
    baseline, families = comparison.of(comparison.baseline), _generative_families(comparison)
    if best := _best(ACCURACY, comparison, families):
        note = f"accuracy {percent(best[1], 2)}{_range_note(comparison, best[0])}"
        yield MetricTile("Most accurate", best[0], note)
    accuracy = mean(ACCURACY, baseline)
    if accuracy is not None:
        note = f"accuracy of {comparison.baseline}{_range_note(comparison, comparison.baseline)}"
        yield MetricTile("Baseline", percent(accuracy, 2), note)
    if best := _best(BITS, comparison, families):
        at_most = "at most " if BITS.sign(comparison.of(best[0])[0]) else ""
        yield MetricTile("Best likelihood", best[0], f"{at_most}{number(best[1])} bits/dim")
    if is_comparable(comparison) and (best := _best(FID, comparison, families)):
        yield MetricTile("Lowest FID", best[0], f"FID {FID.format(best[1])}, in the features named below")


def _range_note(comparison: Comparison, family: str) -> str:
    results = comparison.of(family)
    bounds = value_range(ACCURACY, results)
    if bounds is None:
        return ""
    low, high = (percent(value, 2).removesuffix("%") for value in bounds)
    return f"; 95% interval {low}–{high}%" if len(results) == 1 else f"; {low}–{high}% over the seeds"


def _seeds(comparison: Comparison) -> str:
    seeds = tuple(map(str, comparison.seeds))
    return f"with seed {seeds[0]}" if len(seeds) == 1 else f"once for each of the seeds {listing(seeds, 10)}"


def _failures(comparison: Comparison) -> Iterator[str]:
    for result in comparison.failures:
        yield f"{result.family} failed with seed {result.seed}: {result.error}"


def _one_seed(comparison: Comparison) -> Iterator[str]:
    if len(comparison.seeds) == 1:
        yield (
            "There is only one seed, so the variation between seeds is unknown. Differences within the intervals are not "
            "significant."
        )


def _few_test_images(comparison: Comparison) -> Iterator[str]:
    n = max((result.accuracy.n for result in comparison.results if result.accuracy), default=_FEW_IMAGES)
    if n < _FEW_IMAGES:
        yield f"There are only {plural(n, 'test image')}: one image is {points(1 / n)[1:]} points of accuracy."


def _different_environments(comparison: Comparison) -> Iterator[str]:
    successful = [result for result in comparison.results if result.error is None]
    for noun, values in {
        "machines": {result.machine for result in successful},
        "numbers of threads": {str(result.threads) for result in successful},
        "versions": {_version(result) for result in successful},
    }.items():
        if len(values) > 1:
            yield f"The results are from {len(values)} different {noun} ({'; '.join(sorted(values))})."


def _version(result: Result) -> str:
    return result.version if result.commit is None else f"{result.version}, commit {result.commit[:7]}"


def _early_stops(comparison: Comparison) -> Iterator[str]:
    for result in comparison.results:
        efficiency = result.efficiency
        if result.minutes is None or efficiency is None or efficiency.epochs_done is None:
            continue
        if efficiency.minutes_spent < _EARLY * result.minutes:
            yield (
                f"{result.family} (seed {result.seed}) stopped after {efficiency.minutes_spent:.1f} of {result.minutes:g} "
                "minutes because validation had not improved for many epochs."
            )


def _few_images_for_features(comparison: Comparison) -> Iterator[str]:
    found = next((result.fidelity for result in comparison.results if result.fidelity), None)
    if found is not None and found.n_generated <= found.n_features:
        yield (
            f"FID was measured on {plural(found.n_generated, 'image')} with {plural(found.n_features, 'feature')}: with so "
            "few images it is strongly biased upward, for all families alike."
        )
