"""Class-conditional Gaussian p(x | c) = N(x; mean_c, Σ_c): the simplest family, with exact closed forms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Generator, Tensor

from likely.base import (
    Domain,
    FamilyOptions,
    FeatureScaling,
    FitsInClosedForm,
    GenerativeModel,
    HasEmbedding,
    LikelihoodKind,
    ModelOutputs,
    Objective,
    SupportsMissingPixels,
    SupportsMoreImages,
    SupportsNewClasses,
    Task,
)
from likely.exceptions import InvalidValueError
from likely.networks.blocks import standard_normal
from likely.networks.covariance import MarginalNormal, ScatterStatistics, inverse, inverse_root, oracle_shrinkage
from likely.networks.likelihoods import BIN
from likely.options import Options

_ESTIMATED = -1.0  # marks estimated shrinkage in `chosen_shrinkage`


class GaussianOptions(FamilyOptions):
    """Options of `gaussian`."""

    covariance: Literal["tied", "per_class", "diagonal"] = Field(
        "tied",
        description="One covariance for all classes (tied), per class, or only variances (diagonal).",
    )
    shrinkage: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Shrinkage of the covariance toward a multiple of the identity. Default: estimated; for features with a "
        "tied covariance, selected on validation images.",
    )

    @property
    def feature_scaling(self) -> FeatureScaling:
        """Default scaling of features: normalized features are closer to Gaussian (Mueller & Hein 2025, Mahalanobis++)."""
        return "l2"


class GaussianConstants(Options):
    """Constants of the fit and the scores of `gaussian`."""

    shrinkage_candidates: tuple[float, ...] = Field(
        (0.1, 0.2, 0.3, 0.5, 0.7),
        description="Values compared with the estimate on held-out images, ascending. Less than 0.1 is better on images taken "
        "together with the training images, and worse on later ones.",
    )
    pseudo_count: float = Field(
        10.0, gt=0, description="Images for which the variance over all classes counts in the variance of a class."
    )
    max_float64_means: int = Field(
        1 << 20, ge=0, description="Numbers of all means up to which scores of features use float64."
    )
    max_covariance_bytes: int = Field(
        1 << 30,
        ge=0,
        description="Size of all covariances up to which they are fitted, which needs several times as much.",
    )


class Gaussian(
    GenerativeModel, SupportsMissingPixels, SupportsNewClasses, SupportsMoreImages, FitsInClosedForm, HasEmbedding
):
    """log p(x | c) = −½ (‖W_c (x − mean_c)‖² + log|2π Σ_c|), with W_cᵀ W_c = Σ_c⁻¹.

    On 8-bit pixels the density is averaged over uniform noise within each pixel's bin, in closed form:
    E_u log N(x + u) = log N(x) − BIN²/24 tr Σ⁻¹, a lower bound on the log-probability of the bin (Theis 2016, eq. 4).

    The mean of n_c images is noisy, which adds tr(Σ⁻¹ S) / n_c to the expected squared distance of every image, S being the
    sample covariance. Half of that is added to the scores of features with a tied covariance, where n_c is small beside the
    dimensions: otherwise they favor classes of many images (Moran & Murphy 1979, A Closer Look at Two Alternative Methods of
    Statistical Discrimination).
    """

    options_type = GaussianOptions
    constants: ClassVar = GaussianConstants()
    trained_by_gradient = False

    def __init__(self, task: Task, options: GaussianOptions) -> None:
        super().__init__(task, options)
        self.settings, self.covariance = options, options.covariance
        K, D = task.n_classes, task.n_dims
        n_covariances = 1 if self.covariance == "tied" else K
        self._refuse_too_large(n_covariances, D)
        whitening = (K, D) if self.covariance == "diagonal" else (n_covariances, D, D)
        self.mean: Tensor
        self.whitening: Tensor
        # float64: quadratic forms in hundreds of dimensions lose the difference between similar classes in float32.
        self.register_buffer("mean", torch.zeros(K, D, dtype=torch.float64))
        self.register_buffer("whitening", torch.zeros(whitening, dtype=torch.float64))
        self.chosen_shrinkage: Tensor
        self.register_buffer("chosen_shrinkage", torch.tensor(0.0, dtype=torch.float64))
        self.chosen_shrinkage.fill_(_ESTIMATED if options.shrinkage is None else options.shrinkage)
        self.effective_dims: Tensor  # tr(Σ⁻¹ S), 0 where scores are not corrected
        self.register_buffer("effective_dims", torch.tensor(0.0, dtype=torch.float64))
        self.correction: Tensor
        self.register_buffer("correction", torch.zeros(K, dtype=torch.float64), persistent=False)
        self._sums: ScatterStatistics | None = None
        # With a tied covariance scores are linear in x; for many classes of features float32 is sufficient and much faster.
        is_large = self.constants.max_float64_means < K * D
        self.is_linear = options.covariance == "tied" and task.domain is Domain.FEATURES and is_large
        self.class_embedding: Tensor
        n_embedded = K if self._embeds_distances else 0
        self.register_buffer("class_embedding", torch.zeros(n_embedded, D, dtype=torch.float64), persistent=False)
        self.background_mean: Tensor
        self.background_projection: Tensor
        n_background = K if self._has_background else 0
        self.register_buffer("background_mean", torch.zeros(D, dtype=torch.float64), persistent=False)
        self.register_buffer(
            "background_projection", torch.zeros(n_background, D, dtype=torch.float64), persistent=False
        )
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", torch.zeros(K if self.is_linear else 0, D), persistent=False)
        self.register_buffer("bias", torch.zeros(K if self.is_linear else 0), persistent=False)
        self.center: Tensor
        self.register_buffer("center", torch.zeros(D, dtype=torch.float64), persistent=False)
        self.register_load_state_dict_post_hook(_after_loading)  # type: ignore[no-untyped-call]

    @property
    def shrinkage(self) -> float | None:
        """Shrinkage as set or selected; None if estimated."""
        shrinkage = float(self.chosen_shrinkage)
        return None if shrinkage == _ESTIMATED else shrinkage

    @property
    def likelihood_kind(self) -> LikelihoodKind:
        return LikelihoodKind.LOWER_BOUND if self.task.domain is Domain.PIXELS8 else LikelihoodKind.EXACT

    def log_likelihood(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self._log_density(x).float()  # (B, K)

    def log_scores(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        if self.is_linear:
            return self._linear(self._centered(x)) + self.score_correction.float()
        return _normalized(self._log_density(x) + self.score_correction)

    def outputs(self, x: Tensor) -> ModelOutputs:
        z = self.embed(x)
        squared = self._squared_distance_of_embedding(z) if self._embeds_distances else self._squared_distance(x)
        L = self._log_normalizer() - 0.5 * squared
        return ModelOutputs(
            log_scores=_normalized(L + self.score_correction),
            log_likelihood=L.float(),
            statistics=(squared / self.task.n_dims).sqrt().float()[..., None],
            latent=z,
            distances=self._distances(z, squared) if self.task.domain is Domain.FEATURES else None,
        )

    def sample(self, c: Tensor, *, rng: Generator | None = None) -> Tensor:
        mean = self.mean[c]
        noise = torch.zeros_like(mean) if rng is None else self._unwhiten(standard_normal(mean, rng), c)
        x = (mean + noise).reshape(-1, *self.task.shape)
        # Vectors stay in float64, where noise is not lost beside a large offset.
        return x.float().clamp(0, 1) if self.task.domain is Domain.PIXELS8 else x

    @torch.no_grad()
    def with_new_class(self, x: Tensor, exemplars: tuple[Tensor, Tensor] | None = None) -> Self:
        """Add a class with the mean of its images and their covariance shrunk toward the average of the known classes."""
        values = x.flatten(1).to(self.mean)
        mean = values.mean(0)
        rows = [] if self.covariance == "tied" else [self._whitening_of_few(values - mean)[None]]
        counts = (*self.task.class_counts, len(x))
        return self._with(counts, torch.cat([self.mean, mean[None]]), torch.cat([self.whitening, *rows]))

    @torch.no_grad()
    def with_more_images(self, x: Tensor, c: int) -> Self:
        """Merge images x with the stored mean and covariance of class c, by the number of images (Chan 1983).

        A tied covariance, which belongs to all classes, does not change.
        """
        values, n, m = x.flatten(1).to(self.mean), self.task.class_counts[c], len(x)
        offset = values.mean(0) - self.mean[c]
        mean, whitening = self.mean.clone(), self.whitening.clone()
        mean[c] += offset * m / (n + m)
        if self.covariance != "tied":
            rows = torch.cat([values - values.mean(0), math.sqrt(m * n / (n + m)) * offset[None]])
            whitening[c] = self._merged_whitening(self.whitening[c], rows, n)
        counts = (*self.task.class_counts[:c], n + m, *self.task.class_counts[c + 1 :])
        return self._with(counts, mean, whitening)

    def _with(self, class_counts: tuple[int, ...], mean: Tensor, whitening: Tensor) -> Self:
        """Return a model with other parameters and numbers of training images."""
        new = type(self)(Task(self.task.shape, class_counts), self.settings)
        new.mean.copy_(mean)
        new.whitening.copy_(whitening)
        new.chosen_shrinkage.copy_(self.chosen_shrinkage)
        new.effective_dims.copy_(self.effective_dims)
        new._precompute()
        return new.to(self.mean.device).train(self.training)

    def embed(self, x: Tensor) -> Tensor:
        return self._average_whitened(x.flatten(1).double())

    def class_embeddings(self) -> Tensor:
        return self._average_whitened(self.mean)

    def _average_whitened(self, x: Tensor) -> Tensor:
        """Subtract the mean of all classes and whiten by their average whitening: (N, D) -> (N, D)."""
        x = x - self.mean.mean(0)  # large means would lose the differences in the products
        if self.covariance == "diagonal":
            return x * self.whitening.mean(0)
        return x @ (self.whitening[0] if self.covariance == "tied" else self.whitening.mean(0)).mT

    def _whitening_of_few(self, deviations: Tensor) -> Tensor:
        """Return the whitening, (D,) or (D, D), of a class from its images' deviations from the mean, (n, D)."""
        n = deviations.new_tensor(float(len(deviations)))
        weight = n / (n + self.constants.pseudo_count)
        if self.covariance == "diagonal":
            average = self.whitening.square().reciprocal().mean(0)
            variance = weight * deviations.square().mean(0) + (1 - weight) * average
            return self._shrunk_variance(variance[None], n[None, None])[0].rsqrt()
        average = torch.stack(self._covariances()).mean(0)
        return inverse_root(self._shrunk(weight * (deviations.mT @ deviations) / n + (1 - weight) * average, n))

    def _merged_whitening(self, whitening: Tensor, rows: Tensor, n: int) -> Tensor:
        """Return the whitening of the mean of Σ and of the shrunk covariance of m + 1 `rows`, weighted by n and m images."""
        m = len(rows) - 1
        n_rows, weight = rows.new_tensor(float(m)), m / (n + m)
        if self.covariance == "diagonal":
            added = self._shrunk_variance(rows.square().sum(0)[None] / m, n_rows[None, None])[0]
            return (weight * added + (1 - weight) * whitening.square().reciprocal()).rsqrt()
        root = inverse(whitening)
        return inverse_root(weight * self._shrunk(rows.mT @ rows / m, n_rows) + (1 - weight) * root @ root.mT)

    def observed_log_likelihood(self, x: Tensor, observed: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Return log p(x_o | c), (B, K), in closed form from the observed rows and columns of mean and covariance."""
        L = torch.zeros(len(x), self.task.n_classes, device=x.device)
        noisy = self.task.domain is Domain.PIXELS8
        for is_observed, rows in self._images_by_mask(observed):
            values, mean = x[rows].flatten(1)[:, is_observed].double(), self.mean[:, is_observed]
            if self.covariance == "diagonal":
                marginals = [MarginalNormal(m, W[is_observed]) for m, W in zip(mean, self.whitening, strict=True)]
            else:
                roots = [inverse_root(S[is_observed][:, is_observed]) for S in self._covariances()]
                marginals = [MarginalNormal(m, roots[c % len(roots)]) for c, m in enumerate(mean)]
            L[rows] = torch.stack([each.log_density(values, noisy=noisy) for each in marginals], 1).float()
        return L

    def impute(self, x: Tensor, observed: Tensor, c: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Replace hidden values by their conditional mean, mean_h + Σ_ho Σ_oo⁻¹ (x_o − mean_o)."""
        whole = torch.where(self._mask_of_values(observed), x.flatten(1).double(), self.mean[c])
        for is_observed, rows in self._images_by_mask(observed) if self.covariance != "diagonal" else ():
            covariances = self._covariances()
            for k in set(c[rows].tolist()):
                mean, S, these = self.mean[k], covariances[k % len(covariances)], rows[c[rows] == k]
                weights = torch.linalg.solve(
                    S[is_observed][:, is_observed], S[is_observed][:, ~is_observed]
                )  # (n_o, n_h)
                offsets = (whole[these][:, is_observed] - mean[is_observed]) @ weights
                whole[these[:, None], (~is_observed).nonzero()[:, 0]] += offsets
        images = whole.reshape(x.shape)
        return images.float().clamp(0, 1) if self.task.domain is Domain.PIXELS8 else images

    def _covariances(self) -> list[Tensor]:
        """Return full covariances (D, D): one per class, or the tied one."""
        roots = [inverse(W) for W in self.whitening]
        return [root @ root.mT for root in roots]

    def _mask_of_values(self, observed: Tensor) -> Tensor:
        """Expand masks of pixels (B, H, W) to masks of values (B, D), channel by channel."""
        mask = observed.flatten(1)
        return mask.repeat(1, self.task.n_dims // mask.shape[1])

    def _images_by_mask(self, observed: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over distinct masks of values, (D,) bool, with the indices of their images."""
        masks, which = torch.unique(self._mask_of_values(observed), dim=0, return_inverse=True)
        for i, mask in enumerate(masks):
            yield mask, (which == i).nonzero()[:, 0]

    def objectives(self) -> Sequence[Objective]:
        return ()  # fitted in closed form

    def update_statistics(self, x: Tensor, y: Tensor) -> None:
        if self._sums is None:
            # On the CPU: not every device has float64.
            self._sums = ScatterStatistics.empty(self.mean.shape, self.whitening.shape)
        self._sums.update(x[y >= 0].flatten(1).cpu().double(), y[y >= 0].cpu())

    def finalize_statistics(self) -> None:
        assert self._sums is not None  # the contract: update before finalize
        self._fit(self._sums)
        self._sums = None

    def candidates(self) -> Iterator[None]:
        """Yield after fitting with the estimated shrinkage, and for features with each of `shrinkage_candidates`.

        The estimate assumes normality, which features violate, and with few images the error matters.
        """
        sums = self._sums
        yield from super().candidates()
        if (
            sums is not None
            and self.settings.shrinkage is None
            and self.covariance == "tied"
            and self.task.domain is Domain.FEATURES
        ):
            for shrinkage in self.constants.shrinkage_candidates:
                self.chosen_shrinkage.fill_(shrinkage)
                self._fit(sums)
                yield

    def with_chosen(self, options: FamilyOptions) -> FamilyOptions:
        """Return the options with the selected shrinkage."""
        return options.model_copy(update={"shrinkage": self.shrinkage})

    def _fit(self, sums: ScatterStatistics) -> None:
        if self.covariance == "diagonal":
            # Variances of few images are noisy: shrink them toward the pooled ones.
            n = sums.count.clamp_min(1)[:, None]
            whitening = self._shrunk_variance(sums.class_variances(self.constants.pseudo_count), n).rsqrt()
        else:
            freedom = sums.freedom[None] if self.covariance == "tied" else sums.count.clamp_min(1)
            S = [scatter / n for scatter, n in zip(sums.scatter, freedom, strict=True)]
            whitening = torch.stack([inverse_root(self._shrunk(each, n)) for each, n in zip(S, freedom, strict=True)])
            if self.covariance == "tied" and self.task.domain is Domain.FEATURES:
                self.effective_dims.copy_(((whitening[0] @ S[0]) * whitening[0]).sum())
        self.mean.copy_(sums.mean)
        self.whitening.copy_(whitening)
        self._precompute()

    def _distances(self, z: Tensor, squared: Tensor) -> Tensor:
        """Return distances min_c d_c, and with a tied covariance min_c d_c − d_0 as well, (B, 1) or (B, 2).

        `squared` (B, K) are the squared Mahalanobis distances d_c (Lee 2018), and d_0 is that to all classes as one, of
        covariance Σ + Σ_c π_c (mean_c − μ)(mean_c − μ)ᵀ about their mean μ (relative Mahalanobis distance, Ren 2021). `z`
        (B, D) are embeddings, where the first term is the identity: d_0 = ‖z − z_μ‖² − ‖P (z − z_μ)‖² (Woodbury).
        """
        nearest = squared.amin(1, keepdim=True)
        if self.covariance != "tied":
            return nearest.float()
        offset = z - self.background_mean
        background = offset.square().sum(1) - (offset @ self.background_projection.mT).square().sum(1)
        return torch.cat([nearest, nearest - background[:, None]], 1).float()

    @property
    def score_correction(self) -> Tensor:
        """½ tr(Σ⁻¹ S) / n_c, (K,) nats; 0 for a class without images."""
        return self.correction

    @torch.no_grad()
    def _precompute(self) -> None:
        """Compute all that images are compared with, from means and whitening.

        Linear scores are a_c · x + b_c = −½ ‖W (x − mean_c)‖² + ½ ‖W x‖², a_c = Wᵀ W mean_c, for centered x and means.
        """
        counts = torch.tensor(self.task.class_counts, dtype=torch.float64, device=self.mean.device)
        self.correction.copy_(torch.where(counts > 0, 0.5 * self.effective_dims / counts.clamp_min(1), 0.0))
        if self._embeds_distances or self._has_background:
            z = self.class_embeddings()
            if self._embeds_distances:
                self.class_embedding.copy_(z)
            if self._has_background:
                self._precompute_background(z, counts / counts.sum().clamp_min(1))
        if self.is_linear:
            self.center.copy_(self.mean.mean(0))
            whitened_means = (self.mean - self.center) @ self.whitening[0].mT
            self.weight.copy_(whitened_means @ self.whitening[0])
            self.bias.copy_(-0.5 * whitened_means.square().sum(1))

    def _precompute_background(self, z: Tensor, fractions: Tensor) -> None:
        """Compute z_μ and P = C⁻¹ V, V being the class means √π_c (z_c − z_μ) and C Cᵀ = I + V Vᵀ."""
        self.background_mean.copy_(fractions @ z)
        V = fractions.sqrt()[:, None] * (z - self.background_mean)
        C = torch.linalg.cholesky(torch.eye(len(V), dtype=V.dtype, device=V.device) + V @ V.mT)
        self.background_projection.copy_(torch.linalg.solve_triangular(C, V, upper=False))

    def _centered(self, x: Tensor) -> Tensor:
        """Subtract the mean of all classes before rounding to float32."""
        return (x.flatten(1).double() - self.center).float()

    def _linear(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, self.weight, self.bias)

    def _log_density(self, x: Tensor) -> Tensor:
        return self._log_normalizer() - 0.5 * self._squared_distance(x)  # (B, K)

    def _squared_distance(self, x: Tensor) -> Tensor:
        """Return squared Mahalanobis distances ‖W_c (x − mean_c)‖², (B, K)."""
        if self.is_linear:
            x = self._centered(x)
            return ((x @ self.whitening[0].mT.float()).square().sum(1, keepdim=True) - 2 * self._linear(x)).clamp_min(0)
        if self._embeds_distances:
            return self._squared_distance_of_embedding(self.embed(x))
        location = self.mean.mean(0)  # centering avoids cancellation in the products
        x, mean = x.flatten(1).double() - location, self.mean - location
        if self.covariance == "diagonal":
            P = self.whitening.square()  # (K, D)
            squared = x.square() @ P.mT - 2 * x @ (P * mean).mT + (P * mean.square()).sum(1)
            return squared.clamp_min(0)
        distances = [((x - m) @ W.mT).square().sum(1) for m, W in zip(mean, self.whitening, strict=True)]
        return torch.stack(distances, 1)

    @property
    def _has_background(self) -> bool:
        """True if the distance to all classes as one is computed."""
        return self.covariance == "tied" and self.task.domain is Domain.FEATURES

    @property
    def _embeds_distances(self) -> bool:
        """True if distances to the classes are those of embeddings."""
        return self.covariance == "tied" and not self.is_linear

    def _squared_distance_of_embedding(self, z: Tensor) -> Tensor:
        """Return ‖z − z_c‖² of embeddings (B, D) to those of the classes of a tied covariance, (B, K)."""
        c = self.class_embedding
        return (z.square().sum(1, keepdim=True) - 2 * z @ c.mT + c.square().sum(1)).clamp_min(0)

    def _log_normalizer(self) -> Tensor:
        """Return −½ log|2π Σ_c|, on 8-bit pixels with bin volume and noise terms: (K,) or (1,) nats."""
        scale = self.whitening if self.covariance == "diagonal" else self.whitening.diagonal(dim1=1, dim2=2)
        log_normalizer = scale.log().sum(1) - 0.5 * self.task.n_dims * math.log(2 * math.pi)
        if self.task.domain is Domain.FEATURES:
            return log_normalizer
        trace = self.whitening.square().flatten(1).sum(1)
        return log_normalizer + self.task.n_dims * math.log(BIN) - trace * BIN**2 / 24

    def _unwhiten(self, noise: Tensor, c: Tensor) -> Tensor:
        if self.covariance == "diagonal":
            return noise / self.whitening[c]
        # One triangular solve per class: batched solves would copy the matrix for every image.
        x = torch.empty_like(noise)
        index = c if self.covariance == "per_class" else torch.zeros_like(c)
        for k in set(index.tolist()):
            x[index == k] = torch.linalg.solve_triangular(self.whitening[k], noise[index == k].mT, upper=False).mT
        return x

    def _shrunk(self, S: Tensor, n: Tensor) -> Tensor:
        """Return (1 − ρ) S + ρ tr(S)/D I plus the variance floor."""
        D = len(S)
        rho = oracle_shrinkage(S, n) if self.shrinkage is None else S.new_tensor(self.shrinkage)
        scale = S.diagonal().mean()
        identity = torch.eye(D, dtype=S.dtype, device=S.device)
        return (1 - rho) * S + (rho * scale + self._floor(scale)) * identity

    def _shrunk_variance(self, variance: Tensor, n: Tensor) -> Tensor:
        scale = variance.mean(1, keepdim=True)
        rho = 1 / (n + 1) if self.shrinkage is None else self.shrinkage
        return (1 - rho) * variance.clamp_min(0) + rho * scale + self._floor(scale)

    def _floor(self, scale: Tensor) -> Tensor:
        """Return the variance floor: that of 8-bit rounding on pixels, 1e-6 of the mean variance on vectors."""
        if self.task.domain is Domain.PIXELS8:
            return torch.full_like(scale, BIN**2 / 12)
        return torch.where(scale > 0, 1e-6 * scale, 1.0)

    def _refuse_too_large(self, n_covariances: int, D: int) -> None:
        n_bytes, limit = n_covariances * D * D * 8, self.constants.max_covariance_bytes
        if self.covariance == "diagonal" or n_bytes <= limit:
            return
        covariance_name = "one" if n_covariances == 1 else f"{n_covariances:,}"
        tied = "'tied' or " if self.covariance == "per_class" and limit >= D * D * 8 else ""
        raise InvalidValueError(
            f"covariance {self.covariance!r} in {D:,} dimensions needs {n_bytes / 1e9:.1f} GB for {covariance_name}, and "
            f"{limit / 1e9:.1f} GB are allowed; use covariance {tied}'diagonal', or images of a smaller size"
        )


def _after_loading(model: Gaussian, _: object) -> None:  # a lambda could not be pickled
    model._precompute()


def _normalized(L: Tensor) -> Tensor:
    """Subtract the maximum per image before rounding to float32."""
    return (L - L.amax(1, keepdim=True)).float()
