"""The base of all option models: families, training, images, services. It imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from likely.exceptions import CheckpointError, InvalidValueError

AUTO = "auto"  # choose the family by the data
DEFAULT_MODEL = AUTO


class Options(BaseModel):
    """Frozen, validated options that reject unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def from_any(cls, values: Mapping[str, Any] | Options | None, *, name: Callable[[str], str] = str) -> Self:
        """Validate a mapping, the fields that are set in other options, or nothing.

        An InvalidValueError has one sentence for each invalid option. `name` maps a field, "augment__flip" if it is nested, to
        the name that the user typed.
        """
        if isinstance(values, Options):
            values = values.model_dump(exclude_unset=True)
        try:
            return cls.model_validate(values or {})
        except ValidationError as error:
            raise InvalidValueError("; ".join(_sentences(error, cls, name))) from error

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with changed fields; raise TypeError for an unknown name, which pydantic would ignore."""
        if unknown := set(update or ()) - type(self).model_fields.keys():
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        return super().model_copy(update=update, deep=deep)

    @classmethod
    def from_stored(cls, values: object, source: object, *, context: Mapping[str, Any] | None = None) -> Self:
        """Validate values that were read from `source`, a file or a field of one; CheckpointError names it and each key."""
        try:
            return cls.model_validate(values, context=context)
        except ValidationError as error:
            raise CheckpointError(
                f"{source} was edited or written by another version of Likely ({'; '.join(_sentences(error, cls, str))}); "
                "open it with the version of Likely that wrote it, or train it again with `likely train`"
            ) from error


def _sentences(error: ValidationError, options: type[Options], name: Callable[[str], str]) -> Iterator[str]:
    for fault in error.errors():
        message = fault["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
        if not fault["loc"]:
            yield message
            continue
        option = name("__".join(str(key) for key in fault["loc"]))
        if fault["type"] == "extra_forbidden":
            close = difflib.get_close_matches(str(fault["loc"][-1]), options.model_fields, 1)
            yield f"there is no option {option!r}{f'; did you mean {close[0]!r}?' if close else ''}"
        elif fault["type"] == "missing":
            yield f"{option} is missing"
        elif fault["type"] == "value_error":
            yield f"{option}: {message}"
        else:
            yield f"{option} {message}, not {fault['input']!r}"
