"""BayesClassifier: a model with a prior, a temperature and calibration scores."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from likely import checkpoint, models
from likely.base import (
    GenerativeModel,
    HasEmbedding,
    ImportanceWeighted,
    Latent,
    ModelOutputs,
    Scorer,
    SupportsMissingPixels,
    SupportsNewClasses,
)
from likely.classifier.auto import ModelChoice
from likely.classifier.calibration import calibrate
from likely.classifier.class_incremental import (
    exemplars,
    exemplars_with_new_class,
    prior_with_new_class,
    with_new_class,
)
from likely.classifier.explanation import ContrastPair, Explanation, Imputation, explain, impute
from likely.classifier.inputs import InputPipeline, blocks
from likely.classifier.masks import masks_for, validate_masks
from likely.classifier.predictions import PredictionRequest
from likely.classifier.prior_adaptation import PriorAdaptation, adapt_prior
from likely.classifier.sampling import DecoderTraining, sample_images, thumbnails
from likely.classifier.serialization import from_state, to_state
from likely.classifier.trainer import Snapshot, Trainer
from likely.data import arrays
from likely.data.dataset import LabeledImages, fingerprint, to_hashes
from likely.data.decoding import ImageWarning
from likely.data.image_dataset import ImageDataset
from likely.data.preprocessing import ImageFormat, ImageOptions
from likely.data.sources.base import LoadError
from likely.data.splits import Splits
from likely.exceptions import InvalidValueError, UnsupportedError
from likely.features.feature_decoder import DecoderOptions, FeatureDecoder
from likely.features.feature_extraction import FeaturePipeline, ImageScorer, Progress
from likely.features.feature_extractors import FeatureOptions
from likely.features.model_input import ModelInput
from likely.inference.decision import CalibrationData, ConformalClassifier, ConformalOutput
from likely.inference.posterior import log_evidence, log_posterior
from likely.inference.predictions import LabelNames
from likely.inference.projection import PCAProjection
from likely.inference.temperature_scaling import fit_temperature
from likely.networks.pixel_scaling import to_eight_bit
from likely.options import DEFAULT_MODEL, Options
from likely.prediction import Prediction
from likely.training.loop import Step
from likely.training.options import TrainingOptions
from likely.training.state import TrainingState


class Predictor:
    """p(c | x) = softmax(log p(x | c) / T + log π_c), with p(x | c) from one of the model families.

    What a run trains and what answers, of collections of images; its parameters are those of `estimator.Classifier`.
    """

    # Set by a training or by loading.
    choice_: ModelChoice
    features_: FeaturePipeline | None
    training_: TrainingOptions
    training_state_: TrainingState
    classes_: NDArray[Any]
    format_: ImageFormat | None
    n_features_in_: int  # of vectors, under the name that scikit-learn has for it
    model_: Scorer
    log_prior_: Tensor
    conformal_: ConformalClassifier

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        options: Mapping[str, Any] | Options | None = None,
        training: Mapping[str, Any] | TrainingOptions | None = None,
        images: Mapping[str, Any] | ImageOptions | None = None,
        features: Mapping[str, Any] | FeatureOptions | None = None,
        random_state: Any = 0,
    ) -> None:
        self.model = model
        self.options = options
        self.training = training
        self.images = images
        self.features = features
        self.random_state = random_state

    def fit_steps(
        self, parts: Splits, classes: Sequence[str], format: ImageFormat | None, *, resume: Snapshot | None = None
    ) -> Iterator[Step]:
        """Train step by step; whoever stops before the end, or reaches it, calls `finish`.

        `resume` is a snapshot of `training_state_`, from which the training goes on exactly as it would have. `see` may be
        called before with the same parts, for features take their time.
        """
        if isinstance(self.random_state, Integral):
            self.seed_ = int(self.random_state)
        yield from self._fitting_of(parts).steps(classes, format, resume=resume)

    def fit_features(self, parts: Splits) -> Iterator[Step]:
        """Train what makes the features, if that is learned; whoever has had enough may stop. `see` comes next."""
        yield from self._fitting_of(parts).fit_features()

    def extract_features(self, parts: Splits, progress: Progress | None = None) -> None:
        """Make the features that the model is to be a density of, if it is one of features, and learn how to scale them."""
        self._fitting_of(parts).extract_features(progress)

    def _fitting_of(self, parts: Splits) -> Trainer:
        """The one under way, or a new one if it is of other images."""
        fitting: Trainer | None = getattr(self, "_fitting", None)
        self._fitting = fitting if fitting is not None and fitting.parts is parts else Trainer(self, parts)
        return self._fitting

    def finish(self, parts: Splits) -> None:
        """Take the best weights so far and fit on held-out images what turns their figures into answers.

        Features are kept from here on as they were by the training, until `forget_features`.
        """
        self.training_state_.load_best()
        del self.training_state_  # moments and averages have served
        self.model_.eval()
        self.conformal_ = calibrate(self, parts)
        calibration = parts.calibration
        labels = torch.from_numpy(calibration.labels)
        self.exemplars_ = exemplars(self.model_, self.input_pipeline.inputs(calibration.images), labels)
        self.hashes_ = np.concatenate([part.hashes for part in (parts.train, parts.validation, parts.calibration)])
        del self._fitting

    def enable_feature_cache(self) -> None:
        """From now on, if it is a model of features, make those of an image once, and look whether that was done before."""
        if self.features_ is not None:
            self.features_.enable_cache()

    def disable_feature_cache(self) -> None:
        """Keep none any longer."""
        if self.features_ is not None:
            self.features_.disable_cache()

    def fit_decoder(self, part: LabeledImages, options: DecoderOptions) -> Iterator[Step]:
        """Teach a model of a backbone's features to draw, from labeled images; whoever has had enough may stop.

        A ValueError if there is no backbone to teach it.
        """
        if self.features_ is None:
            raise InvalidValueError(f"{self.family!r} is a model of pixels and needs no lessons in drawing")
        model = self.generative("sample")
        with self.features_.caching():
            drawing = DecoderTraining(self.features_, model, part, options, seed=self.seed)
        try:
            yield from drawing.steps()
        finally:
            self.feature_decoder_ = drawing.decoder

    def uses_cross_conformal(self, shape: Sequence[int]) -> bool:
        """Whether it learns from images (C, H, W), or vectors (D,), that calibrate as well: a fifth is then judged by a model
        of the rest (cross-conformal prediction, Vovk 2015). What is measured in one pass can be measured in six."""
        features = self.choice_.features if hasattr(self, "choice_") else FeatureOptions.from_any(self.features)
        of_features = len(shape) == 1 or (features.kind != "pixels" and not features.learns)
        return of_features and not models.family(self.family).trained_by_gradient

    @property
    def family(self) -> str:
        """The model's family: the one asked for, or what `auto` chose."""
        return self.choice_.family if hasattr(self, "choice_") else self.model

    @property
    def seed(self) -> int:
        """random_state as a number, the same throughout one fit."""
        return self.seed_ if hasattr(self, "seed_") else seed_from(self.random_state)

    @property
    def device(self) -> torch.device:
        """Where the fitted model computes."""
        return self.input_pipeline.device

    @property
    def input_pipeline(self) -> InputPipeline:
        """How the model is shown images."""
        return InputPipeline(self.model_, self.features_)

    def outputs(self, images: ImageDataset, masks: Tensor | None = None) -> ModelOutputs:
        """Every figure that a judgment takes; by the pixels alone that each image's mask shows, (N, H, W) bool."""
        return self.input_pipeline.outputs(images, masks)

    @torch.inference_mode()
    def log_posterior(self, images: ImageDataset) -> NDArray[np.float64]:
        """log p(c | x) of a collection under the training prior: (N, K)."""
        log_scores = torch.cat([self.model_.log_scores(x).cpu() for x in self.input_pipeline.inputs(images)])
        return log_posterior(log_scores, self.log_prior_, self.conformal_.temperature).numpy()

    @torch.inference_mode()
    def log_evidence(self, images: ImageDataset, *, rng: torch.Generator | None = None) -> NDArray[np.float64]:
        """log p(x) of a collection, (N,) nats; with `rng`, a bound by sampling is sampled, and a bound indeed."""
        model = self.generative("log p(x)")
        L = torch.cat([model.log_likelihood(x, rng=rng).cpu() for x in self.input_pipeline.inputs(images)])
        return log_evidence(L, self.log_prior_).numpy()

    @torch.inference_mode()
    def importance_weighted(self, images: ImageDataset, n_samples: int, *, rng: torch.Generator) -> NDArray[np.float64]:
        """A tighter bound on log p(x) than `log_evidence`, (N,) nats, where the family has one."""
        model = self.model_
        assert isinstance(model, ImportanceWeighted)
        L = torch.cat(
            [model.importance_weighted(x, n_samples, rng=rng).cpu() for x in self.input_pipeline.inputs(images)]
        )
        return log_evidence(L, self.log_prior_).numpy()

    @torch.inference_mode()
    def sample(self, label: Any, n: int = 1, *, seed: int = 0, truncation: float = 1.0) -> NDArray[Any]:
        """n new images of a class: uint8 (n, C, H, W), or float vectors (n, D).

        `truncation` scales the noise that they come from: below 1 they are more typical and less varied.
        """
        self._check_fitted()
        return sample_images(self, self.index(label), n, seed=seed, truncation=truncation)

    @property
    def generates_images(self) -> bool:
        """Whether `sample` gives images."""
        of_pixels = isinstance(self.model_, GenerativeModel) and self.features_ is None
        return self.format_ is not None and (of_pixels or self.feature_decoder is not None)

    @property
    def feature_decoder(self) -> FeatureDecoder | None:
        """What draws for a model of features, if it has learned to."""
        return getattr(self, "feature_decoder_", None)

    @property
    def latent(self) -> Latent | None:
        """The model, if its images come from latent vectors."""
        return self.model_ if isinstance(self.model_, Latent) and self.features_ is None else None

    def pixels(self, x: Tensor) -> NDArray[Any]:
        """A model's images as people keep them: in [0, 1] -> uint8; vectors as they are."""
        return (x if self.format_ is None else to_eight_bit(x)).cpu().numpy()

    def classify(
        self,
        inputs: Any,
        *,
        alpha: float = 0.05,
        top_k: int | None = None,
        names: Sequence[str] | None = None,
        log_prior: Tensor | None = None,
        mask: ArrayLike | None = None,
        conformal: ConformalClassifier | None = None,
    ) -> list[Prediction]:
        """One Answer an input, in order. An image that cannot be read is answered by the sentence that says why.

        `alpha` is the share of the known classes' own images that may be turned away as unknown; `top_k` keeps the most
        probable classes. `log_prior`, log π (K,), is that of the training if left out; `adapt` estimates another.

        `observed`, (H, W) or (N, H, W) bool, says which pixels to go by; the others may hold anything. An image of which
        something is hidden has no p-values, unless `judge` knows the mask: see `judge_of_part`.
        """
        self._check_fitted()
        if not 0 < alpha < 1:
            raise InvalidValueError(
                f"alpha {alpha:g} is no share of images; a number between 0 and 1 was expected, such as 0.05"
            )
        if top_k is not None and top_k < 1:
            raise InvalidValueError(f"top_k {top_k} names no class; at least 1 was expected")
        images, problems = self._read_inputs(inputs, names)
        prior = self.log_prior_ if log_prior is None else log_prior
        masks = None if mask is None else masks_for(self, mask, problems)
        if conformal is None:
            conformal = (
                self.conformal_
                if masks is None
                else ConformalClassifier.uncalibrated(len(self.labels), self.conformal_.temperature)
            )
        naming = LabelNames(self.labels, self.id, top_k)
        question = PredictionRequest(
            self.input_pipeline, self.conformal_, conformal, self.log_prior_, prior, alpha, naming
        )
        given = (answer for start, block in blocks(images) for answer in question.predictions(start, block, masks))
        failed = (Prediction.failed(p.source, p.message, model=self.id) if p is not None else None for p in problems)
        return [failure or next(given) for failure in failed]

    def adapt_prior(self, inputs: Any, *, alpha: float = 0.05) -> PriorAdaptation:
        """Estimate the class mix π of unlabeled images, of which those that are unknown at `alpha` are left out.

        Its `mix.log_prior` is for `answer`: the training's own prior unless the images refute that (Saerens 2002).
        """
        self._check_fitted()
        images, _ = self._read_inputs(inputs)
        examined = (self.outputs(block) for _, block in blocks(images))
        return adapt_prior(self.conformal_, examined, self.log_prior_, alpha)

    def explain(self, image: Any, *, against: Any = None) -> Explanation:
        """Why an image is of its most probable class rather than of another one; rather than of the runner-up, if left out.

        `image` is anything that `answer` takes. A ValueError if it cannot be read.
        """
        self._check_fitted()
        if len(self.labels) < 2:
            raise InvalidValueError(
                f"{self.labels[0]!r} is the only class that the model knows; an answer takes two to be explained"
            )
        model, x = (
            self.model_ if self.features_ is None else ImageScorer(self.features_, self.model_),
            self._pixels(image),
        )
        with torch.inference_mode():
            found = log_posterior(model.log_scores(x).cpu(), self.log_prior_, self.conformal_.temperature)[0]
        label, runner_up = found.topk(2).indices.tolist()
        other = runner_up if against is None else self.index(against)
        if other == label:
            raise InvalidValueError(
                f"{against!r} is the answer itself; another class was expected, such as {self.labels[runner_up]!r}"
            )
        return explain(model, x, ContrastPair(label, other, self.log_prior_, self.conformal_.temperature))

    def impute(self, image: Any, mask: ArrayLike, *, conformal: ConformalClassifier | None = None) -> Imputation:
        """What each class would most likely have behind a mask, and how probable each is by what is `observed`, (H, W) bool.

        `image` is anything that `answer` takes, and `judge` one that knows the mask. A ValueError if the image cannot be
        read, or if the family needs the whole of it.
        """
        self._check_fitted()
        x = self._pixels(image)
        mask = validate_masks(self, mask, 1).expand(1, *x.shape[2:]).to(self.device)
        assert isinstance(self.model_, SupportsMissingPixels)
        return impute(self.model_, x, mask, self.log_prior_, (conformal or self.conformal_).temperature)

    def extend(self, name: Any, inputs: Any) -> Self:
        """A classifier of one class more, learned from its images alone; what this one knows of the others stays as it is.

        The class is expected as often as the others in the mean. A ValueError if the family cannot learn a class apart.
        """
        self._check_fitted()
        if not isinstance(self.model_, SupportsNewClasses):
            raise InvalidValueError(
                f"{self.family!r} learns its classes from each other, and none apart; train it anew with {name!r}"
            )
        if str(name) in self.labels:
            raise InvalidValueError(f"there is a class {name!r} already; the name of a new one was expected")
        images, problems = self._read_inputs(inputs)
        for problem in filter(None, problems):
            warnings.warn(problem.message, ImageWarning, stacklevel=2)
        if not len(images):
            raise InvalidValueError(f"no image of {name!r} could be read; at least one was expected")
        new = type(self)()
        new.__dict__.update(self.__dict__)
        seen = ModelInput.concatenate(list(self.input_pipeline.model_inputs(images)))
        new.model_, new.conformal_ = with_new_class(self.model_, self.conformal_, seen, self.exemplars_)
        new.exemplars_ = exemplars_with_new_class(self.exemplars_, new.model_, seen.x)
        new.classes_ = np.append(self.classes_, [name])
        new.log_prior_ = prior_with_new_class(self.log_prior_)
        if self.feature_decoder is not None:
            new.feature_decoder_ = self.feature_decoder.with_new_class(
                thumbnails(images, self.feature_decoder), len(self.labels)
            )
        pixels = images.batch(np.arange(len(images))).numpy()
        new.hashes_ = np.concatenate([self.hashes_, to_hashes(map(fingerprint, pixels))])
        new.__dict__.pop("id_", None)
        return new

    @torch.inference_mode()
    def projection(self) -> PCAProjection | None:
        """A plane through the space in which the model sees images and classes, if it has one."""
        return (
            PCAProjection.fit(self.model_.class_embeddings().cpu()) if isinstance(self.model_, HasEmbedding) else None
        )

    @torch.inference_mode()
    def class_embeddings(self, plane: PCAProjection) -> Tensor:
        """Where classes are on that plane: (K, 2)."""
        assert isinstance(self.model_, HasEmbedding)
        return plane(self.model_.class_embeddings().cpu())

    @torch.inference_mode()
    def embed(self, images: ImageDataset, plane: PCAProjection) -> Tensor:
        """Where images are on that plane: (N, 2)."""
        assert isinstance(self.model_, HasEmbedding)
        found = [plane(self.model_.embed(x).cpu()) for x in self.input_pipeline.inputs(images)]
        return torch.cat(found) if found else torch.zeros(0, 2, dtype=torch.float64)

    def n_calibration_missing(self, label: Any, alpha: float) -> int:
        """How many images more a class would have to have set aside for p-values of its own at `alpha`; 0 if it has enough."""
        return self.conformal_.typicality.n_missing(alpha)[self.index(label)]

    def conformal_output(self, images: ImageDataset, *, alpha: float) -> ConformalOutput:
        """Everything that answers rest on, as arrays, for a whole collection."""
        pieces = [block for _, block in blocks(images)] or [images]
        # A block at a time: what is seen of an image is far more than what is answered.
        return ConformalOutput.concatenate(
            [self.conformal_(self.outputs(piece), self.log_prior_, alpha) for piece in pieces]
        )

    def calibrate_for_mask(
        self, mask: ArrayLike, validation: LabeledImages, calibration: LabeledImages
    ) -> ConformalClassifier:
        """What makes answers of images of which `observed`, (H, W) bool, is seen: fitted on others behind the same mask.

        Neither part may hold images of the training; the classifier's own splits do.
        """
        masks = [masks_for(self, mask, [None] * len(part)) for part in (validation, calibration)]
        before, now = (self.outputs(part.images, m) for part, m in zip((validation, calibration), masks, strict=True))
        labels = [torch.from_numpy(part.labels) for part in (validation, calibration)]
        T = fit_temperature(before.log_scores, labels[0], self.log_prior_)
        return ConformalClassifier.fit(
            CalibrationData.from_outputs(before, labels[0], T),
            CalibrationData.from_outputs(now, labels[1], T),
            self.log_prior_,
            T,
        )

    @property
    def id(self) -> str | None:
        """The model's name and the first digits of its weights' hash, once saved: "fashion@3f2a"."""
        return getattr(self, "id_", None)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names."""
        return tuple(map(str, self.classes_))

    @property
    def shape(self) -> tuple[int, ...]:
        """What one input is: an image (C, H, W), or a vector (D,)."""
        return self.model_.task.shape if self.format_ is None else self.format_.shape

    def index(self, label: Any) -> int:
        """The place of a class, by its name; a ValueError names the nearest."""
        return arrays.class_index(self.labels, str(label))

    def save(self, folder: str | Path, *, extra: Mapping[str, Any] | None = None) -> None:
        """Write model.safetensors and model.json; `extra` adds to the latter, for people and programs to read."""
        self._check_fitted()
        folder, (tensors, document) = Path(folder), to_state(self)
        digest = checkpoint.save(folder, tensors, {**document, "name": folder.resolve().name, **(extra or {})})
        self.id_ = f"{folder.resolve().name}@{digest}"

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu", trust: checkpoint.TrustPolicy | None = None) -> Self:
        """Read a model folder, one of those that are to be trusted; a CheckpointError says what is wrong with it."""
        tensors, document = checkpoint.load(Path(folder), trust)
        return from_state(cls, tensors, document, device)

    def _read_inputs(
        self, inputs: Any, names: Sequence[str] | None = None
    ) -> tuple[ImageDataset, list[LoadError | None]]:
        """The inputs that can be read, in this classifier's format, and for each input what is wrong with it, if anything."""
        width = None if self.format_ is not None else self.model_.task.n_dims
        batch = arrays.load_images(inputs, self.format_, names, n_features=width)
        return batch.images, list(batch.errors)

    def _pixels(self, image: Any) -> Tensor:
        """One image (1, C, H, W) in [0, 1], or a vector (1, D); a ValueError if it cannot be read."""
        images, problems = self._read_inputs([image])
        for problem in filter(None, problems):
            raise InvalidValueError(problem.message)
        return self.input_pipeline.to_model(images.batch([0]))

    def _check_fitted(self) -> None:
        if not hasattr(self, "conformal_"):
            from sklearn.exceptions import NotFittedError  # which most who load a model never need

            raise NotFittedError(f"this {type(self).__name__} has learned nothing yet; call fit first")

    def generative(self, what: str) -> GenerativeModel:
        if not isinstance(self.model_, GenerativeModel):
            raise UnsupportedError(f"{what} needs a generative model; {self.family!r} only tells classes apart")
        return self.model_


def seed_from(random_state: Any) -> int:
    """A number, from anything that scikit-learn takes for a random state."""
    if isinstance(random_state, Integral):
        return int(random_state)
    from sklearn.utils import check_random_state

    return int(check_random_state(random_state).randint(2**31))
