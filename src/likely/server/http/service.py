"""The service: models, prediction store, batching and decoding, and the path of an image through them."""

from __future__ import annotations

import asyncio
import logging
import math
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from starlette.concurrency import run_in_threadpool

from likely.classifier.class_incremental import extend
from likely.classifier.explanation import Explanation, explain
from likely.classifier.sampling import sample
from likely.data.decoding import Array
from likely.data.image_dataset import ImageBatch
from likely.exceptions import ImageError, InvalidValueError
from likely.experiment import save_extended
from likely.inference.drift import Drift, drift
from likely.prediction import Guarantee, Prediction
from likely.server.http.batching import Batcher, BatchStats, QueueFullError
from likely.server.http.decode_pool import DecodedImage, DecodeJob, DecoderPool
from likely.server.http.model_registry import LoadedModel, ModelRegistry
from likely.server.http.settings import Settings
from likely.server.http.uploads import Upload
from likely.server.store import STORE_FAULTS, Key, NewPrediction, Store
from likely.server.store import StoredImage as Stored
from likely.server.store.images import fsync_path
from likely.server.store.schema import ModelRow, row_id

# Batch sizes are multiples of this: oneDNN caches a plan for each size, with step 1 another 43 MB (14 %) under 64 clients.
BATCH_STEP = 8
STORE_BATCH_SIZE = 256  # predictions per transaction
EXTENDED = "models"  # folder in the store: versions with classes added here
EXTENDED_PARTIAL = "models.partial"  # where a version is written until it is complete
ROLLED_BACK = "models.rolled-back"  # versions that were rolled back
PARENT = "parent"  # file beside each version: the id of the version it extends
DRIFT_WINDOW = 1000  # recent images that drift detection compares with validation
HOUR = 3600.0  # seconds
MIN_NEW_CLASS_IMAGES = 5  # minimum images of a new class
MAX_SLOW_REQUESTS = 128  # queued explanations, generated images and added classes
MAX_STORED_CLASSES = 50  # per prediction; of thousands, the others have negligible probability


LOG = logging.getLogger("likely.service")


class ClassifyJob(NamedTuple):
    """Parameters of a classification request."""

    model: LoadedModel
    alpha: float
    guarantee: Guarantee
    request: str
    key: Key | None


class _LocatedPrediction(NamedTuple):
    """Prediction with the p-value of the image, whatever the guarantee, and its 2-D embedding, if the model has one."""

    prediction: Prediction
    image_p_value: float | None
    embedding_2d: tuple[float, float] | None = None


class StoredPrediction(NamedTuple):
    """Prediction with its id in the store; None for an unreadable image."""

    id: str | None
    prediction: Prediction


@dataclass(frozen=True)
class _Kind:
    """Key of a batch: images classified together."""

    model: LoadedModel
    alpha: float
    guarantee: Guarantee


class Service:
    """State shared by all requests; `close` completes all queued ones."""

    def __init__(
        self,
        registry: ModelRegistry,
        store: Store,
        settings: Settings,
        on_batch: Callable[[BatchStats], None] = lambda batched: None,
    ) -> None:
        self.registry, self.store, self.settings = registry, store, settings
        self.decoders = DecoderPool(settings)
        limits = {"max_batch": settings.max_batch, "capacity": settings.max_queue}
        self._classify_batcher: Batcher[DecodedImage, _LocatedPrediction] = Batcher(
            _classify, wait=settings.batch_timeout, step=BATCH_STEP, on_batch=on_batch, **limits
        )
        self._store_batcher: Batcher[NewPrediction, str] = Batcher(
            lambda _, new: store.add(new), max_batch=STORE_BATCH_SIZE, wait=0.0, capacity=settings.max_queue
        )
        self.n_inflight = 0
        self._slow, self._n_slow = asyncio.Semaphore(1), 0  # slow requests run one at a time
        shutil.rmtree(store.folder / EXTENDED_PARTIAL, ignore_errors=True)
        for model in registry.models:
            self.register_model(model)
        for folder in sorted((store.folder / EXTENDED).glob("*")):  # by time
            self._restore_version(folder)

    def register_model(self, model: LoadedModel) -> None:
        """Register a model version in the store."""
        labels, family = list(model.predictor.labels), model.predictor.family
        row = ModelRow(id=model.id, name=model.name, family=family, labels=labels, first_served=datetime.now(UTC))
        self.store.register_model(row)

    @property
    def is_full(self) -> bool:
        """True if the queue has no room for another image."""
        return self.n_inflight >= self.settings.max_queue

    def load(self, folder: Path) -> LoadedModel:
        """Load a model folder, register it in the store and serve it."""
        new = self.registry.read(folder)
        self.register_model(new)
        self.registry.publish(new)
        return new

    def reload(self, name: str) -> LoadedModel:
        """Load a model's folder again, and then the version with the classes added here, if it still extends that model."""
        self.load(self.registry.sources[name])
        for folder in self._extended_versions(name):
            self._restore_version(folder)
        return self.registry[name]

    def rollback(self, name: str) -> LoadedModel:
        """Serve the version before the last class was added here; keep the rolled-back version aside.

        Raises InvalidValueError if no class was added.
        """
        extended = self._extended_versions(name)
        if not extended:
            raise InvalidValueError(f"{name!r} has no class that was added here, so there is nothing to roll back")
        aside = self.store.folder / ROLLED_BACK
        aside.mkdir(exist_ok=True)
        extended[-1].replace(aside / extended[-1].name)
        return self.load(extended[-2] / name if len(extended) > 1 else self.registry.sources[name])

    def _extended_versions(self, name: str) -> list[Path]:
        """Return the folders of versions with added classes, the oldest first."""
        return sorted(path.parent for path in (self.store.folder / EXTENDED).glob(f"*/{name}"))

    def _restore_version(self, folder: Path) -> None:
        """Load a version with a class added here, if its parent version is still served."""
        try:
            (model,) = (path for path in folder.iterdir() if path.is_dir())
            parent = (folder / PARENT).read_text()
            if any(each.id == parent for each in self.registry.models):
                self.load(model)
            else:
                LOG.warning("not loaded: %s extends %s, which is no longer served", model, parent)
        except (ValueError, OSError) as error:
            LOG.warning("not loaded: %s: %s", folder, error)

    async def classify(self, uploads: Sequence[Upload], job: ClassifyJob) -> list[StoredPrediction]:
        """Classify images and store the predictions before returning them; raise QueueFullError if too many are queued."""
        with self._admit(len(uploads)):
            decoding = (self._decode(upload, job.model) for upload in uploads)
            found = await asyncio.gather(*decoding)
            good = [
                (picture, upload)
                for picture, upload in zip(found, uploads, strict=True)
                if isinstance(picture, DecodedImage)
            ]
            kind = _Kind(job.model, job.alpha, job.guarantee)
            located = await self._classify_batcher.submit(kind, [picture for picture, _ in good])
            new = [_new_prediction(*one, found, job) for one, found in zip(good, located, strict=True)]
            ids = await self._store_batcher.submit(None, new)
            stored = map(StoredPrediction, ids, (each.prediction for each in located))
        return [next(stored) if isinstance(each, DecodedImage) else StoredPrediction(None, each) for each in found]

    async def explain(self, upload: Upload, model: LoadedModel, against: str | None) -> Explanation:
        """Explain the class of an image; raise ImageError or InvalidValueError if that is impossible."""
        async with self._slow_slot():
            batch = _batch([await self._decode_or_raise(upload, model)])
            return await run_in_threadpool(explain, model.predictor, batch, against=against)

    async def extend(self, model: LoadedModel, label: str, uploads: Sequence[Upload]) -> LoadedModel:
        """Add a class to a model from images, or improve one that it has, and serve the new version.

        Raises InvalidValueError if the model does not support it and ImageError for an unreadable image.
        """
        if len(uploads) < MIN_NEW_CLASS_IMAGES:
            raise InvalidValueError(
                f"{label!r} has {len(uploads)} images; at least {MIN_NEW_CLASS_IMAGES} were expected"
            )
        async with self._slow_slot():
            batch = _batch([await self._decode_or_raise(upload, model) for upload in uploads])
            return await run_in_threadpool(self._add_class, model, label, batch)

    def _add_class(self, model: LoadedModel, label: str, batch: ImageBatch) -> LoadedModel:
        if self.registry.takes_signed_only:
            raise InvalidValueError(
                "only signed models are served, and an added class is not signed; use `likely extend` and `likely sign`"
            )
        larger = extend(model.predictor, label, batch)
        staging, final = self.store.folder / EXTENDED_PARTIAL, self.store.folder / EXTENDED / row_id()
        command = f"images of a class added to {model.id} over HTTP"
        try:
            save_extended(
                larger,
                {label: len(larger.hashes) - len(model.predictor.hashes)},
                model.folder,
                staging / model.name,
                command=command,
            )
            (staging / PARENT).write_text(model.id)
            fsync_path(staging)
            final.parent.mkdir(exist_ok=True)
            staging.replace(final)  # atomic: this folder is loaded when the service restarts
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return self.load(final / model.name)

    def drift(self, model: LoadedModel) -> Drift | None:
        """Compare the p-values of recent images with those of validation; None without reference values."""
        reference = model.reference_p_values
        if reference is None:
            return None
        return drift(self.store.latest_p_values(model.id, DRIFT_WINDOW), reference.quantiles, reference.n)

    async def generate(self, model: LoadedModel, label: str, n: int, seed: int) -> Array:
        """Generate images of a class, uint8 (n, C, H, W); raise InvalidValueError if the model cannot."""
        if not model.predictor.generates_images:
            raise InvalidValueError(f"{model.id} cannot generate images")
        async with self._slow_slot():
            return await run_in_threadpool(sample, model.predictor, label, n, seed=seed)

    async def prune_periodically(self) -> None:
        """Delete predictions older than the retention period every hour, if there is one."""
        while self.settings.retention_days is not None:
            try:
                await run_in_threadpool(self._prune, self.settings.retention_days)
            except STORE_FAULTS:
                LOG.exception("predictions were not pruned; next attempt in an hour")
            await asyncio.sleep(HOUR)

    def _prune(self, days: float) -> None:
        if n := self.store.prune(days):
            self.store.audit("retention", f"{n} predictions older than {days:g} days", key=None, address="")

    def close(self) -> None:
        """Complete all queued requests, refuse new ones and release all resources."""
        self._classify_batcher.close()
        self._store_batcher.close()
        self.decoders.close()
        self.store.close()

    @asynccontextmanager
    async def _slow_slot(self) -> AsyncIterator[None]:
        """Run slow requests one at a time; they do not count as queued images."""
        if self._n_slow >= MAX_SLOW_REQUESTS:
            raise QueueFullError(1.0)
        self._n_slow += 1
        try:
            async with self._slow:
                yield
        finally:
            self._n_slow -= 1

    @contextmanager
    def _admit(self, n: int) -> Iterator[None]:
        """Count n images as in flight; raise QueueFullError if they do not fit."""
        if self.n_inflight + n > self.settings.max_queue:
            raise QueueFullError(1.0)
        self.n_inflight += n
        try:
            yield
        finally:
            self.n_inflight -= n

    async def _decode_or_raise(self, upload: Upload, model: LoadedModel) -> DecodedImage:
        """Decode an upload; raise ImageError if it is unreadable."""
        found = await self._decode(upload, model)
        if isinstance(found, Prediction):
            raise ImageError(found.error)
        return found

    async def _decode(self, upload: Upload, model: LoadedModel) -> DecodedImage | Prediction:
        if upload.fault:
            return Prediction.failed(upload.name, upload.fault, model=model.id)
        if len(upload.content) > self.settings.max_bytes:
            size = f"{len(upload.content) / 1e6:.1f} MB; at most {self.settings.max_bytes / 1e6:.1f} MB were expected"
            return Prediction.failed(upload.name, f"{upload.name}: has {size}", model=model.id)
        try:
            return await self.decoders.decode(DecodeJob(upload.content, upload.name, model.format))
        except ImageError as error:
            return Prediction.failed(upload.name, str(error), model=model.id)


def _batch(images: Sequence[DecodedImage]) -> ImageBatch:
    """Stack decoded images of one format."""
    return ImageBatch.from_pixels(np.stack([each.pixels for each in images]), [each.name for each in images])


def _classify(kind: object, decoded: Sequence[DecodedImage]) -> list[_LocatedPrediction]:
    assert isinstance(kind, _Kind)
    model, batch = kind.model, _batch(decoded)
    outputs = model.predictor.outputs(batch.images)
    output = model.predictor.decide(outputs, alpha=kind.alpha, guarantee=kind.guarantee)
    predictions = model.predictor.predictions(batch.names, output)
    p_values = [None if math.isnan(p) else p for p in output.image_p_value.tolist()]
    if model.projection is None or outputs.latent is None:
        return list(map(_LocatedPrediction, predictions, p_values))
    points = ((x, y) for x, y in model.projection(outputs.latent).tolist())
    return list(map(_LocatedPrediction, predictions, p_values, points))


def _new_prediction(
    picture: DecodedImage, upload: Upload, located: _LocatedPrediction, job: ClassifyJob
) -> NewPrediction:
    prediction = located.prediction
    stored = Stored(upload.content, picture.media_type, picture.width, picture.height)
    short = prediction.model_copy(update={"classes": prediction.classes[:MAX_STORED_CLASSES]})
    return NewPrediction(
        stored,
        short,
        job.model.id,
        job.alpha,
        job.request,
        None if job.key is None else job.key.id,
        located.embedding_2d,
        located.image_p_value,
    )
