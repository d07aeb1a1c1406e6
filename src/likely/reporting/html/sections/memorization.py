"""Whether the model has learned its training images by heart: what it says of them, and what it draws."""

from __future__ import annotations

from collections.abc import Iterator

from likely.evaluation.memorization import MembershipInference, Memorization, NearestNeighborMemorization
from likely.reporting.formatting import number, percent, plural
from likely.reporting.html.blocks import Block, Chapter, Column, Paragraph, Section, Table
from likely.reporting.metric_tiles import MetricTile

HIGH_AUROC = 0.6  # of the AUROC
SIGNIFICANT = 0.01  # how improbable chance must be
_COLUMNS = (Column("Figure"), Column("Value", "number"), Column("How to read it"))


def memorization(found: Memorization | None) -> Section | None:
    """The section on memorization; None if nothing could be measured."""
    lines = tuple(memorization_lines(found)) if found is not None else ()
    if found is None or not lines:
        return None
    blocks: tuple[Block, ...] = (Table("What gives training images away", _COLUMNS, lines),)
    blocks += tuple(Paragraph(words) for words in warnings(found))
    lead = (
        "Whether training images can be told from others of the same kind by what the model says of them, or found in what "
        "it draws. Where they can, the model knows them by heart, and whoever has it may learn what they were."
    )
    return Section(Chapter.DIAGNOSTICS, "memory", "Does it know its images by heart?", lead, blocks)


def memorization_lines(found: Memorization) -> Iterator[MetricTile]:
    """The figures, each with how to read it."""
    if found.membership_inference is not None:
        yield from _told_lines(found.membership_inference)
    if found.nn_memorization is not None:
        yield from _reminded_lines(found.nn_memorization)


def warnings(found: Memorization) -> Iterator[str]:
    """What the figures give reason to say."""
    told, reminded = found.membership_inference, found.nn_memorization
    if told is not None and told.auroc > HIGH_AUROC and told.low > 0.5:
        yield (
            f"Training images can be told from others: of two, one of either kind, the more probable one is the training "
            f"image {percent(told.auroc)} of the time. More images, more augmentation or a shorter training help."
        )
    if reminded is not None and reminded.p_value < SIGNIFICANT:
        yield (
            "Generated images lie nearer to training images than chance explains: whoever may not see the training images "
            "should not see these either."
        )


def _told_lines(told: MembershipInference) -> Iterator[MetricTile]:
    pairs = f"{plural(told.n, 'training image')} and as many that were kept from the training"
    yield MetricTile(
        "Likelihood gap",
        number(told.gap, 4),
        f"nats a dimension by which log p(x) of training images is above that of others, on average over {pairs}",
    )
    yield MetricTile(
        "Membership",
        number(told.auroc, 3),
        "how often the training image has the higher log p(x) of such two; 0.5 if nothing tells them apart; "
        f"95% interval {number(told.low)} to {number(told.high)}",
    )


def _reminded_lines(reminded: NearestNeighborMemorization) -> Iterator[MetricTile]:
    share, expected = reminded.n_training / reminded.n_nearest, reminded.expected / reminded.n_nearest
    yield MetricTile(
        "Nearest are trained on",
        percent(share),
        f"of {plural(reminded.n_nearest, 'real image')} that are nearest to one of {plural(reminded.n, 'generated image')}; "
        f"{percent(expected)} if the training made no difference, p = {number(reminded.p_value, 2)}",
    )
    yield MetricTile(
        "Distance to the nearest",
        number(reminded.distance_to_training, 3),
        "of a generated image to a training image, median, from 0 for the same picture to 2; of an image kept from the "
        f"training {number(reminded.held_out_distance_to_training, 3)}",
    )
