"""What can be wrong with a model folder."""

from __future__ import annotations


def security() -> str:
    """What signing and sealing take."""
    return "signed and encrypted models take a package of their own: pip install 'likely[secure]'"
