"""Model cards: README.md with YAML metadata for model hubs, usage, metrics and limitations."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from likely.base import Domain, LikelihoodKind, LikelihoodType
from likely.evaluation.metrics import Metrics
from likely.prediction import CalibrationScope
from likely.reporting.formatting import calibration_phrase, duration, likelihood_phrase, plural
from likely.reporting.html.content import DataSummary, FalseAlarms, Option, Provenance, ReportContent
from likely.reporting.metric_tiles import metric_tiles

_MAX_CLASSES = 1000


def model_card(content: ReportContent) -> str:
    """Return YAML front matter and Markdown; a section without content is left out."""
    return "\n".join([_front_matter(content), "", *_body(content)]) + "\n"


# --- metadata -------------------------------------------------------------------------------------------------------


def _front_matter(content: ReportContent) -> str:
    from huggingface_hub import ModelCardData  # imported here: only writing a card needs it
    from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]

    header = content.header
    data = ModelCardData(
        license=header.license,
        library_name="likely",
        pipeline_tag="image-classification",
        tags=[
            "likely",
            "generative-classifier",
            "out-of-distribution-detection",
            "conformal-prediction",
            header.family,
        ],
        classes=list(content.class_names),
        **_results(content, content.metrics) if content.metrics is not None else {},
    )
    # YAML folds unescaped line separators such as U+0085 into spaces.
    is_printable = all(name.isprintable() for name in (header.name, *content.class_names))
    text = yaml_dump(data.to_dict(), sort_keys=False, allow_unicode=is_printable)  # type: ignore[no-untyped-call]
    return f"---\n{text.strip()}\n---"


def _results(content: ReportContent, metrics: Metrics) -> dict[str, Any]:
    """Return the metrics as the model index that a hub shows."""
    from huggingface_hub import EvalResult

    name = content.header.name
    source = "test images" if content.data is None else content.data.source
    results = [
        EvalResult(
            task_type="image-classification",
            task_name="Image classification",
            dataset_type=name,
            dataset_name=source,
            metric_type=kind,
            metric_value=round(float(value), 6),
        )
        for kind, value in _metric_values(metrics).items()
        if value is not None and math.isfinite(value)
    ]
    return {"model_name": name, "eval_results": results}


def _metric_values(metrics: Metrics) -> dict[str, float | None]:
    rejection, unknown = metrics.rejection, metrics.unknown
    return {
        "accuracy": metrics.accuracy,
        "balanced_accuracy": metrics.balanced_accuracy,
        "nll": metrics.nll,
        "ece": metrics.ece,
        "brier": metrics.brier,
        "bits_per_dim": metrics.bits_per_dim,
        "false_alarm_rate": None if rejection is None else rejection.n_rejected / metrics.n,
        "auroc": None if unknown is None else unknown.auroc,
        "fpr_at_95_tpr": None if unknown is None else unknown.fpr_at_95_tpr,
    }


# --- body -----------------------------------------------------------------------------------------------------------


def _body(content: ReportContent) -> Iterator[str]:
    header = content.header
    yield from (f"# {plain(header.name)}", "", plain(header.summary), "")
    yield f"`{header.id}` · {plain(header.family)} · {header.date} · trained with Likely, the generative image classifier"
    yield from _usage(header.name, is_image_model=content.data is None or len(content.data.shape) == 3)
    yield from _classes(content.class_names)
    if content.metrics is not None:
        yield from _metrics(content.metrics, header.likelihood_type, len(content.class_names))
    if content.data is not None:
        yield from _data(content.data, content.class_names)
    yield from _limitations(content)
    yield from _options(content.options)
    if content.provenance is not None:
        yield from _provenance(content.provenance)


def _usage(name: str, *, is_image_model: bool) -> Iterator[str]:
    folder = name if re.fullmatch(r"\w[\w.-]*", name, re.ASCII) else "MODEL"
    yield from ("", "## Usage", "", "```sh")
    yield f"likely classify {folder} {'image.png' if is_image_model else 'vectors.npy'}"
    yield f"likely evaluate {folder} DATA --report report.html"
    yield from ("```", "", "```python", *(() if is_image_model else ("import numpy as np", "")))
    yield from ("from likely import Classifier", "")
    yield f'classifier = Classifier.load("{folder}")'
    inputs = '["image.png"]' if is_image_model else 'np.load("vectors.npy")'
    yield f"for prediction in classifier.classify({inputs}):"
    yield from ("    print(prediction.status, prediction.label, prediction.probability)", "```")


def _classes(names: tuple[str, ...]) -> Iterator[str]:
    more = "" if len(names) <= _MAX_CLASSES else f" and {len(names) - _MAX_CLASSES} more"
    yield from ("", "## Classes", "")
    yield ", ".join(plain(name) for name in names[:_MAX_CLASSES]) + more


def _metrics(metrics: Metrics, likelihood_type: LikelihoodType | None, n_classes: int) -> Iterator[str]:
    yield from ("", "## Metrics", "", "| Metric | Value | |", "|---|---:|---|")
    tiles = metric_tiles(metrics, likelihood_type, n_classes)
    yield from (f"| {tile.label} | {tile.value} | {plain(tile.note)} |" for tile in tiles)


def _data(data: DataSummary, names: tuple[str, ...]) -> Iterator[str]:
    yield from ("", "## Training data", "")
    splits = (f"{plain(split)} {counts.sum():,}" for split, counts in data.counts.items())
    shape = " × ".join(str(n) for n in data.shape)
    yield f"Images from {plain(data.source)}, converted to {shape} values: {', '.join(splits)}."
    train = data.counts.get("train")
    if train is not None and len(names):
        fewest, most = (f"{train[k]:,} ({plain(names[k])})" for k in (int(train.argmin()), int(train.argmax())))
        yield f"Training images per class: from {fewest} to {most}."
    if data.calibration is not None:
        yield calibration_phrase(data.calibration)
    if data.skipped:
        yield f"{plural(len(data.skipped), 'file')} could not be used."


def _limitations(content: ReportContent) -> Iterator[str]:
    yield from ("", "## Limitations", "")
    likelihood_type = content.header.likelihood_type
    yield f"- **Likelihood.** {likelihood_phrase(likelihood_type)}. {_likelihood_limitation(likelihood_type)}"
    yield f"- **False-alarm rate.** {_guarantee(content.false_alarms)}"
    yield "- **Unknown images.** The metrics show how many are rejected; there is no guarantee for them."
    yield "- **Probabilities.** They assume one of the classes above, with the class prior of the training images."
    yield from (f"- {plain(note)}" for note in content.notes)


def _guarantee(alarms: FalseAlarms | None) -> str:
    if alarms is None:
        return "Not measured: `likely evaluate` compares it with the guarantee."
    if alarms.scope is CalibrationScope.NONE:
        return "No guarantee: the calibration images are too few, and no image is rejected."
    scope = "of every class" if alarms.scope is CalibrationScope.PER_CLASS else "of all classes together"
    return (
        f"If new images are exchangeable with the calibration images, at most {alarms.alpha * 100:g}% of the images {scope} "
        "are rejected, in expectation over calibration sets. The guarantee does not cover images of another "
        "camera, place or season."
    )


def _likelihood_limitation(likelihood_type: LikelihoodType | None) -> str:
    if likelihood_type is None:
        return "The model cannot generate images."
    if likelihood_type.kind is LikelihoodKind.UNNORMALIZED:
        return "Only differences between images under this model are meaningful."
    if likelihood_type.domain is Domain.FEATURES:
        return "It is not a density of images, and not comparable with models of other features."
    if likelihood_type.domain is Domain.TOKENS:
        return "It is not a density of images, and not comparable with models of other tokens."
    return "Simple images have a high likelihood too: use the p-value to detect atypical images."


def _options(options: Mapping[str, tuple[Option, ...]]) -> Iterator[str]:
    if options:
        yield from ("", "## Options")
    for title, group in options.items():
        yield from ("", f"**{plain(title)}**", "", "| Option | Value | Description |", "|---|---|---|")
        yield from (f"| {plain(row.name)} | {plain(row.value)} | {plain(row.description)} |" for row in group)


def _provenance(found: Provenance) -> Iterator[str]:
    yield from ("", "## Provenance", "", "```sh", found.command, "```", "")
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    yield f"{duration(found.minutes)} on {plain(found.machine)} with {plural(found.threads, 'thread')},"
    yield f"{found.precision}, seed {found.seed}; {plain(versions)}."


def plain(text: str) -> str:
    """Escape text for Markdown, on one line.

    >>> print(plain("a|b <c> *d*"))
    a\\|b \\<c\\> \\*d\\*
    """
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]<>#|" else letter for letter in " ".join(text.split()))
