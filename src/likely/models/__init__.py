"""The families: a name that people type, and the model behind it."""

from __future__ import annotations

import difflib
import sys

from likely.base import Scorer
from likely.exceptions import InvalidValueError
from likely.models.flow import Flow
from likely.models.gan import GAN
from likely.models.gaussian import Gaussian
from likely.models.softmax import SoftmaxClassifier
from likely.models.vae import VAE
from likely.models.vaegan import VAEGAN

FAMILIES: dict[str, type[Scorer]] = {
    "gaussian": Gaussian,
    "vae": VAE,
    "vaegan": VAEGAN,
    "gan": GAN,
    "flow": Flow,
    "softmax": SoftmaxClassifier,
}


def family(name: str) -> type[Scorer]:
    """The model class of a family's name; a ValueError names the nearest one."""
    if name in FAMILIES:
        return FAMILIES[name]
    nearest = difflib.get_close_matches(name, FAMILIES, n=1, cutoff=0)[0]
    raise InvalidValueError(
        f"there is no model family {name!r}; did you mean {nearest!r}? Families: {', '.join(FAMILIES)}"
    )


def families_with(ability: type) -> str:
    """The names of the families with an ability of the contract's, for a sentence to somebody whose model has it not."""
    return ", ".join(name for name, kind in FAMILIES.items() if issubclass(kind, ability))


def summary(kind: type[Scorer]) -> str:
    """The sentence that says what a family is: the first of its module's documentation."""
    module = sys.modules[kind.__module__]
    return (module.__doc__ or "").partition("\n")[0]
