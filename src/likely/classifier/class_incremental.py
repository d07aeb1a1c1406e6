"""A class that comes later: the model learns it from its own images alone, and p-values are calibrated for it alone."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from likely.base import ModelOutputs, Scorer, SupportsNewClasses
from likely.classifier.scoring import model_outputs
from likely.features.model_input import ModelInput
from likely.inference.decision import ConformalClassifier
from likely.models.new_class import BATCH_SIZE

N_FOLDS = 5
Exemplars = tuple[Tensor, Tensor]  # what a model remembers of images, (N, F), and their classes, (N,)


@torch.no_grad()
def with_new_class(
    model: Scorer, conformal: ConformalClassifier, inputs: ModelInput, known: Exemplars | None
) -> tuple[Scorer, ConformalClassifier]:
    """Model and judge of one class more, from what is seen of its images, all of them and each once, and what is `known` of
    images of the other classes.

    The figures that calibrate are of images that the class was learned without: a fifth at a time is left out and judged by
    what the others teach (cross-conformal prediction, Vovk 2015).
    """
    assert isinstance(model, SupportsNewClasses)
    n = len(inputs.x)
    part = torch.randperm(n, generator=torch.Generator().manual_seed(0)) % N_FOLDS
    found = []
    for k in range(min(N_FOLDS, n) if n > 1 else 0):
        without = model.with_new_class(inputs.x[part != k], known)
        found.append(model_outputs(without, inputs.subset(part == k).split(BATCH_SIZE)))
    larger = model.with_new_class(inputs.x, known)
    n_statistics = conformal.nonconformity.mean.shape[1]
    none = ModelOutputs.empty(model.task.n_classes + 1, n_statistics)
    together = ModelOutputs.concatenate(found) if found else none
    return larger, conformal.with_new_class(together)


@torch.inference_mode()
def exemplars(model: Scorer, batches: Iterable[Tensor], labels: Tensor) -> Exemplars | None:
    """What a model keeps of images, in case another class comes; None if it has no use for that."""
    if not isinstance(model, SupportsNewClasses):
        return None
    found = []
    for x in batches:
        found.append(model.exemplar_features(x).cpu())
        if not found[0].shape[1]:  # nor need the others be looked at
            return None
    return (torch.cat(found), labels) if found else None


def exemplars_with_new_class(known: Exemplars | None, model: Scorer, x: Tensor) -> Exemplars | None:
    """The same with the images x of the model's last class."""
    last = torch.full((len(x),), model.task.n_classes - 1)
    of_last = exemplars(model, torch.split(x, BATCH_SIZE), last)
    if known is None or of_last is None:
        return None
    return torch.cat([known[0], of_last[0]]), torch.cat([known[1], of_last[1]])


def prior_with_new_class(log_prior: Tensor) -> Tensor:
    """log π (K + 1,): the new class is expected as often as the others are in the mean, whose shares keep their ratios."""
    K = len(log_prior)
    shares = torch.cat([log_prior.exp() * K, log_prior.new_ones(1)]) / (K + 1)
    return shares.log()
