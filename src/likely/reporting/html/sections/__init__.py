"""From what a report shows to the sections that show it; what is absent from the content has no section."""

from __future__ import annotations

from likely.reporting.html.blocks import Chapter, Section
from likely.reporting.html.content import ReportContent
from likely.reporting.html.sections import images, provenance, quality, rejection

_MAKERS = (
    quality.confusion,
    quality.reliability,
    rejection.rejection,
    quality.per_class,
    quality.curves,
    images.samples,
    images.reconstructions,
    images.most_atypical,
    images.most_confident_errors,
    images.label_issues,
    provenance.data,
    provenance.options,
    provenance.provenance,
)


def sections(content: ReportContent) -> tuple[Section, ...]:
    """All sections by group; within a group the report's own come first, then `extra`."""
    own = (make(content) for make in _MAKERS)
    present = [section for section in own if section is not None]
    order = list(Chapter)
    return tuple(sorted([*present, *content.extra], key=lambda section: order.index(section.chapter)))
