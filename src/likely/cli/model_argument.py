"""The MODEL argument and the options that all commands with a model share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from likely.cli.flags import FiniteRange
from likely.prediction import Guarantee
from likely.training.options import TrainingOptions

if TYPE_CHECKING:
    from likely.classifier import Predictor

ALPHA = FiniteRange(0, 1, min_open=True, max_open=True)
guarantee_option = click.option(
    "--guarantee",
    type=click.Choice([each.value for each in Guarantee]),
    callback=lambda _context, _option, value: Guarantee(value),
    default=Guarantee.OVERALL.value,
    show_default=True,
    help="Reject at most a fraction --alpha of all images of known classes (overall), or of every class (class).",
)
DEVICES = click.Choice(get_args(TrainingOptions.model_fields["device"].annotation))
KEY_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
SIGNED = "Accept only models signed with the private key that belongs to this public key (`likely sign`)."
THREADS = "Number of CPU threads.  [default: the free cores]"


@dataclass(frozen=True)
class ModelArgument:
    """A model folder, and the device and threads to run it with."""

    folder: Path
    device: str
    threads: int | None
    signer: Path | None = None

    def classifier(self) -> Predictor:
        """Load the folder's predictor."""
        import torch

        from likely.checkpoint import TrustPolicy
        from likely.classifier import load
        from likely.training.device import free_cores, select_device

        classifier = load(self.folder, device=select_device(self.device).type, trust=TrustPolicy(self.signer))
        torch.set_num_threads(self.threads or free_cores())
        return classifier

    def classifier_of_images(self, method: str) -> Predictor:
        """Load the folder's predictor; a UsageError names the Python method to use if it was trained on vectors."""
        classifier = self.classifier()
        if classifier.format is None:
            raise click.UsageError(
                f"{self.folder} was trained on vectors, not images; use likely.Classifier.{method} in Python"
            )
        return classifier


def model_command(function: Callable[..., None]) -> Callable[..., None]:
    """Add the MODEL argument and its options to a command, which receives them as one ModelArgument."""

    @wraps(function)
    def command(model: Path, device: str, threads: int | None, signer: Path | None, **others: Any) -> None:
        function(ModelArgument(model, device, threads, signer), **others)

    for parameter in (
        click.option("--threads", type=click.IntRange(1), help=THREADS),
        click.option("--require-signature", "signer", type=KEY_FILE, help=SIGNED),
        click.option("--device", type=DEVICES, default="auto", show_default=True, help="Device to run on."),
        click.argument("model", type=click.Path(path_type=Path)),
    ):
        command = parameter(command)
    return command
