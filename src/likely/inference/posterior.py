"""Bayes' rule in log space: posterior log p(c | x) and evidence log p(x)."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_LOGIT = -80.0  # nats below the largest, at which exp() in float32 is negligible but not yet denormal
GROUP_SIZE = 64  # classes per group in the two-stage top-k search


def log_posterior(log_scores: Tensor, log_prior: Tensor, temperature: float = 1.0) -> Tensor:
    """Return log p(c | x) = log softmax(log_scores / T + log π): (B, K), (K,) -> (B, K) float64 nats."""
    logits = log_scores.double() / temperature + log_prior.double()
    return torch.log_softmax(logits, dim=1)


def log_posterior_uniform(log_scores: Tensor, temperature: float) -> Tensor:
    """Return log p(c | x) for equally likely classes, (B, K) -> (B, K) float64 nats."""
    return log_posterior(log_scores, log_uniform(log_scores.shape[1]), temperature)


def entropy(log_posterior: Tensor) -> Tensor:
    """Return H = −Σ_c p(c | x) log p(c | x): (B, K) -> (B,) nats."""
    found: Tensor = torch.special.entr(log_posterior.exp()).sum(1)
    return found


def topk_log_posterior(log_scores: Tensor, log_prior: Tensor, temperature: float, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest log p(c | x) of each image in descending order, and their classes: (B, K), (K,) -> (B, k), (B, k).

    Computed in float32, so that with thousands of classes it costs little beside the scores.
    """
    logits = torch.add(log_prior.float(), log_scores.float(), alpha=1 / temperature)
    values, classes = _largest(logits, min(k, logits.shape[1]))
    # Denormal numbers are many times as slow and contribute nothing.
    total = logits.sub_(values[:, :1]).clamp_min_(MIN_LOGIT).exp_().sum(1, keepdim=True)
    return values - values[:, :1] - total.log(), classes


def _largest(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return topk(k) of each row (B, K); for large K first find the k groups with the largest maxima, which contain it."""
    B, K = logits.shape
    n = K // GROUP_SIZE
    if n < 4 * k:
        return logits.topk(k, 1)
    grouped, rest = (
        logits[:, : n * GROUP_SIZE].view(B, n, GROUP_SIZE),
        torch.arange(n * GROUP_SIZE, K, device=logits.device),
    )
    groups = grouped.amax(2).topk(k, 1).indices[:, :, None]
    candidates = torch.cat(
        [grouped.gather(1, groups.expand(-1, -1, GROUP_SIZE)).flatten(1), logits[:, n * GROUP_SIZE :]], 1
    )
    classes = (groups * GROUP_SIZE + torch.arange(GROUP_SIZE, device=logits.device)).flatten(1)
    values, found = candidates.topk(k, 1)
    return values, torch.cat([classes, rest.expand(B, -1)], 1).gather(1, found)


def grouped_logsumexp(values: Tensor, group: Tensor, n: int) -> Tensor:
    """Return log Σ_{j in g} exp(values_j) for each of n groups: (P, B), (P,) -> (n, B)."""
    rows = group[:, None].expand_as(values)
    largest = values.new_full((n, values.shape[1]), -torch.inf).scatter_reduce(0, rows, values, "amax")
    finite = largest.clamp_min(
        torch.finfo(values.dtype).min
    )  # a group of -inf alone, from which -inf cannot be subtracted
    total = torch.zeros_like(largest).scatter_add(0, rows, (values - finite[group]).exp())
    return largest + total.log()


def log_evidence(L: Tensor, log_prior: Tensor) -> Tensor:
    """Return log p(x) = log Σ_c p(x | c) π_c: (B, K), (K,) -> (B,) float64 nats."""
    return torch.logsumexp(L.double() + log_prior.double(), dim=1)


def log_uniform(n_classes: int) -> Tensor:
    """Return log π of equally likely classes, (K,)."""
    return -torch.full((n_classes,), float(n_classes), dtype=torch.float64).log()
