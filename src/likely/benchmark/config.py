"""Configuration of a benchmark: families, their options, seeds, training length."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from likely import models
from likely.base import FamilyOptions, GenerativeModel
from likely.data.preprocessing import ImageOptions
from likely.evaluation.fidelity import DENSITY_K
from likely.exceptions import InvalidValueError
from likely.experiment import BASELINE_FAMILY, TrainConfig
from likely.options import Options
from likely.reporting.comparison import ResultKey
from likely.training.options import TrainingOptions

BASELINE = BASELINE_FAMILY


class BenchmarkRun(NamedTuple):
    """One training of the benchmark."""

    family: str
    seed: int

    def __str__(self) -> str:
        return f"{self.family}, seed {self.seed}"

    @property
    def folder(self) -> str:
        return f"{self.family}-{self.seed}"


class BenchmarkConfig(Options):
    """Configuration of a benchmark."""

    data: str = Field(description="DATA, as named by the user.")
    families: tuple[str, ...] = Field(description="The families to compare; the softmax baseline always comes first.")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(
        (0,), description="Seeds of the splits, the weights and everything random."
    )
    training: TrainingOptions = Field(description="Training options of every family.")
    images: ImageOptions = ImageOptions()
    options: dict[str, dict[str, Any]] = Field({}, description="Changed options of each family.")
    samples: int | None = Field(
        None, gt=DENSITY_K, description="Generated images of each family, and real ones to compare with."
    )
    extractor: Path | None = Field(None, description="Feature extractor; by default the first baseline.")

    @field_validator("data")
    @classmethod
    def _normalize_path(cls, data: str) -> str:
        return os.path.normpath(data)

    @field_validator("families")
    @classmethod
    def _baseline_first(cls, families: tuple[str, ...]) -> tuple[str, ...]:
        for name in families:
            models.family(name)
        return tuple(dict.fromkeys((BASELINE, *families)))

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(seeds))

    @model_validator(mode="after")
    def _has_a_length(self) -> Self:
        if self.training.minutes is None and self.training.epochs is None:
            raise InvalidValueError(
                "the training length is missing; expected --minutes, such as 10 for every family, or --epochs"
            )
        return self

    @property
    def runs(self) -> Iterator[BenchmarkRun]:
        """All trainings by seed, the baseline first."""
        return (BenchmarkRun(family, seed) for seed in self.seeds for family in self.families)

    def family_options(self, family: str) -> FamilyOptions:
        """Return the validated options of a family."""
        return models.family(family).options_type.from_any(self.options.get(family, {}))

    def train_config(self, run: BenchmarkRun) -> TrainConfig:
        """Return the configuration of a training, without label checks."""
        return TrainConfig(
            data=self.data,
            model=run.family,
            options=self.family_options(run.family).model_dump(exclude_unset=True),
            training=self.training,
            images=self.images,
            seed=run.seed,
            label_check_folds=0,
        )

    def key(self, run: BenchmarkRun, extractor: str | None) -> ResultKey:
        """Return the key of a result; samples and extractor matter only for families that generate images."""
        generates = issubclass(models.family(run.family), GenerativeModel)
        return ResultKey(
            data=self.data,
            family=run.family,
            options=self.family_options(run.family).model_dump(mode="json"),
            seed=run.seed,
            minutes=self.training.minutes,
            epochs=self.training.epochs,
            images=self.images.model_dump(mode="json", exclude_unset=True),
            samples=self.samples if generates else None,
            extractor=extractor if generates else None,
        )
