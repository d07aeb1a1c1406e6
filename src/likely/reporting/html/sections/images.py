"""What the model has learned, and which images deserve a look."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from likely.evaluation.label_errors import LabelIssue
from likely.reporting.formatting import percent, plural
from likely.reporting.html.blocks import Chapter, Gallery, ImageGrid, ReportImage, Section
from likely.reporting.html.content import Images, LabelIssues, ReportContent, Samples
from likely.reporting.html.images import pair, report_image, row

_EDGE = 84
_STRIP_EDGE = 56
_PAIR_EDGE = 72
_STRIP_LENGTH = 6  # what fits a phone's width
_MOST_PICTURES = 24
_MOST_PORTRAITS = 12
_MOST_SAMPLES = 400  # over all classes, so that a report of a hundred classes still loads


def samples(content: ReportContent) -> Section | None:
    if content.samples is None or not len(content.samples.images):
        return None
    lead = (
        "The model drew these itself: nobody's photographs, but what it believes each class looks like. "
        "Blurred, broken or all alike, they show what it has not understood."
    )
    rows = tuple(_sample_row(content.samples, k, name) for k, name in enumerate(content.class_names))
    return Section(
        Chapter.IMAGES, "samples", "What it imagines", lead, (ImageGrid(tuple(row for row in rows if row[1])),)
    )


def _sample_row(drawn: Samples, k: int, name: str) -> tuple[str, tuple[ReportImage, ...]]:
    most = int(np.clip(_MOST_SAMPLES // len(np.unique(drawn.labels)), 4, 12))
    images = drawn.images[drawn.labels == k][:most]
    parts = [images[start : start + _STRIP_LENGTH] for start in range(0, len(images), _STRIP_LENGTH)]
    return name, tuple(row(part, f"{plural(len(part), 'generated image')} of {name}", _STRIP_EDGE) for part in parts)


def class_samples(content: ReportContent) -> tuple[ReportImage, ...]:
    """The first sample of each of the first classes, for the head of the page."""
    drawn = content.samples
    if drawn is None:
        return ()
    classes, firsts = np.unique(drawn.labels, return_index=True)
    pairs = list(zip(classes.tolist(), firsts.tolist(), strict=True))[:_MOST_PORTRAITS]
    names = content.class_names
    return tuple(report_image(drawn.images[at], f"A generated image of {names[k]}", _STRIP_EDGE) for k, at in pairs)


def reconstructions(content: ReportContent) -> Section | None:
    made = content.reconstructions
    if made is None or not len(made.originals):
        return None
    lead = (
        "Above, images that the model had never seen; below, what remains of them after it has put them in its own "
        "words. What is lost or altered there, it cannot use to tell classes apart."
    )
    triples = zip(made.originals, made.reconstructions, made.labels.tolist(), strict=True)
    pictures = (_pair(above, below, content.class_names[k]) for above, below, k in triples)
    gallery = Gallery(tuple(pictures)[:_MOST_PICTURES])
    return Section(Chapter.IMAGES, "reconstructions", "What it remembers", lead, (gallery,))


def _pair(original: Images, reconstruction: Images, name: str) -> ReportImage:
    return pair(original, reconstruction, f"{name}: the original above its reconstruction", _PAIR_EDGE)


def most_atypical(content: ReportContent) -> Section | None:
    found = content.most_atypical
    if found is None or not len(found.images):
        return None
    lead = (
        "The images least like anything in training. Often they are damaged, mislabeled, "
        "or of a kind of which there should be more training images."
    )
    rows = zip(found.images, found.p_values.tolist(), found.labels.tolist(), strict=True)
    pictures = (_strange(image, p, content.class_names[k]) for image, p, k in rows)
    return _doubt("most-atypical", "The strangest images", lead, pictures)


def _strange(image: Images, p_value: float, name: str) -> ReportImage:
    said = f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"
    return report_image(image, f"A strange image of {name}, {said}", _EDGE, (name, said))


def most_confident_errors(content: ReportContent) -> Section | None:
    found = content.most_confident_errors
    if found is None or not len(found.images):
        return None
    lead = "The images on which the model was surest of a wrong answer. Sometimes it is the label that is wrong."
    rows = zip(found.images, found.labels, found.predicted, found.probability, strict=True)
    names = content.class_names
    pictures = (_wrong(image, names[said], float(p), names[is_]) for image, is_, said, p in rows)
    return _doubt("most-confident-errors", "The surest mistakes", lead, pictures)


def _wrong(image: Images, said: str, probability: float, label: str) -> ReportImage:
    words = (f"said {said} {probability:.2f}", f"is {label}")
    return report_image(image, f"An image of {label}, taken for {said} at {percent(probability, 0)}", _EDGE, words)


def label_issues(content: ReportContent) -> Section | None:
    found = content.label_issues
    if found is None or not found.issues:
        return None
    lead = (
        f"{plural(len(found.issues), 'training image')} may have the wrong label, the surest first: a model that had "
        "not seen them is confident in another class. Look before you change one: a rare but right image does the same."
    )
    pictures = (_suspect(found, i, content.class_names) for i in range(len(found.issues)))
    return _doubt("label-issues", "Labels in doubt", lead, pictures)


def _suspect(found: LabelIssues, i: int, names: tuple[str, ...]) -> ReportImage:
    suspect: LabelIssue = found.issues[i]
    given, suggested = names[suspect.label], names[suspect.suggested]
    file = found.files[i] if found.files else f"image {suspect.index}"
    words = (f"{given} → {suggested}", f"margin {suspect.margin:.2f}".replace("-", "−"), file)
    return report_image(found.images[i], f"Labeled {given}, perhaps {suggested}", _EDGE, words)


def _doubt(anchor: str, title: str, lead: str, pictures: Iterator[ReportImage]) -> Section:
    shown = tuple(picture for picture, _ in zip(pictures, range(_MOST_PICTURES), strict=False))
    return Section(Chapter.DIAGNOSTICS, anchor, title, lead, (Gallery(shown),))
