"""What the commands that use a model have in common: the MODEL argument, the machine's options, the loading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from likely.training.options import TrainingOptions

if TYPE_CHECKING:
    from likely.classifier import Predictor

ALPHA = click.FloatRange(0, 1, min_open=True, max_open=True)
DEVICES = click.Choice(get_args(TrainingOptions.model_fields["device"].annotation))
PUBLIC_KEY = click.Path(path_type=Path, exists=True, dir_okay=False)
SIGNED = "Read only models signed by the holder of this public key's private half (`likely sign`)."
Function = Callable[..., None]


@dataclass(frozen=True)
class ModelArgument:
    """A model folder that `likely train` wrote, and where to compute with it."""

    folder: Path
    device: str
    threads: int | None
    signer: Path | None = None

    def classifier(self) -> Predictor:
        """The folder's classifier, on the device and with the threads asked for."""
        import torch

        from likely.checkpoint import TrustPolicy
        from likely.classifier import load
        from likely.training.device import free_cores, select_device

        classifier = load(self.folder, device=select_device(self.device).type, trust=TrustPolicy(self.signer))
        torch.set_num_threads(self.threads or free_cores())
        return classifier

    def classifier_of_images(self, method: str) -> Predictor:
        """The same; a UsageError for a model of vectors, which name the method that takes those in Python."""
        classifier = self.classifier()
        if classifier.format is None:
            raise click.UsageError(
                f"{self.folder} was trained on vectors, not images; BayesClassifier.{method} is for them, in Python"
            )
        return classifier


def model_command(function: Function) -> Function:
    """Give a command the argument MODEL and the options of the machine, which it gets as one `Opening`."""

    @wraps(function)
    def command(model: Path, device: str, threads: int | None, signer: Path | None, **others: Any) -> None:
        function(ModelArgument(model, device, threads, signer), **others)

    for parameter in (
        click.option("--threads", type=click.IntRange(1), help="Processor threads; the free cores when left out."),
        click.option("--require-signature", "signer", type=PUBLIC_KEY, help=SIGNED),
        click.option("--device", type=DEVICES, default="auto", show_default=True, help="Where to compute."),
        click.argument("model", type=click.Path(path_type=Path)),
    ):
        command = parameter(command)
    return command
