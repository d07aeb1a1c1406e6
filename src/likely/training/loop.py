"""The training loop: a generator of Steps. Whoever iterates logs, draws, evaluates, saves and stops in its own `for`."""

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
from likely.training.rng import generator
from likely.training.schedules import SCHEDULES
from likely.training.state import Progress, Tensors, TrainingState

SNAPSHOT_EVERY = 200  # steps: how much work a bad step can cost
MAX_ROLLBACKS = 3


class BatchLoader(Protocol):
    """Where batches come from: the same epoch and position give the same batch, whenever they are asked for."""

    @property
    def n_batches(self) -> int: ...

    def __call__(self, epoch: int, position: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The epoch's batches (x, y) from the given position on."""


@dataclass(frozen=True)
class Step:
    """What one step of training did. `note` says in words what was out of the ordinary."""

    number: int
    epoch: int
    fraction: float  # of the whole training
    losses: Mapping[str, float]
    learning_rate: float
    n_images: int
    elapsed: float  # seconds since the start, those of an interrupted run included
    ends_epoch: bool  # or the training, in the middle of one, when its minutes are over
    note: str | None = None
    validation: Mapping[str, float] = field(default_factory=dict)  # what the caller measured at the epoch's end


def fit_closed_form(model: FitsInClosedForm, feed: BatchLoader) -> Iterator[None]:
    """The pass over the training images in which a model computes what it does not learn; as often as it may be concluded."""
    for x, y in feed(0, 0):
        model.update_statistics(x, y)
    yield from model.candidates()


def fit(state: TrainingState, feed: BatchLoader, *, dtype: torch.dtype = torch.float32) -> Iterator[Step]:
    """Train until the epochs or minutes of the options are over, one Step at a time; resumes wherever `state` stands.

    A loss that is not finite or explodes takes the state back to the last snapshot with half the learning rate; the fourth
    time raises Diverged.
    """
    if not state.objectives:  # all that there was to learn has been measured
        return
    clock = _Clock(state.progress.elapsed)
    good = state.snapshot()
    fraction = _fraction(state, feed)
    while fraction < 1:
        for x, y in feed(state.progress.epoch, state.progress.position):
            rate = _set_rate(state, fraction)
            losses = _update(state, x, y, dtype)
            state.progress.elapsed = clock.read()
            if not _healthy(state, losses):
                note = _roll_back(state, good, losses)
                yield _step(state, fraction, losses, rate, note=note)
                break
            state.ema.update_parameters(state.model)
            _advance(state.progress, losses, feed.n_batches)
            fraction = _fraction(state, feed)
            yield _step(state, fraction, losses, rate, n_images=len(x))
            if is_snapshot_point(state.progress):
                good = state.snapshot()
            if fraction >= 1:
                return
        fraction = _fraction(state, feed)


def is_snapshot_point(progress: Progress) -> bool:
    """Whether a bad step would lead back to here: a training saved at such a point resumes exactly, roll-backs included."""
    return progress.step == 1 or progress.step % SNAPSHOT_EVERY == 0 or progress.position == 0


class _Clock:
    """Seconds spent, those of an earlier run included."""

    def __init__(self, before: float) -> None:
        self.start = time.monotonic() - before

    def read(self) -> float:
        return time.monotonic() - self.start


def _fraction(state: TrainingState, feed: BatchLoader) -> float:
    """How much of the training is done, by its steps or by its minutes."""
    if state.options.minutes is not None:
        return min(1.0, state.progress.elapsed / (60 * state.options.minutes))
    return min(1.0, state.progress.step / ((state.options.epochs or 1) * feed.n_batches))


def _set_rate(state: TrainingState, fraction: float) -> float:
    schedule = SCHEDULES[state.options.schedule]
    rate = state.options.learning_rate * schedule(fraction) * state.progress.rate_scale
    for objective, optimizer in zip(state.objectives, state.optimizers, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * objective.lr_ratio
    return rate


def _update(state: TrainingState, x: Tensor, y: Tensor, dtype: torch.dtype) -> dict[str, float]:
    """One step of every objective whose turn it is; its loss by name. Weights stay as they are if a loss is not finite."""
    state.model.train()
    losses = {}
    for i, (objective, optimizer) in enumerate(zip(state.objectives, state.optimizers, strict=True)):
        if state.progress.step % objective.interval:
            continue
        rng = generator(state.seed, state.progress.step * len(state.objectives) + i, x.device)
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            loss = objective.loss(x, y, rng)
        losses[objective.name] = loss.item()
        if not math.isfinite(losses[objective.name]):
            break
        if not math.isfinite(_descend(objective, optimizer, loss, state.options.max_grad_norm)):
            losses[objective.name] = math.nan  # a finite loss without a usable slope is no better than a bad one
    return losses


def _descend(objective: Objective, optimizer: torch.optim.Optimizer, loss: Tensor, clip: float) -> float:
    """One optimizer step along the clipped gradient; returns the gradient's norm, and steps nowhere if it is not finite."""
    gradients = torch.autograd.grad(loss, list(objective.parameters))
    norm = torch.nn.utils.get_total_norm(gradients)
    length = norm.item()
    if math.isfinite(length):
        for parameter, gradient in zip(objective.parameters, gradients, strict=True):
            parameter.grad = gradient * min(1.0, clip / (length + 1e-6))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return length


def _healthy(state: TrainingState, losses: Mapping[str, float]) -> bool:
    """Whether every loss is finite and, if bounded, within ten times the first loss's size of the lowest so far."""
    bounded = {objective.name for objective in state.objectives if objective.bounded}
    for name, loss in losses.items():
        room = 10 * (abs(state.progress.first.get(name, loss)) + 1)
        if not math.isfinite(loss) or (name in bounded and loss > state.progress.lowest.get(name, loss) + room):
            return False
    return True


def _roll_back(state: TrainingState, good: tuple[Tensors, dict[str, Any]], losses: Mapping[str, float]) -> str:
    """Back to the last snapshot with half the rate; the sentence that says so."""
    rollbacks, elapsed = state.progress.rollbacks + 1, state.progress.elapsed
    scale, where = state.progress.rate_scale / 2, f"epoch {state.progress.epoch + 1}, step {state.progress.step + 1}"
    bad = ", ".join(f"{name} {loss:.4g}" for name, loss in losses.items())
    if rollbacks > MAX_ROLLBACKS:
        raise DivergenceError(
            f"the loss ({bad}) went astray at {where} for the {rollbacks}th time, the last at "
            f"{2 * scale:g} of the learning rate; try a lower --learning-rate than {state.options.learning_rate:g}, "
            f"a smaller --max-grad-norm than {state.options.max_grad_norm:g}, or --precision float32"
        )
    state.restore(*good)
    state.progress = replace(state.progress, rollbacks=rollbacks, rate_scale=scale, elapsed=elapsed)
    return f"the loss ({bad}) went astray at {where}: back to step {state.progress.step}, learning rate halved"


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
    rate: float,
    *,
    n_images: int = 0,
    note: str | None = None,
) -> Step:
    progress = state.progress
    whole = note is None and progress.position == 0
    epoch = progress.epoch - 1 if whole else progress.epoch
    ends_epoch = whole or (note is None and fraction >= 1)
    return Step(progress.step, epoch, fraction, losses, rate, n_images, progress.elapsed, ends_epoch, note)
