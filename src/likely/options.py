"""Base class of all options: of families, training, images, evaluation and the service. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

AUTO = "auto"  # choose the family by the data
DEFAULT_MODEL = AUTO


class Options(BaseModel):
    """Frozen options that reject unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def from_any(cls, options: Mapping[str, Any] | Options | None) -> Self:
        """Validate a mapping, the explicitly set fields of an options object, or None for the defaults."""
        return cls.model_validate(
            options.model_dump(exclude_unset=True) if isinstance(options, Options) else options or {}
        )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with changed fields; raise TypeError for an unknown name, which pydantic would ignore."""
        if unknown := set(update or ()) - type(self).model_fields.keys():
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        return super().model_copy(update=update, deep=deep)
