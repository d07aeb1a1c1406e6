"""Sample quality: class consistency, near-duplicates of training images, and fidelity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from likely.evaluation.fidelity import Fidelity
from likely.evaluation.sample_quality import ClassConsistency, NearDuplicates, SampleQuality
from likely.reporting.formatting import distance, interval, number, percent, plural
from likely.reporting.html.charts import meter
from likely.reporting.html.content import ReportContent
from likely.reporting.html.page import Block, Cell, Chapter, Column, Paragraph, Section, Table
from likely.reporting.metric_tiles import MetricTile

_MAX_ROWS = 20
_COLUMNS = (Column("Metric"), Column("Value", "number"), Column("How to read it"))


def sample_quality_sections(content: ReportContent) -> Iterator[Section]:
    """Yield the section on the quality of generated images if it was measured."""
    quality, fidelity = content.sample_quality, content.fidelity
    blocks = (
        *(_sample_quality_blocks(quality, content.class_names) if quality else ()),
        *(_fidelity_blocks(fidelity) if fidelity else ()),
    )
    if not blocks:
        return
    introduction = (
        "Tests whether generated images show the class that they were generated for, whether they copy training images, "
        "and how similar they are to real images."
    )
    yield Section(Chapter.IMAGES, "sample-quality", "Sample quality", introduction, blocks, "are its images any good?")


def fidelity_tiles(fidelity: Fidelity) -> Iterator[MetricTile]:
    """Yield the fidelity metrics, each with a note on how to read it."""
    yield MetricTile("FID", distance(fidelity.frechet), "Fréchet distance of the features; lower is better, 0 is equal")
    kernel = fidelity.kernel
    subsets = f"{plural(kernel.n_subsets, 'random subset')} of {kernel.subset_size:,}"
    note = (
        "kernel distance; lower is better, 0 is equal in expectation; "
        f"over {subsets}: {number(kernel.mean, 4)} ± {number(kernel.deviation, 4)}"
    )
    yield MetricTile("KID", number(kernel.distance, 4), note)
    note = "of the generated images lie among the real images: realism"
    yield MetricTile("Precision", percent(fidelity.precision), note)
    note = "of the real images lie among the generated images: diversity"
    yield MetricTile("Recall", percent(fidelity.recall), note)
    note = "realism, more robust to outliers; 1 for real images"
    yield MetricTile("Density", number(fidelity.density, 2), note)
    note = "of the real images have a generated image nearby: diversity, more robust to outliers"
    yield MetricTile("Coverage", percent(fidelity.coverage), note)
    yield _intra_class_tile(fidelity)
    if fidelity.class_consistency is not None:
        yield _consistency_tile(fidelity.class_consistency)


def extractor_description(fidelity: Fidelity) -> str:
    """Return the images and the extractor of a fidelity measurement, without which its metrics mean nothing."""
    return (
        f"Measured on {plural(fidelity.n_generated, 'generated image')} and {plural(fidelity.n_real, 'real image')} with "
        f"the same class frequencies, in the features of {fidelity.extractor}."
    )


def _sample_quality_blocks(found: SampleQuality, names: Sequence[str]) -> Iterator[Block]:
    consistency = found.class_consistency
    tiles = (_consistency_tile(consistency), _duplicates_tile(found.near_duplicates))
    yield Table("Class consistency and near-duplicates", _COLUMNS, tiles)
    yield from (Paragraph(text) for text in _warnings(found))
    yield Paragraph(f"The images were generated with seed {found.seed}.")
    columns = (Column("Class"), Column("Generated", "number"), Column("Class consistency", "number"), Column(""))
    rows = tuple(_class_row(consistency, c, names[c]) for c in _order(consistency))
    yield Table("Generated images of each class", columns, rows[:_MAX_ROWS], rows[_MAX_ROWS:])


def _fidelity_blocks(found: Fidelity) -> Iterator[Block]:
    yield Table("Fidelity", _COLUMNS, tuple(fidelity_tiles(found)))
    yield Paragraph(
        f"{extractor_description(found)} Compare them only with metrics of the same extractor, the same real images and "
        "the same number of generated images."
    )
    if found.n_generated <= found.n_features:
        yield Paragraph(
            f"The {plural(found.n_features, 'feature')} are at least as many as the images, so the Fréchet distance is "
            "strongly biased upward. Measure with more images."
        )


def _consistency_tile(found: ClassConsistency) -> MetricTile:
    note = (
        f"of {plural(found.n, 'generated image')} are classified as the class that they were generated for, by "
        f"{found.classifier}; 95% interval {interval(found.interval)}. {_accuracy_on_real_images(found)}"
    )
    return MetricTile("Class consistency", percent(found.accuracy), note)


def _accuracy_on_real_images(found: ClassConsistency) -> str:
    if found.real_accuracy is None:
        return "Its accuracy on real images is unknown: it was trained on all of them."
    return f"Its accuracy on {plural(found.n_real, 'held-out real image')} is {percent(found.real_accuracy)}."


def _duplicates_tile(found: NearDuplicates) -> MetricTile:
    note = (
        f"of {plural(found.n, 'generated image')} are near-duplicates of one of "
        f"{plural(found.n_train, 'training image')}; 95% interval {interval(found.interval)}"
    )
    if found.real_fraction is not None:
        note += f"; of {plural(found.n_real, 'held-out real image')}, {percent(found.real_fraction)} are"
    return MetricTile("Near-duplicates", percent(found.fraction), f"{note}.")


def _warnings(found: SampleQuality) -> Iterator[str]:
    """Yield a sentence for each significant difference between generated and real images."""
    consistency, duplicates = found.class_consistency, found.near_duplicates
    if consistency.real_accuracy is not None and consistency.interval.high < consistency.real_accuracy:
        yield "Fewer generated than real images are classified correctly: some do not show their class."
    if consistency.real_accuracy is not None and consistency.interval.low > consistency.real_accuracy:
        yield "More generated than real images are classified correctly: difficult images are missing."
    if duplicates.interval.low > (duplicates.real_fraction or 0):
        yield (
            "Significantly more generated than real images are near-duplicates of training images: do not publish them if "
            "the training images are confidential."
        )


def _order(found: ClassConsistency) -> list[int]:
    """Return the classes with generated images, the least consistent first where some rows are folded."""
    classes = [c for c, n in enumerate(found.n_generated) if n]
    if len(classes) <= _MAX_ROWS:
        return classes
    return sorted(classes, key=lambda c: found.n_consistent[c] / found.n_generated[c])


def _class_row(found: ClassConsistency, c: int, name: str) -> tuple[Cell, ...]:
    fraction = found.n_consistent[c] / found.n_generated[c]
    return name, f"{found.n_generated[c]:,}", percent(fraction), meter(fraction)


def _intra_class_tile(fidelity: Fidelity) -> MetricTile:
    found, title = fidelity.intra_class_fid, "Intra-class FID"
    if found.frechet is None:
        return MetricTile(title, "–", f"no class has {found.min_images} real images")
    excluded = f"; without {plural(found.n_excluded, 'class')} of fewer than {found.min_images} images"
    note = f"mean FID over {plural(found.n_classes, 'class')}{excluded if found.n_excluded else ''}"
    return MetricTile(title, distance(found.frechet), note)
