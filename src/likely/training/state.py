"""State of a training: everything that the next step depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn, optim
from torch.optim.swa_utils import AveragedModel

from likely.base import Objective, Trainable
from likely.options import Options
from likely.training.optimizers import make_optimizer
from likely.training.options import TrainingOptions

Tensors = dict[str, Tensor]


class RecoveryOptions(Options):
    """Options of the recovery from divergence."""

    snapshot_interval: int = Field(
        200, ge=1, description="Steps between snapshots, the most that a divergence can undo."
    )
    max_rollbacks: int = Field(3, ge=0, description="Rollbacks before training gives up.")
    tolerance: float = Field(
        10.0, gt=0, description="A bounded loss L may exceed its minimum by this many times |first L| + 1."
    )


@dataclass
class Progress:
    """Progress of a training; `position` is the number of batches of the epoch already processed."""

    step: int = 0
    epoch: int = 0
    position: int = 0
    elapsed: float = 0.0  # seconds
    rate_scale: float = 1.0
    rollbacks: int = 0
    lowest: dict[str, float] = field(default_factory=dict)  # lowest loss of each objective
    first: dict[str, float] = field(default_factory=dict)
    best_score: float | None = None  # nats per image, on validation data
    stale: int = 0  # epochs since the best score
    phase: int = 1  # phases begun


class TrainingState:
    """Model, moving average, optimizers and progress, converted to tensors and JSON by `snapshot` and back by `restore`."""

    recovery: ClassVar = RecoveryOptions()

    def __init__(self, model: Trainable, options: TrainingOptions, *, seed: int) -> None:
        self.model = model
        self.options = options
        self.seed = seed
        self.objectives: tuple[Objective, ...] = tuple(model.objectives())
        self.optimizers: tuple[optim.Optimizer, ...] = tuple(
            make_optimizer(objective.parameters, options) for objective in self.objectives
        )
        self.ema = _moving_average(model, options.ema_decay)
        self.progress = Progress()
        self.best: Tensors = {}
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))

    @property
    def ema_model(self) -> Trainable:
        """Model with averaged weights, which is evaluated and saved."""
        return cast(Trainable, self.ema.module)

    @property
    def is_snapshot_point(self) -> bool:
        """True where the loop takes a snapshot: a training saved there resumes exactly, including rollbacks."""
        step = self.progress.step
        return step == 1 or step % self.recovery.snapshot_interval == 0 or self.progress.position == 0

    def reset_ema(self) -> None:
        """Restart the moving average from the current weights."""
        self.ema_model.load_state_dict(self.model.state_dict())

    def enter_phase(self, fraction: float) -> bool:
        """Return True if a further phase of the training has begun: it goes on from the averaged weights."""
        phase = len({each.span[0] for each in self.objectives if each.span[0] <= fraction})
        if phase == self.progress.phase:
            return False
        self.progress.phase = phase
        self.model.load_state_dict(self.ema_model.state_dict())
        self.ema.n_averaged.zero_()
        return True

    @property
    def is_last_phase(self) -> bool:
        """True once all objectives have been active; before, the model cannot be scored."""
        return self.progress.phase == len({each.span[0] for each in self.objectives} | {0.0})

    def update_best(self, score: float) -> bool:
        """Store the averaged weights if `score` (nats per image, lower is better) is the best so far."""
        best = self.progress.best_score
        if best is not None and not score < best:
            self.progress.stale += 1
            return False
        self.progress.best_score, self.progress.stale = score, 0
        self.best = _clone(self.ema_model.state_dict())
        return True

    def load_best(self) -> None:
        """Load the best averaged weights into the model, or the current averages if none were scored."""
        self.model.load_state_dict(self.best or self.ema_model.state_dict())

    def snapshot(self) -> tuple[Tensors, dict[str, Any]]:
        """Return the state as copied tensors by name and a JSON document."""
        tensors = add_prefix("model", self.model.state_dict()) | add_prefix("ema", self.ema.state_dict())
        tensors |= add_prefix("best", self.best)
        rest = []
        for i, each in enumerate(self.optimizers):
            moments, config = _to_state(each.state_dict())
            tensors |= add_prefix(f"optimizer{i}", moments)
            rest.append(config)
        return _clone(tensors), {"progress": asdict(self.progress), "optimizers": rest, "seed": self.seed}

    def restore(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Restore the state of a snapshot."""
        self.model.load_state_dict(strip_prefix("model", tensors))
        self.ema.load_state_dict(strip_prefix("ema", tensors))
        self.best = _clone(strip_prefix("best", tensors))
        for i, (each, config) in enumerate(zip(self.optimizers, document["optimizers"], strict=True)):
            each.load_state_dict(_from_state(strip_prefix(f"optimizer{i}", tensors), config))
        self.progress = Progress(**deepcopy(document["progress"]))
        self.seed = document["seed"]


def _moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """Create the exponential moving average of the weights of a model: w̄ ← d w̄ + (1 − d) w, d = min(decay, (1 + n)/(10 + n)).

    n counts the updates. The smaller d of early updates removes the untrained weights, which would dominate short trainings.
    """
    return AveragedModel(model, multi_avg_fn=_average(decay), use_buffers=True)


def _average(decay: float) -> Callable[..., None]:
    @torch.no_grad()
    def average(averages: list[Tensor], currents: list[Tensor], n_averaged: Tensor | int) -> Any:
        n = float(n_averaged)
        weight = 1 - min(decay, (1 + n) / (10 + n))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, currents, weight)
        else:
            torch._foreach_copy_(averages, currents)  # counters are copied

    return average


def _clone(tensors: Mapping[str, Tensor]) -> Tensors:
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def add_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Prefix the names of tensors."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def strip_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Select the tensors with a prefix and remove it from their names."""
    return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}


def _to_state(state: dict[str, Any]) -> tuple[Tensors, dict[str, Any]]:
    """Split the state of an optimizer into tensors named "parameter/moment" and JSON."""
    tensors = {f"{p}/{name}": value for p, moments in state["state"].items() for name, value in moments.items()}
    return tensors, {"param_groups": state["param_groups"]}


def _from_state(tensors: Tensors, config: Mapping[str, Any]) -> dict[str, Any]:
    moments: dict[int, Tensors] = {}
    for name, value in tensors.items():
        parameter, moment = name.split("/")
        moments.setdefault(int(parameter), {})[moment] = value.clone()
    return {"state": moments, "param_groups": config["param_groups"]}
