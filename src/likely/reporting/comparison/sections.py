"""From a comparison to the sections of its page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape
from PIL import Image

from likely.evaluation.fidelity import Fidelity
from likely.reporting.comparison.charts import Point, cost_chart, learning_curve_chart
from likely.reporting.comparison.columns import (
    ACCURACY,
    COSTS,
    FIDELITY,
    PREDICTIONS,
    SPEED,
    MetricColumn,
    Row,
    family_rows,
    footnotes,
    mean,
    seed_rows,
    shown_columns,
    spread,
)
from likely.reporting.comparison.content import Comparison
from likely.reporting.comparison.fidelity import between_seeds, incomparability, measurements
from likely.reporting.formatting import listing, percent, plural
from likely.reporting.html.blocks import (
    Block,
    Cell,
    Chart,
    Charts,
    Code,
    Column,
    DefinitionList,
    Paragraph,
    Table,
    WideChart,
)
from likely.reporting.html.charts import reliability_diagram
from likely.reporting.html.sections.fidelity import extractor_description
from likely.reporting.html.svg import drawing, element
from likely.reporting.images.image_grid import grid_by_class

PAGE_WIDTH = 864.0  # pixels of the column that everything stands in
SMALLEST = 0.7  # of its size: a sheet that would have to be smaller than this scrolls instead
Rows = Callable[[Comparison, Sequence[MetricColumn]], list[Row]]


class Section(NamedTuple):
    """What a page shows under one heading; the template of every page takes it for a section."""

    anchor: str
    title: str
    introduction: str
    blocks: tuple[Block, ...]


def chapters(comparison: Comparison) -> list[tuple[str, list[Section]]]:
    """The chapters of the page with their sections; what is absent from the comparison has none."""
    found = {
        "How good they are": [answers(comparison), *reliability(comparison)],
        "What they cost": [costs(comparison), *learning_curves(comparison)],
        "What they draw": [*sample_images(comparison), *fidelity(comparison)],
        "The record": [*every_seed(comparison), *settings(comparison), provenance(comparison)],
    }
    return [(title, sections) for title, sections in found.items() if sections]


def cost_figure(comparison: Comparison) -> Image.Image | None:
    """Real images and those of every family side by side, a row for each class; None if no family draws."""
    if len(comparison.panels) < 2:
        return None
    return grid_by_class(comparison.panels, comparison.shown)


# --- how good they are ----------------------------------------------------------------------------------------------


def answers(comparison: Comparison) -> Section:
    lead = (
        "The same test images, asked of every family. Accuracy is the share that is right, and balanced when every class "
        "counts the same; log loss, calibration error and Brier score say whether the probabilities can be believed; "
        "bits/dim whether the images were expected; false alarms are known images that were called unknown."
    )
    kinds = {
        result.accuracy.likelihood_kind
        for result in comparison.results
        if result.accuracy and result.accuracy.bits_per_dim
    }
    bound = (
        " A ≤ marks a bound: the true figure is no larger." if any("bound" in (kind or "") for kind in kinds) else ""
    )
    blocks = (_table("The answers", comparison, PREDICTIONS), Paragraph(_small_print(comparison) + bound))
    return Section("answers", "How well they answer", lead, blocks)


def _small_print(comparison: Comparison) -> str:
    several = len(comparison.seeds) > 1
    what = "from the least to the most over the seeds" if several else "a 95% interval, where there is one"
    return f"The small print is a range: {what}. The best of a column is strong."


def reliability(comparison: Comparison) -> Iterator[Section]:
    lead = (
        "When a model says 90%, is it right nine times in ten? Dots on the dashed line say yes. "
        "Below the line it is too sure of itself, above it too modest."
    )
    charts = []
    for family in comparison.measured:
        result = comparison.of(family)[0]
        if result.accuracy is None:
            continue
        bins = result.accuracy.reliability.reliability
        caption = f"Seed {result.seed}; calibration error {percent(bins.ece, 2)}."
        charts.append(Chart(family, reliability_diagram(bins), caption))
    if charts:
        yield Section("reliability", "Can their probabilities be believed?", lead, (Charts(tuple(charts)),))


# --- what they cost -------------------------------------------------------------------------------------------------


def costs(comparison: Comparison) -> Section:
    lead = (
        "Images a second are those of plain classification, timed in turn with the twin in one process; an answer takes "
        "longer, for it judges as well whether the image is anything known. Compare the shares of the twin's speed: another "
        "machine, or a busy one, changes all speeds alike. Size counts the numbers that a model keeps, minutes, epochs and "
        "trained images a second those of its training, and memory the most that the process held meanwhile."
    )
    return Section(
        "costs", "Accuracy for its price", lead, (*_cost_chart(comparison), _table("The costs", comparison, COSTS))
    )


def _cost_chart(comparison: Comparison) -> Iterator[Block]:
    points = []
    for family in comparison.measured:
        results = comparison.of(family)
        speed, accuracy = mean(SPEED, results), mean(ACCURACY, results)
        if speed is not None and accuracy is not None:
            is_baseline = family == comparison.baseline
            points.append(Point(family, speed, accuracy, spread(ACCURACY, results), is_baseline))
    if points:
        reading = f"Up is better, and so is to the right. The {comparison.baseline} twin is orange. "
        whiskers = "least to most over the seeds" if len(comparison.seeds) > 1 else "95% intervals"
        chart = Chart("Accuracy against speed", cost_chart(points), f"{reading}Whiskers: {whiskers}.")
        yield Charts((chart,))


def learning_curves(comparison: Comparison) -> Iterator[Section]:
    if not comparison.learning_curves:
        return
    lead = (
        "What each had reached after so much time, on images kept from its training. What still rises wants more time."
    )
    seed = comparison.seeds[0]
    chart = Chart(
        "Accuracy over time",
        learning_curve_chart(comparison.learning_curves, comparison.baseline),
        f"Seed {seed}; one value an epoch.",
    )
    yield Section("learning-curves", "How the trainings went", lead, (Charts((chart,)),))


# --- what they draw -------------------------------------------------------------------------------------------------


def sample_images(comparison: Comparison) -> Iterator[Section]:
    image = cost_figure(comparison)
    if image is None:
        return
    drawn = tuple(list(comparison.panels)[1:])
    some = len(comparison.shown)
    classes = f"; {some} of {comparison.n_classes} classes" if some < comparison.n_classes else ""
    lead = (
        f"At the left, real test images; beside them, images that {listing(drawn, 9)} drew: not chosen, but the first "
        f"that each draws of the class{classes}."
    )
    chart = WideChart(Chart("Real images and drawn ones", _shown(image, drawn), ""))
    yield Section("pictures", "Side by side", lead, (chart,))


def _shown(image: Image.Image, drawn: tuple[str, ...]) -> Markup:
    """A picture in a drawing, which scrolls where there is no room for it, at half its size for fine screens."""
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    uri = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
    fitting = PAGE_WIDTH / (image.width / 2)
    scale = 0.5 * (fitting if SMALLEST <= fitting < 1 else 1)
    width, height = scale * image.width, scale * image.height
    label = f"Real images, and images drawn by {listing(drawn, 9)}, class by class"
    return drawing(label, width, height, element("image", href=uri, width=width, height=height))


def fidelity(comparison: Comparison) -> Iterator[Section]:
    groups = measurements(comparison)
    if not groups:
        return
    found = next(iter(groups.values()))[0]
    lead = (
        "How like the real test images the drawn ones are, as a set. FID and KID are distances, 0 for no difference; "
        "precision and density are about realism, recall and coverage about variety."
    )
    yield Section("likeness", "How like real images", lead, tuple(_likeness_blocks(comparison, found)))


def _likeness_blocks(comparison: Comparison, found: Fidelity) -> Iterator[Block]:
    why_not = incomparability(comparison)
    if why_not is not None:
        yield Paragraph(why_not)
        return
    apart = between_seeds(comparison)
    rows = family_rows if apart is None else seed_rows  # no mean over what cannot be compared
    yield _table("Likeness and honesty", comparison, FIDELITY, rows)
    yield from (Paragraph(words) for words in fidelity_paragraphs(comparison, found, apart))


def fidelity_paragraphs(comparison: Comparison, found: Fidelity, apart: str | None) -> Iterator[str]:
    """What the figures of likeness never stand without."""
    yield extractor_description(found)
    if apart is not None:
        yield f"Compare families of one seed, not seeds: {apart}."
    honest = next((result.sample_quality for result in comparison.results if result.sample_quality), None)
    judge = found.classes or (honest.class_consistency if honest else None)
    if judge:
        own = (
            "" if judge.real_accuracy is None else f", which is right about {percent(judge.real_accuracy)} of real ones"
        )
        yield f"Right class: generated images that are taken for the class that they were drawn for, by {judge.classifier}{own}."
    if honest:
        copies = honest.near_duplicates
        by_chance = (
            "" if copies.real_fraction is None else f"; of the real test images {percent(copies.real_fraction)} are"
        )
        yield (
            f"Copies: the share of {plural(copies.n, 'generated image')} that are one of the "
            f"{plural(copies.n_train, 'training image')} again, or nearly{by_chance}."
        )
    yield from _within(found)


def _within(found: Fidelity) -> Iterator[str]:
    within = found.intra_class_fid
    few = f"{plural(within.n_excluded, 'class')} with fewer than {within.min_images} test images"
    if within.frechet is None:
        yield f"There is no FID within classes: none of {plural(within.n_excluded, 'class')} has {within.min_images} test images."
    elif within.n_excluded:
        yield f"FID in classes: the mean over {plural(within.n_classes, 'class')} of each one's own, without {few}."
    else:
        yield f"FID in classes: the mean over {plural(within.n_classes, 'class')} of each one's own."


# --- the record -----------------------------------------------------------------------------------------------------


def every_seed(comparison: Comparison) -> Iterator[Section]:
    if len(comparison.seeds) == 1:
        return
    tables: dict[str, Sequence[MetricColumn]] = {"The answers": PREDICTIONS, "The costs": COSTS}
    if incomparability(comparison) is None and between_seeds(comparison) is None:
        tables["Likeness and honesty"] = FIDELITY
    lead = "What the means above are the means of. The small print is a 95% interval, where there is one."
    blocks = tuple(_table(caption, comparison, figures, seed_rows) for caption, figures in tables.items())
    yield Section("seeds", "Seed by seed", lead, blocks)


def settings(comparison: Comparison) -> Iterator[Section]:
    if comparison.settings:
        rows = tuple(comparison.settings.items())
        table = Table("Options", (Column("Family"), Column("Set by hand", "code")), rows)
        yield Section("options", "What was set by hand", "All other options are the families' own.", (table,))


def provenance(comparison: Comparison) -> Section:
    lead = "The command below makes it again. Interrupted, the same command goes on; what is measured is not measured again."
    blocks: list[Block] = [Code(comparison.command)] if comparison.command else []
    return Section("provenance", "How it was made", lead, (*blocks, DefinitionList(tuple(facts(comparison)))))


def facts(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """The circumstances, each named once."""
    results = [result for result in comparison.results if result.error is None]
    yield "Machine", _joined(result.machine for result in results)
    yield "Threads", _joined(str(result.threads) for result in results)
    yield "Seeds", ", ".join(map(str, comparison.seeds))
    yield "Date", _joined(result.date for result in results)
    yield "likely", _joined(result.version for result in results)
    if any(result.commit for result in results):
        yield "Commit", _joined(_short(result.commit) for result in results)
    yield from ((name, version) for name, version in comparison.versions.items() if name != "likely")
    timed = next((result.efficiency for result in results if result.efficiency), None)
    if timed:
        yield "Speed", f"medians of {timed.n_repeats} rounds of {plural(timed.n_timed, 'image')}"


def _short(commit: str | None) -> str:
    """The digits that people quote, and whether there were changes since."""
    return "none" if commit is None else commit[:10] + ("-dirty" if commit.endswith("-dirty") else "")


def _joined(words: Iterator[str]) -> str:
    return ", ".join(dict.fromkeys(words))


# --- tables ---------------------------------------------------------------------------------------------------------


def _table(caption: str, comparison: Comparison, figures: Sequence[MetricColumn], rows: Rows = family_rows) -> Table:
    """A row a family, or a family and seed; failures stand in their place."""
    figures = shown_columns(figures, comparison)
    columns = (Column("Family"), *(Column(figure.title, "number") for figure in figures))
    return Table(caption, columns, tuple(_row(row) for row in footnotes(rows(comparison, figures))))


def _row(row: Row) -> tuple[Cell, ...]:
    return _name(row), *(_cell(cell.words, cell.range, cell.is_best) for cell in row.cells)


def _name(row: Row) -> Markup:
    return Markup("{}<small>{}</small>").format(row.family, row.seeds)


def _cell(words: str, range: str, is_best: bool) -> Markup:
    strong = Markup("<b>{}</b>").format(words) if is_best else escape(words)
    return strong + Markup("<small>{}</small>").format(range) if range else strong
