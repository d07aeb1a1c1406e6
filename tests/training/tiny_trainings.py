"""Tiny trainings: random images, and scorers with one or two weights."""

from collections.abc import Callable

import numpy as np
import torch

from likely.base import Objective, Scorer, Task
from likely.models.vae import VAE
from likely.options import Options
from likely.training.data_loader import ShuffledBatches
from likely.training.options import AugmentOptions, TrainingOptions
from likely.training.state import TrainingState

ROUGH = AugmentOptions(shift=0.2, flip=True, rotate=20, scale=0.1, crop=0.1, color=0.2)


class Store:
    """Random images, each unlike the others: uint8 (n, *shape), or float vectors."""

    def __init__(self, n: int, shape: tuple[int, ...] = (1, 8, 8)) -> None:
        rng = torch.Generator().manual_seed(n)
        is_image = len(shape) == 3
        self.x = torch.randint(0, 256, (n, *shape), generator=rng, dtype=torch.uint8 if is_image else torch.float32)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices, /):
        return self.x[torch.from_numpy(indices)]


def feed(
    n: int, *, batch_size: int = 4, seed: int = 0, augment: AugmentOptions | None = None, shape=(1, 8, 8)
) -> ShuffledBatches:
    """Batches of n random images of two classes in turn."""
    return ShuffledBatches(Store(n, shape), np.arange(n) % 2, batch_size=batch_size, seed=seed, augment=augment)


class Weights(Scorer):
    """Scalar weights, each drawn to the mean of the batch by an objective of its own.

    `spoil` makes of a loss what a test wants, from the loss, its weight and the number of losses so far; `every` are the
    objectives' intervals. `noise` keeps what the rng of each loss gave.
    """

    options_type = Options

    def __init__(self, spoil: Callable = lambda loss, weight, n: loss, *, every: tuple[int, ...] = (1,)) -> None:
        super().__init__(Task((1, 8, 8), (1, 1)), Options())
        self.weights = torch.nn.ParameterList(torch.tensor(4.0 + i) for i in range(len(every)))
        self.every = every
        self.spoil = spoil
        self.noise: list[float] = []

    def log_scores(self, x, *, rng=None):
        return -(x.mean((1, 2, 3))[:, None] - torch.stack([*self.weights])).square()

    def objectives(self):
        return tuple(
            Objective(f"weight{i}", (weight,), self._loss(weight), every)
            for i, (weight, every) in enumerate(zip(self.weights, self.every, strict=True))
        )

    def _loss(self, weight):
        def loss(x, y, rng):
            self.noise.append(torch.rand((), generator=rng).item())
            return self.spoil((weight - x.mean()).square(), weight, len(self.noise))

        return loss


def vae() -> VAE:
    """As a Classifier makes one, seeded and channels last, but of one objective: without the networks that look on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VAE(Task((1, 8, 8), (6, 7)), VAE.options_type(latent_dims=3, width=4, masked_every=0))
        model.background = None
    return model.to(memory_format=torch.channels_last)


def state(model: Scorer, *, seed: int = 0, **options) -> TrainingState:
    return TrainingState(model, TrainingOptions(**{"epochs": 3} | options), seed=seed)
