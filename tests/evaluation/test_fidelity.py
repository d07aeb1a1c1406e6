"""Fidelity: a whole measurement, when two of them may be compared, and how they are shown."""

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
from likely.evaluation.fidelity import KID, Fidelity, IntraClassFID, fidelity
from likely.evaluation.sample_quality import ClassConsistency

CONSISTENCY = ClassConsistency(
    classifier="softmax@3f2a", n_generated=(50, 50, 0), n_consistent=(40, 45, 0), n_real=200, real_accuracy=0.95
)
FIDELITY = Fidelity(
    model="fashion@11aa",
    extractor="softmax@3f2a, 64 features",
    n_features=64,
    n_real=2000,
    n_generated=2000,
    real="0123abcd",
    seed=0,
    frechet=12.345,
    kernel=KID(distance=0.0123, mean=0.0125, deviation=0.0004, n_subsets=100, subset_size=1000),
    precision=0.8,
    recall=0.4,
    density=0.9,
    coverage=0.7,
    intra_class_fid=IntraClassFID(frechet=30.5, n_classes=2, n_excluded=1, min_images=50),
    class_consistency=CONSISTENCY,
)


class Halves(Extractor):
    """The means of an image's left and right half."""

    name = "halves"

    def _features(self, images: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(np.stack([half.mean((1, 2, 3)) for half in np.array_split(images, 2, axis=3)], axis=1))


def part(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> LabeledImages:
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
    return part(*(values[900:] for values in digits))


@pytest.fixture(scope="module")
def baseline(digits: tuple[NDArray[np.uint8], NDArray[np.int64]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "softmax"
    training = {"epochs": 3, "batch_size": 32}
    Classifier("softmax", options={"width": 8}, training=training).fit(*(v[:900] for v in digits)).save(folder)
    return folder


def test_a_measurement_says_what_it_was_made_with(gaussian: Predictor, held_out: LabeledImages, baseline: Path) -> None:
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


def test_the_same_seed_gives_the_same_figures(gaussian: Predictor, held_out: LabeledImages) -> None:
    a, b = (fidelity(gaussian, held_out, Halves(), n=100, seed=1) for _ in range(2))
    assert a == b
    assert fidelity(gaussian, held_out, Halves(), n=100, seed=2).real != a.real
    assert a.class_consistency is None  # halves know nothing of classes
    assert (a.intra_class_fid.frechet, a.intra_class_fid.n_classes, a.intra_class_fid.n_excluded) == (None, 0, 10)


def test_classes_are_drawn_as_often_as_they_are_real(
    gaussian: Predictor, held_out: LabeledImages, baseline: Path
) -> None:
    few = held_out.subset(np.flatnonzero(np.isin(held_out.labels, (1, 4)))[:40])
    found = fidelity(gaussian, few, extractor(baseline))
    assert found.n_real == found.n_generated == 40
    assert found.class_consistency is not None
    assert found.class_consistency.n_generated == few.class_counts(10)


def test_a_better_model_is_nearer(gaussian: Predictor, held_out: LabeledImages, baseline: Path) -> None:
    shuffled = np.random.default_rng(0).permutation(held_out.labels)
    strange = part(255 - held_out.images.batch(np.arange(len(held_out))).numpy()[:, 0], shuffled)
    own, other = (fidelity(gaussian, real, extractor(baseline), n=500) for real in (held_out, strange))
    assert own.frechet < other.frechet
    assert own.kernel.distance < other.kernel.distance
    assert own.precision > other.precision
    assert own.coverage > other.coverage


def test_images_that_the_judge_was_trained_on_are_no_test_of_it(
    gaussian: Predictor, digits: tuple[NDArray[np.uint8], NDArray[np.int64]], baseline: Path
) -> None:
    found = fidelity(gaussian, part(*(values[850:950] for values in digits)), extractor(baseline))
    assert found.n_real == 100
    assert found.class_consistency is not None
    assert found.class_consistency.n_real == 50
    found = fidelity(gaussian, part(*(values[:60] for values in digits)), extractor(baseline))
    assert found.class_consistency is not None
    assert (found.class_consistency.n_real, found.class_consistency.real_accuracy) == (0, None)


def test_a_judge_may_have_the_classes_in_another_order(
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


def test_what_cannot_be_measured_is_refused(gaussian: Predictor, held_out: LabeledImages, baseline: Path) -> None:
    for n in (5, 898):
        with pytest.raises(ValueError, match=f"{n} real images, of 897 with a label"):
            fidelity(gaussian, held_out, Halves(), n=n)
    itself = extractor(baseline)
    assert isinstance(itself, ModelExtractor)
    with pytest.raises(ValueError, match="would be measured in its own features"):
        fidelity(itself.classifier, held_out, itself)
    with pytest.raises(ValueError, match="would be measured in its own features"):
        fidelity(load(baseline), held_out, itself)


@pytest.mark.parametrize(
    "changed",
    [{"extractor": "softmax@9999, 64 features"}, {"n_real": 1000}, {"n_generated": 500}, {"real": "ffff0000"}],
    ids=lambda changed: next(iter(changed)),
)
def test_metrics_of_other_extractors_or_images_are_not_comparable(changed: dict[str, object]) -> None:
    other = FIDELITY.model_copy(update={"model": "fashion@22bb", "frechet": 10.0, "seed": 1})
    assert FIDELITY.difference(other) is None
    reason = FIDELITY.difference(other.model_copy(update=changed))
    assert reason is not None
    assert FIDELITY.model in reason
    assert other.model in reason
