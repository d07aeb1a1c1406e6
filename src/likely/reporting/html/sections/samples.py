"""Samples, reconstructions and latent interpolation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from likely.evaluation.interpolation import Segment
from likely.reporting.formatting import plural
from likely.reporting.html.blocks import Chapter, Gallery, ImageGrid, ReportImage, Section
from likely.reporting.html.content import Images, Reconstructions, ReportContent, Samples
from likely.reporting.html.images import image_pair, image_row, report_image

_ROW_EDGE = 56
_PAIR_EDGE = 72
_ROW_LENGTH = 6  # images: the width of a phone
_MAX_PAIRS = 24
_MAX_HEADER_IMAGES = 12
_MAX_SAMPLES = 400  # over all classes, so that a report of a hundred classes still loads


def sample_sections(content: ReportContent) -> Iterator[Section]:
    """Yield the sections on samples and reconstructions for which there are images."""
    if content.samples is not None and len(content.samples.images):
        yield _samples(content.samples, content.class_names)
    if content.reconstructions is not None and len(content.reconstructions.originals):
        yield _reconstructions(content.reconstructions, content.class_names)


def class_samples(content: ReportContent) -> tuple[ReportImage, ...]:
    """Return the first sample of each of the first classes, for the page header."""
    samples = content.samples
    if samples is None:
        return ()
    classes, firsts = np.unique(samples.labels, return_index=True)
    pairs = list(zip(classes.tolist(), firsts.tolist(), strict=True))[:_MAX_HEADER_IMAGES]
    names = content.class_names
    return tuple(report_image(samples.images[i], f"Generated image of {names[k]}", _ROW_EDGE) for k, i in pairs)


def interpolation_section(segments: Sequence[Segment]) -> Section | None:
    """Return the section on latent interpolation, one row per segment; None without segments."""
    if not segments:
        return None
    introduction = (
        "Walks from a generated image of one class to one of another. Where every step looks like an image, the latent "
        "space is smooth; where one image fades while another appears, the model has learned nothing between them."
    )
    rows = tuple((_segment_name(s), _rows(s.images, f"from {s.start} to {s.end}")) for s in segments)
    return Section(Chapter.IMAGES, "interpolation", "Interpolation", introduction, (ImageGrid(rows),))


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
    return tuple(image_row(block, f"{plural(len(block), 'generated image')} {of}", _ROW_EDGE) for block in blocks)


def _segment_name(segment: Segment) -> str:
    return segment.start if segment.start == segment.end else f"{segment.start} → {segment.end}"


def _reconstructions(found: Reconstructions, names: tuple[str, ...]) -> Section:
    introduction = (
        "Above, test images; below, their reconstructions from the latent code. The model cannot use details that are "
        "lost here to distinguish classes."
    )
    triples = zip(found.originals, found.reconstructions, found.labels.tolist(), strict=True)
    pairs = (image_pair(a, b, f"{names[k]}: original above reconstruction", _PAIR_EDGE) for a, b, k in triples)
    gallery = Gallery(tuple(pairs)[:_MAX_PAIRS])
    return Section(Chapter.IMAGES, "reconstructions", "Reconstructions", introduction, (gallery,))
