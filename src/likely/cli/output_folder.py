"""Output folders: --overwrite empties one only if everything in it was written by a training."""

from __future__ import annotations

from pathlib import Path

import click


def check_output_folder(folder: Path) -> None:
    """Raise a UsageError if a folder contains anything that no training writes."""
    from likely import checkpoint, experiment
    from likely.evaluation.training_record import HISTORY

    known = {
        *(checkpoint.TENSORS, checkpoint.DOCUMENT, HISTORY),
        *(experiment.TRAINING_STATE, experiment.REPORT, experiment.CARD),
    }
    foreign = sorted(
        path.name for path in folder.iterdir() if path.is_dir() or path.name.removesuffix(".part") not in known
    )
    if foreign:
        named = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise click.UsageError(
            f"{folder} is not replaced, because no training wrote {named}; name another folder with --out"
        )


def check_out(model: Path, out: Path, overwrite: bool) -> None:
    """Raise a UsageError if the folder --out of a new model is MODEL itself, or holds anything and may not be replaced."""
    if out.resolve() == model.resolve():
        raise click.UsageError(f"--out {out} is MODEL itself; name another folder")
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise click.UsageError(f"{out} is not empty; --overwrite replaces it")
        check_output_folder(out)


def clear(folder: Path) -> None:
    """Empty a model folder; a UsageError, and nothing is removed, if it contains anything else."""
    check_output_folder(folder)
    for path in folder.iterdir():
        path.unlink()
