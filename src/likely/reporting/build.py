"""Report content of a classifier: metrics, images, diagnostics and provenance, gathered in one ReportContent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from likely.base import GenerativeModel, LatentClassMixture, to_eight_bit, to_unit
from likely.classifier import Predictor
from likely.classifier.sampling import latent_model
from likely.data.dataset import LabeledImages
from likely.data.image_dataset import ImageDataset
from likely.evaluation import metrics
from likely.evaluation.evaluate import EvaluationResult
from likely.evaluation.fidelity import Fidelity
from likely.evaluation.interpolation import InterpolationPath, Segment, interpolate_classes
from likely.evaluation.metrics import Ints
from likely.evaluation.sample_quality import sample_images
from likely.evaluation.training_record import Row, TrainingRecord, load_record, read_history
from likely.options import Options
from likely.prediction import Guarantee
from likely.reporting.formatting import without_folders
from likely.reporting.html.content import (
    AcceptedUnknown,
    Curves,
    DataSummary,
    FalseAlarms,
    ImageGroup,
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
    SimilarImages,
)
from likely.reporting.html.sections.memorization import memorization_caveats
from likely.reporting.originals import originals, short_names

N_IMAGES = 12  # reconstructions, most atypical images, most confident errors, accepted unknown images
N_GROUPS, N_GROUP_IMAGES = 6, 4  # groups of similar images, and images of each
MAX_SAMPLES = 240  # over all classes
SAMPLE_SEED = 0


@dataclass(frozen=True, eq=False)
class ReportInputs:
    """A classifier and everything that is known about it: the input of `build_report`.

    `evaluation` holds the result and the labeled images that it was measured on, `training_images` those among which groups
    of similar images are shown; `notes` are further caveats.
    """

    classifier: Predictor
    record: TrainingRecord
    history: Sequence[Row] = ()
    evaluation: tuple[EvaluationResult, LabeledImages] | None = None
    fidelity: Fidelity | None = None
    label_issues: LabelIssues | None = None
    training_images: LabeledImages | None = None
    notes: tuple[str, ...] = ()


def build_report(inputs: ReportInputs) -> ReportContent:
    """Return the content of a classifier's report."""
    classifier, record = inputs.classifier, inputs.record
    content = ReportContent(
        header=_header(classifier, record),
        class_names=classifier.labels,
        curves=_curves(inputs.history),
        repeats=record.repeats,
        synthetic_augmentation=record.synthetic_augmentation,
        samples=_samples(classifier),
        interpolation=_interpolation(classifier),
        sample_quality=record.sample_quality,
        fidelity=inputs.fidelity,
        label_issues=inputs.label_issues,
        similar_images=_similar_images(inputs.training_images),
        memorization=record.memorization,
        data=_data_summary(record, classifier.shape),
        options=_options(classifier),
        provenance=_provenance(record),
        notes=(*_notes(record), *inputs.notes),
    )
    if inputs.evaluation is not None:
        content = _with_evaluation(content, classifier, *inputs.evaluation)
    return _without_folders(content)


def _without_folders(content: ReportContent) -> ReportContent:
    """Shorten absolute paths to their last component: readers of a report need not know where its author keeps files."""
    measured, data, found = content.metrics, content.data, content.provenance
    if measured is not None and measured.unknown is not None:
        unknown = replace(measured.unknown, source=without_folders(measured.unknown.source))
        measured = replace(measured, unknown=unknown)
    if data is not None:
        skipped = {without_folders(file): without_folders(reason) for file, reason in data.skipped.items()}
        data = replace(data, source=without_folders(data.source), skipped=skipped)
    return replace(
        content,
        header=replace(content.header, summary=without_folders(content.header.summary)),
        metrics=measured,
        data=data,
        options={
            title: tuple(option._replace(value=without_folders(option.value)) for option in group)
            for title, group in content.options.items()
        },
        provenance=None if found is None else replace(found, command=without_folders(found.command)),
        notes=tuple(map(without_folders, content.notes)),
    )


def build_evaluation_report(
    classifier: Predictor,
    folder: Path,
    found: EvaluationResult,
    images: LabeledImages,
    fidelity: Fidelity | None = None,
) -> ReportContent:
    """Return the content of a report on a saved model with a new evaluation."""
    record = load_record(folder).model_copy(update={"note": ""})
    return build_report(ReportInputs(classifier, record, read_history(folder), (found, images), fidelity))


def _header(classifier: Predictor, record: TrainingRecord) -> ReportHeader:
    model, K = classifier.model, len(classifier.labels)
    kind = "A generative classifier" if isinstance(model, GenerativeModel) else "A softmax classifier"
    id = classifier.id or "unsaved"
    n = sum(sum(counts) for split, counts in record.counts.items() if split != "test")
    return ReportHeader(
        name=id.partition("@")[0],
        id=id,
        family=classifier.family,
        date=record.date,
        summary=f"{kind} of {K} classes, trained and calibrated with {n:,} images of {record.source}.",
        likelihood_type=model.likelihood_type if isinstance(model, GenerativeModel) else None,
    )


def _options(classifier: Predictor) -> dict[str, tuple[Option, ...]]:
    """Return all options, by what they configure."""
    groups: Mapping[str, Options | None] = {
        classifier.family: classifier.model.options,
        "training": classifier.training,
        "augmentation": classifier.training.augment,
        "images": classifier.format,
        "decoder": classifier.feature_decoder.options if classifier.feature_decoder is not None else None,
        "features": classifier.features.options if classifier.features is not None else None,
    }
    return {title: tuple(_option_rows(options)) for title, options in groups.items() if options is not None}


def _option_rows(options: Options) -> Iterator[Option]:
    for name, field in type(options).model_fields.items():
        value = getattr(options, name)
        if not isinstance(value, Options):
            yield Option(name, "–" if value is None else str(value), field.description or "")


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
    return DataSummary(
        record.source, shape, counts, record.skipped, record.n_unlabeled, record.n_groups, record.calibration
    )


def _provenance(record: TrainingRecord) -> Provenance:
    return Provenance(**{field.name: getattr(record, field.name) for field in fields(Provenance)})


def _notes(record: TrainingRecord) -> tuple[str, ...]:
    classes, images = (
        ", ".join(f"{name} ({n:,} images)" for name, n in each.items())
        for each in (record.added_classes, record.added_images)
    )
    added = f"Classes added after training, without retraining the others: {classes}." if classes else ""
    more = f"Classes improved after training by further images: {images}." if images else ""
    again = record.recalibration
    calibrated = (
        f"Calibrated again on {again.date}, with {again.n_images:,} images from {again.source}: "
        "the false-alarm rate is guaranteed for images like these."
        if again
        else ""
    )
    memorization = memorization_caveats(record.memorization) if record.memorization else ()
    return tuple(filter(None, (record.note, added, more, calibrated, *memorization)))


def _with_evaluation(
    content: ReportContent, classifier: Predictor, found: EvaluationResult, images: LabeledImages
) -> ReportContent:
    log_posterior, labels = found.log_posterior, found.labels
    content = replace(
        content,
        metrics=found.metrics,
        confusion=metrics.confusion(log_posterior, labels),
        reliability=metrics.reliability(log_posterior, labels, groups=found.groups),
        per_class=metrics.per_class(log_posterior, labels),
        false_alarms=false_alarms(classifier, found),
        p_values=_p_values(found) if found.is_calibrated else None,
    )
    if classifier.format is None:
        return content
    return replace(
        content,
        reconstructions=_reconstructions(classifier, images),
        most_atypical=_most_atypical(found, images) if found.is_calibrated else None,
        most_confident_errors=_most_confident_errors(found, images),
        accepted_unknown=_accepted_unknown(found),
    )


def false_alarms(classifier: Predictor, found: EvaluationResult) -> FalseAlarms:
    """Return the rejections of known images in an evaluation, and the calibration images that bound them.

    One image of each group counts: images of a group depend on each other, and the bounds are those of independent ones.
    """
    K, n_overall = len(found.classes), int(classifier.decision_rule.image_calibrator.weights.sum())
    one = found.one_per_group
    return FalseAlarms(
        alpha=found.output.alpha,
        scope=found.output.scope,
        n_test=np.bincount(found.labels[one], minlength=K),
        n_rejected=np.bincount(found.labels[one][found.rejected[one]], minlength=K),
        n_calibration=np.bincount(classifier.decision_rule.typicality.labels.numpy(), minlength=K),
        n_overall=n_overall if found.output.guarantee is Guarantee.OVERALL else None,
        is_by_group=len(one) < len(found.labels),
    )


def _p_values(found: EvaluationResult) -> PValues:
    unknown = None if found.unknown is None else found.unknown.output.p_value.numpy()
    return PValues(found.output.p_value.numpy(), unknown)


def _samples(classifier: Predictor) -> Samples | None:
    if not classifier.generates_images:
        return None
    n = max(1, min(12, MAX_SAMPLES // len(classifier.labels)))
    generated = sample_images(classifier, n, SAMPLE_SEED)
    return Samples(_pixels(generated.images, np.arange(len(generated))), generated.labels)


def _interpolation(classifier: Predictor) -> tuple[Segment, ...]:
    if latent_model(classifier) is None or not classifier.generates_images:
        return ()
    path = InterpolationPath.through(classifier.labels)
    return interpolate_classes(classifier, path, seed=SAMPLE_SEED)[0]


def _reconstructions(classifier: Predictor, images: LabeledImages) -> Reconstructions | None:
    model = classifier.model
    if not isinstance(model, LatentClassMixture) or latent_model(classifier) is None:
        return None
    indices = np.linspace(0, len(images) - 1, min(N_IMAGES, len(images))).astype(np.int64)
    originals = images.images.batch(indices)
    with torch.inference_mode():
        decoded = model.decode(model.encode(to_unit(originals).to(classifier.device)))
    return Reconstructions(originals.numpy(), to_eight_bit(decoded.cpu()).numpy(), images.labels[indices])


def _most_atypical(found: EvaluationResult, images: LabeledImages) -> MostAtypical:
    p_value, predicted = found.output.p_value.numpy(), found.output.predicted.numpy()
    chosen = np.lexsort((-found.output.score.numpy(), p_value))[:N_IMAGES]
    return MostAtypical(
        originals(images.images, chosen),
        p_value[chosen],
        found.labels[chosen],
        predicted[chosen],
        short_names(images.images, chosen),
    )


def _most_confident_errors(found: EvaluationResult, images: LabeledImages) -> MostConfidentErrors | None:
    predicted, probability = found.log_posterior.argmax(1), np.exp(found.log_posterior.max(1))
    wrong = np.flatnonzero(predicted != found.labels)
    if not len(wrong):
        return None
    chosen = wrong[np.argsort(-probability[wrong], kind="stable")][:N_IMAGES]
    return MostConfidentErrors(
        originals(images.images, chosen),
        found.labels[chosen],
        predicted[chosen],
        probability[chosen],
        short_names(images.images, chosen),
    )


def _accepted_unknown(found: EvaluationResult) -> AcceptedUnknown | None:
    if found.unknown is None or not found.is_calibrated:
        return None
    output, images = found.unknown.output, found.unknown.images.images
    accepted = np.flatnonzero(~output.is_unknown.numpy())
    if not len(accepted):
        return None
    score, p_value = output.score.numpy(), output.p_value.numpy()
    chosen = accepted[np.lexsort((score[accepted], -p_value[accepted]))][:N_IMAGES]
    return AcceptedUnknown(
        len(accepted),
        originals(images, chosen),
        p_value[chosen],
        output.predicted.numpy()[chosen],
        short_names(images, chosen),
    )


def _similar_images(images: LabeledImages | None) -> SimilarImages | None:
    """Return the groups of two or more images, those with several labels first, then the largest."""
    if images is None or images.groups is None:
        return None
    order = np.argsort(images.groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(images.groups[order])) + 1)
    groups = [(each, np.unique(images.labels[each][images.labels[each] >= 0])) for each in members if len(each) > 1]
    if not groups:
        return None
    groups.sort(key=lambda group: (-len(group[1]), -len(group[0])))
    return SimilarImages(
        len(groups),
        sum(len(each) for each, _ in groups),
        sum(len(classes) > 1 for _, classes in groups),
        tuple(_image_group(images, *group) for group in groups[:N_GROUPS]),
    )


def _image_group(images: LabeledImages, members: Ints, classes: Ints) -> ImageGroup:
    """Show images of all classes of the group before further ones of its first class."""
    _, first = np.unique(images.labels[members], return_index=True)
    shown = np.concatenate([members[first], np.delete(members, first)])[:N_GROUP_IMAGES]
    return ImageGroup(
        len(members), tuple(classes.tolist()), originals(images.images, shown), short_names(images.images, shown)
    )


def _pixels(images: ImageDataset, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    return images.batch(indices).numpy()
