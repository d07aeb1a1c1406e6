"""Fidelity: a whole measurement, and comparability of two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor

from likely import Classifier
from likely.classifier import Predictor, load
from likely.data.dataset import LabeledImages, fingerprint, to_hashes
from likely.data.image_dataset import ArrayDataset
from likely.evaluation.extractors import Extractor, ModelExtractor, extractor
from likely.evaluation.fidelity import Fidelity, fidelity


class Halves(Extractor):
    """The means of an image's left and right half."""

    name = "halves"

    def _features(self, images: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(np.stack([half.mean((1, 2, 3)) for half in np.array_split(images, 2, axis=3)], axis=1))


def dataset(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> LabeledImages:
    pixels = images[:, None]
    return LabeledImages(ArrayDataset(pixels, str), labels.astype(np.int64), to_hashes(map(fingerprint, pixels)))


@pytest.fixture(scope="module")
def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    data = load_digits()
    return (data.images * 255 / 16).round().astype(np.uint8), data.target


@pytest.fixture(scope="module")
def gaussian(digits: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> Predictor:
    return Classifier("gaussian").fit(*(values[:900] for values in digits)).predictor_


@pytest.fixture(scope="module")
def held_out(digits: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> LabeledImages:
    return dataset(*(values[900:] for values in digits))


@pytest.fixture(scope="module")
def baseline(digits: tuple[NDArray[np.uint8], NDArray[np.int64]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "softmax"
    training = {"epochs": 3, "batch_size": 32}
    Classifier("softmax", options={"width": 8}, training=training).fit(*(v[:900] for v in digits)).save(folder)
    return folder


def test_fidelity_records_its_inputs(gaussian: Predictor, held_out: LabeledImages, baseline: Path) -> None:
    found = fidelity(gaussian, held_out, extractor(baseline), n=600, seed=3)
    assert Fidelity.model_validate_json(found.model_dump_json()) == found
    assert (found.n_real, found.n_generated, found.seed, found.model) == (600, 600, 3, "unsaved")
    assert found.extractor.startswith("softmax@")
    assert found.extractor.endswith(f", {found.n_features} features")
    assert found.frechet > 0
    assert found.kernel.subset_size == 300
    assert found.intra_class_fid.frechet is not None
    assert found.intra_class_fid.n_classes + found.intra_class_fid.n_excluded == 10
    assert found.class_consistency is not None
    assert sum(found.class_consistency.n_generated) == 600
    assert found.class_consistency.accuracy > 0.5
    assert found.class_consistency.n_real == 600


def test_same_seed_gives_same_metrics(gaussian: Predictor, held_out: LabeledImages) -> None:
    a, b = (fidelity(gaussian, held_out, Halves(), n=100, seed=1) for _ in range(2))
    assert a == b
    assert fidelity(gaussian, held_out, Halves(), n=100, seed=2).real != a.real
    assert a.class_consistency is None  # halves know nothing of classes
    assert (a.intra_class_fid.frechet, a.intra_class_fid.n_classes, a.intra_class_fid.n_excluded) == (None, 0, 10)


def test_generated_images_have_the_class_frequencies_of_real_ones(
    gaussian: Predictor, held_out: LabeledImages, baseline: Path
) -> None:
    few = held_out.subset(np.flatnonzero(np.isin(held_out.labels, (1, 4)))[:40])
    found = fidelity(gaussian, few, extractor(baseline))
    assert found.n_real == found.n_generated == 40
    assert found.class_consistency is not None
    assert found.class_consistency.n_generated == few.class_counts(10)


def test_better_model_has_better_fidelity(gaussian: Predictor, held_out: LabeledImages, baseline: Path) -> None:
    shuffled = np.random.default_rng(0).permutation(held_out.labels)
    strange = dataset(255 - held_out.images.batch(np.arange(len(held_out))).numpy()[:, 0], shuffled)
    own, other = (fidelity(gaussian, real, extractor(baseline), n=500) for real in (held_out, strange))
    assert own.frechet < other.frechet
    assert own.kernel.distance < other.kernel.distance
    assert own.precision > other.precision
    assert own.coverage > other.coverage


def test_class_consistency_excludes_training_images_of_the_extractor(
    gaussian: Predictor, digits: tuple[NDArray[np.uint8], NDArray[np.int64]], baseline: Path
) -> None:
    found = fidelity(gaussian, dataset(*(values[850:950] for values in digits)), extractor(baseline))
    assert found.n_real == 100
    assert found.class_consistency is not None
    assert found.class_consistency.n_real == 50
    found = fidelity(gaussian, dataset(*(values[:60] for values in digits)), extractor(baseline))
    assert found.class_consistency is not None
    assert (found.class_consistency.n_real, found.class_consistency.real_accuracy) == (0, None)


def test_class_order_of_the_extractor_does_not_matter(
    gaussian: Predictor, held_out: LabeledImages, baseline: Path
) -> None:
    straight, turned = extractor(baseline), extractor(baseline)
    assert isinstance(turned, ModelExtractor)
    classifier, last = turned.classifier, turned.classifier.model.to_logits
    turned.classifier = replace(
        classifier, classes=classifier.classes[::-1].copy(), log_prior=classifier.log_prior.flip(0)
    )
    classifier.model.log_prior = classifier.model.log_prior.flip(0)
    with torch.no_grad():
        last.weight.copy_(last.weight.flip(0))
        last.bias.copy_(last.bias.flip(0))
    a, b = (fidelity(gaussian, held_out, e, n=200) for e in (straight, turned))
    assert a.class_consistency == b.class_consistency


def test_invalid_measurements_are_rejected(gaussian: Predictor, held_out: LabeledImages, baseline: Path) -> None:
    for n in (5, 898):
        with pytest.raises(ValueError, match=f"{n} real images, of 897 with a label"):
            fidelity(gaussian, held_out, Halves(), n=n)
    itself = extractor(baseline)
    assert isinstance(itself, ModelExtractor)
    with pytest.raises(ValueError, match="would be measured in its own features"):
        fidelity(itself.classifier, held_out, itself)
    with pytest.raises(ValueError, match="would be measured in its own features"):
        fidelity(load(baseline), held_out, itself)


@pytest.fixture(scope="module")
def measured(gaussian: Predictor, held_out: LabeledImages) -> Fidelity:
    return fidelity(gaussian, held_out, Halves(), n=100)


@pytest.mark.parametrize(
    "changed", [{"extractor": "another"}, {"n_real": 99}, {"n_generated": 99}, {"real": "ffff0000"}]
)
def test_metrics_of_other_extractors_or_images_are_not_comparable(
    changed: dict[str, object], measured: Fidelity
) -> None:
    other = measured.model_copy(update={"model": "another model", "frechet": 10.0, "seed": 1})
    assert measured.difference(other) is None
    assert measured.difference(other.model_copy(update=changed)) is not None
