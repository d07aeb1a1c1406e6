"""Optimizers by name."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn, optim

from likely.training.options import TrainingOptions


def make_optimizer(parameters: Sequence[nn.Parameter], options: TrainingOptions) -> optim.Optimizer:
    """Create the optimizer of the options; biases, gains and other vectors get no weight decay."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    learning_rate, momentum, betas = options.learning_rate, options.momentum, (options.momentum, options.beta2)
    if options.optimizer == "sgd":
        return optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0)
    if options.optimizer == "adagrad":
        return optim.Adagrad(groups, lr=learning_rate)
    if options.optimizer == "adam":
        return optim.Adam(groups, lr=learning_rate, betas=betas)
    return optim.AdamW(groups, lr=learning_rate, betas=betas)
