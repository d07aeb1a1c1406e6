"""Image score: one nonconformity score per image, combined from posterior uncertainty and distance to the known images.

Near unknown images are detected by an uncertain posterior, far ones by their distance. Each component becomes a negative
log survival probability, and Fisher's method adds them (Fisher 1925, Statistical Methods for Research Workers). The
components depend on each other, so a p-value comes from the rank of the sum among calibration images (`conformal`),
never from the chi-squared distribution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from likely.base import ModelOutputs
from likely.inference.posterior import entropy


@dataclass(frozen=True)
class ImageScoreOptions:
    """Constants of the image score.

    `tail_quantile`: quantile of the reference images above which the survival function is exponential.
    `max_candidates`: most probable classes to which a distance is computed, and whose statistics are kept for calibration.
    """

    tail_quantile: float = 0.9
    max_candidates: int = 10


DEFAULT_OPTIONS = ImageScoreOptions()


def components(outputs: ModelOutputs, log_posterior: Tensor, nonconformity: Tensor) -> dict[str, Tensor]:
    """Return the components of the image score, (B,) each: the entropy of the posterior, and distances.

    The distances are those of the model, or else the smallest `nonconformity` (B, K) among the candidate
    classes. `log_posterior` (B, K) is that of a uniform prior.
    """
    distances = outputs.distances
    if distances is None:
        distances = nonconformity.gather(1, candidates(outputs.log_scores)).amin(1, keepdim=True)
    return {"entropy": entropy(log_posterior)} | named_distances(distances)


def named_distances(distances: Tensor) -> dict[str, Tensor]:
    """Return one or more distances (N, n) as components by name, (N,) each."""
    return {f"distance_{i}": column for i, column in enumerate(distances.unbind(1))}


def candidates(log_scores: Tensor) -> Tensor:
    """Return the classes to which the distance is computed, the most probable ones: (B, K) -> (B, min(K, 10))."""
    return log_scores.topk(min(log_scores.shape[1], DEFAULT_OPTIONS.max_candidates), 1).indices


@dataclass(frozen=True)
class ReferenceDistribution:
    """Distribution of a statistic x of reference images: empirical up to a threshold u, exponential above.

    −log P(X ≥ x) = −log (1 + #{v_i ≥ x}) / (n + 1)          for x ≤ u
    −log P(X ≥ x) = −log (1 + #{v_i > u}) / (n + 1) + (x − u) / mean_excess    for x > u

    Peaks over threshold with shape 0 (Pickands 1975; Coles 2001, An Introduction to Statistical Modeling of Extreme
    Values, ch. 4): values far beyond all reference images stay distinguishable. `values` (n,) are ascending, `threshold` ()
    is u, and `mean_excess` () the mean of v_i − u above u, infinite if there is none.
    """

    values: Tensor
    threshold: Tensor
    mean_excess: Tensor

    @classmethod
    def fit(cls, x: Tensor) -> ReferenceDistribution:
        """Fit to the values of reference images, (n,)."""
        values = x.double().sort().values
        threshold = (
            values[int(DEFAULT_OPTIONS.tail_quantile * len(values))] if len(values) else values.new_tensor(torch.inf)
        )
        excess = (values - threshold)[values > threshold]
        return cls(values, threshold.clone(), excess.mean() if len(excess) else values.new_tensor(torch.inf))

    def neg_log_sf(self, x: Tensor) -> Tensor:
        """Return −log P(X ≥ x) in nats, continuous at the threshold and nondecreasing in x: (N,) -> (N,) float64."""
        x = x.double().nan_to_num(torch.inf, torch.inf)
        n, body = len(self.values), torch.minimum(x, self.threshold)
        n_at_least = n - torch.searchsorted(self.values, body.contiguous())
        n_above = n - torch.searchsorted(self.values, self.threshold, right=True)
        is_tail = x > self.threshold
        count = torch.where(is_tail, n_above, n_at_least)
        return ((n + 1) / (1 + count)).log() + torch.where(is_tail, (x - self.threshold) / self.mean_excess, 0.0)

    @torch.no_grad()
    def slope(self, x: Tensor) -> Tensor:
        """Return the slope of −log P(X ≥ x) between x − m and x + m with the mean excess m, (N,) -> (N,) float64."""
        m = self.mean_excess
        return ((self.neg_log_sf(x + m) - self.neg_log_sf(x - m)) / (2 * m)).nan_to_num(0)


@dataclass(frozen=True)
class ImageScore:
    """Fisher's combination s(x) = Σ_j −log P(X_j ≥ x_j) of named components; a high score means an atypical image."""

    references: Mapping[str, ReferenceDistribution]

    @classmethod
    def fit(cls, components: Mapping[str, Tensor]) -> ImageScore:
        """Fit to the components of reference images, (n,) each, which must not calibrate the score as well."""
        return cls({name: ReferenceDistribution.fit(x) for name, x in components.items()})

    def __call__(self, components: Mapping[str, Tensor]) -> Tensor:
        """Return the scores of images from their components, (N,) each: (N,) float64."""
        if not len(next(iter(components.values()))):  # outputs without images do not tell which components a model has
            return torch.zeros(0, dtype=torch.float64)
        return torch.stack([each.neg_log_sf(components[name]) for name, each in self.references.items()]).sum(0)

    def linearized(self, components: Mapping[str, Tensor]) -> Tensor:
        """Return Σ_j h_j x_j with constant slopes h_j, (N,) float64.

        Its gradient is about that of the score, which below the thresholds is a step function without one.
        """
        terms = (each.slope(components[name]) * components[name] for name, each in self.references.items())
        return torch.stack(list(terms)).sum(0)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, for a checkpoint."""
        return {
            f"{name}/{f.name}": getattr(each, f.name) for name, each in self.references.items() for f in fields(each)
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> ImageScore:
        """Restore from the result of `tensors`."""
        names = sorted({name.split("/")[0] for name in tensors})
        stored = ([tensors[f"{name}/{f.name}"] for f in fields(ReferenceDistribution)] for name in names)
        return cls({name: ReferenceDistribution(*values) for name, values in zip(names, stored, strict=True)})
