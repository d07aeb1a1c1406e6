"""From what a report shows to the sections that show it; what is absent from the content has no section."""

from __future__ import annotations

from likely.evaluation.report.blocks import Chapter, Section
from likely.evaluation.report.content import ReportContent
from likely.evaluation.report.sections import pictures, quality, record, rejection

_MAKERS = (
    quality.confusion,
    quality.reliability,
    rejection.rejection,
    quality.per_class,
    quality.curves,
    pictures.samples,
    pictures.reconstructions,
    pictures.most_atypical,
    pictures.most_confident_errors,
    pictures.label_issues,
    record.data,
    record.options,
    record.provenance,
)


def sections(content: ReportContent) -> tuple[Section, ...]:
    """All sections by group; within a group the report's own come first, then `extra`."""
    own = (make(content) for make in _MAKERS)
    present = [section for section in own if section is not None]
    order = list(Chapter)
    return tuple(sorted([*present, *content.extra], key=lambda section: order.index(section.chapter)))
