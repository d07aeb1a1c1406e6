"""How strange an image is to each class: how far what a model sees in it lies from what it sees in that class's images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from likely.base import ModelOutputs
from likely.inference.conformal import PSEUDO_COUNT, median_and_mad, with_new_class
from likely.inference.posterior import grouped_logsumexp
from likely.inference.sinh_arcsinh import SinhArcsinh

N_FOLDS = 5  # of a few images, to judge each by the others
CONSTANT_TOLERANCE = 1e-6  # of a trait's size: what varies by less varies by the rounding of float32
MIN_IMAGES_FOR_TRANSFORM = 200  # images that tell what curve makes a trait normal
MAX_COVARIANCE_ENTRIES = 1 << 23  # numbers in the covariances of single classes; for more, all classes share one
MAX_CLASSES_WITH_OWN_COVARIANCE = (
    1000  # with covariances of their own: so many are seldom known by images enough for it
)
CLASS_WEIGHTS = (0.5, 1.0)  # how much of a class's covariance may be its own, beside the mean of all
SHRINKAGES = (0.6, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)  # toward uncorrelated traits; the safest first
N_PRINCIPAL_AXES = 30  # of a class, along which it is divided
TINY = 1e-12


@dataclass(frozen=True)
class Statistics:
    """What is known of N images: `shared` (N, F) whatever the class, `by_class` (N, K, n); D = F + n together."""

    shared: Tensor
    by_class: Tensor

    @classmethod
    def of(cls, outputs: ModelOutputs) -> Statistics:
        """Take them from the outputs of a model."""
        statistics, features = outputs.statistics, outputs.features
        return cls(statistics.new_zeros(len(statistics), 0) if features is None else features, statistics)

    def of_true_class(self, y: Tensor) -> Tensor:
        """Each image's traits under its own class y (N,): (N, D)."""
        return torch.cat([self.shared, self.by_class[torch.arange(len(y)), y]], 1)


# Images' traits under their own classes, (N, D), and these, (N,).
StatisticsOfTrueClass: TypeAlias = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class NonconformityScore:
    """How far the traits v_c of an image x are from those of class c's images, by a mixture of Gaussians a class.

    s_c(x) = (log d_c − a_c) / b_c,  d_c = −2 log Σ_j ρ_j exp(−‖W_j (t_c − n_j)‖² / 2),  t_c = T((v_c − m_c) / u),

    j over the class's parts, ρ_j = w_j |W_j| / max_i |W_i|: of one part d_c is the squared Mahalanobis distance (Lee 2018, A
    Simple Unified Framework for Detecting Out-of-Distribution Samples, eq. 2), here over many traits at once, not of the
    likelihood alone: too likely is as strange as too unlikely (Morningstar 2021).

    `mean` m (K, D) and `scale` u (D,) standardize the traits; T makes each of them normal, with `curves` for parameters
    (4, D), or (4, 0) if they are well as they are. P parts in all belong to the classes `owner` (P,) and have `log_weight`
    log ρ (P,), `center` n (P, D) and `packed`, the rows of lower triangular W one after another, (P, D (D + 1) / 2), Wᵀ W the
    inverse covariance; (1, D (D + 1) / 2) of all parts alike. `middle` a and `spread` b (K,) make the distances of different
    classes comparable.
    """

    mean: Tensor
    scale: Tensor
    transform: Tensor
    component_class: Tensor
    log_weight: Tensor
    center: Tensor
    packed_root: Tensor
    median: Tensor
    mad: Tensor

    @classmethod
    def fit(cls, training: StatisticsOfTrueClass | None, held_out: StatisticsOfTrueClass, K: int) -> NonconformityScore:
        """Means, curves and covariances from `trained`, images' own traits (N, D) and labels (N,), most of them trained on.

        Held-out images choose by their likelihood whether the traits are made normal, whether a class has one part or two,
        what of a covariance is its own and how far it is shrunk; and they say what distance is usual. Where they have to do
        alone, every class is one part, without curves: who is learned from cannot judge what is richer.
        """
        own, labels = held_out
        v, y = held_out if training is None else training
        mean, scale = _means_and_scale(v, y, K)
        z, held_out_z = ((t.double() - mean[c]).div_(scale).float() for t, c in ((v, y), (own, labels)))
        shares_alone = K * len(scale) ** 2 > MAX_COVARIANCE_ENTRIES or K > MAX_CLASSES_WITH_OWN_COVARIANCE
        found = _best(SinhArcsinh.identity(), _Components.of_classes(z, y, K, shares_alone), held_out_z, labels)
        # Of a covariance that all classes share, products are made once for all: no curve, which would be each class's own.
        if training is not None and len(z) >= MIN_IMAGES_FOR_TRANSFORM and not shares_alone:
            curve = SinhArcsinh.fit(z)
            bent = _best(curve, _Components.of_classes(curve(z), y, K, shares_alone), held_out_z, labels)
            found = max(found, bent, key=lambda choice: choice.likelihood)
            halved = _best(found.curve, found.components.split_in_two(found.curve(z), y), held_out_z, labels)
            found = max(found, halved, key=lambda choice: choice.likelihood)
        parts = found.components
        root = parts.roots(found.class_weight, found.shrinkage)
        fitted = cls(
            mean,
            scale,
            found.curve.parameters,
            parts.component_class,
            parts.log_weight(root).float(),
            parts.center.float(),
            _packed(root).float(),
            torch.zeros(K),
            torch.ones(K),
        )
        return fitted._with_scale(fitted.log_distance(own, labels), labels)

    def __call__(self, traits: Statistics) -> Tensor:
        """(B, K)."""
        alike = len(self.packed_root) == 1 and not self._normal.changes
        squared = self._squared_shared(traits) if alike else self._squared_by_component(traits)
        return (squared.clamp_min(TINY).log() - self.median) / self.mad

    def log_distance(self, v: Tensor, y: Tensor) -> Tensor:
        """log d of traits (N, D) for the classes y (N,), not yet compared with what is usual: (N,)."""
        found = torch.zeros(len(v))
        for c in set(y.tolist()):
            found[y == c] = self._squared(v[y == c], c).clamp_min(TINY).log()
        return found

    def score_true_class(self, v: Tensor, y: Tensor) -> Tensor:
        """s of traits (N, D) to the classes y (N,): (N,)."""
        return (self.log_distance(v, y) - self.median[y]) / self.mad[y]

    def with_new_class(self, v: Tensor) -> tuple[NonconformityScore, Tensor]:
        """With a class besides, of which a few images have the traits v (N, D); and the nonconformity of each, (N,).

        Its covariance is as much its own as N images tell of D traits. An image's own nonconformity is that to a class which
        the other folds of the few make up.
        """
        usual, n, K = self._mean_covariance(), len(v), len(self.mean)
        part = torch.arange(n) % N_FOLDS
        apart = torch.zeros(n)
        for k in range(min(N_FOLDS, n) if n > 1 else 0):
            without = self._with_new_component(v[part != k], usual)
            apart[part == k] = without._squared(v[part == k], K).clamp_min(TINY).log()
        larger = self._with_new_component(v, usual)
        middle, spread = with_new_class(apart if n > 1 else apart[:0], self.median, self.mad)
        return replace(larger, median=middle, mad=spread), (apart - middle[-1]) / spread[-1]

    def _with_new_component(self, v: Tensor, usual: Tensor) -> NonconformityScore:
        """With a class besides, the last, of a few images; as yet without what distance is usual in it."""
        n = len(v)
        mean = (v.double().sum(0) + PSEUDO_COUNT * self.mean.mean(0)) / (n + PSEUDO_COUNT)
        t = self._normal(self._standardize(v, mean))
        center = (t.sum(0) + PSEUDO_COUNT * self.center.mean(0)) / (n + PSEUDO_COUNT)
        packed = self.packed_root
        if len(packed) > 1:
            weight = n / (n + len(usual))
            covariance = weight * _outer((t - center).double()) + (1 - weight) * usual
            packed = torch.cat([packed, _packed(_inverse_root(covariance)[None]).float()])
        return replace(
            self,
            mean=torch.cat([self.mean, mean[None]]),
            component_class=torch.cat([self.component_class, self.component_class.new_tensor([len(self.mean)])]),
            log_weight=torch.cat([self.log_weight, torch.zeros(1)]),
            center=torch.cat([self.center, center[None]]),
            packed_root=packed,
        )

    def _mean_covariance(self) -> Tensor:
        inverses = [
            torch.linalg.solve_triangular(W, torch.eye(len(W)).double(), upper=False) for W in self._roots.double()
        ]
        return torch.stack([root @ root.mT for root in inverses]).mean(0)

    def _with_scale(self, apart: Tensor, y: Tensor) -> NonconformityScore:
        middle, spread = median_and_mad(apart, y, len(self.mean))
        return replace(self, median=middle.float(), mad=spread.float())

    @property
    def _normal(self) -> SinhArcsinh:
        return SinhArcsinh(self.transform)

    @cached_property
    def _roots(self) -> Tensor:
        """W, (P, D, D) or (1, D, D)."""
        D = len(self.scale)
        rows, columns = torch.tril_indices(D, D)
        roots = self.packed_root.new_zeros(len(self.packed_root), D, D)
        roots[:, rows, columns] = self.packed_root
        return roots

    def _standardize(self, v: Tensor, mean: Tensor) -> Tensor:
        """In float32 from here on: what lies far from zero has its digits where they matter now."""
        return ((v.double() - mean) / self.scale).float()

    def _squared(self, v: Tensor, c: int) -> Tensor:
        """d_c: (N, D) -> (N,)."""
        t = self._normal(self._standardize(v, self.mean[c]))
        squared = []
        for j in (self.component_class == c).nonzero()[:, 0].tolist():
            root = self._roots[j if len(self._roots) > 1 else 0]
            squared.append(((t - self.center[j]) @ root.mT).square().sum(1) - 2 * self.log_weight[j])
        return squared[0] if len(squared) == 1 else -2 * (-torch.stack(squared) / 2).logsumexp(0)

    def _squared_by_component(self, traits: Statistics) -> Tensor:
        K = len(self.mean)
        v = torch.cat([traits.shared[None].expand(K, -1, -1), traits.by_class.transpose(0, 1)], 2)  # (K, B, D)
        t = self._normal(self._standardize(v, self.mean[:, None]))
        away = t[self.component_class] - self.center[:, None]  # (P, B, D)
        squared = (away @ self._roots.mT).square().sum(2) - 2 * self.log_weight[:, None]
        return -2 * grouped_logsumexp(-squared / 2, self.component_class, K).mT

    def _squared_shared(self, traits: Statistics) -> Tensor:
        """‖W v‖² = ‖A s‖² + ‖B s + C t_c‖²: of the shared traits s the product is the same for all classes."""
        F, W = traits.shared.shape[1], self._roots[0]
        middle = self.mean.mean(0)  # products of what lies far from zero would lose the digits that matter
        shared = ((traits.shared.double() - middle[:F]) / self.scale[:F]).float()
        mean = ((self.mean - middle) / self.scale).float() + self.center
        first, places = shared @ W[:F, :F].mT, mean[:, :F] @ W[:F, :F].mT
        squared = torch.cdist(first, places, compute_mode="donot_use_mm_for_euclid_dist").square()
        by_class = ((traits.by_class.double() - middle[F:]) / self.scale[F:]).float()
        rest = (shared @ W[F:, :F].mT)[:, None] + by_class @ W[F:, F:].mT - mean @ W[F:].mT
        return squared + rest.square().sum(2)


class _Candidate(NamedTuple):
    """What a mixture is made of, and how likely it makes held-out images, nats an image up to a constant."""

    likelihood: float
    curve: SinhArcsinh
    components: _Components
    class_weight: float
    shrinkage: float


def _best(curve: SinhArcsinh, parts: _Components, z: Tensor, y: Tensor) -> _Candidate:
    """How much of a covariance is best the part's own, and how much it is best shrunk, by held-out numbers (N, D).

    From the safest on, as long as it helps: every try takes as many decompositions as there are parts.
    """
    t, slope = curve(z), float(curve.log_derivative(z).sum(1).double().mean()) if len(z) else 0.0
    best: _Candidate | None = None
    for own in parts.class_weights():
        of_own: _Candidate | None = None
        for shrunk in SHRINKAGES:
            choice = _Candidate(slope + parts.mean_log_density(own, shrunk, t, y), curve, parts, own, shrunk)
            if of_own is not None and choice.likelihood <= of_own.likelihood:
                break
            of_own = choice
        assert of_own is not None
        if best is not None and of_own.likelihood <= best.likelihood:
            break
        best = of_own
    assert best is not None
    return best


@dataclass(frozen=True)
class _Components:
    """How numbers lie about the centers (P, D) of parts of classes: how many, of which class, the covariance of each part,
    None where all are to share one, and the covariance that it is drawn to, (D, D) or (P, D, D)."""

    count: Tensor
    component_class: Tensor
    center: Tensor
    covariance: Tensor | None
    shared_covariance: Tensor

    @classmethod
    def of_classes(cls, t: Tensor, y: Tensor, K: int, shares_alone: bool) -> _Components:
        """Each class is a part, and drawn to the mean of all."""
        center, count = _centers(t, y, torch.zeros(K, t.shape[1]))
        away = t - center[y]
        each = None if shares_alone else _covariances(away, y, K)
        return cls(count, torch.arange(K), center, each, _outer(away.double()))

    def split_in_two(self, t: Tensor, y: Tensor) -> _Components:
        """Each class in two parts, drawn to the mean of both: two means (Lloyd 1982) along the class's longest axes."""
        from sklearn.cluster import KMeans

        assert self.covariance is not None
        part = 2 * y
        for c in self.component_class.tolist():
            axes = torch.linalg.eigh(self.covariance[c]).eigenvectors[:, -N_PRINCIPAL_AXES:].float()
            of_class = y == c
            if of_class.sum() >= 2:
                along = ((t[of_class] - self.center[c]) @ axes).numpy()
                part[of_class] += torch.from_numpy(KMeans(2, n_init=4, random_state=0).fit_predict(along)).long()
        owner = self.component_class.repeat_interleave(2)
        center, count = _centers(t, part, self.center[owner])
        away = t - center[part]
        return _Components(
            count,
            owner,
            center,
            _covariances(away, part, len(owner)),
            _covariances(away, y, len(self.component_class))[owner],
        )

    def class_weights(self) -> tuple[float, ...]:
        """How much of a covariance may be the part's own, the safest first."""
        return (
            (0.0,)
            if self.covariance is None
            else (0.0, *CLASS_WEIGHTS)
            if self.shared_covariance.ndim == 2
            else CLASS_WEIGHTS
        )

    def covariances(self, own: float, shrunk: float) -> Tensor:
        """(P, D, D), or (1, D, D) where nothing is a part's own."""
        mixed = (
            self.shared_covariance
            if self.covariance is None or own == 0
            else own * self.covariance + (1 - own) * self.shared_covariance
        )
        found = (1 - shrunk) * mixed
        found.diagonal(dim1=-2, dim2=-1).add_(shrunk)
        return found.reshape(-1, *self.shared_covariance.shape[-2:])

    def roots(self, own: float, shrunk: float) -> Tensor:
        """W of each, lower triangular, with Wᵀ W the inverse covariance."""
        return _inverse_root(self.covariances(own, shrunk))

    def log_weight(self, root: Tensor) -> Tensor:
        """log ρ (P,)."""
        log_size = _log_size(root, len(self.component_class))
        largest = torch.full_like(log_size, -torch.inf).scatter_reduce(0, self.component_class, log_size, "amax")
        return self._log_fraction + log_size - largest[self.component_class]

    def mean_log_density(self, own: float, shrunk: float, t: Tensor, y: Tensor) -> float:
        """Of numbers (N, D) under the mixtures of their classes, nats up to a constant."""
        # A held-out image more costs less than a matrix inverted, of which there are many to be tried.
        lower, total = torch.linalg.cholesky(self.covariances(own, shrunk)), 0.0
        constant = self._log_fraction - _log_size(lower, len(self.component_class))
        for c in set(y.tolist()):
            each, of_class = [], t[y == c]
            for j in (self.component_class == c).nonzero()[:, 0].tolist():
                away = (of_class - self.center[j]).double().mT
                found = torch.linalg.solve_triangular(lower[j if len(lower) > 1 else 0], away, upper=False)
                each.append(constant[j] - found.square().sum(0) / 2)
            total += float(torch.stack(each).logsumexp(0).sum())
        return total / max(1, len(y))

    @property
    def _log_fraction(self) -> Tensor:
        """Of each part in its class, (P,)."""
        count = self.count + TINY
        return (count / torch.zeros_like(count).index_add_(0, self.component_class, count)[self.component_class]).log()


def _means_and_scale(v: Tensor, y: Tensor, K: int) -> tuple[Tensor, Tensor]:
    """Of traits (N, D) the means by class (K, D) and the spread about them (D,), in float64."""
    v, n = v.double(), torch.bincount(y, minlength=K).double()
    total = torch.zeros(K, v.shape[1], dtype=torch.float64).index_add_(0, y, v)
    mean = (total + PSEUDO_COUNT * v.sum(0) / max(1, len(v))) / (n + PSEUDO_COUNT)[:, None]
    spread, size = ((t.square().sum(0) / max(1, len(v))).sqrt() for t in (v - mean[y], v))
    # A trait that was the same for every image is measured by its size: in units of its spread, rounding is strange.
    return mean, torch.where(spread > CONSTANT_TOLERANCE * size, spread, torch.where(size > 0, size, 1.0))


def _centers(t: Tensor, y: Tensor, usual: Tensor) -> tuple[Tensor, Tensor]:
    """Of numbers (N, D) the means by part (P, D), drawn to what is usual (P, D), and how many are of each, (P,)."""
    count = torch.bincount(y, minlength=len(usual))[:, None]
    total = torch.zeros_like(usual).index_add_(0, y, t)
    return (total + PSEUDO_COUNT * usual) / (count + PSEUDO_COUNT), count[:, 0].double()


def _covariances(away: Tensor, y: Tensor, P: int) -> Tensor:
    """Of numbers about their centers (N, D), by part: (P, D, D)."""
    return torch.stack([_outer(away[y == j].double()) for j in range(P)])


def _outer(z: Tensor) -> Tensor:
    return z.mT @ z / max(1, len(z))


def _inverse_root(S: Tensor) -> Tensor:
    """Lower triangular W with Wᵀ W = S⁻¹ of positive definite S (..., D, D), in float64."""
    inverse: Tensor = torch.linalg.solve_triangular(
        torch.linalg.cholesky(S), torch.eye(S.shape[-1], dtype=S.dtype), upper=False
    )
    return inverse


def _log_size(root: Tensor, P: int) -> Tensor:
    """log |W| of P parts, (P,), which may share one (1, D, D)."""
    return root.diagonal(dim1=1, dim2=2).log().sum(1).expand(P)


def _packed(root: Tensor) -> Tensor:
    """Lower triangles (P, D, D), their rows one after another: (P, D (D + 1) / 2)."""
    rows, columns = torch.tril_indices(*root.shape[1:])
    return root[:, rows, columns].contiguous()
