"""What the commands that use a model have in common: the model argument, the machine's options, the loading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from likely.classifier import Classifier

ALPHA = click.FloatRange(0, 1, min_open=True, max_open=True)
Decorated = Callable[..., Any]


def model_argument(function: Decorated) -> Decorated:
    """MODEL, a folder that `likely train` wrote, and where to compute with it."""
    function = click.option(
        "--threads", type=click.IntRange(1), help="Processor threads; the free cores when left out."
    )(function)
    devices = click.Choice(["auto", "cpu", "cuda", "mps"])
    function = click.option("--device", type=devices, default="auto", show_default=True, help="Where to compute.")(
        function
    )
    return click.argument("model", type=click.Path(path_type=Path))(function)


def opened(model: Path, device: str, threads: int | None) -> Classifier:
    """The classifier of a model folder, on the device and with the threads asked for."""
    import torch

    from likely.classifier import Classifier
    from likely.training import hardware

    classifier = Classifier.load(model, device=hardware.device(device).type)
    torch.set_num_threads(threads or hardware.free_cores())
    return classifier
