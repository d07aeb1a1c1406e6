"""likely train: from DATA to a model folder."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from likely.options import AUTO, DEFAULT_MODEL

if TYPE_CHECKING:
    from likely.experiment import TrainConfig, TrainingRun
    from likely.options import Options
    from likely.reporting.html.content import ReportContent

DECODER = "decoder__"  # before the names of what is said about drawing
FAMILY = f"{__name__}.family"  # where a context keeps the family whose flags are asked for


class TrainCommand(click.Command):
    """A command whose flags are those of every training and of the family that --model names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[FAMILY] = _family_in(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _of_another_family(error, ctx) from None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *(flag for flags in self._groups(ctx).values() for flag in flags)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [param for param in super().get_params(ctx) if isinstance(param, click.Option)]
        for title, params in {"Options": own, **self._groups(ctx)}.items():
            with formatter.section(title):
                formatter.write_dl([row for param in params if (row := param.get_help_record(ctx))])

    def _groups(self, ctx: click.Context) -> dict[str, tuple[click.Option, ...]]:
        return _more_flags(ctx.meta.get(FAMILY, DEFAULT_MODEL))


@click.command(cls=TrainCommand)
@click.argument("data")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The model folder to write.")
@click.option("--model", help=f"The family; `likely models` lists them.  [default: {DEFAULT_MODEL}]")
@click.option("--seed", type=int, default=None, help="Seed of everything random.  [default: 0]")
@click.option(
    "--label-check-folds", type=int, default=None, help="Short trainings that look for wrong labels.  [default: 2]"
)
@click.option(
    "--repeats",
    type=click.IntRange(0),
    default=None,
    help="Train so many times more, each as long and on another split, for honest intervals.  [default: 0]",
)
@click.option(
    "--augment-with",
    metavar="MODEL[:n]",
    help="Train once more with n images a class (100) that MODEL draws, and keep that if held-out accuracy rises for it.",
)
@click.option("--resume", is_flag=True, help="Go on with the unfinished training in --out, exactly as it would have.")
@click.option("--overwrite", is_flag=True, help="Replace what is in --out.")
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Learn the classes of DATA and write a model folder.

    DATA is a folder with a folder of images for each class (nested, or with train, val and test), idx files, an .npz, a
    manifest (CSV, JSONL or Parquet with file_name and label), or `digits`.

    With --model auto the family is chosen by the images and how many there are. A family's own options: `likely train --model
    NAME --help`.
    """
    from likely.cli.console import console
    from likely.cli.progress import progress_bar, track_steps
    from likely.reporting.html.sections.training import synthetic_augmentation_summary

    session = _session(given)
    _announce(session)
    for _ in track_steps(session.fit_features(), "learning features", lines=False):
        pass
    with progress_bar("computing features") as progress:
        session.extract_features(progress)
    for _ in track_steps(session.steps(), "training"):
        pass
    content = session.finish()
    if not session.is_complete:
        console.print("Stopped. Keeping the best weights so far.")
    else:
        for _ in track_steps(session.augment(), "training with generated images", lines=False):
            pass
        augmentation = session.record.synthetic_augmentation
        if augmentation is not None:
            console.print(synthetic_augmentation_summary(augmentation), soft_wrap=True, markup=False)
        for _ in track_steps(session.fit_decoder(), "learning to draw", lines=False):
            pass
        session.save_decoder()
        for _ in track_steps(session.check_labels(), "checking labels", lines=False):
            pass
        for _ in track_steps(session.repeat(), "repeating", lines=False):
            pass
    _conclude(content, session)


def _session(given: dict[str, Any]) -> TrainingRun:
    from likely import experiment
    from likely.cli.progress import progress_bar

    out, typed = given["out"], shlex.join(["likely", *sys.argv[1:]])
    asked = _run(given)
    with progress_bar("reading images") as progress:
        if given["resume"]:
            if (out / experiment.TRAINING_STATE).exists():
                _refuse_changes(asked, experiment.load_unfinished_config(out))
            return experiment.resume_run(out, data=given["data"], command=typed, progress=progress)
        if given["overwrite"] and out.is_dir():
            return _replacing(asked, out, typed, progress)
        return experiment.start_run(asked, out, command=typed, progress=progress)


def _replacing(asked: TrainConfig, out: Path, typed: str, progress: Callable[[int, int], None]) -> TrainingRun:
    """A new run in the place of an old model, which goes only once it is known that the new one can start."""
    from likely.cli.output_folder import check_output_folder, clear
    from likely.experiment import TrainingRun
    from likely.training.device import select_device

    check_output_folder(out)
    select_device(asked.training.device)
    session = TrainingRun(asked, out, command=typed, progress=progress)
    clear(out)
    return session


def _run(given: dict[str, Any]) -> TrainConfig:
    """What was typed, validated."""
    from likely.cli.flags import chosen
    from likely.data.preprocessing import ImageOptions
    from likely.experiment import TrainConfig
    from likely.features.feature_decoder import DecoderOptions
    from likely.features.feature_extractors import FeatureOptions
    from likely.models import family
    from likely.training.options import TrainingOptions

    name = given["model"] or DEFAULT_MODEL
    kind = None if name == AUTO else family(name).options_type
    return TrainConfig(
        data=given["data"],
        options={} if kind is None else kind.model_validate(chosen(kind, given)).model_dump(exclude_unset=True),
        training=TrainingOptions.model_validate(chosen(TrainingOptions, given)),
        images=ImageOptions.model_validate(chosen(ImageOptions, given)),
        features=FeatureOptions.model_validate(chosen(FeatureOptions, given)),
        decoder=DecoderOptions.model_validate(chosen(DecoderOptions, given, prefix=DECODER)),
        **{
            name: given[name]
            for name in ("model", "seed", "label_check_folds", "repeats", "augment_with")
            if given[name] is not None
        },
    )


def _refuse_changes(asked: TrainConfig, before: TrainConfig) -> None:
    """A resumed training keeps its options: whatever was typed that differs is an error that names it.

    DATA may be spelled in another way: whether the images are the same, `run.resume` sees by the images.
    """
    typed = asked.model_dump(exclude_unset=True, exclude={"data", *(["model"] if asked.model == AUTO else [])})
    for name, now, then in _differences(typed, before.model_dump()):
        raise click.UsageError(
            f"--resume keeps the options of the unfinished training: {name} was {then!r} and is now {now!r}"
        )


def _differences(now: dict[str, Any], then: dict[str, Any], *, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for name, value in now.items():
        old = then.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            yield from _differences(value, old, prefix=f"{prefix}{name}.")
        elif value != old:
            yield f"{prefix}{name}", value, old


def _announce(session: TrainingRun) -> None:
    from likely.cli.console import console
    from likely.cli.warnings import print_skipped

    parts, dataset = session.parts, session.dataset
    n, n_more = len(parts.train), len(parts.calibration)
    learning = f"{n:,} to train, {n_more:,} to calibrate"
    if session.trainer.cross_conformal:
        learning = f"{n + n_more:,} to train and calibrate"
    counts = f"{learning}, {len(parts.validation):,} to validate"
    shape = " × ".join(map(str, parts.train.images.shape))
    aside = f", {len(parts.test):,} set aside to test" if parts.test is not None else ""
    console.print(f"{len(dataset.classes)} classes, images of {shape}: {counts}{aside}")
    if session.choice.reason:
        console.print(session.choice.reason, soft_wrap=True, markup=False)
    print_skipped(dataset.errors, all_named_by=shlex.join(["likely", "info", str(session.out), "--json"]))


def _conclude(content: ReportContent, session: TrainingRun) -> None:
    from likely.cli.console import console

    out = session.out
    if content.metrics is not None:
        where = "images set aside" if session.parts.test is not None else "validation images"
        console.print(f"[bold]accuracy {content.metrics.accuracy:.4f}[/] on {content.metrics.n:,} {where}")
    if content.provenance is not None:
        console.print(f"trained for {content.provenance.minutes:.1f} minutes")
    console.print(f"model  {out}\nreport {out / 'report.html'}", soft_wrap=True, markup=False)
    if not session.is_complete:
        again = shlex.join(["likely", "train", session.run.data, "--out", str(out), "--resume"])
        console.print(f"To go on: {again}", soft_wrap=True, markup=False)
    if session.dataset.errors:
        sys.exit(1)


def _family_in(args: list[str]) -> str:
    """The family that the arguments name, before they are parsed: its flags decide how to parse them."""
    for word, following in zip(args, [*args[1:], ""], strict=True):
        if word == "--model":
            return following
        if word.startswith("--model="):
            return word.partition("=")[2]
    return DEFAULT_MODEL


def _of_another_family(error: click.NoSuchOption, ctx: click.Context) -> click.UsageError:
    """The same error, or if the nearest option is one of other families, that and which."""
    from likely.models import FAMILIES

    owners: dict[str, list[str]] = {}
    for family in FAMILIES:
        for flag in _more_flags(family)[f"Model {family}"]:
            owners.setdefault(flag.opts[0], []).append(family)
    known = {opt for param in ctx.command.get_params(ctx) for opt in param.opts}
    nearest = get_close_matches(error.option_name, {*known, *owners}, 1)
    if not nearest or nearest[0] in known:
        return error
    right = "" if nearest[0] == error.option_name else f"{error.option_name} is no option; did you mean {nearest[0]}? "
    families = ", ".join(owners[nearest[0]])
    return click.UsageError(
        f"{right}{nearest[0]} is an option of {families}, and the model is {ctx.meta[FAMILY]}; say --model NAME", ctx
    )


@cache  # click tells parameters apart by identity
def _more_flags(family: str) -> dict[str, tuple[click.Option, ...]]:
    """The flags of every training, and of the family, under their headings."""
    from likely.cli.flags import flags
    from likely.data.preprocessing import ImageOptions
    from likely.features.feature_decoder import DecoderOptions
    from likely.features.feature_extractors import FeatureOptions
    from likely.models import FAMILIES
    from likely.training.options import TrainingOptions

    groups: dict[str, type[Options]] = {
        "Training": TrainingOptions,
        "Images": ImageOptions,
        "Features": FeatureOptions,
    }
    if family in FAMILIES:
        groups[f"Model {family}"] = FAMILIES[family].options_type
    found = {title: tuple(flags(options)) for title, options in groups.items()}
    return found | {"Drawing": tuple(flags(DecoderOptions, prefix=DECODER))}
