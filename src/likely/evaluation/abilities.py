"""Which families can do what: the end of a sentence to somebody whose model cannot."""

from __future__ import annotations

from likely import models


def able(ability: type) -> str:
    """The names of the families with an ability of the contract's, for a sentence."""
    return ", ".join(name for name, kind in models.FAMILIES.items() if issubclass(kind, ability))
