"""likely benchmark: compare model families with the softmax baseline for equal training time."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from likely.benchmark.runner import ProgressObserver
from likely.cli.data import ImageCommand
from likely.cli.errors import INTERRUPTED, memory_boundary
from likely.cli.model_argument import DEVICES, THREADS

if TYPE_CHECKING:
    from likely.benchmark import Benchmark, BenchmarkConfig, RunOutcome
    from likely.benchmark.config import BenchmarkRun
    from likely.benchmark.runner import Progress
    from likely.data.sources.base import LoadError
    from likely.training.loop import Step

EXAMPLE = "vaegan.adversarial_weight=0.2"


@click.command(cls=ImageCommand)
@click.argument("data")
@click.option("--models", required=True, metavar="A,B,…", help="Families to compare; `likely models` lists them.")
@click.option("--minutes", type=float, help="Minutes of training for each family and seed.")
@click.option("--epochs", type=int, help="Epochs of training, instead of minutes.")
@click.option("--seeds", default="0", show_default=True, metavar="S,T,…", help="Random seeds; one training for each.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder of results; continues an earlier benchmark."
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="FAMILY.NAME=VALUE",
    help=f"Option of one family, such as {EXAMPLE}; may be repeated.",
)
@click.option(
    "--samples",
    type=click.IntRange(6),  # density and coverage use the 5 nearest neighbors
    help="Generated images per family to compare with as many real ones.  [default: up to 10000]",
)
@click.option(
    "--extractor",
    type=click.Path(path_type=Path, exists=True),
    help="Feature extractor for FID and KID: a model folder, a backbone's folder, or a TorchScript file.  "
    "[default: the baseline of the first seed]",
)
@click.option("--threads", type=int, help=THREADS)
@click.option("--device", type=DEVICES, help="Device to run on.  [default: auto]")
def command(data: str, out: Path, **values: Any) -> None:
    """Train model families and a softmax baseline on DATA for equally long, and compare them.

    Writes results.jsonl, table.md, index.html, samples.png and models/ to --out. Finished trainings are not repeated: the
    same command continues an interrupted benchmark. Exit code 1 if a training failed or a file could not be read.
    """
    from likely.benchmark import Benchmark, BenchmarkInterrupted
    from likely.cli.console import console

    typed, outcomes = shlex.join(["likely", *sys.argv[1:]]), []
    benchmark = Benchmark(_config(data, values), out, command=typed, observer=_ConsoleObserver())
    try:
        with memory_boundary("reduce the batch size or --size"):
            for outcome in benchmark.outcomes():
                outcomes.append(outcome)
                _print_outcome(outcome)
    except BenchmarkInterrupted as interrupted:
        console.print(f"Stopped and saved during the training of {interrupted}.", soft_wrap=True, markup=False)
        console.print(f"To continue: {typed}", soft_wrap=True, markup=False)
        sys.exit(INTERRUPTED)
    _write_comparison(benchmark, outcomes)
    if any(outcome.result.error is not None or outcome.result.left_out for outcome in outcomes):
        sys.exit(1)


class _ConsoleObserver(ProgressObserver):
    """Shows the progress of a benchmark on stderr."""

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

        return console.status(f"evaluating {entry}")

    def skipped(self, problems: tuple[LoadError, ...]) -> None:
        from likely.cli.console import print_skipped

        print_skipped(problems, list_command=f"{shlex.join(['likely', *sys.argv[1:]])} 2> skipped.txt")


def _print_outcome(outcome: RunOutcome) -> None:
    from likely.cli.console import console

    result = outcome.result
    if result.error is not None:
        console.print(f"[bold red]{outcome.run} failed:[/] ", end="")
        console.print(result.error, soft_wrap=True, markup=False)
    elif result.accuracy is not None:
        note = "" if outcome.is_new else "  [dim]measured before"
        console.print(f"[bold]{outcome.run}[/]  accuracy {result.accuracy.accuracy:.4f}{note}")


def _write_comparison(benchmark: Benchmark, outcomes: Sequence[RunOutcome]) -> None:
    """Write the report, and print the table."""
    from likely.benchmark import build_comparison, write_report
    from likely.benchmark.runner import PAGE, TABLE
    from likely.cli.console import console
    from likely.reporting.comparison import markdown_table

    comparison = build_comparison(benchmark, [outcome.result for outcome in outcomes])
    write_report(benchmark, comparison)
    click.echo(markdown_table(comparison), nl=False)
    console.print(f"page  {benchmark.out / PAGE}\ntable {benchmark.out / TABLE}", soft_wrap=True, markup=False)


def _config(data: str, values: Mapping[str, Any]) -> BenchmarkConfig:
    from likely.benchmark import BASELINE, BenchmarkConfig
    from likely.cli.flags import flag_name, parse_flags
    from likely.data.preprocessing import ImageOptions
    from likely.training.options import TrainingOptions

    families = _listed("--models", values["models"])
    names = ("minutes", "epochs", "threads", "device")
    training = parse_flags(TrainingOptions, {name: values[name] for name in names})
    if training.minutes is None and training.epochs is None:
        raise click.UsageError("give the length of training: --minutes 10, for example, or --epochs")
    config = {
        "data": data,
        "families": tuple(families),
        "seeds": tuple(map(_seed, _listed("--seeds", values["seeds"]))),
        "training": training,
        "images": parse_flags(ImageOptions, values),
        "options": _options(values["options"], {BASELINE, *families}),
        "samples": values["samples"],
        "extractor": values["extractor"],
    }
    return BenchmarkConfig.from_any(
        config, name=lambda field: "--models" if field.startswith("families") else flag_name(field.partition("__")[0])
    )


def _listed(option: str, words: str) -> list[str]:
    """
    >>> _listed("--models", "vae, gan,")
    ['vae', 'gan']
    """
    listed = [word.strip() for word in words.split(",") if word.strip()]
    if not listed:
        raise click.UsageError(f"{option} is empty; at least one was expected")
    return listed


def _seed(word: str) -> int:
    if word.isascii() and word.isdigit():
        return int(word)
    raise click.UsageError(f"--seeds: {word!r} is not a seed; whole numbers such as 0,1,2 were expected")


def _options(typed: Sequence[str], families: set[str]) -> dict[str, dict[str, Any]]:
    """Parse FAMILY.NAME=VALUE, and validate each family's options."""
    from likely.models import family as family_named

    found: dict[str, dict[str, str]] = {}
    for words in typed:
        family, name, value = _parse_option(words, families)
        found.setdefault(family, {})[name] = value
    return {
        family: family_named(family)
        .options_type.from_any(values, name=lambda field, family=family: f"--option {family}.{field}")  # type: ignore[misc]
        .model_dump(exclude_unset=True)
        for family, values in found.items()
    }


def _parse_option(words: str, families: set[str]) -> tuple[str, str, str]:
    from likely.exceptions import did_you_mean

    target, equals, value = words.partition("=")
    family, dot, name = target.partition(".")
    if not (equals and dot and name):
        raise click.UsageError(f"--option {words}: FAMILY.NAME=VALUE was expected, such as {EXAMPLE}")
    if family not in families:
        close = did_you_mean(family, families)
        raise click.UsageError(
            f"--option {words}: {family!r} is not among the families {', '.join(sorted(families))}{close}"
        )
    return family, name.replace("-", "_"), value
