"""Model families by name."""

from __future__ import annotations

import difflib
import sys

from likely.base import Scorer
from likely.exceptions import InvalidValueError
from likely.models.autoregressive import Autoregressive
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
    "autoregressive": Autoregressive,
    "softmax": SoftmaxClassifier,
}


def family(name: str) -> type[Scorer]:
    """Return the model class of a family; InvalidValueError suggests the closest name."""
    if name in FAMILIES:
        return FAMILIES[name]
    nearest = difflib.get_close_matches(name, FAMILIES, n=1, cutoff=0)[0]
    raise InvalidValueError(f"unknown model family {name!r}; did you mean {nearest!r}? Families: {', '.join(FAMILIES)}")


def families_with(capability: type) -> str:
    """Return the names of the families with a capability of `base.py`, separated by commas."""
    return ", ".join(name for name, model_type in FAMILIES.items() if issubclass(model_type, capability))


def summary(model_type: type[Scorer]) -> str:
    """Return the first line of the documentation of a family's module."""
    module = sys.modules[model_type.__module__]
    return (module.__doc__ or "").partition("\n")[0]
