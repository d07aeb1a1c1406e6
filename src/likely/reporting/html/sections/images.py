"""Images: samples, reconstructions, interpolation, atypical images, errors and possible label errors."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from likely.evaluation.interpolation import Segment
from likely.reporting.formatting import percent, plural
from likely.reporting.html.content import (
    Images,
    LabelIssues,
    MostAtypical,
    MostConfidentErrors,
    Reconstructions,
    ReportContent,
    Samples,
)
from likely.reporting.html.page import Chapter, Gallery, ImageGrid, ReportImage, Section

_ROW_EDGE = 56  # CSS pixels
_PAIR_EDGE = 72
_ROW_LENGTH = 6  # images: the width of a phone
_DIAGNOSTIC_EDGE = 84
_MAX_PAIRS = 24
_MAX_DIAGNOSTIC_IMAGES = 24
_MAX_HEADER_IMAGES = 12
_MAX_SAMPLES = 400  # over all classes, so that a report of a hundred classes still loads

_TINY = 48  # pixels: smaller images are shown with visible pixels
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def sample_sections(content: ReportContent) -> Iterator[Section]:
    """Yield the sections on samples and reconstructions for which there are images."""
    if content.samples is not None and len(content.samples.images):
        yield _samples(content.samples, content.class_names)
    if content.reconstructions is not None and len(content.reconstructions.originals):
        yield _reconstructions(content.reconstructions, content.class_names)
    if content.interpolation:
        yield _interpolation(content.interpolation)


def diagnostic_sections(content: ReportContent) -> Iterator[Section]:
    """Yield the sections on single images for which there are any."""
    names = content.class_names
    if content.most_atypical is not None and len(content.most_atypical.images):
        yield _most_atypical(content.most_atypical, names)
    if content.most_confident_errors is not None and len(content.most_confident_errors.images):
        yield _most_confident_errors(content.most_confident_errors, names)
    if content.label_issues is not None and content.label_issues.issues:
        yield _label_issues(content.label_issues, names)


def class_samples(content: ReportContent) -> tuple[ReportImage, ...]:
    """Return the first sample of each of the first classes, for the page header."""
    samples = content.samples
    if samples is None:
        return ()
    classes, firsts = np.unique(samples.labels, return_index=True)
    pairs = list(zip(classes.tolist(), firsts.tolist(), strict=True))[:_MAX_HEADER_IMAGES]
    names = content.class_names
    return tuple(_report_image(samples.images[i], f"Generated image of {names[k]}", _ROW_EDGE) for k, i in pairs)


def _samples(samples: Samples, names: tuple[str, ...]) -> Section:
    introduction = (
        "Generated images of each class. Blurred, broken or identical images show what the model has not learned."
    )
    max_per_class = int(np.clip(_MAX_SAMPLES // len(np.unique(samples.labels)), 4, 12))
    images = [samples.images[samples.labels == k][:max_per_class] for k in range(len(names))]
    rows = tuple(
        (name, _rows(of_class, f"of {name}")) for name, of_class in zip(names, images, strict=True) if len(of_class)
    )
    return Section(Chapter.IMAGES, "samples", "Samples", introduction, (ImageGrid(rows),))


def _rows(images: Images, of: str) -> tuple[ReportImage, ...]:
    blocks = [images[start : start + _ROW_LENGTH] for start in range(0, len(images), _ROW_LENGTH)]
    return tuple(_image_row(block, f"{plural(len(block), 'generated image')} {of}", _ROW_EDGE) for block in blocks)


def _interpolation(segments: Sequence[Segment]) -> Section:
    introduction = (
        "Walks from a generated image of one class to one of another. Where every step looks like an image, the latent "
        "space is smooth; where one image fades while another appears, the model has learned nothing between them."
    )
    rows = tuple((_segment_name(s), _rows(s.images, f"from {s.start} to {s.end}")) for s in segments)
    return Section(Chapter.IMAGES, "interpolation", "Interpolation", introduction, (ImageGrid(rows),))


def _segment_name(segment: Segment) -> str:
    return segment.start if segment.start == segment.end else f"{segment.start} → {segment.end}"


def _reconstructions(found: Reconstructions, names: tuple[str, ...]) -> Section:
    introduction = (
        "Above, real images; below, their reconstructions from the latent code. The model cannot use details that are "
        "lost here to distinguish classes."
    )
    triples = zip(found.originals, found.reconstructions, found.labels.tolist(), strict=True)
    pairs = (_image_pair(a, b, f"{names[k]}: original above reconstruction", _PAIR_EDGE) for a, b, k in triples)
    gallery = Gallery(tuple(pairs)[:_MAX_PAIRS])
    return Section(Chapter.IMAGES, "reconstructions", "Reconstructions", introduction, (gallery,))


# --- diagnostics ----------------------------------------------------------------------------------------------------


def _most_atypical(found: MostAtypical, names: tuple[str, ...]) -> Section:
    introduction = (
        "Images with the smallest p-values. Often they are damaged, mislabeled, "
        "or of a kind that needs more training images."
    )
    rows = zip(found.images, found.p_values.tolist(), found.labels.tolist(), strict=True)
    images = (_atypical_image(image, names[k], p) for image, p, k in rows)
    return _diagnostic_section("most-atypical", "Most atypical images", introduction, images)


def _atypical_image(image: Images, name: str, p_value: float) -> ReportImage:
    p = f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"
    return _report_image(image, f"Atypical image of {name}, {p}", _DIAGNOSTIC_EDGE, (name, p))


def _most_confident_errors(found: MostConfidentErrors, names: tuple[str, ...]) -> Section:
    introduction = "Wrong predictions with the highest probability. Sometimes the label is wrong, not the prediction."
    rows = zip(found.images, found.labels, found.predicted, found.probability, strict=True)
    images = (_error_image(image, names[label], names[k], float(p)) for image, label, k, p in rows)
    return _diagnostic_section("most-confident-errors", "Most confident errors", introduction, images)


def _error_image(image: Images, label: str, predicted: str, probability: float) -> ReportImage:
    alt = f"Image of {label}, predicted {predicted} with {percent(probability, 0)}"
    return _report_image(image, alt, _DIAGNOSTIC_EDGE, (f"predicted {predicted} ({probability:.2f})", f"label {label}"))


def _label_issues(found: LabelIssues, names: tuple[str, ...]) -> Section:
    introduction = (
        f"{plural(len(found.issues), 'training image')} may have a wrong label, the most certain first: a model that was "
        "not trained on the image is confident in another class. Look before you change a label: rare but correct images "
        "look the same to the model."
    )
    images = (_issue_image(found, i, names) for i in range(len(found.issues)))
    return _diagnostic_section("label-issues", "Possible label errors", introduction, images)


def _issue_image(found: LabelIssues, i: int, names: tuple[str, ...]) -> ReportImage:
    issue = found.issues[i]
    label, suggested = names[issue.label], names[issue.suggested]
    file = found.files[i] if found.files else f"image {issue.index}"
    caption = (f"{label} → {suggested}", f"margin {issue.margin:.2f}".replace("-", "−"), file)
    return _report_image(found.images[i], f"Labeled {label}, perhaps {suggested}", _DIAGNOSTIC_EDGE, caption)


def _diagnostic_section(anchor: str, title: str, introduction: str, images: Iterator[ReportImage]) -> Section:
    shown = tuple(image for image, _ in zip(images, range(_MAX_DIAGNOSTIC_IMAGES), strict=False))
    return Section(Chapter.DIAGNOSTICS, anchor, title, introduction, (Gallery(shown),))


# --- PNG data URIs --------------------------------------------------------------------------------------------------


def _report_image(image: Images, alt: str, edge: int, caption: tuple[str, ...] = ()) -> ReportImage:
    """Encode an image (C, H, W), about `edge` CSS pixels high, with caption lines."""
    small = _reduced(image, edge)
    return _encoded(small, alt, _zoom(small, edge))._replace(caption=caption)


def _image_row(images: Images, alt: str, edge: int) -> ReportImage:
    """Encode images (N, C, H, W) side by side, about `edge` CSS pixels high, as one image."""
    small = np.stack([_reduced(image, edge) for image in images])
    gap = np.zeros((small.shape[1] + 1, small.shape[2], _gap(small)), dtype=np.uint8)
    tiles = [tile for image in small for tile in (_opaque(image), gap)]
    return _encoded(np.concatenate(tiles[:-1], axis=2), alt, _zoom(small[0], edge))


def _image_pair(upper: Images, lower: Images, alt: str, edge: int) -> ReportImage:
    """Encode two images (C, H, W), one above the other, each about `edge` CSS pixels high."""
    small = np.stack([_reduced(upper, edge), _reduced(lower, edge)])
    gap = np.zeros((small.shape[1] + 1, _gap(small), small.shape[3]), dtype=np.uint8)
    both = np.concatenate([_opaque(small[0]), gap, _opaque(small[1])], axis=1)
    return _encoded(both, alt, _zoom(small[0], edge))


def _png_uri(image: Images) -> str:
    """Return a data URI of uint8 pixels (C, H, W) with 1 to 4 channels."""
    mode = _MODES[image.shape[0]]
    pixels = image[0] if mode == "L" else np.ascontiguousarray(image.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _encoded(image: Images, alt: str, zoom: float) -> ReportImage:
    width, height = round(image.shape[2] * zoom), round(image.shape[1] * zoom)
    return ReportImage(_png_uri(image), alt, width, height, tiny=zoom > 1.5)


def _zoom(image: Images, edge: int) -> float:
    """Return the display scale: an integer for tiny images, exactly `edge` pixels for others."""
    height: int = image.shape[1]
    return max(1, round(edge / height)) if height <= _TINY else edge / height


def _reduced(image: Images, edge: int) -> Images:
    """Downscale an image that is much larger than its display size, to keep the report small."""
    if image.shape[1] <= 1.5 * edge:
        return image
    size = (round(image.shape[2] * edge / image.shape[1]), edge)
    channels = [np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.LANCZOS)) for channel in image]
    return np.stack(channels)


def _gap(images: Images) -> int:
    """Return a twelfth of the image width, at least one pixel."""
    width: int = images.shape[3]
    return max(1, width // 12)


def _opaque(image: Images) -> Images:
    """Add an opaque alpha channel, so that the gaps beside the image can be transparent."""
    return np.concatenate([image, np.full((1, *image.shape[1:]), 255, dtype=np.uint8)])
