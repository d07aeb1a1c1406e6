"""What can be wrong with a model folder."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A folder that holds no model, or one that this version cannot or must not read; the message says what to do."""


def security() -> str:
    """What signing and sealing take."""
    return "signed and encrypted models take a package of their own: pip install 'likely[secure]'"
