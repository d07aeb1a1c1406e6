"""Training loop: a generator of steps; logging, evaluation, saving and stopping happen in the consumer's `for` loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from likely.base import FitsInClosedForm, Objective
from likely.exceptions import DivergenceError
from likely.training.optimizers import SCHEDULES
from likely.training.rng import generator
from likely.training.state import Progress, Tensors, TrainingState


class _BatchLoader(Protocol):
    """Source of batches; the same epoch and position always give the same batch."""

    @property
    def n_batches(self) -> int: ...

    def __call__(self, epoch: int, position: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the batches (x, y) of an epoch from a position on."""


@dataclass(frozen=True)
class Step:
    """Result of one training step; `note` describes a rollback."""

    number: int
    epoch: int
    fraction: float  # of the whole training
    losses: Mapping[str, float]
    learning_rate: float
    n_images: int
    elapsed: float  # seconds since the start, those of an interrupted run included
    ends_epoch: bool  # also True at the last step if the time limit ends the training within an epoch
    note: str | None = None
    validation: Mapping[str, float] = field(default_factory=dict)  # metrics measured by the consumer after an epoch


def fit_closed_form(model: FitsInClosedForm, batches: _BatchLoader) -> Iterator[None]:
    """Fit closed-form statistics in one pass over the training data; yield once per candidate solution."""
    for x, y in batches(0, 0):
        model.update_statistics(x, y)
    yield from model.candidates()


def fit(state: TrainingState, batches: _BatchLoader, *, dtype: torch.dtype = torch.float32) -> Iterator[Step]:
    """Train for the epochs or minutes of the options, yielding every step; resume from the progress of `state`.

    A non-finite or exploding loss restores the last snapshot with half the learning rate; the fourth time DivergenceError is
    raised.
    """
    if not state.objectives:  # fitted in closed form
        return
    clock = _Clock(state.progress.elapsed)
    snapshot = state.snapshot()
    fraction = _fraction(state, batches)
    while fraction < 1:
        for x, y in batches(state.progress.epoch, state.progress.position):
            if state.enter_phase(fraction):
                snapshot = state.snapshot()
            learning_rate = _set_rate(state, fraction)
            losses = _update(state, x, y, fraction, dtype)
            state.progress.elapsed = clock.read()
            if not _is_healthy(state, losses):
                note = _roll_back(state, snapshot, losses)
                yield _step(state, fraction, losses, learning_rate, note=note)
                break
            state.ema.update_parameters(state.model)
            _advance(state.progress, losses, batches.n_batches)
            fraction = _fraction(state, batches)
            yield _step(state, fraction, losses, learning_rate, n_images=len(x))
            if state.is_snapshot_point:
                snapshot = state.snapshot()
            if fraction >= 1:
                return
        fraction = _fraction(state, batches)


class _Clock:
    """Training time in seconds, including earlier runs."""

    def __init__(self, before: float) -> None:
        self.start = time.monotonic() - before

    def read(self) -> float:
        return time.monotonic() - self.start


def _fraction(state: TrainingState, batches: _BatchLoader) -> float:
    """Return the completed fraction of the training, by time or by steps."""
    if state.options.minutes is not None:
        return min(1.0, state.progress.elapsed / (60 * state.options.minutes))
    return min(1.0, state.progress.step / ((state.options.epochs or 1) * batches.n_batches))


def _set_rate(state: TrainingState, fraction: float) -> float:
    """Set the learning rates of the active objectives; return that of the last one without its ratio."""
    schedule, learning_rate = SCHEDULES[state.options.schedule], 0.0
    for objective, optimizer in zip(state.objectives, state.optimizers, strict=True):
        if not objective.is_active(fraction):
            continue
        learning_rate = state.options.learning_rate * schedule(objective.progress(fraction)) * state.progress.rate_scale
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * objective.lr_ratio
    return learning_rate


def _update(state: TrainingState, x: Tensor, y: Tensor, fraction: float, dtype: torch.dtype) -> dict[str, float]:
    """Update every objective that is due and return losses by name; weights stay unchanged if a loss is not finite."""
    state.model.train()
    losses = {}
    for i, (objective, optimizer) in enumerate(zip(state.objectives, state.optimizers, strict=True)):
        if state.progress.step % objective.interval or not objective.is_active(fraction):
            continue
        rng = generator(state.seed, state.progress.step * len(state.objectives) + i, x.device)
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            loss = objective.loss(x, y, rng)
        losses[objective.name] = loss.item()
        if not math.isfinite(losses[objective.name]):
            break
        if state.options.l1_weight:
            loss = loss + state.options.l1_weight * sum(p.abs().sum() for p in objective.parameters if p.ndim > 1)
        if not math.isfinite(_optimizer_step(objective, optimizer, loss, state.options.max_grad_norm)):
            losses[objective.name] = math.nan  # a loss with a non-finite gradient counts as non-finite
    return losses


def _optimizer_step(objective: Objective, optimizer: torch.optim.Optimizer, loss: Tensor, max_norm: float) -> float:
    """Take an optimizer step along the clipped gradient unless its norm is not finite; return the norm."""
    gradients = torch.autograd.grad(loss, list(objective.parameters))
    norm = torch.nn.utils.get_total_norm(gradients)
    norm_value = norm.item()
    if math.isfinite(norm_value):
        for parameter, gradient in zip(objective.parameters, gradients, strict=True):
            parameter.grad = gradient * min(1.0, max_norm / (norm_value + 1e-6))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return norm_value


def _is_healthy(state: TrainingState, losses: Mapping[str, float]) -> bool:
    """Return True if every loss is finite and bounded ones exceed their minimum by no more than the tolerance."""
    bounded = {objective.name for objective in state.objectives if objective.bounded}
    for name, loss in losses.items():
        tolerance = state.recovery.tolerance * (abs(state.progress.first.get(name, loss)) + 1)
        if not math.isfinite(loss) or (name in bounded and loss > state.progress.lowest.get(name, loss) + tolerance):
            return False
    return True


def _roll_back(state: TrainingState, snapshot: tuple[Tensors, dict[str, Any]], losses: Mapping[str, float]) -> str:
    """Restore the snapshot with half the learning rate and return a note; raise DivergenceError after the last."""
    rollbacks, elapsed = state.progress.rollbacks + 1, state.progress.elapsed
    scale, location = state.progress.rate_scale / 2, f"epoch {state.progress.epoch + 1}, step {state.progress.step + 1}"
    loss_text = ", ".join(f"{name} {loss:.4g}" for name, loss in losses.items())
    if rollbacks > state.recovery.max_rollbacks:
        raise DivergenceError(
            f"the loss ({loss_text}) diverged at {location} for the {rollbacks}th time, last at "
            f"{2 * scale:g} of the learning rate; try a lower --learning-rate than {state.options.learning_rate:g}, "
            f"a smaller --max-grad-norm than {state.options.max_grad_norm:g}, or --precision float32"
        )
    state.restore(*snapshot)
    state.progress = replace(state.progress, rollbacks=rollbacks, rate_scale=scale, elapsed=elapsed)
    return f"the loss ({loss_text}) diverged at {location}: back to step {state.progress.step}, learning rate halved"


def _advance(progress: Progress, losses: Mapping[str, float], n_batches: int) -> None:
    for name, loss in losses.items():
        progress.first.setdefault(name, loss)
        progress.lowest[name] = min(loss, progress.lowest.get(name, loss))
    progress.step += 1
    progress.position += 1
    if progress.position >= n_batches:
        progress.epoch, progress.position = progress.epoch + 1, 0


def _step(
    state: TrainingState,
    fraction: float,
    losses: Mapping[str, float],
    learning_rate: float,
    *,
    n_images: int = 0,
    note: str | None = None,
) -> Step:
    progress = state.progress
    completes_epoch = note is None and progress.position == 0
    epoch = progress.epoch - 1 if completes_epoch else progress.epoch
    ends_epoch = completes_epoch or (note is None and fraction >= 1)
    return Step(progress.step, epoch, fraction, losses, learning_rate, n_images, progress.elapsed, ends_epoch, note)
