"""--mask: which pixels of the images a command is to go by."""

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
    from likely.inference.decision import ConformalClassifier

    Mask = NDArray[np.bool_]

TRANSPARENT = "transparent"


def load_mask(classifier: Predictor, source: str, path: Path) -> Mask:
    """What --mask leaves of one image, (H, W)."""
    if source != TRANSPARENT:
        return load_mask_file(classifier, Path(source))
    mask: Mask = alpha_masks(classifier, [path])[0]
    return mask


def load_mask_file(classifier: Predictor, path: Path) -> Mask:
    """(H, W): the white or opaque pixels of a picture; a UsageError if it cannot be read."""
    from likely.data.preprocessing import HALF, read_image, read_mask

    assert classifier.format is not None
    try:
        gray = read_image(path, classifier.format.model_copy(update={"channels": 1}))[0]
        mask: Mask = (gray >= HALF) & read_mask(path, classifier.format)
        return mask
    except ImageError as error:
        raise click.UsageError(
            f"--mask {error}; a picture that is white where the images are to be looked at was expected, or {TRANSPARENT!r}"
        ) from error


def alpha_masks(classifier: Predictor, paths: Sequence[Path]) -> Mask:
    """(N, H, W): the opaque pixels of each image; all of one that cannot be read, of which the answer will say so."""
    import numpy as np

    from likely.data.preprocessing import read_mask

    assert classifier.format is not None
    whole = np.ones(classifier.format.shape[1:], np.bool_)
    masks = []
    for path in paths:
        try:
            masks.append(read_mask(path, classifier.format))
        except ImageError:
            masks.append(whole)
    return np.stack(masks)


def conformal_for_mask(classifier: Predictor, mask: Mask, folder: Path, data: str | None) -> ConformalClassifier | None:
    """P-values behind one mask, from the images that the training set aside, if they are still to be found."""
    from likely.classifier.calibration import calibrate_for_mask
    from likely.cli.console import console
    from likely.cli.progress import progress_bar
    from likely.experiment import held_out_splits

    try:
        with progress_bar("reading images") as progress:
            parts = held_out_splits(classifier, folder, data, progress)
    except DataError as error:
        if data is not None:
            raise
        click.echo(f"without p-values: {error}; --data names where they are now", err=True)
        return None
    with console.status("calibrating behind the mask"):
        return calibrate_for_mask(classifier, mask, parts.validation, parts.calibration)
