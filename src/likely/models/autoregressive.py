"""Sequence model of an image's tokens, in any order: log p(x | c) = Σ_t log p(s_o(t) | s_o(<t), c).

Each input carries its own position and the position to predict, so one network models every order o (Pannatier 2024, σ-GPTs).
The fixed raster order limited such classifiers (arXiv 2603.19122, Revisiting autoregressive models for generative image
classification).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from likely.base import (
    GenerativeModel,
    HasFeatures,
    HasLikelihoodMap,
    HasTemperature,
    LikelihoodKind,
    LikelihoodType,
    ModelOutputs,
    Objective,
    SupportsMissingPixels,
    SupportsNewClasses,
    Task,
    stack_statistics,
)
from likely.exceptions import InvalidValueError
from likely.models.new_class import minimize, with_untrained_class
from likely.networks.blocks import uniform
from likely.networks.likelihoods import class_cross_entropy
from likely.networks.quantizer import QuantizerOptions, QuantizingTokenizer
from likely.networks.sequence_network import SequenceNetwork, SequenceOptions, Tokens
from likely.networks.standardizer import Standardized, Standardizer
from likely.networks.tokenizer import LevelTokenizer, PaletteTokenizer, Tokenizer

MAX_TOKENS = 1024  # of a sequence
MAX_ELEMENTS = 2**25  # of the activations of all classes that are in memory together
MAX_EXEMPLAR_TOKENS = 64  # above them, no exemplars are stored
MAX_EXEMPLARS = 512  # that a new class is separated from
PRIOR_WEIGHT = 0.1  # of the Gaussian prior on a new class vector: with 1, few images hardly move it from the mean


class AutoregressiveOptions(SequenceOptions):
    """Options of `autoregressive`."""

    tokens: Literal["vq", "pixels"] = Field(
        "vq", description="Tokens: a learned grid of quantized vectors, or quantized pixels."
    )
    levels: int = Field(16, ge=2, le=256, description="Gray levels of each channel of a pixel token.")
    palette: int = Field(
        0, ge=0, le=256, description="Colors of a palette of the training images, for one token per pixel; 0: levels."
    )
    tokenizer: QuantizerOptions = Field(QuantizerOptions(), description="Options of the learned tokenizer.")
    tokenizer_time: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Fraction of the training that goes to the learned tokenizer, before the sequences.",
    )
    order: Literal["any", "raster"] = Field("any", description="Order of the tokens: random orders, or row by row.")
    n_orders: int = Field(
        2, ge=1, description="Random orders that a prediction averages over; each second one reverses the one before."
    )
    average: Literal["mean", "logsumexp"] = Field(
        "mean", description="Average over orders: the mean of log p, a lower bound, or the log of the mean of p."
    )
    finalists: int = Field(
        0, ge=0, description="Classes that get all orders, the others only the first; 0: all. Not with readout."
    )
    class_weight: float = Field(
        1.0, ge=0, description="Weight of the cross-entropy of p(c | x) relative to the log-likelihood per token."
    )
    class_fraction: float = Field(1.0, gt=0, le=1, description="Fraction of a batch that has the cross-entropy.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Label smoothing: probability mass of each label spread over all classes."
    )
    unconditional_weight: float = Field(
        0.1, gt=0, lt=1, description="Weight of the likelihood without a class, as if the class was dropped this often."
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> AutoregressiveOptions:
        if self.finalists and not self.n_conditional:
            raise InvalidValueError(
                f"finalists {self.finalists} needs the conditioning 'late' or 'full'; 'readout' scores all classes in one pass"
            )
        if self.palette and self.tokens != "pixels":
            raise InvalidValueError(f"palette {self.palette} needs the tokens 'pixels', not {self.tokens!r}")
        return self

    @property
    def training_defaults(self) -> Mapping[str, object]:
        return {"learning_rate": 2e-3}


class Autoregressive(
    GenerativeModel,
    HasFeatures,
    HasLikelihoodMap,
    HasTemperature,
    SupportsMissingPixels,
    SupportsNewClasses,
    Standardized,
):
    """L_c = mean over orders o of Σ_t log p(s_o(t) | s_o(<t), c), with the same orders for every class: a lower bound.

    By Jensen's inequality it is at most the log of the mixture of the orders, which `average="logsumexp"` returns.
    p(· | h_t, c) = softmax(W GELU((1 + γ_c) h_t + β_c)): the trunk does not see the class, and one pass scores all classes. A
    vector ∅ in place of the class models the images of all classes.

    Trained on −[(1 − u) L_y + u L_∅] / T + class_weight · cross-entropy of softmax(L + log π_train), u the
    `unconditional_weight`; a learned tokenizer is trained before, and then fixed. Its cross-entropy makes the model a hybrid.
    """

    options_type = AutoregressiveOptions

    def __init__(self, task: Task, options: AutoregressiveOptions) -> None:
        super().__init__(task, options)
        self.settings = options
        self.standardizer = Standardizer.of(task)
        self.tokenizer = _tokenizer(task, options)
        T = self.tokenizer.n_tokens
        if T > MAX_TOKENS:
            raise InvalidValueError(
                f"images of {task.shape} have {T:,} tokens; at most {MAX_TOKENS:,} were expected, such as those of tokens='vq'"
            )
        self.network = SequenceNetwork(T, self.tokenizer.code_vectors, options)
        n = self.network.n_class_values
        self.class_vectors = nn.Parameter(0.1 * torch.randn(task.n_classes, n))
        self.no_class = nn.Parameter(torch.zeros(1, n))
        self.order_keys: Tensor
        self.register_buffer("order_keys", self._order_keys(torch.Generator().manual_seed(0)), persistent=False)
        passes = len(self.order_keys)
        if options.n_conditional:
            passes = task.n_classes + (passes - 1) * (options.finalists or task.n_classes)
        self.evaluations_per_image = passes

    @property
    def likelihood_kind(self) -> LikelihoodKind:
        is_mixture = len(self.order_keys) > 1 and self.settings.average == "mean"
        return LikelihoodKind.LOWER_BOUND if is_mixture else LikelihoodKind.EXACT

    @property
    def likelihood_type(self) -> LikelihoodType:
        return LikelihoodType(self.likelihood_kind, self.tokenizer.domain)

    def log_scores(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self.log_likelihood(x, rng=rng)

    def quick_log_scores(self, x: Tensor) -> Tensor:
        """Return the log-likelihoods in the first order alone, (B, K)."""
        return self._evaluate(self._read(x), self.order_keys[:1])[1][:, :-1]

    def log_likelihood(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self._evaluate(self._read(x), self._keys(rng))[1][:, :-1]

    def outputs(self, x: Tensor) -> ModelOutputs:
        each, L = self._evaluate(self._read(x), self.order_keys)
        T, L, unconditional = self.tokenizer.n_tokens, L[:, :-1], L[:, -1:]
        regions = F.adaptive_avg_pool1d(each[:, -1:], min(T, 16)).flatten(1)
        return ModelOutputs(
            log_scores=L,
            log_likelihood=L,
            statistics=stack_statistics([-L / T, (unconditional - L) / T], self.task.n_classes),
            features=torch.cat([regions, self.tokenizer.features(self.standardizer(x))], 1),
        )

    def sample(self, c: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self._sample(c, 1.0, rng)

    def sample_at(self, c: Tensor, temperature: float, *, rng: Generator) -> Tensor:
        return self._sample(c, temperature, rng)

    def observed_log_likelihood(self, x: Tensor, observed: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Return Σ log p over the observed tokens, which come first in every order, (B, K) nats."""
        return self._evaluate(self._read(x, observed), self._keys(rng))[1][:, :-1]

    def impute(self, x: Tensor, observed: Tensor, c: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Replace hidden pixels by those of sampled tokens; without `rng`, each token is the most probable one."""
        s = self._read(x, observed)
        return torch.where(observed[:, None], x, self.tokenizer.decode(self._generate(s, c, 1.0, rng)))

    def likelihood_map(self, x: Tensor) -> Tensor:
        return self._maps(x)[:, :-1]

    def unconditional_map(self, x: Tensor) -> Tensor:
        return self._maps(x)[:, -1]

    def features(self, x: Tensor) -> Tensor:
        """Return the mean of the trunk's activations over the tokens in the first order, (B, d)."""
        s = self._read(x)
        activations: Tensor = self.network(s, s.order(self.order_keys[0]))
        return activations.float().mean(1)

    def exemplar_features(self, x: Tensor) -> Tensor:
        """Return the codes, if they are few."""
        if self.tokenizer.n_tokens > MAX_EXEMPLAR_TOKENS:
            return x.new_zeros(len(x), 0)
        return self._read(x).codes.float()

    @torch.no_grad()
    def with_new_class(self, x: Tensor, exemplars: tuple[Tensor, Tensor] | None = None) -> Self:
        """Fit one more class vector by maximum a posteriori; everything else stays as it is."""
        new = with_untrained_class(self, len(x))
        new.class_vectors[-1] = self._fit_class_vector(self._read(x), exemplars)
        return new

    def objectives(self) -> Sequence[Objective]:
        of_tokenizer = tuple(self.tokenizer.parameters())
        known = set(map(id, of_tokenizer))
        others = tuple(p for p in self.parameters() if id(p) not in known)
        if not isinstance(self.tokenizer, QuantizingTokenizer):
            return (Objective("sequence", others, self._loss),)
        boundary = self.settings.tokenizer_time
        return (
            Objective("tokenizer", of_tokenizer, self._tokenizer_loss, lr_ratio=2.0, span=(0.0, boundary)),
            Objective("sequence", others, self._loss, span=(boundary, 1.0)),
        )

    def update_statistics(self, x: Tensor, y: Tensor) -> None:
        super().update_statistics(x, y)
        self.tokenizer.update_statistics(x)

    def finalize_statistics(self) -> None:
        super().finalize_statistics()
        self.tokenizer.finalize_statistics()

    def _tokenizer_loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        assert isinstance(self.tokenizer, QuantizingTokenizer)
        return self.tokenizer.loss(self.standardizer(x), y, rng)

    def _loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """Negative log-likelihood per token in one random order plus cross-entropy.

        The cross-entropy and log Σ_c π_c p(x | c), the contribution of unlabeled images, are those of the images in which all
        classes are computed; other unlabeled images contribute p(x | ∅).
        """
        s, K, n_tokens = self._training_tokens(x, rng), self.task.n_classes, self.tokenizer.n_tokens
        order, vectors = s.order(self._training_keys(s, rng)), self._all_class_vectors
        h = self.network(s, order)
        n = min(max(1, round(self.settings.class_fraction * len(x))), self._max_images(K + 1))
        L = self._log_p(s[:n], h[:n], order[:n], vectors[None]).sum(2)  # (n, K + 1)
        log_joint, index = self.log_prior + L[:, :K], torch.where(y < 0, K, y)
        own = torch.where(y[:n] < 0, log_joint.logsumexp(1), L.gather(1, index[:n, None])[:, 0])
        pair = torch.stack([own, L[:, K]], 1)
        if n < len(x):
            own_and_none = vectors[torch.stack([index[n:], torch.full_like(index[n:], K)], 1)]
            pair = torch.cat([pair, self._log_p(s[n:], h[n:], order[n:], own_and_none).sum(2)])
        own_mean, none_mean = pair.mean(0)
        loss = -torch.lerp(own_mean, none_mean, self.settings.unconditional_weight) / n_tokens
        if not self.settings.class_weight:
            return loss
        cross_entropy = class_cross_entropy(log_joint, y[:n], smoothing=self.settings.label_smoothing)
        return loss + self.settings.class_weight * cross_entropy

    @torch.no_grad()
    def _training_tokens(self, x: Tensor, rng: Generator) -> Tokens:
        """Tokenize a batch, some images with random masks, by the fixed tokenizer."""
        self.tokenizer.eval()
        masks = self.tokenizer.random_masks(x, rng) if isinstance(self.tokenizer, QuantizingTokenizer) else None
        return self._read(x, masks)

    def _training_keys(self, s: Tokens, rng: Generator) -> Tensor:
        """Return the sort keys of an order for every image, (B, T)."""
        if self.settings.order == "raster":
            return self.order_keys.expand(len(s.codes), -1)
        return uniform(s.codes.shape, s.codes, rng)

    def _keys(self, rng: Generator | None) -> Tensor:
        """Return the sort keys of the orders of a prediction, (S, T) in [0, 1]; without `rng` they are always the same."""
        return self.order_keys if rng is None else self._order_keys(rng).to(self.order_keys.device)

    def _order_keys(self, rng: Generator) -> Tensor:
        """Sample sort keys, (S, T); each second order reverses the one before."""
        T, S = self.tokenizer.n_tokens, self.settings.n_orders
        if self.settings.order == "raster":
            return (torch.arange(T) / T)[None]
        keys = torch.rand((S + 1) // 2, T, generator=rng, device=rng.device)
        return torch.stack([keys, 1 - keys], 1).flatten(0, 1)[:S]

    def _read(self, x: Tensor, observed: Tensor | None = None) -> Tokens:
        """Tokenize images (B, C, H, W), or vectors, of which the pixels `observed` (B, H, W) are known."""
        codes, vectors = self.tokenizer.quantize(self.standardizer(x), observed)
        known = (
            torch.ones_like(codes, dtype=torch.bool) if observed is None else self.tokenizer.observed_tokens(observed)
        )
        return Tokens(codes, vectors, known)

    @property
    def _all_class_vectors(self) -> Tensor:
        """The vectors of the classes, and of ∅ as the last: (K + 1, n)."""
        return torch.cat([self.class_vectors, self.no_class])

    def _evaluate(self, s: Tokens, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p of every token, averaged over orders (S, T), (B, K + 1, T), and L (B, K + 1); ∅ is the last class."""
        batches = s.split(self._max_images(self.task.n_classes + 1))
        each, L = zip(*(self._evaluate_batch(batch, keys) for batch in batches), strict=True)
        return torch.cat(each), torch.cat(L)

    def _evaluate_batch(self, s: Tokens, keys: Tensor) -> tuple[Tensor, Tensor]:
        vectors, (first, *others) = self._all_class_vectors[None], map(s.order, keys)
        each = self._log_p(s, self.network(s, first), first, vectors)
        m = self.settings.finalists
        if 0 < m < self.task.n_classes and self.settings.n_conditional:
            L = each.sum(2)
            best = L[:, :-1].topk(m, 1).indices
            more = [self._log_p(s, self.network(s, o), o, vectors[0][best]).sum(2) for o in others]
            return each, L.scatter(1, best, self._average([L.gather(1, best), *more]))
        all_orders = [each, *(self._log_p(s, self.network(s, o), o, vectors) for o in others)]
        return torch.stack(all_orders).mean(0), self._average([log_p.sum(2) for log_p in all_orders])

    def _average(self, L: Sequence[Tensor]) -> Tensor:
        stacked = torch.stack(list(L))
        if self.settings.average == "mean":
            return stacked.mean(0)
        return stacked.logsumexp(0) - torch.tensor(float(len(L))).log().to(stacked)

    def _maps(self, x: Tensor) -> Tensor:
        """Spread L of all classes and ∅ over the pixels; a difference to the mean over orders is spread evenly."""
        each, L = self._evaluate(self._read(x), self.order_keys)
        return self.tokenizer.spread(each + ((L - each.sum(2)) / each.shape[2])[:, :, None])

    def _log_p(self, s: Tokens, h: Tensor, order: Tensor, class_vectors: Tensor) -> Tensor:
        """Return log p of every token by position, (B, K, T), 0 if it is not observed; of pixels if the domain is theirs."""
        size = self.tokenizer.log_code_size(s.codes)[:, None]
        return (self.network.log_p(s, h, order, class_vectors) - size) * s.observed[:, None]

    def _max_images(self, n_classes: int) -> int:
        """Return the number of images whose activations of these many classes are in memory together, at least 1."""
        size = max(self.settings.channels, self.tokenizer.n_codes)
        return max(1, MAX_ELEMENTS // (n_classes * self.tokenizer.n_tokens * size))

    def _sample(self, c: Tensor, temperature: float, rng: Generator | None) -> Tensor:
        codes = torch.zeros(len(c), self.tokenizer.n_tokens, dtype=torch.long, device=c.device)
        s = Tokens(codes, self.tokenizer.code_vectors[codes], torch.zeros_like(codes, dtype=torch.bool))
        return self.standardizer.inverse(self.tokenizer.decode(self._generate(s, c, temperature, rng)))

    @torch.no_grad()
    def _generate(self, s: Tokens, c: Tensor, temperature: float, rng: Generator | None) -> Tensor:
        """Sample the unobserved tokens of class c (B,), or take the most probable ones without `rng`: codes (B, T)."""

        def choose(logits: Tensor) -> Tensor:
            if rng is None:
                return logits.argmax(1)
            p = (logits / temperature).softmax(1).to(rng.device)
            return torch.multinomial(p, 1, generator=rng)[:, 0].to(logits.device)

        order = s.order(self._keys(rng)[0])
        return self.network.generate(s, order, self.class_vectors[c], self.tokenizer.code_vectors, choose)

    def _fit_class_vector(self, s: Tokens, exemplars: tuple[Tensor, Tensor] | None) -> Tensor:
        """Fit the vector (n,) of a new class to its images by maximum a posteriori.

        Minimizes −mean L, a Gaussian prior around the mean of the other class vectors, and the class-balanced cross-entropy of
        the new images and some exemplars.
        """
        n, K = len(s.codes), self.task.n_classes
        mean, scale = self.class_vectors.mean(0), self.class_vectors.std(0, correction=0).clamp_min(0.01)
        s, y = self._with_exemplars(s, exemplars)
        order = s.order(self.order_keys[0])
        h, known = self.network(s, order), self._evaluate(s, self.order_keys)[1][:, :-1]
        count = torch.bincount(y, minlength=K + 1)[y]
        shift = torch.zeros_like(mean, requires_grad=True)

        def loss() -> Tensor:
            L = self._log_p(s, h, order, (mean + scale * shift)[None, None]).sum(2)  # (N, 1)
            entropy = F.cross_entropy(torch.cat([known, L], 1), y, reduction="none")
            return (entropy / count).sum() - L[:n].mean() + PRIOR_WEIGHT * shift.square().sum() / (2 * n)

        minimize(loss, shift)
        return mean + scale * shift.detach()

    def _with_exemplars(self, s: Tokens, exemplars: tuple[Tensor, Tensor] | None) -> tuple[Tokens, Tensor]:
        """Append some exemplars to the tokens of a new class; return the classes too, K for the new one."""
        y = torch.full((len(s.codes),), self.task.n_classes, device=s.codes.device)
        if exemplars is None or not exemplars[0].shape[1]:
            return s, y
        chosen = torch.randperm(len(exemplars[0]), generator=torch.Generator().manual_seed(0))[:MAX_EXEMPLARS]
        codes = torch.cat([s.codes, exemplars[0][chosen].to(s.codes)])
        observed = torch.ones_like(codes, dtype=torch.bool)
        return Tokens(codes, self.tokenizer.code_vectors[codes], observed), torch.cat([y, exemplars[1][chosen].to(y)])


def _tokenizer(task: Task, options: AutoregressiveOptions) -> Tokenizer:
    if options.tokens == "vq":
        return QuantizingTokenizer(task, options.tokenizer)
    if options.palette and len(task.shape) == 3:
        return PaletteTokenizer(task, options.palette)
    return LevelTokenizer(task, options.levels)
