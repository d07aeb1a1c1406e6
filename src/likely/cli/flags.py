"""Command-line flags from option models: the name, type, help and default that the field declares, declared once."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from likely.options import Options


def flags(options: type[Options], *, prefix: str = "") -> Iterator[click.Option]:
    """A flag for every field; those of a nested option model carry the field's name in front: --augment-flip."""
    for name, field in options.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, Options):
            yield from flags(nested, prefix=f"{prefix}{name}__")
        else:
            yield _flag(f"{prefix}{name}", field)


def chosen(options: type[Options], values: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """What was typed of these options, nested as the model is; what was left out stays out."""
    found: dict[str, Any] = {}
    for name, field in options.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, Options):
            if inner := chosen(nested, values, prefix=f"{prefix}{name}__"):
                found[name] = inner
        elif values.get(f"{prefix}{name}") is not None:
            found[name] = values[f"{prefix}{name}"]
    return found


def flag_name(name: str) -> str:
    """How people type a field's name: augment__flip -> --augment-flip."""
    return "--" + name.replace("__", "-").replace("_", "-")


def without_none(annotation: Any) -> Any:
    """T of T | None."""
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return kinds[0] if len(kinds) == 1 else str
    return annotation


def _flag(name: str, field: FieldInfo) -> click.Option:
    kind = without_none(field.annotation)
    words = flag_name(name)
    if kind is bool:
        words = f"{words}/--no-{words[2:]}"
    return click.Option([words, name], type=_click_type(kind), default=None, help=_help(field))


def _click_type(kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    return kind if kind in (int, float, bool, str) else str


def _help(field: FieldInfo) -> str:
    description = field.description or ""
    if field.default is None:
        return description
    default = (
        {True: "on", False: "off"}.get(field.default, field.default)
        if isinstance(field.default, bool)
        else field.default
    )
    return f"{description.rstrip('.')}.  [default: {default}]"
