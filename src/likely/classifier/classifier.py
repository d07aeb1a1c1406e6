"""Classifier: a model with a prior, a temperature and calibration scores, behind scikit-learn's contract."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch import Tensor

from likely import DEFAULT_MODEL, checkpoint, models
from likely.answer import Answer
from likely.classifier.examining import examine
from likely.classifier.keeping import put_together, taken_apart
from likely.contract import GenerativeModel, ImportanceWeighted, Latent, Measured, Options, Task
from likely.data import arrays
from likely.data.collection import Images
from likely.data.images import ImageFormat, ImageOptions
from likely.data.parts import Part
from likely.data.splits import Parts, divide
from likely.inference.answers import Naming, answers
from likely.inference.calibration import fit_temperature, nll, weights
from likely.inference.judgement import Examination, Judge, Judgement
from likely.inference.posterior import log_evidence, log_posterior
from likely.nets.scaling import to_eight_bit, to_unit
from likely.training import hardware
from likely.training.feed import Batches
from likely.training.loop import Step, fit, measure
from likely.training.options import AugmentOptions, TrainingOptions
from likely.training.state import TrainingState

BATCH = 256  # images that go through a network together when nothing is learned
T = TypeVar("T", bound=Options)
Snapshot = tuple[Mapping[str, Tensor], Mapping[str, Any]]


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """p(c | x) = softmax(log p(x | c) / T + log π_c), with p(x | c) from one of the model families.

    Parameters
    ----------
    model : the name of a family; `likely models` lists them.
    options : the family's own options, a mapping or its options object.
    training : TrainingOptions, or a mapping such as {"epochs": 20}.
    images : ImageOptions, or a mapping: the size and colour that images are brought to.
    random_state : seed of the weights, the splits, the order and the noise.

    `fit` takes 2-D arrays as vectors of any range, and arrays (N, H, W[, C]) or lists of paths, Pillow images or arrays as
    images. It sets aside a tenth of every class to choose weights and temperature by, and a fifth to calibrate p-values on,
    at most 300 images each. A label None marks an unlabelled image.

    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> classifier = Classifier("gaussian").fit(digits.images / 16, digits.target)
    >>> classifier.predict(digits.images[:3] / 16).tolist()
    [0, 1, 2]
    >>> classifier.answer(digits.images[:1] / 16)[0].status.value
    'known'
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        options: Mapping[str, Any] | Options | None = None,
        training: Mapping[str, Any] | TrainingOptions | None = None,
        images: Mapping[str, Any] | ImageOptions | None = None,
        random_state: Any = 0,
    ) -> None:
        self.model = model
        self.options = options
        self.training = training
        self.images = images
        self.random_state = random_state

    def fit(self, X: Any, y: ArrayLike) -> Self:
        """Learn p(x | c) from images or vectors X and their labels y."""
        X, y = self._checked(X, y)
        self.seed_ = _seed(self.random_state)
        unlabelled = np.array([label is None for label in y]) if y.dtype == object else np.zeros(len(y), bool)
        classes, labels = np.unique(y[~unlabelled], return_inverse=True)
        numbers = np.full(len(y), -1, np.int64)
        numbers[~unlabelled] = labels
        dataset, problems = arrays.dataset(X, numbers, [str(c) for c in classes], _validated(ImageOptions, self.images))
        for problem in problems:
            warnings.warn(problem.sentence, stacklevel=2)
        parts = divide(dataset, self.seed)
        for _ in self.fit_steps(parts, dataset.classes, dataset.format):
            pass
        self.finish(parts)
        self.classes_ = classes
        return self

    def fit_steps(
        self, parts: Parts, classes: Sequence[str], format: ImageFormat | None, *, resume: Snapshot | None = None
    ) -> Iterator[Step]:
        """Train step by step; whoever stops before the end, or reaches it, calls `finish`.

        `resume` is a snapshot of `training_state_`, from which the training goes on exactly as it would have.
        """
        if isinstance(self.random_state, Integral):
            self.seed_ = int(self.random_state)
        self._begin(parts, classes, format)
        state, options = self.training_state_, self.training_
        if resume is not None:
            self._restore(resume)
        elif isinstance(self.model_, Measured):
            measure(self.model_, self._feed(parts.train, BATCH, None))
            state.follow_model()
        if state.objectives and self.device.type == "cpu":
            hardware.keep_memory()
        dtype = hardware.dtype(options, self.device, self.model_.task.shape)
        feed = self._feed(parts.train, options.batch_size or BATCH, options.augment, options.labelled_share)
        if state.progress.stale >= options.patience:  # a resumed training may have been at its end
            return
        for step in fit(state, feed, dtype=dtype):
            yield replace(step, validation=self._validate(parts.validation)) if step.ends_epoch else step
            if state.progress.stale >= options.patience:
                return

    def finish(self, parts: Parts) -> None:
        """Take the best weights so far and fit on held-out images what turns their figures into answers."""
        self.training_state_.use_best()
        del self.training_state_  # moments and averages have served
        self.model_.eval()
        enough = len(parts.validation) > 0
        held_out = parts.validation if enough else parts.train.labelled()
        examined = self._examine(held_out.images)
        T = fit_temperature(examined.log_scores, torch.from_numpy(held_out.labels), self.log_prior_)
        self.judge_ = Judge.fit(
            examined,
            torch.from_numpy(held_out.labels),
            self._examine(parts.calibration.images),
            torch.from_numpy(parts.calibration.labels),
            T if enough else max(1.0, T),  # sureness on the images of the training itself is no measure
        )
        self.hashes_ = np.concatenate([part.hashes for part in (parts.train, parts.validation, parts.calibration)])

    @property
    def seed(self) -> int:
        """random_state as a number, the same throughout one fit."""
        return self.seed_ if hasattr(self, "seed_") else _seed(self.random_state)

    @property
    def device(self) -> torch.device:
        """Where the fitted model computes."""
        return next(t.device for t in (*self.model_.parameters(), *self.model_.buffers()))

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """log p(c | x) under the training prior: (N, K)."""
        return self.log_posterior(self._images(X))

    @torch.inference_mode()
    def log_posterior(self, images: Images) -> NDArray[np.float64]:
        """log p(c | x) of a collection under the training prior: (N, K)."""
        log_scores = torch.cat([self.model_.log_scores(x).cpu() for x in self._inputs(images)])
        return log_posterior(log_scores, self.log_prior_, self.judge_.temperature).numpy()

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """p(c | x) under the training prior: (N, K), rows summing to 1."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each image: (N,)."""
        best = self.predict_log_proba(X).argmax(1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """log p(x) = log Σ_c p(x | c) π_c in nats, (N,); of the kind that `model_.evidence` names."""
        return self.log_evidence(self._images(X))

    @torch.inference_mode()
    def log_evidence(self, images: Images, *, rng: torch.Generator | None = None) -> NDArray[np.float64]:
        """log p(x) of a collection, (N,) nats; with `rng`, a bound by sampling is sampled, and a bound indeed."""
        model = self._generative("log p(x)")
        L = torch.cat([model.log_likelihood(x, rng=rng).cpu() for x in self._inputs(images)])
        return log_evidence(L, self.log_prior_).numpy()

    @torch.inference_mode()
    def importance_weighted(self, images: Images, n_samples: int, *, rng: torch.Generator) -> NDArray[np.float64]:
        """A tighter bound on log p(x) than `log_evidence`, (N,) nats, where the family has one."""
        model = self.model_
        assert isinstance(model, ImportanceWeighted)
        L = torch.cat([model.importance_weighted(x, n_samples, rng=rng).cpu() for x in self._inputs(images)])
        return log_evidence(L, self.log_prior_).numpy()

    @torch.inference_mode()
    def sample(self, label: Any, n: int = 1, *, seed: int = 0, truncation: float = 1.0) -> NDArray[Any]:
        """n new images of a class: uint8 (n, C, H, W), or float vectors (n, D).

        `truncation` scales the noise that they come from: below 1 they are more typical and less varied.
        """
        check_is_fitted(self, "judge_")
        model = self._generative("sample")
        rng = torch.Generator(self.device).manual_seed(seed)
        c = torch.full((n,), self.index(label), device=self.device)
        blocks = [c[start : start + BATCH] for start in range(0, n, BATCH)]
        if truncation == 1:
            return np.concatenate([self.pixels(model.sample(c, rng=rng)) for c in blocks])
        if not isinstance(model, Latent):
            raise ValueError(f"truncation {truncation:g} needs a model with latent vectors; {self.model!r} has none")
        latents = (model.latent(c, rng=rng, truncation=truncation) for c in blocks)
        return np.concatenate([self.pixels(model.decode(z)) for z in latents])

    def pixels(self, x: Tensor) -> NDArray[Any]:
        """A model's images as people keep them: in [0, 1] -> uint8; vectors as they are."""
        return (x if self.format_ is None else to_eight_bit(x)).cpu().numpy()

    def answer(
        self, inputs: Any, *, alpha: float = 0.05, top_k: int | None = None, names: Sequence[str] | None = None
    ) -> list[Answer]:
        """One Answer an input, in order. An image that cannot be read is answered by the sentence that says why.

        `alpha` is the share of the known classes' own images that may be turned away as unknown; `top_k` keeps the most
        probable classes.
        """
        check_is_fitted(self, "judge_")
        if not 0 < alpha < 1:
            raise ValueError(
                f"alpha {alpha:g} is no share of images; a number between 0 and 1 was expected, such as 0.05"
            )
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k {top_k} names no class; at least 1 was expected")
        width = None if self.format_ is not None else self.model_.task.n_dims
        images, problems = arrays.readable(inputs, self.format_, names, width=width)
        given = (answer for block in self._blocks(images) for answer in self._answers(block, alpha, top_k))
        failed = (Answer.failed(p.source, p.sentence, model=self.id) if p is not None else None for p in problems)
        return [failure or next(given) for failure in failed]

    def judge(self, images: Images, *, alpha: float) -> Judgement:
        """Everything that answers rest on, as arrays, for a whole collection."""
        return self.judge_(self._examine(images), self.log_prior_, alpha)

    @property
    def id(self) -> str | None:
        """The model's name and the first digits of its weights' hash, once saved: "fashion@3f2a"."""
        return getattr(self, "id_", None)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names."""
        return tuple(map(str, self.classes_))

    def index(self, label: Any) -> int:
        """The place of a class, by its name; a ValueError names the nearest."""
        return arrays.class_index(self.labels, str(label))

    def save(self, folder: str | Path, *, extra: Mapping[str, Any] | None = None) -> None:
        """Write model.safetensors and model.json; `extra` adds to the latter, for people and programs to read."""
        check_is_fitted(self, "judge_")
        folder, (tensors, document) = Path(folder), taken_apart(self)
        digest = checkpoint.save(folder, tensors, {**document, "name": folder.resolve().name, **(extra or {})})
        self.id_ = f"{folder.resolve().name}@{digest}"

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu") -> Self:
        """Read a model folder; a CheckpointError says what is wrong with it."""
        tensors, document = checkpoint.load(Path(folder))
        return put_together(cls, tensors, document, device)

    def _begin(self, parts: Parts, classes: Sequence[str], format: ImageFormat | None) -> None:
        """An untrained model for the data at hand."""
        family = models.family(self.model)
        options = _validated(family.options_type, self.options)
        asked = _validated(TrainingOptions, self.training)
        self.training_ = asked.suited(options.training_defaults).resolved(len(parts.train))
        self.classes_ = np.asarray(classes)
        self.format_ = format
        task = Task(parts.train.images.shape, parts.train.class_counts(len(classes)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = family(task, options)
        self.model_ = hardware.placed(model, hardware.device(self.training_.device))
        self.log_prior_ = task.log_prior
        self.training_state_ = TrainingState(self.model_, self.training_, seed=self.seed)

    def _restore(self, snapshot: Snapshot) -> None:
        try:
            self.training_state_.restore(*snapshot)
        except (KeyError, RuntimeError, ValueError) as error:  # other names or shapes than this version's
            raise checkpoint.CheckpointError(
                f"the unfinished training is of another {self.model} than this version's; go on with the version of Likely "
                "that began it, or train anew"
            ) from error

    def _feed(
        self, part: Part, batch_size: int, augment: AugmentOptions | None, labelled_share: float = 0.0
    ) -> Batches:
        how: dict[str, Any] = {"batch_size": batch_size, "augment": augment, "labelled_share": labelled_share}
        return Batches(part.images, part.labels, seed=self.seed, **how).to(self.device)

    @torch.inference_mode()
    def _validate(self, part: Part) -> dict[str, float]:
        """Score the averaged weights on the validation images and keep them if they are the best so far."""
        if not len(part):
            return {}
        labels = torch.from_numpy(part.labels)
        averaged = self.training_state_.averaged.eval()
        scores = torch.cat([averaged.log_scores(x).cpu() for x in self._inputs(part.images)])
        T = fit_temperature(scores, labels, self.log_prior_)
        right = (scores / T + self.log_prior_).argmax(1) == labels
        figures = {
            "nll": nll(scores, labels, self.log_prior_, T),
            "accuracy": (weights(labels, self.log_prior_) * right).mean().item(),
        }
        self.training_state_.keep_if_better(figures["nll"])
        return figures

    def _blocks(self, images: Images) -> Iterator[Images]:
        """A collection in pieces that fit through a network, and whose figures fit into memory."""
        for start in range(0, len(images), BATCH):
            yield images.subset(np.arange(start, min(start + BATCH, len(images))))

    def _inputs(self, images: Images) -> Iterator[Tensor]:
        """Batches as the model takes them."""
        for block in self._blocks(images):
            batch = block.batch(np.arange(len(block))).to(self.device)
            yield to_unit(batch).contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch

    @torch.inference_mode()
    def _examine(self, images: Images) -> Examination:
        return examine(self.model_, self._inputs(images))

    def _answers(self, images: Images, alpha: float, top_k: int | None) -> Iterator[Answer]:
        judgement = self.judge(images, alpha=alpha)
        names = [images.name(i) for i in range(len(images))]
        bits = self._bits_per_dim(judgement.log_likelihood)
        return answers(judgement, names, bits, Naming(self.labels, self.id, top_k))

    def _bits_per_dim(self, L: Tensor | None) -> Tensor | None:
        """−log2 p(x) / D, (N,), where the model's likelihood is one of 8-bit pixels."""
        if L is None or not self._generative("bits_per_dim").evidence.has_bits_per_dim:
            return None
        return -log_evidence(L, self.log_prior_) / (self.model_.task.n_dims * math.log(2))

    def _checked(self, X: Any, y: Any) -> tuple[Any, NDArray[Any]]:
        """Images as they are, vectors as scikit-learn wants them, and labels (N,)."""
        if not arrays.are_images(X):
            X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        y = column_or_1d(y, warn=True)
        labels = [label for label in y if label is not None]
        if not labels:
            raise ValueError(
                f"y holds {len(y)} times None and no label; a label for some images of each class was expected"
            )
        check_classification_targets(labels)
        if len(X) != len(y):
            raise ValueError(f"X holds {len(X)} images and y {len(y)} labels; one label an image was expected")
        return X, y

    def _images(self, X: Any) -> Images:
        check_is_fitted(self, "judge_")
        if self.format_ is None:
            X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return arrays.images(X, self.format_)

    def _generative(self, what: str) -> GenerativeModel:
        if not isinstance(self.model_, GenerativeModel):
            raise AttributeError(f"{what} needs a generative model; {self.model!r} only tells classes apart")
        return self.model_


def _seed(random_state: Any) -> int:
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


def _validated(kind: type[T], given: Mapping[str, Any] | Options | None) -> T:
    """Options from a mapping, an options object, or nothing."""
    return kind.model_validate(given.model_dump(exclude_unset=True) if isinstance(given, Options) else given or {})
