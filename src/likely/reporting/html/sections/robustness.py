"""What is left of a classifier when its images are damaged, by accident or on purpose, beside its softmax twin."""

from __future__ import annotations

from collections.abc import Sequence

from likely.evaluation.attacks import AttackResult
from likely.evaluation.corruptions import CORRUPTIONS, STRENGTHS
from likely.evaluation.robustness import Robustness
from likely.reporting.formatting import percent, plural
from likely.reporting.html.blocks import Block, Cell, Chapter, Column, Paragraph, Section, Table

Rows = tuple[tuple[Cell, ...], ...]

CORRUPTION_COLUMNS = (
    Column("Corruption"),
    Column("Classifier"),
    *(Column(f"Strength {strength}", "number") for strength in STRENGTHS),
    Column("Turned away", "number"),
)
ATTACK_COLUMNS = (
    Column("Attack"),
    Column("Classifier"),
    Column("Right", "number"),
    Column("Deceived", "number"),
    Column("Turned away", "number"),
)


def robustness(
    corruption_results: Sequence[Robustness], attack_results: Sequence[tuple[str, Sequence[AttackResult]]]
) -> Section | None:
    """The section on damaged images; None if nothing was measured. The model comes first, then its twin."""
    blocks: list[Block] = []
    if corruption_results:
        blocks.append(Table("Accuracy of damaged images", CORRUPTION_COLUMNS, corruption_rows(corruption_results)))
        blocks.append(
            Paragraph(
                f"{plural(corruption_results[0].n, 'image')}, each damaged in every way. {corruption_summary(corruption_results)}"
            )
        )
    if attack_results:
        blocks.append(Table("Images changed to deceive", ATTACK_COLUMNS, attack_rows(attack_results)))
        blocks.append(Paragraph(attack_summary(attack_results)))
    if not blocks:
        return None
    lead = (
        "Real images are blurred, dark and packed too small; and somebody may want a wrong answer. How often the answer is "
        "still right, and how often the classifier says that it knows no such image."
    )
    return Section(Chapter.METRICS, "robustness", "What does it take to mislead it?", lead, tuple(blocks))


def corruption_rows(corrupted: Sequence[Robustness]) -> Rows:
    """A row for each corruption and classifier: accuracy by strength, and the share turned away at the strongest."""
    rows: list[tuple[Cell, ...]] = []
    for each in corrupted:
        rate = "–" if each.clean.unknown_rate is None else percent(each.clean.unknown_rate)
        rows.append(("none", each.model, percent(each.clean.accuracy), *[""] * (len(STRENGTHS) - 1), rate))
    for name in CORRUPTIONS:
        for each in corrupted:
            of = each.of(name)
            last = of[-1].unknown_rate
            cells = [percent(row.accuracy) for row in of]
            rows.append((name, each.model, *cells, "–" if last is None else percent(last)))
    for each in corrupted:
        mean_rate = each.mean_unknown_rate
        means = [sum(r.accuracy for r in each.rows if r.strength == s) / len(CORRUPTIONS) for s in STRENGTHS]
        rows.append(("mean", each.model, *map(percent, means), "–" if mean_rate is None else percent(mean_rate)))
    return tuple(rows)


def corruption_summary(corrupted: Sequence[Robustness]) -> str:
    """How to read the table, and what it comes to."""
    means = ", ".join(f"{each.model} {percent(each.mean_accuracy)}" for each in corrupted)
    return (
        f"Turned away as unknown: at the strongest of each kind, on average over all in the last rows. Mean accuracy over all "
        f"kinds and strengths: {means}."
    )


def attack_rows(attacked: Sequence[tuple[str, Sequence[AttackResult]]]) -> Rows:
    """A row for each attack and classifier."""
    return tuple(
        (
            rows[i].attack,
            model,
            percent(rows[i].accuracy),
            percent(rows[i].attack_success_rate),
            percent(rows[i].rejection_rate),
        )
        for i in range(len(attacked[0][1]))
        for model, rows in attacked
    )


def attack_summary(attacked: Sequence[tuple[str, Sequence[AttackResult]]]) -> str:
    """What was done."""
    row = max((row for _, rows in attacked for row in rows), key=lambda row: row.epsilon)
    return (
        f"{plural(row.n, 'image')}, no pixel changed by more than {row.epsilon:g} of 255. Deceived: wrong answers taken for "
        "known. The attack by gradient knows the model, its posterior and what it finds strange."
    )
