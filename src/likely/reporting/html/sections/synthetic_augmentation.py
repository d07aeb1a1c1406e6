"""Whether generated images helped to learn."""

from __future__ import annotations

from likely.evaluation.synthetic_augmentation import AugmentationResult
from likely.reporting.formatting import percent
from likely.reporting.html.blocks import Chapter, Column, Paragraph, Section, Table

_COLUMNS = (Column("Learned from"), Column("Accuracy", "number"))


def synthetic_augmentation(found: AugmentationResult | None) -> Section | None:
    """The section on augmentation by generation; None if none was asked for."""
    if found is None:
        return None
    rows = (
        ("the images alone", percent(found.before, 2)),
        (f"them and {found.n_generated:,} images drawn by {found.source}", percent(found.after, 2)),
    )
    lead = "The same training twice, with and without generated images, on images that neither saw."
    remark = Paragraph(f"{found.sentence[0].upper()}{found.sentence[1:]}.")
    return Section(
        Chapter.METRICS,
        "augmented",
        "Do generated images help?",
        lead,
        (Table("Held-out images", _COLUMNS, rows), remark),
    )
