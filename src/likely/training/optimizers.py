"""torch's optimizers by the names that people type, one for each objective."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn, optim

from likely.training.options import TrainingOptions


def make_optimizer(parameters: Sequence[nn.Parameter], options: TrainingOptions) -> optim.Optimizer:
    """The named optimizer; biases, gains and other vectors are spared the weight decay, which would only bias them."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate, momentum, betas = options.learning_rate, options.momentum, (options.momentum, options.beta2)
    if options.optimizer == "sgd":
        return optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0)
    if options.optimizer == "adagrad":
        return optim.Adagrad(groups, lr=rate)
    if options.optimizer == "adam":
        return optim.Adam(groups, lr=rate, betas=betas)
    return optim.AdamW(groups, lr=rate, betas=betas)
