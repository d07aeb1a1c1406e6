"""Formatting of numbers, likelihood types and names for readers."""

from __future__ import annotations

import math
import re
import unicodedata

from likely.base import Domain, LikelihoodKind, LikelihoodType
from likely.evaluation.metrics import Interval
from likely.evaluation.training_record import CalibrationSize

_DOMAINS = {
    Domain.PIXELS8: "of the 8-bit pixels",
    Domain.TOKENS: "of the sequence of tokens",
    Domain.FEATURES: "of the feature vector",
}

MISSING = "–"  # a value that there is none of


def likelihood_phrase(likelihood_type: LikelihoodType | None) -> str:
    """Describe a model's log-likelihood; None stands for a model without one.

    >>> likelihood_phrase(LikelihoodType(LikelihoodKind.LOWER_BOUND, Domain.PIXELS8))
    'lower bound on log p(x|c) of the 8-bit pixels'
    """
    if likelihood_type is None:
        return "none: a softmax classifier models p(c|x) only"
    domain = _DOMAINS[likelihood_type.domain]
    if likelihood_type.kind is LikelihoodKind.LOWER_BOUND:
        return f"lower bound on log p(x|c) {domain}"
    if likelihood_type.kind is LikelihoodKind.EXACT:
        return f"exact log p(x|c) {domain}"
    return f"log p(x|c) {domain}, up to an unknown constant"


def percent(fraction: float, digits: int = 1) -> str:
    """Format a fraction as a percentage; a dash if it is not finite."""
    return f"{fraction * 100:.{digits}f}%" if math.isfinite(fraction) else MISSING


def interval(bounds: Interval) -> str:
    """Format two fractions as a range of percentages."""
    return f"{bounds.low * 100:.1f}–{bounds.high * 100:.1f}%"


def number(value: float, digits: int = 3) -> str:
    """Format a number with fixed decimals and a minus sign, not a hyphen; a dash if it is not finite.

    >>> number(-0.25), number(-0.0001), number(math.nan)
    ('−0.250', '0.000', '–')
    """
    if not math.isfinite(value):
        return MISSING
    rounded = round(value, digits) + 0.0  # a negative zero becomes positive
    return f"{rounded:,.{digits}f}".replace("-", "−")


def distance(value: float) -> str:
    """Format a Fréchet distance, which ranges from thousandths (small classifiers) to hundreds (Inception).

    >>> distance(0.00312), distance(12.3456), distance(212.3456)
    ('0.0031', '12.35', '212.3')
    """
    return number(value, 4 if value < 1 else 2 if value < 100 else 1)


def rate(per_second: float) -> str:
    """Format a rate per second with about three digits."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def duration(minutes: float) -> str:
    """Format a duration in seconds below two minutes, else in minutes.

    >>> duration(0.012), duration(0.9), duration(12.34)
    ('0.7 seconds', '54 seconds', '12.3 minutes')
    """
    seconds = 60 * minutes
    if seconds >= 120:
        return f"{minutes:.1f} minutes"
    return f"{seconds:.0f} seconds" if seconds >= 10 else f"{seconds:.1f} seconds"


def plural(n: int, noun: str) -> str:
    """Format a count with its noun.

    >>> plural(1, "image"), plural(1203, "image"), plural(2, "class")
    ('1 image', '1,203 images', '2 classes')
    """
    ending = "" if n == 1 else "es" if noun.endswith("s") else "s"
    return f"{n:,} {noun}{ending}"


def listing(names: tuple[str, ...], limit: int = 5) -> str:
    """Join names in a sentence, at most `limit` of them.

    >>> listing(("a", "b", "c")), listing(("a", "b", "c"), limit=2)
    ('a, b and c', 'a, b and 1 more')
    """
    shown = [*names[:limit], f"{len(names) - limit} more"] if len(names) > limit else list(names)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def calibration_phrase(size: CalibrationSize) -> str:
    """Return a sentence on the images that calibrate the p-values."""
    if not size.n_calibrating:
        return "There are too few images to calibrate p-values."
    one = f"one image of each of {plural(size.n_calibrating, 'group')}, of {plural(size.n, 'image')}"
    by = one if size.is_by_group and size.n_calibrating < size.n else plural(size.n_calibrating, "image")
    return f"The p-values are calibrated by {by} ({size.method})."


def shorten(name: str, limit: int) -> str:
    """Shorten a name to `limit` characters: a path to its last components, the last one or another name to both ends.

    >>> shorten("Fruit/Apple/Red", 12), shorten("Fruit/Apple/Golden-Delicious", 18), shorten("Fruit/a-very-long-name", 12)
    ('…/Apple/Red', '…/Golden-Delicious', 'a-ver…g-name')
    """
    if len(name) <= limit:
        return name
    components = name.split("/")
    for start in range(1, len(components)):
        ending = "/".join(["…", *components[start:]])
        if len(ending) <= limit:
            return ending
    last, head = components[-1], (limit - 1) // 2
    return last if len(last) <= limit else f"{last[:head]}…{last[len(last) - (limit - 1 - head) :]}"


def without_folders(text: str) -> str:
    """Shorten each absolute path in a text to its last component.

    >>> without_folders("likely train /home/ann/boots/ --out ../m --backbone=/opt/net https://x.org/a/b 3/4")
    'likely train boots --out ../m --backbone=net https://x.org/a/b 3/4'
    """
    return re.sub(r"(?<![\w./\\:~-])(?:/|[A-Za-z]:[\\/])(?:[^/\\\s'\"]+[/\\])*([^/\\\s'\"]+)[/\\]?", r"\1", text)


def breadth(text: str) -> float:
    """Estimate the width of a text in ems: a Chinese or Japanese character has about twice the width of a Latin one."""
    return sum(1.0 if unicodedata.east_asian_width(letter) in "WF" else 0.56 for letter in text)
