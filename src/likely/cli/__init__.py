"""The command line. A command is imported when it is called, so that `likely --help` does not wait for torch."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pkgutil import resolve_name
from typing import Any

import click

from likely.cli.errors import error_boundary, silence_stdout
from likely.version import __version__

LOGGER = "likely.features"  # reports work that takes seconds, and what makes it slow
COMMANDS: Mapping[str, tuple[str, str]] = {  # where each command is defined, and its summary
    "demo": ("demo:command", "Train, evaluate and classify on handwritten digits, in under a minute."),
    "train": ("train:command", "Train a model on DATA and write a model folder."),
    "classify": ("classify:command", "Classify images, and reject those of no known class."),
    "evaluate": ("evaluate:command", "Measure a model on labeled images that it was not trained on."),
    "calibrate": ("calibrate:command", "Calibrate a model with images of the place where it is used."),
    "benchmark": ("benchmark:command", "Compare model families with a softmax baseline for equal training time."),
    "generate": ("generate:command", "Sample new images of the classes."),
    "explain": ("explain:command", "Explain why an image belongs to one class rather than another."),
    "extend": ("extend:command", "Add classes to a model without retraining it."),
    "serve": ("serve:command", "Serve models over HTTP, with web pages and a store of predictions."),
    "keys": ("keys:command", "Create, list and revoke the API keys of a service."),
    "store": ("store:command", "Back up, restore and prune stored predictions."),
    "sign": ("signing:sign", "Sign a model folder."),
    "verify": ("signing:verify", "Verify the signature of a model folder."),
    "encrypt": ("encryption:encrypt", "Encrypt a model folder."),
    "decrypt": ("encryption:decrypt", "Decrypt a model folder."),
    "data": ("data:command", "Inspect DATA before training."),
    "models": ("models:command", "List the model families and their options."),
    "info": ("info:command", "Show the model card."),
}


class _Commands(click.Group):
    """Imports a command when it is called, and rejects empty arguments of every command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for before, word in pairwise(["likely", *args]):
            if not word:  # pathlib would take it for the current folder
                raise click.UsageError(f"the argument after {before!r} is empty; a value was expected", ctx)
            if word.startswith("--") and word.find("=") == len(word) - 1:
                raise click.UsageError(f"{word.removesuffix('=')} is empty; a value was expected", ctx)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = resolve_name(f"likely.cli.{COMMANDS[name][0]}")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # caught here, because click would exit with 1
            silence_stdout()
            ctx.exit(0)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


class _Messages(logging.Handler):
    """Prints the messages of the library to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="likely")
def cli() -> None:
    """Likely, the generative image classifier: it learns what the images of each class look like.

    \b
    likely train photos --out model        train on a folder with one folder of images per class
    likely classify model new-photo.jpg    predict the class, or that it is none of them

    Exit codes: 0 success, 1 some inputs failed, 2 invalid request, 3 internal error.
    """
    logger = logging.getLogger(LOGGER)
    logger.handlers = [_Messages()]
    logger.setLevel(logging.INFO)


def main(words: Sequence[str] | None = None) -> None:
    """Run the program and exit: 0 success, 1 some inputs failed, 2 invalid request, 3 internal error."""
    with error_boundary():
        sys.exit(cli(words, prog_name="likely", standalone_mode=False))
