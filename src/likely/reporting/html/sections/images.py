"""Images: samples, reconstructions, interpolation, atypical images, errors, possible label errors, groups of images."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from markupsafe import Markup
from PIL import Image

from likely.data.preprocessing import to_pil
from likely.evaluation.interpolation import Segment
from likely.reporting.formatting import listing, percent, plural
from likely.reporting.html.content import (
    AcceptedUnknown,
    ImageGroup,
    Images,
    LabelIssues,
    MostAtypical,
    MostConfidentErrors,
    Reconstructions,
    ReportContent,
    Samples,
    SimilarImages,
)
from likely.reporting.html.page import Cell, Chapter, Gallery, ImageGrid, ReportImage, Section, class_name

_ROW_EDGE = 56  # CSS pixels
_PAIR_EDGE = 72
_ROW_LENGTH = 6  # images: the width of a phone
_DIAGNOSTIC_EDGE, _THUMBNAIL_EDGE = 84, 112  # of tiny images, and of photographs
_MAX_PAIRS = 24
_MAX_DIAGNOSTIC_IMAGES = 24
_MAX_HEADER_IMAGES = 12
_MAX_SAMPLES = 400  # over all classes, so that a report of a hundred classes still loads

_TINY = 48  # pixels: smaller images are shown with visible pixels
_MAX_BYTES = 32_000  # of an enlarged photograph, so that a report with seventy stays below 5 MB
_JPEG_QUALITIES = (85, 75, 60, 45)
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
        alarms = content.false_alarms
        yield _most_atypical(content.most_atypical, names, None if alarms is None else alarms.alpha)
    if content.most_confident_errors is not None and len(content.most_confident_errors.images):
        yield _most_confident_errors(content.most_confident_errors, names)
    if content.accepted_unknown is not None and len(content.accepted_unknown.images):
        yield _accepted_unknown(content.accepted_unknown, names)
    if content.label_issues is not None and content.label_issues.issues:
        yield _label_issues(content.label_issues, names)
    if content.similar_images is not None and content.similar_images.groups:
        yield _similar_images(content.similar_images, names)


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


def _most_atypical(found: MostAtypical, names: tuple[str, ...], alpha: float | None) -> Section:
    rejected = "" if alpha is None else f" Those with a p-value of at most {alpha:g} are rejected as unknown."
    introduction = (
        "Known images that look least like the training images: those with the smallest p-values. Often they are damaged, "
        f"mislabeled, or of a kind that needs more training images.{rejected}"
    )
    rows = zip(found.images, found.p_values.tolist(), found.labels.tolist(), found.predicted.tolist(), strict=True)
    images = (
        _photo(
            image,
            f"Atypical image of {names[label]}, {_p(p)}",
            (class_name(names[label]), _p(p), "recognized" if k == label else f"predicted {_leaf(names[k])}"),
        )
        for image, p, label, k in rows
    )
    return _diagnostic_section("most-atypical", "Most atypical images", introduction, images, found.files)


def _p(p_value: float) -> str:
    return f"p-value {p_value:.3f}" if p_value >= 0.001 else "p-value below 0.001"


def _leaf(name: str) -> str:
    return name.rpartition("/")[2]


def _accepted_unknown(found: AcceptedUnknown, names: tuple[str, ...]) -> Section:
    introduction = (
        f"{plural(found.n, 'unknown image')} passed for known: {'it has a' if found.n == 1 else 'they have'} p-value"
        f"{'' if found.n == 1 else 's'} above alpha. The largest p-values come first."
    )
    rows = zip(found.images, found.p_values.tolist(), found.predicted.tolist(), strict=True)
    images = (
        _photo(
            image,
            f"Unknown image, predicted {names[k]}, {_p(p)}",
            (Markup("predicted {}").format(class_name(names[k])), _p(p)),
        )
        for image, p, k in rows
    )
    return _diagnostic_section("accepted-unknown", "Unknown images not rejected", introduction, images, found.files)


def _most_confident_errors(found: MostConfidentErrors, names: tuple[str, ...]) -> Section:
    introduction = "Wrong predictions with the highest probability. Sometimes the label is wrong, not the prediction."
    rows = zip(found.images, found.labels, found.predicted, found.probability, strict=True)
    images = (_error_image(image, names[label], names[k], float(p)) for image, label, k, p in rows)
    return _diagnostic_section("most-confident-errors", "Most confident errors", introduction, images, found.files)


def _error_image(image: Images, label: str, predicted: str, probability: float) -> ReportImage:
    alt = f"Image of {label}, predicted {predicted} with {percent(probability, 0)}"
    return _photo(image, alt, (class_name(label), f"predicted {_leaf(predicted)} with {percent(probability)}"))


def _label_issues(found: LabelIssues, names: tuple[str, ...]) -> Section:
    introduction = (
        f"{plural(len(found.issues), 'training image')} may have a wrong label, the most certain first: a model that was "
        "not trained on the image is confident in another class. Look before you change a label: rare but correct images "
        "look the same to the model."
    )
    images = (_issue_image(found, i, names) for i in range(len(found.issues)))
    files = found.files or tuple(f"image {issue.index}" for issue in found.issues)
    return _diagnostic_section("label-issues", "Possible label errors", introduction, images, files)


def _issue_image(found: LabelIssues, i: int, names: tuple[str, ...]) -> ReportImage:
    issue = found.issues[i]
    label, suggested = names[issue.label], names[issue.suggested]
    caption = (class_name(label), f"perhaps {_leaf(suggested)}", f"ahead by {-issue.margin:.2f} in probability")
    return _photo(found.images[i], f"Labeled {label}, perhaps {suggested}", caption)


def _similar_images(found: SimilarImages, names: tuple[str, ...]) -> Section:
    mixed = (
        f" {plural(found.n_mixed, 'group')} with different labels {'comes' if found.n_mixed == 1 else 'come'} first: is a "
        "label wrong?"
        if found.n_mixed
        else " The largest groups come first."
    )
    introduction = (
        f"{plural(found.n_groups, 'group')} with {plural(found.n_images, 'training image')} in all show the same thing more "
        "than once: near-duplicates, photographs taken shortly after one another, or groups that the data list. A group is "
        f"never divided between training and test images.{mixed}"
    )
    rows = tuple(_group_row(group, g, names) for g, group in enumerate(found.groups))
    return Section(
        Chapter.DIAGNOSTICS,
        "similar-images",
        "Groups of similar images",
        introduction,
        (ImageGrid(rows),),
        "what does the data show twice?",
    )


def _group_row(group: ImageGroup, g: int, names: tuple[str, ...]) -> tuple[str, tuple[ReportImage, ...]]:
    classes = listing(tuple(_leaf(names[c]) for c in group.classes), 3) if group.classes else "unlabeled"
    title = f"{plural(group.n, 'image')}: {classes}"
    images = (
        _photo(image, f"Image {i + 1} of a group of {group.n} of {classes}", (classes,))
        for i, image in enumerate(group.images)
    )
    return title, tuple(_named(images, f"similar-images-{g}", group.files))


def _diagnostic_section(
    anchor: str, title: str, introduction: str, images: Iterator[ReportImage], files: tuple[str, ...]
) -> Section:
    shown = islice(_named(images, anchor, files), _MAX_DIAGNOSTIC_IMAGES)
    return Section(Chapter.DIAGNOSTICS, anchor, title, introduction, (Gallery(tuple(shown)),))


def _named(images: Iterator[ReportImage], anchor: str, files: tuple[str, ...]) -> Iterator[ReportImage]:
    """Give images an id each, and the name of their file as the last line of their caption, if known."""
    for i, image in enumerate(images):
        file = files[i : i + 1]
        yield image._replace(id=f"{anchor}-{i + 1}", caption=(*image.caption, *file))


# --- data URIs ------------------------------------------------------------------------------------------------------


def _report_image(image: Images, alt: str, edge: int) -> ReportImage:
    """Encode an image (C, H, W), about `edge` CSS pixels high."""
    small = _reduced(image, edge)
    return _encoded(small, alt, _zoom(small, edge))


def _photo(image: Images, alt: str, caption: tuple[Cell, ...]) -> ReportImage:
    """Encode an image (C, H, W) with caption lines: as a thumbnail that opens the whole one, if that is not tiny."""
    if image.shape[1] <= _TINY:
        return _report_image(image, alt, _DIAGNOSTIC_EDGE)._replace(caption=caption)
    pixels, height = to_pil(image), _THUMBNAIL_EDGE
    width = max(1, round(pixels.width * height / pixels.height))
    thumbnail, enlarged = _jpeg_uri(pixels, (2 * width, 2 * height)), _jpeg_uri(pixels, pixels.size)
    return ReportImage(thumbnail, alt, width, height, tiny=False, caption=caption, enlarged=enlarged)


def _jpeg_uri(image: Image.Image, size: tuple[int, int]) -> str:
    """Return a data URI of an image reduced to fit `size`, and further until it has at most _MAX_BYTES."""
    small = image.copy()
    small.thumbnail(size, Image.Resampling.LANCZOS)
    for quality in _JPEG_QUALITIES:
        buffer = io.BytesIO()
        small.save(buffer, format="JPEG", quality=quality, optimize=True)
        if buffer.tell() <= _MAX_BYTES:
            return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    return _jpeg_uri(small, (small.width // 2, small.height // 2))


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
