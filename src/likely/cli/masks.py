"""The option --mask: the pixels of an image that a command may use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from likely.exceptions import DataError, ImageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from likely.classifier import Predictor
    from likely.inference.decision import DecisionRule

    Mask = NDArray[np.bool_]

TRANSPARENT = "transparent"


def load_mask_file(classifier: Predictor, path: Path) -> Mask:
    """Return the white, opaque pixels of an image file, (H, W); a UsageError if it cannot be read."""
    from likely.data.preprocessing import HALF, read_image, read_mask

    assert classifier.format is not None
    try:
        gray = read_image(path, classifier.format.model_copy(update={"channels": 1}))[0]
        mask: Mask = (gray >= HALF) & read_mask(path, classifier.format)
        return mask
    except ImageError as error:
        raise click.UsageError(
            f"--mask {error}; an image that is white where pixels are observed was expected, or {TRANSPARENT!r}"
        ) from error


def alpha_masks(classifier: Predictor, paths: Sequence[Path]) -> Mask:
    """Return the opaque pixels of each image, (N, H, W), and all pixels of an image that cannot be read."""
    import numpy as np

    from likely.data.preprocessing import read_mask

    assert classifier.format is not None
    whole = np.ones(classifier.format.shape[1:], np.bool_)
    masks = []
    for path in paths:
        try:
            masks.append(read_mask(path, classifier.format))
        except ImageError:  # its prediction carries the error
            masks.append(whole)
    return np.stack(masks)


def decision_rule_for_mask(classifier: Predictor, mask: Mask, folder: Path, data: str | None) -> DecisionRule | None:
    """Calibrate p-values for one mask on the model's held-out images; None, with a warning, if they cannot be found."""
    from likely.classifier.calibration import calibrate_for_mask
    from likely.cli.console import console
    from likely.cli.progress import progress_bar
    from likely.experiment import held_out_splits

    try:
        with progress_bar("reading images") as progress:
            splits = held_out_splits(classifier, folder, data, progress)
    except DataError as error:
        if data is not None:
            raise
        click.echo(f"without p-values: {error}; name the folder of the training images with --data", err=True)
        return None
    with console.status("calibrating for the mask"):
        return calibrate_for_mask(classifier, mask, splits.validation, splits.calibration)
