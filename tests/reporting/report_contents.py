"""Report contents for tests."""

from __future__ import annotations

import numpy as np

from likely.base import Domain, LikelihoodKind, LikelihoodType
from likely.evaluation import metrics
from likely.evaluation.interpolation import Segment
from likely.evaluation.label_errors import LabelIssue
from likely.evaluation.metrics import Metrics, OODMetrics, RejectionMetrics
from likely.prediction import CalibrationScope
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

NASTY = "<b>\"x\"&'y'</b>/|a_b|: - #é"
NAMES = ("boot", NASTY, "bag")
FILES = tuple(f"boot/{i}.jpg" for i in range(12))
HEADER = ReportHeader(
    name="fashion",
    id="fashion@3f2a",
    family="vae",
    date="2026-03-14",
    summary="Tells boots from bags.",
    likelihood_type=LikelihoodType(LikelihoodKind.LOWER_BOUND, Domain.PIXELS8),
)


def report_of(names: tuple[str, ...], shape: tuple[int, int, int], per_class: int) -> ReportContent:
    """A report with all its parts, its pictures noise, from `per_class` test images of each class."""
    rng, k = np.random.default_rng(0), len(names)
    labels = np.tile(np.arange(k), per_class)
    images = rng.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
    logits = rng.normal(size=(len(labels), k)) + 2 * np.eye(k)[labels]
    log_posterior = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    p_values, each = rng.random(len(labels)), np.full(k, per_class)
    epochs = np.arange(1, 6)
    return ReportContent(
        HEADER,
        names,
        metrics=Metrics(
            n=len(labels),
            n_correct=round(metrics.accuracy(log_posterior, labels) * len(labels)),
            balanced_accuracy=metrics.balanced_accuracy(log_posterior, labels),
            nll=metrics.nll(log_posterior, labels),
            ece=metrics.ece(log_posterior, labels),
            brier=metrics.brier(log_posterior, labels),
            bits_per_dim=2.5,
            images_per_second=1204.4,
            rejection=RejectionMetrics(alpha=0.05, n_rejected=1, n_ambiguous=2),
            unknown=OODMetrics("letters", 50, 40, 0.93, 0.21),
        ),
        curves=Curves(epochs, {"nll": 1 / epochs, "adversarial": 0 * epochs}, {"nll": 1.1 / epochs}, 0.1 / epochs),
        confusion=metrics.confusion(log_posterior, labels),
        reliability=metrics.reliability(log_posterior, labels),
        false_alarms=FalseAlarms(0.05, CalibrationScope.PER_CLASS, each, np.arange(k) % 2, np.full(k, 60)),
        p_values=PValues(p_values, p_values**4),
        per_class=metrics.per_class(log_posterior, labels),
        samples=Samples(images, labels),
        interpolation=(Segment(names[0], names[1], images[:4]), Segment(names[1], names[0], images[:4])),
        reconstructions=Reconstructions(images[:12], images[:12], labels[:12]),
        most_atypical=MostAtypical(images[:12], np.sort(p_values)[:12] / 500, labels[:12], labels[1:13], FILES),
        most_confident_errors=MostConfidentErrors(images[:12], labels[:12], labels[1:13], p_values[:12], FILES),
        accepted_unknown=AcceptedUnknown(30, images[:12], p_values[:12], labels[:12], FILES),
        label_issues=LabelIssues(
            images[:2], (LabelIssue(4, 0, 1, -0.9), LabelIssue(2, 1, 0, -0.4)), ("a/1.png", "b/2.png")
        ),
        similar_images=SimilarImages(
            5, 17, 1, (ImageGroup(9, (0, 1), images[:4], FILES[:4]), ImageGroup(2, (0,), images[:2]))
        ),
        data=DataSummary("fashion/", shape, {"train": 100 * each, "test": each}, {"a/x.png": "truncated"}, 7),
        options={"Model": (Option("latent", "64", "Size of the code."),)},
        provenance=Provenance("likely train <fashion>", {"torch": "2.13"}, "a desk", 7, 12.5, 8, "float32"),
        notes=("Mind the step.",),
    )
