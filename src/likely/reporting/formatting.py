"""How the report and the card say things: numbers for reading, evidence in words, long names made short."""

from __future__ import annotations

import math
import unicodedata

from likely.base import Domain, LikelihoodKind, LikelihoodType
from likely.evaluation.metrics import Interval

_SPACES = {Domain.PIXELS8: "of the 8-bit pixels", Domain.FEATURES: "of the feature vector"}


def likelihood_phrase(likelihood_type: LikelihoodType | None) -> str:
    """What a model's log-likelihood is, for a sentence; None stands for a model that has none.

    >>> evidence_phrase(Evidence(EvidenceKind.LOWER_BOUND, Space.PIXELS8))
    'lower bound on log p(x|c) of the 8-bit pixels'
    """
    if likelihood_type is None:
        return "none: a softmax model, which knows p(c|x) and not what an image looks like"
    space = _SPACES[likelihood_type.domain]
    if likelihood_type.kind is LikelihoodKind.LOWER_BOUND:
        return f"lower bound on log p(x|c) {space}"
    if likelihood_type.kind is LikelihoodKind.EXACT:
        return f"exact log p(x|c) {space}"
    return f"log p(x|c) {space}, up to an unknown constant"


def percent(fraction: float, digits: int = 1) -> str:
    """A share as a percentage; a dash where there is none."""
    return f"{fraction * 100:.{digits}f}%" if math.isfinite(fraction) else "–"


def interval(bounds: Interval) -> str:
    """Two shares as one range of percentages."""
    return f"{bounds.low * 100:.1f}–{bounds.high * 100:.1f}%"


def number(value: float, digits: int = 3) -> str:
    """A figure with a fixed number of decimals; a dash where there is none."""
    return f"{value:,.{digits}f}" if math.isfinite(value) else "–"


def distance(value: float) -> str:
    """A Fréchet distance: Inception's features make hundreds of it, those of a small classifier thousandths.

    >>> distance(0.00312), distance(12.3456), distance(212.3456)
    ('0.0031', '12.35', '212.3')
    """
    return number(value, 4 if value < 1 else 2 if value < 100 else 1)


def rate(per_second: float) -> str:
    """A speed with about three digits: nobody reads the decimals of 1,204 images a second."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def plural(n: int, noun: str) -> str:
    """
    >>> plural(1, "image"), plural(1203, "image"), plural(2, "class")
    ('1 image', '1,203 images', '2 classes')
    """
    ending = "" if n == 1 else "es" if noun.endswith("s") else "s"
    return f"{n:,} {noun}{ending}"


def listing(names: tuple[str, ...], most: int = 5) -> str:
    """
    >>> listing(("a", "b", "c")), listing(("a", "b", "c"), most=2)
    ('a, b and c', 'a, b and 1 more')
    """
    shown = [*names[:most], f"{len(names) - most} more"] if len(names) > most else list(names)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def shorten(name: str, limit: int) -> str:
    """A name in at most `limit` characters: of a path its last parts, of anything else both ends.

    >>> shorten("Fruit/Apple/Red", 12), shorten("Fruit/Apple/Golden-Delicious", 18), shorten("a-very-long-name", 12)
    ('…/Apple/Red', '…/Golden-Delicious', 'a-ver…g-name')
    """
    if len(name) <= limit:
        return name
    parts = name.split("/")
    for start in range(1, len(parts)):
        ending = "/".join(["…", *parts[start:]])
        if len(ending) <= limit:
            return ending
    head = (limit - 1) // 2
    return f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"


def breadth(text: str) -> float:
    """How wide a text is, in ems: a Chinese or Japanese character takes about twice a Latin one."""
    return sum(1.0 if unicodedata.east_asian_width(letter) in "WF" else 0.56 for letter in text)
