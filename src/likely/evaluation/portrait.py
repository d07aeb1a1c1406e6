"""What a report of a classifier shows: its figures, its pictures, its circumstances, gathered in one ReportContent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from likely.answer import Calibration
from likely.checkpoint import read_document
from likely.classifier import BayesClassifier
from likely.contract import GenerativeModel, LatentClassMixture
from likely.data.collection import Images
from likely.data.parts import Part
from likely.evaluation import metrics
from likely.evaluation.assessment import Assessment
from likely.evaluation.fidelity import Fidelity
from likely.evaluation.record import Record, Row, curves, read_history
from likely.evaluation.report.blocks import Section
from likely.evaluation.report.content import (
    FalseAlarms,
    Header,
    Mislabelled,
    MostWrong,
    Option,
    PValues,
    Reconstructions,
    ReportContent,
    Samples,
    Strangest,
)
from likely.evaluation.report.sections.augmented import augmented
from likely.evaluation.report.sections.fidelity import generated
from likely.evaluation.report.sections.memory import memory, warnings
from likely.evaluation.report.sections.repeats import repeats
from likely.evaluation.report.sections.walks import walks as walk_section
from likely.evaluation.samples import drawn
from likely.evaluation.walks import Route, walks
from likely.nets.scaling import to_eight_bit, to_unit
from likely.options import Options

N_PICTURES = 12  # of the strangest, the most wrong, the reconstructed
MOST_SAMPLES = 240  # over all classes
SAMPLE_SEED = 0


def portrait(
    classifier: BayesClassifier,
    record: Record,
    history: Sequence[Row],
    measured: tuple[Assessment, Part] | None,
    fidelity: Fidelity | None = None,
) -> ReportContent:
    """The report of a classifier, with what was measured on a part of labelled images if anything was."""
    pages = (
        generated(record.honesty, fidelity, classifier.labels),
        _tour(classifier),
        memory(record.memorisation),
        repeats(record.trials),
        augmented(record.augmented),
    )
    content = ReportContent(
        header=_header(classifier, record),
        class_names=classifier.labels,
        curves=curves(history),
        samples=_samples(classifier),
        data=record.data(classifier.shape),
        options=options_of(classifier),
        provenance=record.provenance(),
        notes=(*record.notes, *(warnings(record.memorisation) if record.memorisation else ())),
        extra=tuple(page for page in pages if page is not None),
    )
    return content if measured is None else _with_measurement(content, classifier, *measured)


def measured(
    classifier: BayesClassifier, folder: Path, found: Assessment, part: Part, fidelity: Fidelity | None = None
) -> ReportContent:
    """The report of a saved model with figures measured just now."""
    record = Record.model_validate(read_document(folder)["record"]).model_copy(update={"note": ""})
    return portrait(classifier, record, read_history(folder), (found, part), fidelity)


def with_suspects(content: ReportContent, suspects: Mislabelled) -> ReportContent:
    """The same report with training images whose labels are in doubt."""
    return replace(content, mislabelled=suspects)


def with_samples(content: ReportContent, classifier: BayesClassifier) -> ReportContent:
    """The same report with images that the classifier draws by now."""
    return replace(content, samples=_samples(classifier))


def options_of(classifier: BayesClassifier) -> dict[str, tuple[Option, ...]]:
    """Every option as it was set, by what it belongs to."""
    groups: Mapping[str, Options | None] = {
        classifier.family: classifier.model_.options,
        "training": classifier.training_,
        "augmentation": classifier.training_.augment,
        "images": classifier.format_,
        "drawing": classifier.artist.options if classifier.artist is not None else None,
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


def _header(classifier: BayesClassifier, record: Record) -> Header:
    model, K = classifier.model_, len(classifier.labels)
    kind = "A generative classifier" if isinstance(model, GenerativeModel) else "A discriminative twin, for comparison,"
    id = classifier.id or "unsaved"
    return Header(
        name=id.partition("@")[0],
        id=id,
        family=classifier.family,
        date=record.date,
        summary=f"{kind} of {K} classes, learned from {sum(record.counts['train']):,} images of {record.source}.",
        evidence=model.evidence if isinstance(model, GenerativeModel) else None,
    )


def _with_measurement(
    content: ReportContent, classifier: BayesClassifier, found: Assessment, part: Part
) -> ReportContent:
    log_posterior, labels = found.log_posterior, found.labels
    content = replace(
        content,
        figures=found.figures,
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
        strangest=_strangest(found, part) if found.is_calibrated else None,
        most_wrong=_most_wrong(found, part),
    )


def _false_alarms(classifier: BayesClassifier, found: Assessment) -> FalseAlarms:
    K = len(found.classes)
    kinds = set(found.judgement.calibration)
    return FalseAlarms(
        alpha=found.judgement.alpha,
        calibration=Calibration.POOLED if Calibration.POOLED in kinds else Calibration.PER_CLASS,
        n_test=np.bincount(found.labels, minlength=K),
        n_alarms=np.bincount(found.labels[found.alarms], minlength=K),
        n_calibration=np.bincount(classifier.judge_.typicality.labels.numpy(), minlength=K),
    )


def _p_values(found: Assessment) -> PValues:
    unknown = None if found.unknown is None else found.unknown.judgement.p_value.numpy()
    return PValues(found.judgement.p_value.numpy(), unknown)


def _samples(classifier: BayesClassifier) -> Samples | None:
    if not classifier.draws_images:
        return None
    n = max(1, min(12, MOST_SAMPLES // len(classifier.labels)))
    made = drawn(classifier, n, SAMPLE_SEED)
    return Samples(made.images.batch(np.arange(len(made))).numpy(), made.labels)


def _tour(classifier: BayesClassifier) -> Section | None:
    """A walk from class to class, where images come from a latent space that can be walked through."""
    if classifier.latent is None or not classifier.draws_images:
        return None
    return walk_section(walks(classifier, Route.tour(classifier.labels), seed=SAMPLE_SEED)[0])


def _reconstructions(classifier: BayesClassifier, part: Part) -> Reconstructions | None:
    model = classifier.model_
    if not isinstance(model, LatentClassMixture) or classifier.latent is None:
        return None
    chosen = np.linspace(0, len(part) - 1, min(N_PICTURES, len(part))).astype(np.int64)
    originals = part.images.batch(chosen)
    with torch.inference_mode():
        remade = model.decode(model.encode(to_unit(originals).to(classifier.device)))
    return Reconstructions(originals.numpy(), to_eight_bit(remade.cpu()).numpy(), part.labels[chosen])


def _strangest(found: Assessment, part: Part) -> Strangest:
    strangeness = found.judgement.strangeness.amin(1).numpy()
    p_value = found.judgement.p_value.numpy()
    chosen = np.lexsort((-strangeness, p_value))[:N_PICTURES]
    return Strangest(_pixels(part.images, chosen), p_value[chosen], found.labels[chosen])


def _most_wrong(found: Assessment, part: Part) -> MostWrong | None:
    predicted, probability = found.log_posterior.argmax(1), np.exp(found.log_posterior.max(1))
    wrong = np.flatnonzero(predicted != found.labels)
    if not len(wrong):
        return None
    chosen = wrong[np.argsort(-probability[wrong], kind="stable")][:N_PICTURES]
    return MostWrong(_pixels(part.images, chosen), found.labels[chosen], predicted[chosen], probability[chosen])


def _pixels(images: Images, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
    return images.batch(chosen).numpy()
