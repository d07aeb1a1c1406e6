"""Whether the images that a model draws are any good: what they show, whether they are copies, how like real ones they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from likely.evaluation.fidelity import Fidelity
from likely.evaluation.sample_quality import ClassConsistency, NearDuplicates, SampleQuality
from likely.reporting.formatting import distance, interval, number, percent, plural
from likely.reporting.html.blocks import Block, Cell, Chapter, Column, Paragraph, Section, Table
from likely.reporting.html.charts import meter
from likely.reporting.metric_tiles import MetricTile

_MOST_ROWS = 20
_COLUMNS = (Column("Figure"), Column("Value", "number"), Column("How to read it"))


def generated(sample_quality: SampleQuality | None, fidelity: Fidelity | None, names: Sequence[str]) -> Section | None:
    """The section on generated images, with what is known of them; None if nothing is."""
    blocks = (
        *(_honesty_blocks(sample_quality, names) if sample_quality else ()),
        *(_fidelity_blocks(fidelity) if fidelity else ()),
    )
    if not blocks:
        return None
    lead = (
        "Whether the images that the model draws show what they should, whether they are its own or only training images "
        "again, and how much they are like real ones."
    )
    return Section(Chapter.IMAGES, "generated", "Are its images any good?", lead, blocks)


def sample_quality_lines(found: SampleQuality) -> tuple[MetricTile, ...]:
    """The figures of an honest set, each with how to read it, for a page or a screen."""
    return _class_line(found.class_consistency, "a judge"), _copies_line(found.near_duplicates)


def fidelity_lines(found: Fidelity) -> tuple[MetricTile, ...]:
    """The figures of likeness, each with how to read it, for a page or a screen."""
    return tuple(_fidelity_lines(found))


def extractor_description(found: Fidelity) -> str:
    """What the figures of likeness were measured on and by, in a sentence: they never stand without it."""
    return (
        f"Measured on {plural(found.n_generated, 'generated image')} beside {plural(found.n_real, 'real image')}, "
        f"each class as often among both, in the features of {found.extractor}."
    )


def _honesty_blocks(found: SampleQuality, names: Sequence[str]) -> Iterator[Block]:
    yield Table("What the generated images are", _COLUMNS, sample_quality_lines(found))
    yield from (Paragraph(words) for words in _doubts(found))
    yield Paragraph(
        f"The judge: {found.class_consistency.classifier}. The images were drawn with the seed {found.seed}."
    )
    columns = (Column("Class"), Column("Generated", "number"), Column("Recognized", "number"), Column(""))
    rows = tuple(_class_row(found.class_consistency, c, names[c]) for c in _order(found.class_consistency))
    yield Table("Generated images of every class", columns, rows[:_MOST_ROWS], rows[_MOST_ROWS:])


def _fidelity_blocks(found: Fidelity) -> Iterator[Block]:
    yield Table("How like real images they are", _COLUMNS, fidelity_lines(found))
    yield Paragraph(
        f"{extractor_description(found)} Compare them only with figures of the same extractor, the same real images and as many "
        "generated ones: with another extractor or another number they would be other figures for the same images."
    )
    if found.n_generated <= found.n_features:
        yield Paragraph(
            f"There are {plural(found.n_features, 'feature')} and no more images than that: the Fréchet distance is then "
            "much too large. Measure with more images."
        )


def _class_line(found: ClassConsistency, judge: str) -> MetricTile:
    note = (
        f"of {plural(found.n, 'generated image')} are taken by {judge} for the class that they were drawn for; "
        f"95% interval {interval(found.interval)}. {_own_accuracy(found)}"
    )
    return MetricTile("Right class", percent(found.accuracy), note)


def _own_accuracy(found: ClassConsistency) -> str:
    """How far a judge can be trusted, in a sentence."""
    if found.real_accuracy is None:
        return "How often it is right about real images is not known: there were none that it had not learned from."
    real = plural(found.n_real, "real image")
    return f"It is right about {percent(found.real_accuracy)} of {real} that it had not learned from."


def _copies_line(found: NearDuplicates) -> MetricTile:
    known = f"one of {plural(found.n_train, 'training image')} again, or nearly"
    note = f"of {plural(found.n, 'generated image')} are {known}; 95% interval {interval(found.interval)}."
    if found.real_fraction is not None:
        kept = plural(found.n_real, "real image")
        note += f" Of {kept} that were kept from the training, {percent(found.real_fraction)} are, by chance."
    return MetricTile("Copies", percent(found.fraction), note)


def _doubts(found: SampleQuality) -> Iterator[str]:
    """What the figures give reason to say, beyond what chance explains."""
    right, copied = found.class_consistency, found.near_duplicates
    if right.real_accuracy is not None and right.interval.high < right.real_accuracy:
        yield "Fewer generated images than real ones are recognized: some do not show what they should."
    if right.real_accuracy is not None and right.interval.low > right.real_accuracy:
        yield "More generated images than real ones are recognized: they are plainer, and the difficult ones are missing."
    if copied.interval.low > (copied.real_fraction or 0):
        yield "More are copies than chance explains: whoever may not see the training images should not see these either."


def _order(found: ClassConsistency) -> list[int]:
    """The classes that were drawn, the least recognized first where some must wait behind a click."""
    drawn = [c for c, n in enumerate(found.n_generated) if n]
    if len(drawn) <= _MOST_ROWS:
        return drawn
    return sorted(drawn, key=lambda c: found.n_consistent[c] / found.n_generated[c])


def _class_row(found: ClassConsistency, c: int, name: str) -> tuple[Cell, ...]:
    share = found.n_consistent[c] / found.n_generated[c]
    return name, f"{found.n_generated[c]:,}", percent(share), meter(share)


def _fidelity_lines(found: Fidelity) -> Iterator[MetricTile]:
    yield MetricTile(
        "FID", distance(found.frechet), "Fréchet distance of the features; lower is better, 0 is no difference"
    )
    kernel = found.kernel
    spread = f"{plural(kernel.n_subsets, 'random subset')} of {kernel.subset_size:,} have {number(kernel.mean, 4)}"
    note = f"kernel distance; lower is better, about 0 is no difference; {spread} ± {number(kernel.deviation, 4)}"
    yield MetricTile("KID", number(kernel.distance, 4), note)
    yield MetricTile("Precision", percent(found.precision), "of the generated images could be real ones: realism")
    yield MetricTile("Recall", percent(found.recall), "of the real images could have been generated: variety")
    yield MetricTile(
        "Density", number(found.density, 2), "realism again, less easily misled by odd images; 1 is like real"
    )
    yield MetricTile(
        "Coverage", percent(found.coverage), "of the real images have a generated one close by: variety again"
    )
    yield _within_line(found)
    if found.classes is not None:
        yield _class_line(found.classes, f"the classifier {found.classes.classifier}")


def _within_line(found: Fidelity) -> MetricTile:
    within, title = found.intra_class_fid, "FID within classes"
    if within.frechet is None:
        return MetricTile(title, "–", f"no class has {within.min_images} images among the real ones")
    few = f"; {plural(within.n_excluded, 'class')} with fewer than {within.min_images} images left out"
    note = f"mean over {plural(within.n_classes, 'class')} of each one's own FID{few if within.n_excluded else ''}"
    return MetricTile(title, distance(within.frechet), note)
