"""Gaussian mixture of each class after a transform to normality, regularized by held-out likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from likely.inference.sinh_arcsinh import SinhArcsinh


@dataclass(frozen=True)
class MixtureOptions:
    """Constants of the mixtures.

    `pseudo_count`: images by which the mean over all classes counts in the center of a single component.
    `min_images_for_transform`: fewer training images get neither a transform to normality nor two components per class.
    `max_covariance_entries`, `max_classes`: limits beyond which all classes share one covariance.
    `class_weights`: weights of a class's own covariance against the mean covariance, tried in this order.
    `shrinkages`: intensities of shrinkage toward the identity, tried in this order, the most regularized first.
    `n_principal_axes`: principal axes of a class in which it is split in two.
    `min_count`: lower bound of image counts before a logarithm is taken.
    """

    pseudo_count: float = 5.0
    min_images_for_transform: int = 200
    max_covariance_entries: int = 1 << 23
    max_classes: int = 1000
    class_weights: tuple[float, ...] = (0.5, 1.0)
    shrinkages: tuple[float, ...] = (0.6, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    n_principal_axes: int = 30
    min_count: float = 1e-12


DEFAULT_OPTIONS = MixtureOptions()
Labeled: TypeAlias = tuple[Tensor, Tensor]  # standardized statistics (N, D) and their classes (N,)


@dataclass(frozen=True)
class GaussianMixture:
    """p(z | c) = Σ_j w_j N(T(z); center_j, (W_jᵀ W_j)⁻¹) |T'(z)| over the components j of class c.

    T is `curve`. Covariances are regularized: `class_weight` is the weight of a component's own covariance, `shrinkage` the
    intensity of shrinkage toward the identity. `likelihood` is that of held-out images, mean nats per image up to a constant.
    """

    likelihood: float
    curve: SinhArcsinh
    components: _Components
    class_weight: float
    shrinkage: float

    @classmethod
    def fit(
        cls, training: Labeled | None, held_out: Labeled, K: int, options: MixtureOptions = DEFAULT_OPTIONS
    ) -> GaussianMixture:
        """Fit to training images; held-out images choose the transform, one or two components per class and the regularization.

        Without training images, the mixtures have one component per class and no transform, because images cannot choose
        the complexity of their own model.
        """
        z, y = held_out if training is None else training
        is_tied = K * z.shape[1] ** 2 > options.max_covariance_entries or options.max_classes < K
        best = _regularized(SinhArcsinh.identity(), _Components.of_classes(z, y, K, is_tied), held_out, options)
        # With a tied covariance, products are computed once for all classes; a transform would need them for each class.
        if training is None or len(z) < options.min_images_for_transform or is_tied:
            return best
        curve = SinhArcsinh.fit(z)
        normal = _regularized(curve, _Components.of_classes(curve(z), y, K, is_tied), held_out, options)
        best = max(best, normal, key=lambda mixture: mixture.likelihood)
        halves = best.components.split_in_two(best.curve(z), y, options)
        return max(best, _regularized(best.curve, halves, held_out, options), key=lambda mixture: mixture.likelihood)

    @cached_property
    def root(self) -> Tensor:
        """Lower triangular W, (P, D, D), or (1, D, D) if all components share it."""
        return inverse_root(self.components.covariances(self.class_weight, self.shrinkage))

    @property
    def log_weight(self) -> Tensor:
        """log ρ with ρ_j = w_j |W_j| / max_i |W_i| over the components i of the class of j, (P,)."""
        components, owner = self.components, self.components.component_class
        log_det = _log_det(self.root, len(owner))
        largest = torch.full_like(log_det, -torch.inf).scatter_reduce(0, owner, log_det, "amax")
        return components.log_fraction + log_det - largest[owner]


def _regularized(
    curve: SinhArcsinh, components: _Components, held_out: Labeled, options: MixtureOptions
) -> GaussianMixture:
    """Return the mixture whose class weight and shrinkage give held-out images the highest likelihood.

    Both start at the most regularized value and stop at the first that does not improve, because each try takes one
    decomposition per component.
    """
    z, y = held_out
    t, log_slope = curve(z), float(curve.log_derivative(z).sum(1).double().mean()) if len(z) else 0.0
    best: GaussianMixture | None = None
    for weight in components.class_weights(options):
        best_of_weight: GaussianMixture | None = None
        for shrinkage in options.shrinkages:
            likelihood = log_slope + components.mean_log_density(weight, shrinkage, t, y)
            candidate = GaussianMixture(likelihood, curve, components, weight, shrinkage)
            if best_of_weight is not None and candidate.likelihood <= best_of_weight.likelihood:
                break
            best_of_weight = candidate
        assert best_of_weight is not None
        if best is not None and best_of_weight.likelihood <= best.likelihood:
            break
        best = best_of_weight
    assert best is not None
    return best


@dataclass(frozen=True)
class _Components:
    """Mixture components before regularization: image counts (P,), class (P,), center (P, D) and covariance (P, D, D).

    `covariance` is None if it is tied over all classes. `target` (D, D) or (P, D, D) is the covariance to shrink toward.
    """

    count: Tensor
    component_class: Tensor
    center: Tensor
    covariance: Tensor | None
    target: Tensor

    @classmethod
    def of_classes(cls, t: Tensor, y: Tensor, K: int, is_tied: bool) -> _Components:
        """Return one component per class, with the mean covariance as the target."""
        center, count = _centers(t, y, torch.zeros(K, t.shape[1]))
        residual = t - center[y]
        covariance = None if is_tied else _covariances(residual, y, K)
        return cls(count, torch.arange(K), center, covariance, _scatter(residual.double()))

    def split_in_two(self, t: Tensor, y: Tensor, options: MixtureOptions) -> _Components:
        """Split each class by 2-means (Lloyd 1982) in its principal axes, with the covariance of both halves as the target."""
        from sklearn.cluster import KMeans

        assert self.covariance is not None
        component = 2 * y
        for c in self.component_class.tolist():
            axes = torch.linalg.eigh(self.covariance[c]).eigenvectors[:, -options.n_principal_axes :].float()
            of_class = y == c
            if of_class.sum() >= 2:
                projected = ((t[of_class] - self.center[c]) @ axes).numpy()
                half = KMeans(2, n_init=4, random_state=0).fit_predict(projected)
                component[of_class] += torch.from_numpy(half).long()
        owner = self.component_class.repeat_interleave(2)
        center, count = _centers(t, component, self.center[owner])
        residual = t - center[component]
        return _Components(
            count,
            owner,
            center,
            _covariances(residual, component, len(owner)),
            _covariances(residual, y, len(self.component_class))[owner],
        )

    def class_weights(self, options: MixtureOptions) -> tuple[float, ...]:
        """Weights of a component's own covariance to try, the most regularized first."""
        if self.covariance is None:
            return (0.0,)
        return (0.0, *options.class_weights) if self.target.ndim == 2 else options.class_weights

    def covariances(self, class_weight: float, shrinkage: float) -> Tensor:
        """Return regularized covariances (P, D, D), or (1, D, D) if no component has its own."""
        mixed = self.target
        if self.covariance is not None and class_weight > 0:
            mixed = class_weight * self.covariance + (1 - class_weight) * self.target
        found = (1 - shrinkage) * mixed
        found.diagonal(dim1=-2, dim2=-1).add_(shrinkage)
        return found.reshape(-1, *self.target.shape[-2:])

    def mean_log_density(self, class_weight: float, shrinkage: float, t: Tensor, y: Tensor) -> float:
        """Return the mean log density of t (N, D) under the mixtures of the classes y (N,), nats up to a constant."""
        # Solving for the held-out images costs less than inverting a matrix, and many matrices are tried.
        lower, total = torch.linalg.cholesky(self.covariances(class_weight, shrinkage)), 0.0
        constant = self.log_fraction - _log_det(lower, len(self.component_class))
        for c in set(y.tolist()):
            log_joint, of_class = [], t[y == c]
            for j in (self.component_class == c).nonzero()[:, 0].tolist():
                residual = (of_class - self.center[j]).double().mT
                whitened = torch.linalg.solve_triangular(lower[j if len(lower) > 1 else 0], residual, upper=False)
                log_joint.append(constant[j] - whitened.square().sum(0) / 2)
            total += float(torch.stack(log_joint).logsumexp(0).sum())
        return total / max(1, len(y))

    @property
    def log_fraction(self) -> Tensor:
        """Log of the fraction of its class's images in each component, (P,)."""
        count = self.count + DEFAULT_OPTIONS.min_count
        return (count / torch.zeros_like(count).index_add_(0, self.component_class, count)[self.component_class]).log()


def _centers(t: Tensor, component: Tensor, prior_mean: Tensor) -> tuple[Tensor, Tensor]:
    """Return means of t (N, D) by component, shrunk toward `prior_mean` (P, D), and image counts (P,)."""
    pseudo_count = DEFAULT_OPTIONS.pseudo_count
    count = torch.bincount(component, minlength=len(prior_mean))[:, None]
    total = torch.zeros_like(prior_mean).index_add_(0, component, t)
    return (total + pseudo_count * prior_mean) / (count + pseudo_count), count[:, 0].double()


def _covariances(residual: Tensor, component: Tensor, P: int) -> Tensor:
    """Return the covariance of the residuals (N, D) of each component, (P, D, D)."""
    return torch.stack([_scatter(residual[component == j].double()) for j in range(P)])


def _scatter(residual: Tensor) -> Tensor:
    """Return the mean outer product of residuals: (N, D) -> (D, D)."""
    return residual.mT @ residual / max(1, len(residual))


def inverse_root(S: Tensor) -> Tensor:
    """Return lower triangular W with Wᵀ W = S⁻¹ for positive definite S (..., D, D), in float64."""
    inverse: Tensor = torch.linalg.solve_triangular(
        torch.linalg.cholesky(S), torch.eye(S.shape[-1], dtype=S.dtype), upper=False
    )
    return inverse


def _log_det(root: Tensor, P: int) -> Tensor:
    """Return log |W| of P components, (P,), which may share one W (1, D, D)."""
    return root.diagonal(dim1=1, dim2=2).log().sum(1).expand(P)
