"""What a comparison comes to: a sentence or two, the figures at the top, and what a careful reader should know first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from likely.reporting.comparison.columns import ACCURACY, BITS, DELTA, FID, MetricColumn, mean, points, spread
from likely.reporting.comparison.content import Comparison, Result
from likely.reporting.comparison.fidelity import is_one_table
from likely.reporting.formatting import listing, number, percent, plural
from likely.reporting.metric_tiles import MetricTile

CUT_SHORT = 0.9  # of the minutes: who stops earlier than this did not need them
FEW_IMAGES = 1000


def summary(comparison: Comparison) -> str:
    """Who answers best, how that compares with the twin, and who draws best."""
    rivals = _rivals(comparison)
    if not rivals:
        return "There is nothing to compare: no family but the twin was measured."
    return " ".join(filter(None, (_best_answers(comparison, rivals), _best_images(comparison))))


def manner(comparison: Comparison) -> str:
    """What all families had in common, in a sentence."""
    first = comparison.results[0]
    length = (
        f"{first.minutes:g} {'minute' if first.minutes == 1 else 'minutes'}"
        if first.minutes
        else plural(first.epochs or 0, "epoch")
    )
    start = f"Each was trained for {length} with {plural(first.threads, 'thread')}, {_seeds(comparison)}"
    n = next((result.accuracy.n for result in comparison.results if result.accuracy), 0)
    return f"{start}, and measured on {plural(n, 'test image')} that no training has read." if n else f"{start}."


def metric_tiles(comparison: Comparison) -> tuple[MetricTile, ...]:
    """The best of each kind."""
    return tuple(_headlines(comparison))


def caveats(comparison: Comparison) -> tuple[str, ...]:
    """A sentence for each thing that qualifies the figures."""
    found = (_failures, _few_seeds, _few_images, _uneven, _cut_short, _few_features)
    return (*(words for find in found for words in find(comparison)), *comparison.notes)


def _rivals(comparison: Comparison) -> tuple[str, ...]:
    return tuple(family for family in comparison.measured if family != comparison.baseline)


def _best(figure: MetricColumn, comparison: Comparison, families: Sequence[str]) -> tuple[str, float] | None:
    means = {family: value for family in families if (value := mean(figure, comparison.of(family))) is not None}
    if not means:
        return None
    choose = max if figure.better == "most" else min
    best = choose(means, key=means.__getitem__)
    return best, means[best]


def _best_answers(comparison: Comparison, rivals: Sequence[str]) -> str:
    found = _best(ACCURACY, comparison, rivals)
    assert found is not None  # every result has an accuracy
    best, accuracy = found
    start = f"Of {len(rivals)} generative families, {best} answers best" if len(rivals) > 1 else f"{best} answers right"
    return f"{start}: {percent(accuracy, 2)} of the test images{_beside_twin(comparison, best)}."


def _beside_twin(comparison: Comparison, family: str) -> str:
    ahead = mean(DELTA, comparison.of(family))
    if ahead is None:
        return ""
    if percent(abs(ahead), 2) == percent(0, 2):
        return f", as many as its {comparison.baseline} twin"
    side = "more" if ahead > 0 else "fewer"
    return f", {abs(ahead) * 100:.2f} points {side} than its {comparison.baseline} twin{_chance(comparison, family)}"


def _chance(comparison: Comparison, family: str) -> str:
    bounds = spread(DELTA, comparison.of(family))
    if bounds is None or not bounds.low <= 0 <= bounds.high:
        return ""
    if len(comparison.of(family)) == 1:
        return " (a difference that chance explains)"
    return " (but not over every seed)"


def _best_images(comparison: Comparison) -> str:
    found = _best(FID, comparison, comparison.measured) if is_one_table(comparison) else None
    several = sum(mean(FID, comparison.of(family)) is not None for family in comparison.measured) > 1
    return f"By FID, the images of {found[0]} are most like real ones." if found and several else ""


def _headlines(comparison: Comparison) -> Iterator[MetricTile]:
    twin, rivals = comparison.of(comparison.baseline), _rivals(comparison)
    if found := _best(ACCURACY, comparison, rivals):
        yield MetricTile(
            "Most accurate", found[0], f"{percent(found[1], 2)} right{_range(ACCURACY, comparison, found[0])}"
        )
    if twin:
        share = mean(ACCURACY, twin)
        assert share is not None
        note = f"{comparison.baseline}, which draws nothing{_range(ACCURACY, comparison, comparison.baseline)}"
        yield MetricTile("The twin", percent(share, 2), note)
    if found := _best(BITS, comparison, rivals):
        at_most = "at most " if BITS.sign(comparison.of(found[0])[0]) else ""
        yield MetricTile("Best likelihood", found[0], f"{at_most}{number(found[1])} bits/dim")
    if is_one_table(comparison) and (found := _best(FID, comparison, rivals)):
        yield MetricTile("Most like real", found[0], f"FID {FID.format(found[1])}, in the features named below")


def _range(figure: MetricColumn, comparison: Comparison, family: str) -> str:
    results = comparison.of(family)
    bounds = spread(figure, results)
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


def _few_seeds(comparison: Comparison) -> Iterator[str]:
    if len(comparison.seeds) == 1:
        yield (
            "There is only one seed: another one would give other figures, and nobody knows here how different. "
            "Differences within the intervals say nothing."
        )


def _few_images(comparison: Comparison) -> Iterator[str]:
    n = max((result.accuracy.n for result in comparison.results if result.accuracy), default=FEW_IMAGES)
    if n < FEW_IMAGES:
        yield f"There are only {plural(n, 'test image')}: one more or less that is right is {points(1 / n)[1:]} points."


def _uneven(comparison: Comparison) -> Iterator[str]:
    good = [result for result in comparison.results if result.error is None]
    for what, values in {
        "machines": {result.machine for result in good},
        "numbers of threads": {str(result.threads) for result in good},
        "versions": {_version(result) for result in good},
    }.items():
        if len(values) > 1:
            yield f"Not all had the same: these are results of {len(values)} {what} ({'; '.join(sorted(values))})."


def _version(result: Result) -> str:
    return result.version if result.commit is None else f"{result.version}, commit {result.commit[:7]}"


def _cut_short(comparison: Comparison) -> Iterator[str]:
    for result in comparison.results:
        spent = result.efficiency
        if result.minutes is None or spent is None or spent.epochs_done is None:
            continue
        if spent.minutes_spent < CUT_SHORT * result.minutes:
            yield (
                f"{result.family} (seed {result.seed}) stopped after {spent.minutes_spent:.1f} of {result.minutes:g} minutes, "
                "when validation had not improved for many epochs."
            )


def _few_features(comparison: Comparison) -> Iterator[str]:
    found = next((result.fidelity for result in comparison.results if result.fidelity), None)
    if found is not None and found.n_generated <= found.n_features:
        yield (
            f"FIDs were measured on {plural(found.n_generated, 'image')} with {plural(found.n_features, 'feature')}: with so few "
            "they are much too large, though alike for all."
        )
