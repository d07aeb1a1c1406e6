"""Bayes' rule in log space."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_LOGIT = -80.0  # nats beside the largest
GROUP_SIZE = 64  # classes of which the largest is looked for first


def log_posterior(log_scores: Tensor, log_prior: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(c | x) = log softmax(log_scores / T + log π): (B, K), (K,) -> (B, K) float64 nats."""
    logits = log_scores.double() / temperature + log_prior.double()
    return torch.log_softmax(logits, dim=1)


def topk_log_posterior(log_scores: Tensor, log_prior: Tensor, temperature: float, k: int) -> tuple[Tensor, Tensor]:
    """The k largest log p(c | x) of each image, the largest first, and their classes: (B, K), (K,) -> (B, k), (B, k).

    In float32: of thousands of classes hardly more work than their scores are.
    """
    logits = torch.add(log_prior.float(), log_scores.float(), alpha=1 / temperature)
    values, classes = _largest(logits, min(k, logits.shape[1]))
    # Below e^NOTHING numbers lose their digits, which takes processors many times as long, and they come to nothing.
    total = logits.sub_(values[:, :1]).clamp_min_(MIN_LOGIT).exp_().sum(1, keepdim=True)
    return values - values[:, :1] - total.log(), classes


def _largest(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As topk of (B, K). Of very many the k groups with the largest members are found first, which hold all that is sought."""
    B, K = logits.shape
    n = K // GROUP_SIZE
    if n < 4 * k:
        return logits.topk(k, 1)
    grouped, rest = (
        logits[:, : n * GROUP_SIZE].view(B, n, GROUP_SIZE),
        torch.arange(n * GROUP_SIZE, K, device=logits.device),
    )
    groups = grouped.amax(2).topk(k, 1).indices[:, :, None]
    among = torch.cat([grouped.gather(1, groups.expand(-1, -1, GROUP_SIZE)).flatten(1), logits[:, n * GROUP_SIZE :]], 1)
    places = (groups * GROUP_SIZE + torch.arange(GROUP_SIZE, device=logits.device)).flatten(1)
    values, found = among.topk(k, 1)
    return values, torch.cat([places, rest.expand(B, -1)], 1).gather(1, found)


def grouped_logsumexp(values: Tensor, group: Tensor, n: int) -> Tensor:
    """log Σ_{j of g} exp(values_j) for each of n groups: (P, B), (P,) -> (n, B)."""
    rows = group[:, None].expand_as(values)
    largest = values.new_full((n, values.shape[1]), -torch.inf).scatter_reduce(0, rows, values, "amax")
    finite = largest.clamp_min(torch.finfo(values.dtype).min)  # a group of nothing but -inf has no number less
    total = torch.zeros_like(largest).scatter_add(0, rows, (values - finite[group]).exp())
    return largest + total.log()


def log_evidence(L: Tensor, log_prior: Tensor) -> Tensor:
    """log p(x) = log Σ_c p(x | c) π_c: (B, K), (K,) -> (B,) float64 nats."""
    return torch.logsumexp(L.double() + log_prior.double(), dim=1)


def log_uniform(n_classes: int) -> Tensor:
    """log π of equally likely classes, (K,)."""
    return -torch.full((n_classes,), float(n_classes), dtype=torch.float64).log()
