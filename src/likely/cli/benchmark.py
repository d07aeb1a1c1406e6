"""likely benchmark: families and their softmax twin, trained for as long on the same machine and measured alike."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from likely.benchmark.runner import ProgressObserver
from likely.cli.data import CheckCommand
from likely.cli.errors import INTERRUPTED
from likely.cli.model_argument import DEVICES

if TYPE_CHECKING:
    from likely.benchmark import Benchmark, BenchmarkConfig, RunOutcome
    from likely.benchmark.config import BenchmarkRun
    from likely.benchmark.runner import Progress
    from likely.data.sources.base import LoadError
    from likely.training.loop import Step


@click.command(cls=CheckCommand)
@click.argument("data")
@click.option("--models", required=True, metavar="A,B,…", help="The families to compare; `likely models` lists them.")
@click.option("--minutes", type=float, help="Minutes of training for each family and seed.")
@click.option("--epochs", type=int, help="Epochs instead of minutes.")
@click.option(
    "--seeds", default="0", show_default=True, metavar="S,T,…", help="Train and measure with each of these seeds."
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The folder of results; an earlier one goes on."
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="FAMILY.NAME=VALUE",
    help="An option of one family, such as vaegan.adversarial=0.2; may be given several times.",
)
@click.option(
    "--samples",
    type=click.IntRange(6),  # fewer have no neighbors to be measured by
    help="Images that each family draws, to be compared with as many real ones.  [default: up to 10000]",
)
@click.option(
    "--extractor",
    type=click.Path(path_type=Path, exists=True),
    help="What fidelity is measured in: a model folder, a pretrained backbone's, or a TorchScript file.  "
    "[default: the first seed's twin]",
)
@click.option("--threads", type=int, help="Processor threads, the same for all; the free cores when left out.")
@click.option("--device", type=DEVICES, help="Where to compute.  [default: auto]")
def command(data: str, out: Path, **given: Any) -> None:
    """Compare model families on DATA, each trained for as many minutes, beside a softmax twin.

    Writes results.jsonl, table.md, index.html, samples.png and models/ to the folder --out. What is there already is not
    done again, so that an interrupted benchmark goes on by the same command. Exit code 1 if a family failed.
    """
    from likely.benchmark import Benchmark, BenchmarkInterrupted
    from likely.cli.console import console

    typed = shlex.join(["likely", *sys.argv[1:]])
    benchmark, outcomes = Benchmark(_plan(data, given), out, command=typed, observer=ConsoleObserver()), []
    try:
        for outcome in benchmark.outcomes():
            outcomes.append(outcome)
            _say(outcome)
    except BenchmarkInterrupted as stopped:
        console.print(f"Stopped, and saved, in the training of {stopped}.", soft_wrap=True, markup=False)
        console.print(f"To go on: {typed}", soft_wrap=True, markup=False)
        sys.exit(INTERRUPTED)
    _conclude(benchmark, outcomes)


class ConsoleObserver(ProgressObserver):
    """What one sees of a benchmark, all of it on stderr."""

    def steps(self, steps: Iterable[Step], entry: BenchmarkRun) -> Iterator[Step]:
        from likely.cli.console import console
        from likely.cli.progress import track_steps

        console.print(f"[bold]{entry}")
        return track_steps(steps, str(entry))

    def reading(self) -> AbstractContextManager[Progress | None]:
        from likely.cli.progress import progress_bar

        return progress_bar("reading images")

    def evaluating(self, entry: BenchmarkRun) -> AbstractContextManager[Any]:
        from likely.cli.console import console

        return console.status(f"measuring {entry}")

    def skipped(self, problems: tuple[LoadError, ...]) -> None:
        from likely.cli.warnings import print_skipped

        print_skipped(problems, all_named_by=f"{shlex.join(['likely', *sys.argv[1:]])} 2> left-out.txt")


def _say(outcome: RunOutcome) -> None:
    from likely.cli.console import console

    result, entry = outcome.result, outcome.run
    if result.error is not None:
        console.print(f"[bold red]{entry} failed:[/] ", end="")
        console.print(result.error, soft_wrap=True, markup=False)
    elif result.accuracy is not None:
        how = "" if outcome.is_new else "  [dim]measured before"
        console.print(f"[bold]{entry}[/]  accuracy {result.accuracy.accuracy:.4f}{how}")


def _conclude(benchmark: Benchmark, outcomes: Sequence[RunOutcome]) -> None:
    """Write the pages, print the table, and leave with 1 if anything failed or could not be read."""
    from likely.benchmark import build_comparison, write_report
    from likely.benchmark.runner import PAGE, TABLE
    from likely.cli.console import console
    from likely.reporting.comparison import markdown_table

    results = [outcome.result for outcome in outcomes]
    comparison = build_comparison(benchmark, results)
    write_report(benchmark, comparison)
    click.echo(markdown_table(comparison), nl=False)
    console.print(f"page  {benchmark.out / PAGE}\ntable {benchmark.out / TABLE}", soft_wrap=True, markup=False)
    if any(result.error is not None or result.left_out for result in results):
        sys.exit(1)


def _plan(data: str, given: dict[str, Any]) -> BenchmarkConfig:
    """What was typed, validated."""
    from likely.benchmark import BASELINE, BenchmarkConfig
    from likely.cli.flags import chosen
    from likely.data.preprocessing import ImageOptions
    from likely.models import family
    from likely.training.options import TrainingOptions

    families, seeds = _listed(given["models"]), _listed(given["seeds"])
    for option, listed in {"--models": families, "--seeds": seeds}.items():
        if not listed:
            raise click.UsageError(f"{option} names nothing; at least one was expected")
    for name in families:
        family(name)
    training = {name: given[name] for name in ("minutes", "epochs", "threads", "device") if given[name] is not None}
    if not {"minutes", "epochs"} & set(training):
        raise click.UsageError("nobody said how long to train: --minutes 10, say, the same for all; or --epochs")
    return BenchmarkConfig(
        data=data,
        families=tuple(families),
        seeds=tuple(_seed(word) for word in seeds),
        training=TrainingOptions.model_validate(training),
        images=ImageOptions.model_validate(chosen(ImageOptions, given)),
        options=_options(given["options"], {BASELINE, *families}),
        samples=given["samples"],
        extractor=given["extractor"],
    )


def _listed(words: str) -> list[str]:
    """
    >>> _listed("vae, gan,")
    ['vae', 'gan']
    """
    return [word.strip() for word in words.split(",") if word.strip()]


def _seed(word: str) -> int:
    if word.isascii() and word.isdigit():
        return int(word)
    raise click.UsageError(
        f"--seeds: {word!r} is no seed; whole numbers with commas between, such as 0,1,2, were expected"
    )


def _options(typed: Sequence[str], families: set[str]) -> dict[str, dict[str, Any]]:
    """family.name=value, each validated by the family's own options."""
    found: dict[str, dict[str, str]] = {}
    for words in typed:
        family, name, value = _parsed(words, families)
        found.setdefault(family, {})[name] = value
    return {family: _validated(family, given) for family, given in found.items()}


def _parsed(words: str, families: set[str]) -> tuple[str, str, str]:
    from likely.data.suggestions import did_you_mean
    from likely.models import family as kind_of

    place, equals, value = words.partition("=")
    family, dot, name = place.partition(".")
    name = name.replace("-", "_")
    if not (equals and dot and name):
        raise click.UsageError(f"--option {words}: FAMILY.NAME=VALUE was expected, such as vaegan.adversarial=0.2")
    if family not in families:
        named = ", ".join(sorted(families))
        raise click.UsageError(
            f"--option {words}: {family!r} is not compared here{did_you_mean(family, families)}; the families are {named}"
        )
    fields = kind_of(family).options_type.model_fields
    if name not in fields:
        raise click.UsageError(f"--option {words}: {family} has no option {name!r}{did_you_mean(name, fields)}")
    return family, name, value


def _validated(family: str, given: dict[str, str]) -> dict[str, Any]:
    from pydantic import ValidationError

    from likely.models import family as kind_of

    try:
        return kind_of(family).options_type.model_validate(given).model_dump(exclude_unset=True)
    except ValidationError as error:
        faults = "; ".join(_fault(family, fault["loc"], fault["msg"], fault["input"]) for fault in error.errors())
        raise click.UsageError(faults) from None


def _fault(family: str, place: tuple[int | str, ...], message: str, given: object) -> str:
    message = message.removeprefix("Value error, ").replace("Input should be", "should be")
    if not place:
        return f"--option {family}: {message}"
    return f"--option {family}.{place[0]} {message}, and {given!r} is not"
