"""The comparison page: sections with tables and charts, rendered to HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape
from PIL import Image

from likely.evaluation.metrics import Reliability
from likely.reporting.comparison.charts import Point, cost_chart, learning_curve_chart
from likely.reporting.comparison.columns import (
    ACCURACY,
    COSTS,
    FIDELITY,
    PREDICTIONS,
    THROUGHPUT,
    MetricColumn,
    MetricTable,
    Row,
)
from likely.reporting.comparison.content import Comparison
from likely.reporting.comparison.summary import summarize
from likely.reporting.formatting import listing, percent
from likely.reporting.html.charts import reliability_diagram
from likely.reporting.html.page import (
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
    page,
)
from likely.reporting.html.svg import drawing, element
from likely.reporting.images.image_grid import grid_by_class

_STYLES = ("style.css", "comparison.css")
_PAGE_WIDTH = 864.0  # pixels of the main column
_MIN_SCALE = 0.7  # smaller images scroll instead
Rows = Callable[[MetricTable], list[Row]]


class _Section(NamedTuple):
    """A section in the form that the page template expects."""

    anchor: str
    title: str
    introduction: str
    blocks: tuple[Block, ...]
    subtitle: str = ""


def render(comparison: Comparison) -> str:
    """Render the comparison as HTML without scripts or requests; text from the content is escaped."""
    summary = summarize(comparison)
    return page(
        "comparison.html",
        _STYLES,
        name=comparison.name,
        data=comparison.data,
        date=max(result.date for result in comparison.results),
        summary=summary.result,
        setup=summary.setup,
        tiles=summary.tiles,
        caveats=summary.caveats,
        chapters=_chapters(comparison),
    )


def samples_image(comparison: Comparison) -> Image.Image | None:
    """Return real images and those of each family side by side, one row per class; None if no family generates images."""
    if len(comparison.panels) < 2:
        return None
    return grid_by_class(comparison.panels, comparison.shown)


def _chapters(comparison: Comparison) -> list[tuple[str, list[_Section]]]:
    chapters = {
        "Metrics": [_predictions(comparison), *_reliability(comparison)],
        "Costs": [_costs(comparison), *_learning_curves(comparison)],
        "Generated images": [*_samples(comparison), *_fidelity(comparison)],
        "Provenance": [*_every_seed(comparison), *_options(comparison), _environment(comparison)],
    }
    return [(title, sections) for title, sections in chapters.items() if sections]


# --- metrics --------------------------------------------------------------------------------------------------------


def _predictions(comparison: Comparison) -> _Section:
    introduction = (
        "All families, measured on the same test images. Balanced accuracy is the mean recall over the classes; log loss, "
        "calibration error and Brier score measure the probabilities; bits/dim the likelihood; the false-alarm rate is "
        "the fraction of known images that are rejected."
    )
    kinds = {
        result.accuracy.likelihood_kind or ""
        for result in comparison.results
        if result.accuracy and result.accuracy.bits_per_dim
    }
    bound = " A ≤ marks an upper bound." if any("bound" in kind for kind in kinds) else ""
    blocks = (_table("Predictions", comparison, PREDICTIONS), Paragraph(_small_print(comparison) + bound))
    return _Section("predictions", "Predictions", introduction, blocks)


def _small_print(comparison: Comparison) -> str:
    several = len(comparison.seeds) > 1
    range_ = "the range over the seeds" if several else "the 95% interval, where there is one"
    return f"Small print shows {range_}. Bold is the best of a column."


def _reliability(comparison: Comparison) -> Iterator[_Section]:
    introduction = (
        "When a model predicts a class with 90%, is it right nine times in ten? Dots on the dashed line mean yes. "
        "Below the line the model is overconfident, above it underconfident."
    )
    firsts = ((family, comparison.of(family)[0]) for family in comparison.measured)
    charts = tuple(
        _reliability_chart(family, result.accuracy.reliability.reliability, result.seed)
        for family, result in firsts
        if result.accuracy is not None
    )
    if charts:
        yield _Section("reliability", "Calibration", introduction, (Charts(charts),), "are their probabilities right?")


def _reliability_chart(family: str, bins: Reliability, seed: int) -> Chart:
    return Chart(family, reliability_diagram(bins), f"Seed {seed}; calibration error {percent(bins.ece, 2)}.")


# --- costs ----------------------------------------------------------------------------------------------------------


def _costs(comparison: Comparison) -> _Section:
    introduction = (
        "Images/s is the throughput of plain classification, timed alternately with the baseline in one process; "
        "predictions/s includes p-values and prediction sets. Compare speeds relative to the baseline: other machines change "
        "all speeds alike. Parameters counts the numbers in the model; minutes, epochs, training images/s and peak memory are "
        "those of the training."
    )
    blocks = (*_cost_chart(comparison), _table("Costs", comparison, COSTS))
    return _Section("costs", "Costs", introduction, blocks, "what does accuracy cost?")


def _cost_chart(comparison: Comparison) -> Iterator[Block]:
    candidates = (_point(comparison, family) for family in comparison.measured)
    family_points = [point for point in candidates if point is not None]
    if family_points:
        whiskers = "ranges over the seeds" if len(comparison.seeds) > 1 else "95% intervals"
        caption = f"Up and to the right is better. The {comparison.baseline} baseline is orange. Whiskers: {whiskers}."
        yield Charts((Chart("Accuracy against throughput", cost_chart(family_points), caption),))


def _point(comparison: Comparison, family: str) -> Point | None:
    results = comparison.of(family)
    throughput, accuracy = THROUGHPUT.mean(results), ACCURACY.mean(results)
    if throughput is None or accuracy is None:
        return None
    return Point(family, throughput, accuracy, ACCURACY.range(results), family == comparison.baseline)


def _learning_curves(comparison: Comparison) -> Iterator[_Section]:
    if not comparison.learning_curves:
        return
    introduction = "Validation accuracy over training time. A family whose curve still rises needs more time."
    svg = learning_curve_chart(comparison.learning_curves, comparison.baseline)
    chart = Chart("Accuracy over time", svg, f"Seed {comparison.seeds[0]}; one value per epoch.")
    yield _Section("learning-curves", "Learning curves", introduction, (Charts((chart,)),))


# --- generated images -----------------------------------------------------------------------------------------------


def _samples(comparison: Comparison) -> Iterator[_Section]:
    image = samples_image(comparison)
    if image is None:
        return
    families = tuple(list(comparison.panels)[1:])
    some = len(comparison.shown)
    classes = f"; {some} of {comparison.n_classes} classes" if some < comparison.n_classes else ""
    introduction = (
        f"Left, real test images; right, the first images of each class generated by {listing(families, 9)}, not "
        f"selected{classes}."
    )
    chart = WideChart(Chart("Real and generated images", _image_svg(image, families), ""))
    yield _Section("samples", "Samples", introduction, (chart,))


def _image_svg(image: Image.Image, families: tuple[str, ...]) -> Markup:
    """Embed an image at half its size, for high-resolution screens; it scrolls where there is no room for it."""
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    uri = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
    fitting = _PAGE_WIDTH / (image.width / 2)
    scale = 0.5 * (fitting if _MIN_SCALE <= fitting < 1 else 1)
    width, height = scale * image.width, scale * image.height
    label = f"Real images and images generated by {listing(families, 9)}, by class"
    return drawing(label, width, height, element("image", href=uri, width=width, height=height))


def _fidelity(comparison: Comparison) -> Iterator[_Section]:
    if not comparison.fidelity_by_seed:
        return
    introduction = (
        "Similarity between the generated and the real test images, as sets. FID and KID are distances, 0 for equal sets; "
        "precision and density measure realism, recall and coverage diversity."
    )
    blocks = tuple(_fidelity_blocks(comparison))
    yield _Section("sample-quality", "Sample quality", introduction, blocks, "are their images any good?")


def _fidelity_blocks(comparison: Comparison) -> Iterator[Block]:
    reason = comparison.incomparability
    if reason is not None:
        yield Paragraph(reason)
        return
    # No mean over seeds whose real images differ.
    rows = MetricTable.family_rows if comparison.difference_between_seeds is None else MetricTable.seed_rows
    yield _table("Sample quality", comparison, FIDELITY, rows)
    yield from (Paragraph(note) for note in summarize(comparison).fidelity_notes)


# --- provenance -----------------------------------------------------------------------------------------------------


def _every_seed(comparison: Comparison) -> Iterator[_Section]:
    if len(comparison.seeds) == 1:
        return
    tables: dict[str, Sequence[MetricColumn]] = {"Predictions": PREDICTIONS, "Costs": COSTS}
    if comparison.incomparability is None and comparison.difference_between_seeds is None:
        tables["Sample quality"] = FIDELITY
    introduction = "The values behind the means above. Small print shows the 95% interval, where there is one."
    blocks = tuple(_table(caption, comparison, columns, MetricTable.seed_rows) for caption, columns in tables.items())
    yield _Section("seeds", "Results of each seed", introduction, blocks)


def _options(comparison: Comparison) -> Iterator[_Section]:
    if comparison.settings:
        rows = tuple(comparison.settings.items())
        table = Table("Options", (Column("Family"), Column("Changed options", "code")), rows)
        yield _Section("options", "Options", "All other options have their defaults.", (table,))


def _environment(comparison: Comparison) -> _Section:
    introduction = (
        "This command reproduces the benchmark. After an interruption it resumes and skips finished measurements."
    )
    blocks: list[Block] = [Code(comparison.command)] if comparison.command else []
    entries = DefinitionList(summarize(comparison).environment)
    return _Section("provenance", "Environment", introduction, (*blocks, entries))


# --- tables ---------------------------------------------------------------------------------------------------------


def _table(
    caption: str, comparison: Comparison, columns: Sequence[MetricColumn], rows: Rows = MetricTable.family_rows
) -> Table:
    table = MetricTable(comparison, columns)
    titles = (Column("Family"), *(Column(column.title, "number") for column in table.columns))
    return Table(caption, titles, tuple(_cells(row) for row in rows(table)))


def _cells(row: Row) -> tuple[Cell, ...]:
    name = Markup("{}<small>{}</small>").format(row.family, row.seeds)
    return name, *(_cell(cell.text, cell.range, cell.is_best) for cell in row.cells)


def _cell(text: str, range: str, is_best: bool) -> Markup:
    strong = Markup("<b>{}</b>").format(text) if is_best else escape(text)
    return strong + Markup("<small>{}</small>").format(range) if range else strong
