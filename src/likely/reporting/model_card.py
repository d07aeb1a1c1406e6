"""The model card: README.md with the metadata that model hubs read, then what a person needs before using the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from likely.base import Domain, LikelihoodKind, LikelihoodType
from likely.evaluation.summary import Metrics
from likely.prediction import CalibrationScope
from likely.reporting.formatting import likelihood_phrase, plural
from likely.reporting.html.content import DataSummary, FalseAlarms, Option, Provenance, ReportContent
from likely.reporting.metric_tiles import metric_tiles

_MOST_CLASSES = 1000


def model_card(content: ReportContent) -> str:
    """Front matter between two lines of hyphens, then Markdown; a part that is absent from the content is left out."""
    parts = [_front_matter(content), "", *_words(content)]
    return "\n".join(parts) + "\n"


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


def _results(content: ReportContent, figures: Metrics) -> dict[str, Any]:
    """The figures as the model index that a hub shows."""
    from huggingface_hub import EvalResult

    name = content.header.name
    source = "its own test images" if content.data is None else content.data.source
    results = [
        EvalResult(
            task_type="image-classification",
            task_name="Image classification",
            dataset_type=name,
            dataset_name=source,
            metric_type=kind,
            metric_value=round(float(value), 6),
        )
        for kind, value in _metrics(figures).items()
        if value is not None and math.isfinite(value)
    ]
    return {"model_name": name, "eval_results": results}


def _metrics(figures: Metrics) -> dict[str, float | None]:
    rejection, unknown = figures.rejection, figures.unknown
    return {
        "accuracy": figures.accuracy,
        "balanced_accuracy": figures.balanced_accuracy,
        "nll": figures.nll,
        "ece": figures.ece,
        "brier": figures.brier,
        "bits_per_dim": figures.bits_per_dim,
        "false_alarm_rate": None if rejection is None else rejection.n_rejected / figures.n,
        "auroc": None if unknown is None else unknown.auroc,
        "fpr_at_95_tpr": None if unknown is None else unknown.fpr_at_95_tpr,
    }


# --- words ----------------------------------------------------------------------------------------------------------


def _words(content: ReportContent) -> Iterator[str]:
    header = content.header
    yield from (f"# {plain(header.name)}", "", plain(header.summary), "")
    yield f"`{header.id}` · {plain(header.family)} · {header.date} · made with Likely, the generative image classifier"
    yield from _use(header.name)
    yield from _classes(content.class_names)
    if content.metrics is not None:
        yield from _figures(content.metrics, header.likelihood_type, len(content.class_names))
    if content.data is not None:
        yield from _data(content.data, content.class_names)
    yield from _limits(content)
    yield from _options(content.options)
    if content.provenance is not None:
        yield from _provenance(content.provenance)


def _use(name: str) -> Iterator[str]:
    folder = name if name.isidentifier() else "MODEL"
    yield from ("", "## How to use it", "", "```sh")
    yield f"likely classify {folder} image.png"
    yield f"likely evaluate {folder} DATA --report report.html"
    yield from ("```", "", "```python", "from likely import Classifier", "")
    yield f'classifier = BayesClassifier.load("{folder}")'
    yield from (
        "for answer in classifier.answer(images):",
        "    print(answer.status, answer.label, answer.probability)",
        "```",
    )


def _classes(names: tuple[str, ...]) -> Iterator[str]:
    more = "" if len(names) <= _MOST_CLASSES else f" and {len(names) - _MOST_CLASSES} more"
    yield from ("", f"## The {plural(len(names), 'class')}", "")
    yield ", ".join(plain(name) for name in names[:_MOST_CLASSES]) + more


def _figures(figures: Metrics, evidence: LikelihoodType | None, n_classes: int) -> Iterator[str]:
    yield from ("", "## Figures", "", "| | | |", "|---|---:|---|")
    yield from (
        f"| {row.label} | {row.value} | {plain(row.note)} |" for row in metric_tiles(figures, evidence, n_classes)
    )


def _data(data: DataSummary, names: tuple[str, ...]) -> Iterator[str]:
    yield from ("", "## What it was made from", "")
    parts = (f"{plain(part)} {counts.sum():,}" for part, counts in data.counts.items())
    shape = " × ".join(str(n) for n in data.shape)
    yield f"Images from {plain(data.source)}, seen as {shape} values: {', '.join(parts)}."
    train = data.counts.get("train")
    if train is not None and len(names):
        least, most = (f"{train[k]:,} ({plain(names[k])})" for k in (int(train.argmin()), int(train.argmax())))
        yield f"Training images of a class: from {least} to {most}."
    if data.skipped:
        yield f"{plural(len(data.skipped), 'file')} could not be used."


def _limits(content: ReportContent) -> Iterator[str]:
    yield from ("", "## Limits", "")
    evidence = content.header.likelihood_type
    yield f"- **The likelihood** is: {likelihood_phrase(evidence)}. {_not_the_likelihood(evidence)}"
    yield f"- **False alarms.** {_promise(content.false_alarms)}"
    yield "- **Unknown images** are recognized as often as the figures say: there is no promise about them."
    yield "- **Probabilities** compare the classes above with each other, at the class shares of the training images."
    yield from (f"- {plain(note)}" for note in content.notes)


def _promise(alarms: FalseAlarms | None) -> str:
    if alarms is None or alarms.calibration is CalibrationScope.NONE:
        return "Nothing is promised: there were too few calibration images, and no image is called unknown."
    scope = "of every class" if alarms.calibration is CalibrationScope.PER_CLASS else "of all classes taken together"
    return (
        f"At most {alarms.alpha * 100:g}% of the images {scope} are called unknown, on average over calibration sets, "
        "if new images come from where the calibration images came from. Another camera, place or season breaks the "
        "promise; calibrating anew mends it."
    )


def _not_the_likelihood(evidence: LikelihoodType | None) -> str:
    if evidence is None:
        return "It gives no p-values of its own."
    if evidence.kind is LikelihoodKind.UNNORMALIZED:
        return "It compares images under this model alone: its differences have a meaning, its values have none."
    if evidence.domain is Domain.FEATURES:
        return "It is no probability of an image, and cannot be compared with a model of other features."
    return "A high one means a simple image as well as a familiar one: the p-value says how usual an image is."


def _options(options: Mapping[str, tuple[Option, ...]]) -> Iterator[str]:
    if options:
        yield from ("", "## Options")
    for title, group in options.items():
        yield from ("", f"**{plain(title)}**", "", "| option | value | meaning |", "|---|---|---|")
        yield from (f"| {plain(row.name)} | {plain(row.value)} | {plain(row.meaning)} |" for row in group)


def _provenance(made: Provenance) -> Iterator[str]:
    yield from ("", "## How it was made", "", "```sh", made.command, "```", "")
    versions = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    yield f"{made.minutes:.1f} minutes on {plain(made.machine)} with {plural(made.threads, 'thread')},"
    yield f"{made.precision}, seed {made.seed}; {plain(versions)}."


def plain(words: str) -> str:
    """Words that Markdown shows as they are, on one line.

    >>> print(plain("a|b <c> *d*"))
    a\\|b \\<c\\> \\*d\\*
    """
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]<>#|" else letter for letter in " ".join(words.split()))
