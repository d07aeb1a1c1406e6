"""Softmax baseline: softmax regression on the same encoder, for comparison; not a generative model."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from likely.base import HasFeatures, Objective, Scorer, Task
from likely.networks.blocks import TrunkOptions, make_encoder
from likely.networks.standardizer import Standardized, Standardizer


class SoftmaxOptions(TrunkOptions):
    """Options of `softmax`."""

    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Label smoothing: probability mass of each label spread over all classes."
    )


class SoftmaxClassifier(Scorer, HasFeatures, Standardized):
    """p(c | x) = softmax(logits), so log_scores = logits − log π_train removes the training prior."""

    options_type = SoftmaxOptions

    def __init__(self, task: Task, options: SoftmaxOptions) -> None:
        super().__init__(task, options)
        self.label_smoothing = options.label_smoothing
        self.standardizer = Standardizer.of(task)
        self.encoder = make_encoder(task.shape, width=options.width, depth=options.depth)
        self.to_logits = nn.Linear(self.encoder.n_features, task.n_classes)

    def log_scores(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self._logits(x) - self.log_prior

    def features(self, x: Tensor) -> Tensor:
        return self.encoder.pooled(self.standardizer(x))

    def objectives(self) -> Sequence[Objective]:
        return (Objective("cross_entropy", tuple(self.parameters()), self._loss),)

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.to_logits(self.encoder(self.standardizer(x))).float()
        return logits

    def _loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        labeled = y >= 0
        if not labeled.any():
            return 0 * self._logits(x).sum()
        return F.cross_entropy(self._logits(x[labeled]), y[labeled], label_smoothing=self.label_smoothing)
