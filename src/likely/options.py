"""What all options have in common: families, procedures, images, services. Nothing here waits for torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """The options of a family or of a procedure: frozen, validated, and refusing words that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def from_any(cls, given: Mapping[str, Any] | Options | None) -> Self:
        """From a mapping, an options object of which what was set counts, or nothing."""
        return cls.model_validate(given.model_dump(exclude_unset=True) if isinstance(given, Options) else given or {})


AUTO = "auto"  # choose the family by the data
DEFAULT_MODEL = AUTO
