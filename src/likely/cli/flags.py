"""Command-line flags generated from option models: name, type, help and default come from the field."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from likely.options import Options

O = TypeVar("O", bound=Options)


def flags(options: type[Options], *, prefix: str = "") -> Iterator[click.Option]:
    """Yield a flag for every field; the fields of a nested model are prefixed with its name, as in --augment-flip."""
    for name, field in options.model_fields.items():
        if nested := _nested(field):
            yield from flags(nested, prefix=f"{prefix}{name}__")
        else:
            yield _flag(f"{prefix}{name}", field)


def parse_flags(options: type[O], values: Mapping[str, Any], *, prefix: str = "") -> O:
    """Build options from the values of their flags; an InvalidValueError names the flags as the user types them."""
    return options.from_any(_typed(options, values, prefix), name=lambda field: flag_name(prefix + field))


class FiniteRange(click.FloatRange):
    """A range of numbers without NaN, which click's own ranges accept, and infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def flag_name(name: str) -> str:
    """Return the flag of a field: augment__flip -> --augment-flip."""
    return "--" + name.replace("__", "-").replace("_", "-")


def _typed(options: type[Options], values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Nest the values as the model is nested, without the flags that were not typed."""
    found: dict[str, Any] = {}
    for name, field in options.model_fields.items():
        nested = _nested(field)
        value = _typed(nested, values, f"{prefix}{name}__") or None if nested else values.get(f"{prefix}{name}")
        if value is not None:
            found[name] = value
    return found


def _nested(field: FieldInfo) -> type[Options] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Options) else None


def _flag(name: str, field: FieldInfo) -> click.Option:
    kind, words = without_none(field.annotation), flag_name(name)
    if kind is bool:
        words = f"{words}/--no-{words[2:]}"
    return click.Option([words, name], type=_click_type(kind), default=None, help=_help(field))


def without_none(annotation: Any) -> Any:
    """Return T for T | None, and str for other unions."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 else str


def _click_type(kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    return kind if kind in (int, float, bool, str) else str


def _help(field: FieldInfo) -> str:
    description = field.description or ""
    if field.default is None:
        return description
    default = ("on" if field.default else "off") if isinstance(field.default, bool) else field.default
    return f"{description.rstrip('.')}.  [default: {default}]"
