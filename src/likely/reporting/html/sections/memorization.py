"""Memorization: membership inference by likelihood, and nearest neighbors of generated images."""

from __future__ import annotations

from collections.abc import Iterator

from likely.evaluation.memorization import MembershipInference, Memorization, NearestNeighborMemorization
from likely.reporting.formatting import number, percent, plural
from likely.reporting.html.content import ReportContent
from likely.reporting.html.page import Block, Chapter, Column, Paragraph, Section, Table
from likely.reporting.metric_tiles import MetricTile

_HIGH_AUROC = 0.6
_SIGNIFICANT = 0.01  # p-value of the nearest-neighbor test
_COLUMNS = (Column("Metric"), Column("Value", "number"), Column("How to read it"))


def memorization_sections(content: ReportContent) -> Iterator[Section]:
    """Yield the section on memorization if it was measured."""
    found = content.memorization
    tiles = tuple(_tiles(found)) if found is not None else ()
    if found is None or not tiles:
        return
    blocks: tuple[Block, ...] = (Table("Memorization tests", _COLUMNS, tiles),)
    blocks += tuple(Paragraph(text) for text in memorization_caveats(found))
    introduction = (
        "Tests whether the likelihood separates training images from others of the same kind, and whether generated "
        "images copy training images. If so, the model has memorized training images, and its users may recover them."
    )
    yield Section(
        Chapter.DIAGNOSTICS,
        "memorization",
        "Memorization",
        introduction,
        blocks,
        "does it know its images by heart?",
    )


def memorization_caveats(found: Memorization) -> Iterator[str]:
    """Yield a sentence for each test that found memorization."""
    membership, nearest = found.membership_inference, found.nn_memorization
    if membership is not None and membership.auroc > _HIGH_AUROC and membership.low > 0.5:
        yield (
            "The model reveals which images it was trained on: of a training image and a new one, the training image has the "
            f"higher likelihood in {percent(membership.auroc)} of pairs. That matters if the images are confidential; more "
            "training images reduce it."
        )
    if nearest is not None and nearest.p_value < _SIGNIFICANT:
        yield (
            "Generated images lie significantly closer to training images than to held-out images: do not publish generated "
            "images if the training images are confidential."
        )


def _tiles(found: Memorization) -> Iterator[MetricTile]:
    if found.membership_inference is not None:
        yield from _membership_tiles(found.membership_inference)
    if found.nn_memorization is not None:
        yield from _nearest_neighbor_tiles(found.nn_memorization)


def _membership_tiles(found: MembershipInference) -> Iterator[MetricTile]:
    pairs = f"{plural(found.n, 'training image')} and as many held-out images"
    note = f"nats per dimension: mean log p(x) of training images minus that of held-out images, over {pairs}"
    yield MetricTile("Likelihood gap", number(found.gap, 4), note)
    note = (
        "fraction of pairs in which the training image has the higher log p(x); 0.5 means no memorization; "
        f"95% interval {number(found.low)} to {number(found.high)}"
    )
    yield MetricTile("Membership inference AUROC", number(found.auroc, 3), note)


def _nearest_neighbor_tiles(found: NearestNeighborMemorization) -> Iterator[MetricTile]:
    fraction, expected = found.n_training / found.n_nearest, found.expected / found.n_nearest
    note = (
        f"of {plural(found.n_nearest, 'real image')} nearest to one of {plural(found.n, 'generated image')} are training "
        f"images; {percent(expected)} expected under the null hypothesis, p = {number(found.p_value, 2)}"
    )
    yield MetricTile("Nearest neighbors", percent(fraction), note)
    note = (
        "median distance of generated images to the nearest training image, from 0 (identical) to 2; of held-out images "
        f"{number(found.held_out_distance_to_training, 3)}"
    )
    yield MetricTile("Distance to training images", number(found.distance_to_training, 3), note)
