"""Images that deserve a look: the most atypical, the most confident errors, possible label errors."""

from __future__ import annotations

from collections.abc import Iterator

from likely.reporting.formatting import percent, plural
from likely.reporting.html.blocks import Chapter, Gallery, ReportImage, Section
from likely.reporting.html.content import Images, LabelIssues, MostAtypical, MostConfidentErrors, ReportContent
from likely.reporting.html.images import report_image

_EDGE = 84
_MAX_IMAGES = 24


def diagnostic_sections(content: ReportContent) -> Iterator[Section]:
    """Yield the sections on single images for which there are any."""
    names = content.class_names
    if content.most_atypical is not None and len(content.most_atypical.images):
        yield _most_atypical(content.most_atypical, names)
    if content.most_confident_errors is not None and len(content.most_confident_errors.images):
        yield _most_confident_errors(content.most_confident_errors, names)
    if content.label_issues is not None and content.label_issues.issues:
        yield _label_issues(content.label_issues, names)


def _most_atypical(found: MostAtypical, names: tuple[str, ...]) -> Section:
    introduction = (
        "Test images with the smallest p-values. Often they are damaged, mislabeled, "
        "or of a kind that needs more training images."
    )
    rows = zip(found.images, found.p_values.tolist(), found.labels.tolist(), strict=True)
    images = (_atypical_image(image, names[k], p) for image, p, k in rows)
    return _section("most-atypical", "Most atypical images", introduction, images)


def _atypical_image(image: Images, name: str, p_value: float) -> ReportImage:
    p = f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"
    return report_image(image, f"Atypical image of {name}, {p}", _EDGE, (name, p))


def _most_confident_errors(found: MostConfidentErrors, names: tuple[str, ...]) -> Section:
    introduction = "Wrong predictions with the highest probability. Sometimes the label is wrong, not the prediction."
    rows = zip(found.images, found.labels, found.predicted, found.probability, strict=True)
    images = (_error_image(image, names[label], names[k], float(p)) for image, label, k, p in rows)
    return _section("most-confident-errors", "Most confident errors", introduction, images)


def _error_image(image: Images, label: str, predicted: str, probability: float) -> ReportImage:
    alt = f"Image of {label}, predicted {predicted} with {percent(probability, 0)}"
    return report_image(image, alt, _EDGE, (f"predicted {predicted} {probability:.2f}", f"label {label}"))


def _label_issues(found: LabelIssues, names: tuple[str, ...]) -> Section:
    introduction = (
        f"{plural(len(found.issues), 'training image')} may have a wrong label, the most certain first: a model that was "
        "not trained on the image is confident in another class. Look before you change a label: rare but correct images "
        "look the same to the model."
    )
    images = (_issue_image(found, i, names) for i in range(len(found.issues)))
    return _section("label-issues", "Possible label errors", introduction, images)


def _issue_image(found: LabelIssues, i: int, names: tuple[str, ...]) -> ReportImage:
    issue = found.issues[i]
    label, suggested = names[issue.label], names[issue.suggested]
    file = found.files[i] if found.files else f"image {issue.index}"
    caption = (f"{label} → {suggested}", f"margin {issue.margin:.2f}".replace("-", "−"), file)
    return report_image(found.images[i], f"Labeled {label}, perhaps {suggested}", _EDGE, caption)


def _section(anchor: str, title: str, introduction: str, images: Iterator[ReportImage]) -> Section:
    shown = tuple(image for image, _ in zip(images, range(_MAX_IMAGES), strict=False))
    return Section(Chapter.DIAGNOSTICS, anchor, title, introduction, (Gallery(shown),))
