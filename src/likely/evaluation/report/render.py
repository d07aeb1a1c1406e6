"""ReportContent -> one HTML page that needs nothing but itself."""

from __future__ import annotations

from itertools import groupby

from likely.evaluation.figures import headlines
from likely.evaluation.phrases import evidence_phrase
from likely.evaluation.report.concerns import concerns
from likely.evaluation.report.content import ReportContent
from likely.evaluation.report.page import page
from likely.evaluation.report.sections import sections
from likely.evaluation.report.sections.pictures import portraits


def render(content: ReportContent) -> str:
    """The report as HTML: no script, no request, images and styles inside; text from the content is escaped."""
    shown = sections(content)
    figures = content.figures
    return page(
        "template.html",
        ("style.css",),
        header=content.header,
        evidence=evidence_phrase(content.header.evidence),
        portraits=portraits(content),
        headlines=() if figures is None else headlines(figures, content.header.evidence, len(content.class_names)),
        concerns=concerns(content),
        groups=[(group.value, list(members)) for group, members in groupby(shown, key=lambda section: section.group)],
    )
