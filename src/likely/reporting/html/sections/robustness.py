"""Robustness against corruptions and adversarial attacks, compared with the softmax baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from likely.evaluation.attacks import AttackResult
from likely.evaluation.corruptions import CORRUPTIONS, STRENGTHS
from likely.evaluation.robustness import Robustness
from likely.reporting.formatting import percent, plural
from likely.reporting.html.content import ReportContent, RobustnessResults
from likely.reporting.html.page import Cell, Chapter, Column, Paragraph, Section, Table

Attacks = Sequence[tuple[str, Sequence[AttackResult]]]

_CORRUPTION_COLUMNS = (
    Column("Corruption"),
    Column("Classifier"),
    *(Column(f"Strength {strength}", "number") for strength in STRENGTHS),
    Column("Rejected", "number"),
)
_ATTACK_COLUMNS = (
    Column("Attack"),
    Column("Classifier"),
    Column("Accuracy", "number"),
    Column("Attack success", "number"),
    Column("Rejected", "number"),
)


def robustness_sections(content: ReportContent) -> Iterator[Section]:
    """Yield the section on robustness if it was measured."""
    blocks = tuple(robustness_blocks(content.robustness)) if content.robustness is not None else ()
    if not blocks:
        return
    introduction = (
        "Accuracy on corrupted images and under adversarial attacks, and the fraction of these images that the classifier "
        "rejects."
    )
    yield Section(Chapter.METRICS, "robustness", "Robustness", introduction, blocks, "what does it take to mislead it?")


def robustness_blocks(found: RobustnessResults) -> Iterator[Table | Paragraph]:
    """Yield a table and a paragraph for the corruptions and for the attacks that were measured."""
    if found.corruptions:
        yield Table("Accuracy on corrupted images", _CORRUPTION_COLUMNS, tuple(_corruption_rows(found.corruptions)))
        yield Paragraph(_corruption_summary(found.corruptions))
    if found.attacks:
        yield Table("Adversarial attacks", _ATTACK_COLUMNS, tuple(_attack_rows(found.attacks)))
        yield Paragraph(_attack_summary(found.attacks))


def _corruption_rows(corruptions: Sequence[Robustness]) -> Iterator[tuple[Cell, ...]]:
    """Yield a row for each corruption and classifier: accuracy by strength, rejection rate at the strongest."""
    for found in corruptions:
        clean = found.clean
        yield "none", found.model, percent(clean.accuracy), *[""] * (len(STRENGTHS) - 1), _rate(clean.unknown_rate)
    for name in CORRUPTIONS:
        for found in corruptions:
            rows = found.of(name)
            yield name, found.model, *(percent(row.accuracy) for row in rows), _rate(rows[-1].unknown_rate)
    for found in corruptions:
        means = [sum(r.accuracy for r in found.rows if r.strength == s) / len(CORRUPTIONS) for s in STRENGTHS]
        yield "mean", found.model, *map(percent, means), _rate(found.mean_unknown_rate)


def _rate(unknown_rate: float | None) -> str:
    return "–" if unknown_rate is None else percent(unknown_rate)


def _corruption_summary(corruptions: Sequence[Robustness]) -> str:
    means = ", ".join(f"{found.model} {percent(found.mean_accuracy)}" for found in corruptions)
    return (
        f"{plural(corruptions[0].n, 'image')} with every corruption. Rejected: at strength {STRENGTHS[-1]}; in the rows "
        f'"mean", over all strengths. Mean accuracy over all corruptions and strengths: {means}.'
    )


def _attack_rows(attacks: Attacks) -> Iterator[tuple[Cell, ...]]:
    for i in range(len(attacks[0][1])):
        for model, rows in attacks:
            row = rows[i]
            rates = (row.accuracy, row.attack_success_rate, row.rejection_rate)
            yield row.attack, model, *map(percent, rates)


def _attack_summary(attacks: Attacks) -> str:
    row = max((row for _, rows in attacks for row in rows), key=lambda row: row.epsilon)
    return (
        f"{plural(row.n, 'image')}, each pixel changed by at most {row.epsilon:g} of 255. Attack success: the prediction is "
        "wrong and the image is not rejected. The gradient attack knows the model, its posterior and its nonconformity score."
    )
