"""The service: models, a store and processes that decode, and what becomes of images that come in."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from starlette.concurrency import run_in_threadpool

from likely.answer import Answer
from likely.classifier.explaining import Explanation
from likely.data import arrays
from likely.data.decoding import Array, ImageError
from likely.inference.drift import Drift, drift
from likely.run import save_extended
from likely.surfaces.http.batching import Batched, Batcher, FullError
from likely.surfaces.http.decoding import Decoders, Order, Picture, stacked
from likely.surfaces.http.fleet import Fleet, Served
from likely.surfaces.http.settings import Settings
from likely.surfaces.store import STORE_FAULTS, Given, Key, Store
from likely.surfaces.store import Picture as Stored
from likely.surfaces.store.identity import row_id
from likely.surfaces.store.images import synced
from likely.surfaces.store.schema import ModelRow

STEP = 8  # images by which batches grow: a network keeps what it has worked out for each size, in megabytes
RECORDED = 256  # answers that are written together
GROWN = "models"  # in the store: versions that have learned classes here
GROWING = "models.part"  # where they are written
SET_ASIDE = "models.set-aside"  # where they go when the model of before is wanted back
PARENT = "parent"  # beside each: which version it comes from
LOOKED_AT = 1000  # images of late, for drift
HOUR = 3600.0  # seconds
FEWEST = 5  # images that a class is learned from
MOST_SLOW = 128  # explanations, drawings and lessons that may wait
MOST_CLASSES = 50  # of an answer that are kept; of thousands the rest is nothing


LOG = logging.getLogger("likely.service")


class Upload(NamedTuple):
    """An image as it came."""

    name: str
    content: bytes
    fault: str = ""  # why there is no content


class Asked(NamedTuple):
    """How images are to be answered, and for whom."""

    model: Served
    alpha: float
    request: str
    key: Key | None


class Placed(NamedTuple):
    """An answer, and where the image is on the model's map, if it has one."""

    answer: Answer
    place: tuple[float, float] | None


class Kept(NamedTuple):
    """An answer, and under what id it is in the store; an image that could not be read has none."""

    id: str | None
    answer: Answer


@dataclass(frozen=True)
class _Kind:
    """What is answered together."""

    model: Served
    alpha: float


class Service:
    """What all requests share; `close` answers all who wait."""

    def __init__(
        self, fleet: Fleet, store: Store, settings: Settings, told: Callable[[Batched], None] = lambda batched: None
    ) -> None:
        self.fleet, self.store, self.settings = fleet, store, settings
        self.decoders = Decoders(settings)
        how = {"most": settings.max_batch, "capacity": settings.max_queue}
        self._answering: Batcher[tuple[Picture, str], Placed] = Batcher(
            _answers, wait=settings.max_wait, step=STEP, told=told, **how
        )
        self._recording: Batcher[Given, str] = Batcher(
            lambda _, given: store.add(given), most=RECORDED, wait=0.0, capacity=settings.max_queue
        )
        self.n_inside = 0
        self._slow, self._n_slow = asyncio.Semaphore(1), 0  # of what takes long one at a time: answers come first
        shutil.rmtree(store.folder / GROWING, ignore_errors=True)
        for model in fleet.models:
            self.know(model)
        for folder in sorted((store.folder / GROWN).glob("*")):  # by time
            self._load_again(folder)

    def know(self, model: Served) -> None:
        """A version of a model answers from now on."""
        labels, family = list(model.classifier.labels), model.classifier.family
        row = ModelRow(id=model.id, name=model.name, family=family, labels=labels, first_served=datetime.now(UTC))
        self.store.know(row)

    @property
    def is_full(self) -> bool:
        """Whether not one image more may wait."""
        return self.n_inside >= self.settings.max_queue

    def load(self, folder: Path) -> Served:
        """Read a model folder; what it says from now on has a model in the store."""
        new = self.fleet.read(folder)
        self.know(new)
        self.fleet.publish(new)
        return new

    def reload(self, name: str) -> Served:
        """Read again the folder that a model was loaded from. What it has learned here is set aside, now and for good."""
        new = self.load(self.fleet.sources[name])
        aside = self.store.folder / SET_ASIDE
        for grown in (self.store.folder / GROWN).glob(f"*/{name}"):
            aside.mkdir(exist_ok=True)
            grown.parent.replace(aside / grown.parent.name)
        return new

    def _load_again(self, folder: Path) -> None:
        """A version that learned a class here, if it comes from what is served, and not from what was trained anew since."""
        try:
            (model,) = (path for path in folder.iterdir() if path.is_dir())
            parent = (folder / PARENT).read_text()
            if any(each.id == parent for each in self.fleet.models):
                self.load(model)
            else:
                LOG.warning(
                    "not loaded: %s has learned a class, but its parent %s is not served any more", model, parent
                )
        except (ValueError, OSError) as error:
            LOG.warning("not loaded: %s: %s", folder, error)

    async def classify(self, uploads: Sequence[Upload], asked: Asked) -> list[Kept]:
        """An answer to each image, in the store before it is given. A FullError if too many wait."""
        with self._inside(len(uploads)):
            decoding = (self._decoded(upload, asked.model) for upload in uploads)
            found = await asyncio.gather(*decoding)
            good = [
                (picture, upload)
                for picture, upload in zip(found, uploads, strict=True)
                if isinstance(picture, Picture)
            ]
            jobs = [(picture, upload.name) for picture, upload in good]
            placed = await self._answering.submit(_Kind(asked.model, asked.alpha), jobs)
            given = [_given(*one, found, asked) for one, found in zip(good, placed, strict=True)]
            ids = await self._recording.submit(None, given)
            kept = map(Kept, ids, (each.answer for each in placed))
        return [next(kept) if isinstance(each, Picture) else Kept(None, each) for each in found]

    async def explain(self, upload: Upload, model: Served, against: str | None) -> Explanation:
        """Why an image is of its class; an ImageError or a ValueError if it cannot be told."""
        async with self._slowly():
            (pixels,) = stacked([await self._picture(upload, model)])
            return await run_in_threadpool(model.classifier.explain, pixels, against=against)

    async def extend(self, model: Served, label: str, uploads: Sequence[Upload]) -> Served:
        """A version of a model that knows a class more, from images of it; it answers from now on. A ValueError if the model
        cannot learn it, and an ImageError names an image that cannot be read."""
        if len(uploads) < FEWEST:
            raise ValueError(
                f"{label!r} has {len(uploads)} of the {FEWEST} images that a class is learned from at least"
            )
        async with self._slowly():
            pictures = [await self._picture(upload, model) for upload in uploads]
            return await run_in_threadpool(self._extended, model, label, stacked(pictures))

    def _extended(self, model: Served, label: str, pixels: Array) -> Served:
        if self.fleet.takes_signed_only:
            raise ValueError(
                "only signed models may answer here, and nobody would have signed this one; `likely extend`, then `likely sign`"
            )
        larger = model.classifier.extend(label, pixels)
        growing, grown = self.store.folder / GROWING, self.store.folder / GROWN / row_id()
        command = f"a class added to {model.id} over HTTP"
        try:
            save_extended(larger, {label: len(pixels)}, model.folder, growing / model.name, command=command)
            (growing / PARENT).write_text(model.id)
            synced(growing)
            grown.parent.mkdir(exist_ok=True)
            growing.replace(grown)  # whole or not at all: what is there is loaded when the service begins again
        finally:
            shutil.rmtree(growing, ignore_errors=True)
        return self.load(grown / model.name)

    def drift(self, model: Served) -> Drift | None:
        """Of the images that a model was shown of late, from those that it was validated on; None if nothing is known."""
        kept = model.typicality
        if kept is None:
            return None
        return drift(self.store.latest_p_values(model.id, LOOKED_AT), kept.quantiles, kept.n)

    async def draw(self, model: Served, label: str, n: int, seed: int) -> Array:
        """New images of a class, uint8 (n, C, H, W); a ValueError if the model does not draw or has no such class."""
        if not model.classifier.draws_images:
            raise ValueError(f"{model.id} draws no images")
        async with self._slowly():
            return await run_in_threadpool(model.classifier.sample, label, n, seed=seed)

    async def retain(self) -> None:
        """Forget what is too old, again and again; nothing if nothing ever is."""
        while self.settings.keep_days is not None:
            try:
                await run_in_threadpool(self._forget, self.settings.keep_days)
            except STORE_FAULTS:
                LOG.exception("retention")  # an hour later it is tried again
            await asyncio.sleep(HOUR)

    def _forget(self, days: float) -> None:
        if n := self.store.retain(days):
            self.store.note("retention", f"{n} predictions older than {days:g} days", key=None, address="")

    def close(self) -> None:
        """Answer all who wait, take nobody more, and let go of everything."""
        self._answering.close()
        self._recording.close()
        self.decoders.close()
        self.store.close()

    @asynccontextmanager
    async def _slowly(self) -> AsyncIterator[None]:
        """In its turn among what takes long, which does not count among the images that wait for answers."""
        if self._n_slow >= MOST_SLOW:
            raise FullError(1.0)
        self._n_slow += 1
        try:
            async with self._slow:
                yield
        finally:
            self._n_slow -= 1

    @contextmanager
    def _inside(self, n: int) -> Iterator[None]:
        """While so many images are on their way through."""
        if self.n_inside + n > self.settings.max_queue:
            raise FullError(1.0)
        self.n_inside += n
        try:
            yield
        finally:
            self.n_inside -= n

    async def _picture(self, upload: Upload, model: Served) -> Picture:
        """An ImageError if it cannot be read."""
        found = await self._decoded(upload, model)
        if isinstance(found, Answer):
            raise ImageError(found.error)
        return found

    async def _decoded(self, upload: Upload, model: Served) -> Picture | Answer:
        if upload.fault:
            return Answer.failed(upload.name, upload.fault, model=model.id)
        if len(upload.content) > self.settings.max_bytes:
            size = f"{len(upload.content) / 1e6:.1f} MB; {self.settings.max_bytes / 1e6:.1f} MB at most were expected"
            return Answer.failed(upload.name, f"{upload.name}: has {size}", model=model.id)
        try:
            return await self.decoders.decode(Order(upload.content, upload.name, model.format))
        except ImageError as error:
            return Answer.failed(upload.name, str(error), model=model.id)


def _answers(kind: object, jobs: Sequence[tuple[Picture, str]]) -> list[Placed]:
    assert isinstance(kind, _Kind)
    model, (pictures, names) = kind.model, zip(*jobs, strict=True)
    pixels = stacked(pictures)
    answers = model.classifier.answer(pixels, alpha=kind.alpha, names=names)
    if model.plane is None:
        return [Placed(answer, None) for answer in answers]
    images, _ = arrays.readable(pixels, model.format)
    places = model.classifier.places(images, model.plane).tolist()
    return [Placed(answer, (x, y)) for answer, (x, y) in zip(answers, places, strict=True)]


def _given(picture: Picture, upload: Upload, placed: Placed, asked: Asked) -> Given:
    answer = placed.answer
    stored = Stored(upload.content, picture.media_type, picture.width, picture.height)
    short = answer.model_copy(update={"classes": answer.classes[:MOST_CLASSES]})
    return Given(
        stored,
        short,
        asked.model.id,
        asked.alpha,
        asked.request,
        None if asked.key is None else asked.key.id,
        placed.place,
    )
