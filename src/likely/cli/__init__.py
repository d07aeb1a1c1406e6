"""The command line. Commands load when they are called, so that `likely --help` does not wait for torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from likely.cli.errors import error_boundary, silence_stdout
from likely.version import __version__

COMMANDS = {
    "demo": "Train, evaluate and classify on handwritten digits, in under a minute.",
    "train": "Learn the classes of DATA and write a model folder.",
    "classify": "Say what images show, or that they show nothing known.",
    "evaluate": "Measure a model on labeled images that it has not seen.",
    "benchmark": "Compare model families, trained for as long each, beside a softmax twin.",
    "generate": "Draw new images of the classes.",
    "explain": "Show why an image is of one class rather than another, and what would change that.",
    "extend": "Teach a model new classes without training it again.",
    "serve": "Answer over HTTP, with pages for people and a store of what was answered.",
    "keys": "Make, list and revoke the keys of a service.",
    "store": "Copy, bring back and thin out what a service has answered.",
    "sign": "Sign a model, so that nobody can change it unseen.",
    "verify": "Say whether a model is what its maker signed.",
    "encrypt": "Encrypt a model, so that nobody without the key can read it.",
    "decrypt": "Make an encrypted model readable again.",
    "data": "Look at DATA before training.",
    "models": "List the model families and their options.",
    "info": "Show a model's card.",
}


class Commands(click.Group):
    """Finds a command by name in the module of that name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"likely.cli.{name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # here, before click makes an exit code of 1 of it
            silence_stdout()
            ctx.exit(0)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="likely")
def cli() -> None:
    """Likely, the generative image classifier: it learns what the images of each class look like.

    \b
    likely train photos --out model        a folder with a folder of images for each class
    likely classify model new-photo.jpg    what is it, and is it anything known at all?
    """


def main(words: Sequence[str] | None = None) -> None:
    """The program: exit code 0 when all went well, 1 when some inputs failed, 2 when the request cannot be met."""
    with error_boundary():
        sys.exit(cli(words, prog_name="likely", standalone_mode=False))
