"""Summary of a comparison in words: result, setup, caveats, notes on fidelity, and the environment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from likely.evaluation.fidelity import Fidelity
from likely.reporting.comparison.columns import ACCURACY, BITS, DELTA, FID, MetricColumn
from likely.reporting.comparison.content import Comparison, Result
from likely.reporting.formatting import listing, number, percent, plural
from likely.reporting.html.caveats import Caveat
from likely.reporting.html.sections.sample_quality import extractor_description
from likely.reporting.metric_tiles import MetricTile

_EARLY = 0.9  # of the training minutes
_FEW_IMAGES = 1000


class Summary(NamedTuple):
    """A comparison in words: result and setup in one or two sentences each, the best values, caveats, and notes.

    `fidelity_notes` name the extractor, the images and the definitions without which fidelity metrics mean nothing;
    `environment` holds names and values.
    """

    result: str
    setup: str
    tiles: tuple[MetricTile, ...]
    caveats: tuple[Caveat, ...]
    fidelity_notes: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]


def summarize(comparison: Comparison) -> Summary:
    """Describe a comparison, notes last among the caveats."""
    return Summary(
        result=_result(comparison),
        setup=_setup(comparison),
        tiles=tuple(_tiles(comparison)),
        caveats=tuple(_caveats(comparison)),
        fidelity_notes=tuple(_fidelity_notes(comparison)),
        environment=tuple(_environment(comparison)),
    )


def _result(comparison: Comparison) -> str:
    families = _generative_families(comparison)
    if not families:
        return "There is nothing to compare: only the baseline was measured."
    return " ".join(filter(None, (_most_accurate(comparison, families), _lowest_fid(comparison))))


def _setup(comparison: Comparison) -> str:
    first = comparison.results[0]
    minutes = f"{first.minutes:g} {'minute' if first.minutes == 1 else 'minutes'}" if first.minutes else ""
    length = minutes or plural(first.epochs or 0, "epoch")
    start = f"Each family was trained for {length} with {plural(first.threads, 'thread')}, {_seeds(comparison)}"
    n = next((result.accuracy.n for result in comparison.results if result.accuracy), 0)
    return f"{start}, and measured on {plural(n, 'test image')} that no training used." if n else f"{start}."


def _caveats(comparison: Comparison) -> Iterator[Caveat]:
    checks = {
        "failure": _failures,
        "one_seed": _one_seed,
        "few_test_images": _few_test_images,
        "different_environments": _different_environments,
        "early_stop": _early_stops,
        "few_images_for_features": _few_images_for_features,
    }
    yield from (Caveat(kind, text) for kind, check in checks.items() for text in check(comparison))
    yield from (Caveat("note", note) for note in comparison.notes)


def _generative_families(comparison: Comparison) -> tuple[str, ...]:
    return tuple(family for family in comparison.measured if family != comparison.baseline)


def _best(column: MetricColumn, comparison: Comparison, families: Sequence[str]) -> tuple[str, float] | None:
    means = {family: value for family in families if (value := column.mean(comparison.of(family))) is not None}
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
    delta = DELTA.mean(comparison.of(family))
    if delta is None:
        return ""
    if percent(abs(delta), 2) == percent(0, 2):
        return f", equal to the {comparison.baseline} baseline"
    side = "above" if delta > 0 else "below"
    significance = _significance(comparison, family)
    return f", {abs(delta) * 100:.2f} points {side} the {comparison.baseline} baseline{significance}"


def _significance(comparison: Comparison, family: str) -> str:
    bounds = DELTA.range(comparison.of(family))
    if bounds is None or not bounds.low <= 0 <= bounds.high:
        return ""
    if len(comparison.of(family)) == 1:
        return " (not significant)"
    return " (but not for every seed)"


def _lowest_fid(comparison: Comparison) -> str:
    best = _best(FID, comparison, comparison.measured) if comparison.is_comparable else None
    several = sum(FID.mean(comparison.of(family)) is not None for family in comparison.measured) > 1
    return f"Images of {best[0]} have the lowest FID." if best and several else ""


def _tiles(comparison: Comparison) -> Iterator[MetricTile]:
    baseline, families = comparison.of(comparison.baseline), _generative_families(comparison)
    if best := _best(ACCURACY, comparison, families):
        note = f"accuracy {percent(best[1], 2)}{_range_note(comparison, best[0])}"
        yield MetricTile("Most accurate", best[0], note)
    accuracy = ACCURACY.mean(baseline)
    if accuracy is not None:
        note = f"accuracy of {comparison.baseline}{_range_note(comparison, comparison.baseline)}"
        yield MetricTile("Baseline", percent(accuracy, 2), note)
    if best := _best(BITS, comparison, families):
        at_most = "at most " if BITS.sign(comparison.of(best[0])[0]) else ""
        yield MetricTile("Best likelihood", best[0], f"{at_most}{number(best[1])} bits/dim")
    if comparison.is_comparable and (best := _best(FID, comparison, families)):
        yield MetricTile("Lowest FID", best[0], f"FID {FID.format(best[1])}, in the features named below")


def _range_note(comparison: Comparison, family: str) -> str:
    results = comparison.of(family)
    bounds = ACCURACY.range(results)
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
        yield f"There are only {plural(n, 'test image')}: one image is {100 / n:.2f} points of accuracy."


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


# --- notes on fidelity and the environment ------------------------------------------------------------------------


def _fidelity_notes(comparison: Comparison) -> Iterator[str]:
    found = next((result.fidelity for result in comparison.results if result.fidelity), None)
    if found is None:
        return
    yield extractor_description(found)
    reason = comparison.difference_between_seeds
    if reason is not None:
        yield f"Compare families of the same seed only: {reason}."
    quality = next((result.sample_quality for result in comparison.results if result.sample_quality), None)
    consistency = found.class_consistency or (quality.class_consistency if quality else None)
    if consistency:
        accuracy = consistency.real_accuracy
        own = "" if accuracy is None else f", whose accuracy on real images is {percent(accuracy)}"
        yield (
            "Class consistency: generated images that are classified as the class that they were generated for, by "
            f"{consistency.classifier}{own}."
        )
    if quality:
        duplicates = quality.near_duplicates
        fraction = duplicates.real_fraction
        of_real = "" if fraction is None else f"; of the real test images, {percent(fraction)} are"
        yield (
            f"Near-duplicates: the fraction of {plural(duplicates.n, 'generated image')} that are near-duplicates of one of "
            f"{plural(duplicates.n_train, 'training image')}{of_real}."
        )
    yield _intra_class_note(found)


def _environment(comparison: Comparison) -> Iterator[tuple[str, str]]:
    results = [result for result in comparison.results if result.error is None]
    yield "Machine", _distinct(result.machine for result in results)
    yield "Threads", _distinct(str(result.threads) for result in results)
    yield "Seeds", ", ".join(map(str, comparison.seeds))
    yield "Date", _distinct(result.date for result in results)
    yield "likely", _distinct(result.version for result in results)
    if any(result.commit for result in results):
        yield "Commit", _distinct(_short_commit(result.commit) for result in results)
    yield from ((name, version) for name, version in comparison.versions.items() if name != "likely")
    efficiency = next((result.efficiency for result in results if result.efficiency), None)
    if efficiency:
        yield "Timing", f"medians of {efficiency.n_repeats} rounds of {plural(efficiency.n_timed, 'image')}"


def _intra_class_note(fidelity: Fidelity) -> str:
    found = fidelity.intra_class_fid
    excluded = plural(found.n_excluded, "class")
    if found.frechet is None:
        return f"There is no intra-class FID: none of {excluded} has {found.min_images} test images."
    without = f", without {excluded} of fewer than {found.min_images} test images" if found.n_excluded else ""
    return f"Intra-class FID: the mean FID over {plural(found.n_classes, 'class')}{without}."


def _short_commit(commit: str | None) -> str:
    return "none" if commit is None else commit[:10] + ("-dirty" if commit.endswith("-dirty") else "")


def _distinct(values: Iterator[str]) -> str:
    return ", ".join(dict.fromkeys(values))
