"""What a report of a classifier shows: its figures, its pictures, its circumstances, gathered in one ReportContent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from likely.base import GenerativeModel, LatentClassMixture
from likely.checkpoint import read_document
from likely.classifier import Predictor
from likely.data.dataset import LabeledImages
from likely.data.image_dataset import ImageDataset
from likely.evaluation import metrics
from likely.evaluation.evaluate import EvaluationResult
from likely.evaluation.fidelity import Fidelity
from likely.evaluation.interpolation import InterpolationPath, interpolate_classes
from likely.evaluation.sample_quality import sample_images
from likely.evaluation.training_record import Row, TrainingRecord, read_history
from likely.networks.pixel_scaling import to_eight_bit, to_unit
from likely.options import Options
from likely.prediction import CalibrationScope
from likely.reporting.html.blocks import Section
from likely.reporting.html.content import (
    Curves,
    DataSummary,
    FalseAlarms,
    LabelIssues,
    MostAtypical,
    MostConfidentErrors,
    Option,
    Provenance,
    PValues,
    Reconstructions,
    ReportContent,
    ReportHeader,
    Samples,
)
from likely.reporting.html.sections.fidelity import generated
from likely.reporting.html.sections.interpolation import interpolation as walk_section
from likely.reporting.html.sections.memorization import memorization, warnings
from likely.reporting.html.sections.repeats import repeats
from likely.reporting.html.sections.synthetic_augmentation import synthetic_augmentation

N_IMAGES = 12  # of the strangest, the most wrong, the reconstructed
MAX_SAMPLES = 240  # over all classes
SAMPLE_SEED = 0


def build_report(
    classifier: Predictor,
    record: TrainingRecord,
    history: Sequence[Row],
    measured: tuple[EvaluationResult, LabeledImages] | None,
    fidelity: Fidelity | None = None,
) -> ReportContent:
    """The report of a classifier, with what was measured on a part of labeled images if anything was."""
    pages = (
        generated(record.sample_quality, fidelity, classifier.labels),
        _tour(classifier),
        memorization(record.memorization),
        repeats(record.repeats),
        synthetic_augmentation(record.synthetic_augmentation),
    )
    content = ReportContent(
        header=_header(classifier, record),
        class_names=classifier.labels,
        curves=_curves(history),
        samples=_samples(classifier),
        data=_data_summary(record, classifier.shape),
        options=model_options(classifier),
        provenance=_provenance(record),
        notes=(*_notes(record), *(warnings(record.memorization) if record.memorization else ())),
        extra=tuple(page for page in pages if page is not None),
    )
    return content if measured is None else _with_measurement(content, classifier, *measured)


def build_evaluation_report(
    classifier: Predictor,
    folder: Path,
    found: EvaluationResult,
    images: LabeledImages,
    fidelity: Fidelity | None = None,
) -> ReportContent:
    """The report of a saved model with figures measured just now."""
    record = TrainingRecord.model_validate(read_document(folder)["record"]).model_copy(update={"note": ""})
    return build_report(classifier, record, read_history(folder), (found, images), fidelity)


def with_label_issues(content: ReportContent, issues: LabelIssues) -> ReportContent:
    """The same report with training images whose labels are in doubt."""
    return replace(content, label_issues=issues)


def with_samples(content: ReportContent, classifier: Predictor) -> ReportContent:
    """The same report with images that the classifier draws by now."""
    return replace(content, samples=_samples(classifier))


def model_options(classifier: Predictor) -> dict[str, tuple[Option, ...]]:
    """Every option as it was set, by what it belongs to."""
    groups: Mapping[str, Options | None] = {
        classifier.family: classifier.model_.options,
        "training": classifier.training_,
        "augmentation": classifier.training_.augment,
        "images": classifier.format_,
        "drawing": classifier.feature_decoder.options if classifier.feature_decoder is not None else None,
        "features": classifier.features_.options if classifier.features_ is not None else None,
    }
    return {title: tuple(_rows(options)) for title, options in groups.items() if options is not None}


def _rows(options: Options) -> list[Option]:
    fields = type(options).model_fields
    values = {name: getattr(options, name) for name in fields}
    return [
        Option(name, str(value), fields[name].description or "")
        for name, value in values.items()
        if not isinstance(value, Options)
    ]


def _header(classifier: Predictor, record: TrainingRecord) -> ReportHeader:
    model, K = classifier.model_, len(classifier.labels)
    kind = "A generative classifier" if isinstance(model, GenerativeModel) else "A softmax twin, for comparison,"
    id = classifier.id or "unsaved"
    return ReportHeader(
        name=id.partition("@")[0],
        id=id,
        family=classifier.family,
        date=record.date,
        summary=f"{kind} of {K} classes, learned from {sum(record.counts['train']):,} images of {record.source}.",
        likelihood_type=model.likelihood_type if isinstance(model, GenerativeModel) else None,
    )


def _curves(history: Sequence[Row]) -> Curves | None:
    """Return the columns "loss/…" and "validation/…" of the history under the names after the slash."""
    if not history:
        return None
    names = dict.fromkeys(name for row in history for name in row)
    columns = {name: np.array([row.get(name, np.nan) for row in history], np.float64) for name in names}
    losses, validation = (
        {name.removeprefix(prefix): values for name, values in columns.items() if name.startswith(prefix)}
        for prefix in ("loss/", "validation/")
    )
    return Curves(columns["epoch"].astype(np.int64), losses, validation, columns.get("learning_rate"))


def _data_summary(record: TrainingRecord, shape: tuple[int, ...]) -> DataSummary:
    counts = {split: np.array(n, np.int64) for split, n in record.counts.items()}
    return DataSummary(record.source, shape, counts, record.skipped, record.n_unlabeled)


def _provenance(record: TrainingRecord) -> Provenance:
    return Provenance(**{field.name: getattr(record, field.name) for field in fields(Provenance)})


def _notes(record: TrainingRecord) -> tuple[str, ...]:
    added = ", ".join(f"{name} ({n:,} images)" for name, n in record.added_classes.items())
    words = f"Classes added after training, without retraining the others: {added}." if added else ""
    return tuple(filter(None, (record.note, words)))


def _with_measurement(
    content: ReportContent, classifier: Predictor, found: EvaluationResult, part: LabeledImages
) -> ReportContent:
    log_posterior, labels = found.log_posterior, found.labels
    content = replace(
        content,
        metrics=found.metrics,
        confusion=metrics.confusion(log_posterior, labels),
        reliability=metrics.reliability(log_posterior, labels),
        per_class=metrics.per_class(log_posterior, labels),
        false_alarms=_false_alarms(classifier, found) if found.is_calibrated else None,
        p_values=_p_values(found) if found.is_calibrated else None,
    )
    if classifier.format_ is None:
        return content
    return replace(
        content,
        reconstructions=_reconstructions(classifier, part),
        most_atypical=_strangest(found, part) if found.is_calibrated else None,
        most_confident_errors=_most_wrong(found, part),
    )


def _false_alarms(classifier: Predictor, found: EvaluationResult) -> FalseAlarms:
    K = len(found.classes)
    kinds = set(found.output.calibration_scope)
    return FalseAlarms(
        alpha=found.output.alpha,
        calibration=CalibrationScope.POOLED if CalibrationScope.POOLED in kinds else CalibrationScope.PER_CLASS,
        n_test=np.bincount(found.labels, minlength=K),
        n_rejected=np.bincount(found.labels[found.rejected], minlength=K),
        n_calibration=np.bincount(classifier.conformal_.typicality.labels.numpy(), minlength=K),
    )


def _p_values(found: EvaluationResult) -> PValues:
    unknown = None if found.unknown is None else found.unknown.output.p_value.numpy()
    return PValues(found.output.p_value.numpy(), unknown)


def _samples(classifier: Predictor) -> Samples | None:
    if not classifier.generates_images:
        return None
    n = max(1, min(12, MAX_SAMPLES // len(classifier.labels)))
    made = sample_images(classifier, n, SAMPLE_SEED)
    return Samples(made.images.batch(np.arange(len(made))).numpy(), made.labels)


def _tour(classifier: Predictor) -> Section | None:
    """A walk from class to class, where images come from a latent space that can be walked through."""
    if classifier.latent is None or not classifier.generates_images:
        return None
    return walk_section(
        interpolate_classes(classifier, InterpolationPath.is_loop(classifier.labels), seed=SAMPLE_SEED)[0]
    )


def _reconstructions(classifier: Predictor, part: LabeledImages) -> Reconstructions | None:
    model = classifier.model_
    if not isinstance(model, LatentClassMixture) or classifier.latent is None:
        return None
    chosen = np.linspace(0, len(part) - 1, min(N_IMAGES, len(part))).astype(np.int64)
    originals = part.images.batch(chosen)
    with torch.inference_mode():
        remade = model.decode(model.encode(to_unit(originals).to(classifier.device)))
    return Reconstructions(originals.numpy(), to_eight_bit(remade.cpu()).numpy(), part.labels[chosen])


def _strangest(found: EvaluationResult, part: LabeledImages) -> MostAtypical:
    nonconformity = found.output.nonconformity.amin(1).numpy()
    p_value = found.output.p_value.numpy()
    chosen = np.lexsort((-nonconformity, p_value))[:N_IMAGES]
    return MostAtypical(_pixels(part.images, chosen), p_value[chosen], found.labels[chosen])


def _most_wrong(found: EvaluationResult, part: LabeledImages) -> MostConfidentErrors | None:
    predicted, probability = found.log_posterior.argmax(1), np.exp(found.log_posterior.max(1))
    wrong = np.flatnonzero(predicted != found.labels)
    if not len(wrong):
        return None
    chosen = wrong[np.argsort(-probability[wrong], kind="stable")][:N_IMAGES]
    return MostConfidentErrors(
        _pixels(part.images, chosen), found.labels[chosen], predicted[chosen], probability[chosen]
    )


def _pixels(images: ImageDataset, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
    return images.batch(chosen).numpy()
