"""Model folders that make way for new ones: emptied only where they hold nothing but what a training writes."""

from __future__ import annotations

from pathlib import Path

import click


def check_output_folder(folder: Path) -> None:
    """A UsageError if a folder holds anything that no training writes."""
    from likely import checkpoint, experiment
    from likely.evaluation.training_record import HISTORY

    known = {
        checkpoint.TENSORS,
        checkpoint.DOCUMENT,
        experiment.TRAINING_STATE,
        experiment.REPORT,
        experiment.CARD,
        HISTORY,
    }
    foreign = sorted(
        path.name for path in folder.iterdir() if path.is_dir() or path.name.removesuffix(".part") not in known
    )
    if foreign:
        named = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise click.UsageError(
            f"{folder} holds what no training wrote, so it is not replaced: {named}; name another folder with --out"
        )


def clear(folder: Path) -> None:
    """Empty a model folder; one that holds anything else is left alone, with a UsageError."""
    check_output_folder(folder)
    for path in folder.iterdir():
        path.unlink()
