"""A report of a model that was trained on files: what it shows of them, and what it does not disclose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from likely import Classifier
from likely.data.dataset import LabeledImages
from likely.data.image_dataset import ArrayDataset
from likely.evaluation.evaluate import evaluate
from likely.evaluation.training_record import TrainingRecord
from likely.reporting.build import N_GROUPS, ReportInputs, build_report
from likely.reporting.html import ReportContent, render
from likely.reporting.model_card import model_card

N = 60
GROUPS = np.array([0, 0, 0, 1, 1, *range(2, N - 3)])  # images 0 to 2 show the same thing, and 3 and 4


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> LabeledImages:
    """Bright and dark photographs."""
    folder, rng = tmp_path_factory.mktemp("ann"), np.random.default_rng(0)
    labels = np.arange(N) % 2
    pixels = np.clip(rng.normal(64 + 100 * labels[:, None, None, None], 20, (N, 3, 8, 8)), 0, 255).astype(np.uint8)
    names = [str(folder / f"{('dark', 'bright')[k]}_{i}.png") for i, k in enumerate(labels)]
    for name, image in zip(names, pixels, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).resize((96, 64)).save(name)
    return LabeledImages(ArrayDataset(pixels, names.__getitem__), labels.astype(np.int64), np.arange(N), GROUPS)


@pytest.fixture(scope="module")
def content(images: LabeledImages) -> ReportContent:
    pixels, names = images.images.to_array(), ("dark", "bright")
    predictor = Classifier("gaussian").fit(pixels.transpose(0, 2, 3, 1), [names[k] for k in images.labels]).predictor_
    folder = Path(images.images.name(0)).parent
    order = [predictor.labels.index(name) for name in names]
    labeled = LabeledImages(images.images, np.array(order)[images.labels], images.hashes, images.groups)
    result = evaluate(predictor, labeled, alpha=0.1, unknown=(str(folder), images))
    record = TrainingRecord(
        date="2026-03-14",
        command=f"likely train {folder} --out={folder}/model",
        source=str(folder),
        counts={"train": [N // 2, N // 2]},
        skipped={f"{folder}/z.png": f"{folder}/z.png: is empty"},
    )
    return build_report(ReportInputs(predictor, record, evaluation=(result, labeled), training_images=labeled))


def test_groups_with_several_labels_come_first(content: ReportContent) -> None:
    found = content.similar_images
    assert found is not None
    assert (found.n_groups, found.n_images, found.n_mixed) == (2, 5, 2)
    assert [group.n for group in found.groups] == [3, 2]
    assert all(len(group.classes) == 2 for group in found.groups)
    assert set(found.groups[0].files[:2]) == {"dark_0.png", "bright_1.png"}  # one of each label
    assert found.groups[0].files[2] == "dark_2.png"
    assert len(found.groups) <= N_GROUPS


def test_unknown_images_that_pass_are_shown_with_the_largest_p_values_first(content: ReportContent) -> None:
    found = content.accepted_unknown
    assert found is not None
    assert content.p_values is not None
    assert content.p_values.unknown is not None
    assert found.n == (content.p_values.unknown > 0.1).sum()
    assert (np.diff(found.p_values) <= 0).all()
    assert found.p_values[0] == content.p_values.unknown.max()


def test_photographs_are_shown_from_their_files(content: ReportContent) -> None:
    found = content.most_atypical
    assert found is not None
    assert {image.shape for image in found.images} == {(3, 64, 96)}
    assert all(name in ("dark", "bright") for name in (file.split("_")[0] for file in found.files))
    assert (np.diff(found.p_values) >= 0).all()


def test_no_absolute_path_is_disclosed(content: ReportContent, images: LabeledImages) -> None:
    folder = Path(images.images.name(0)).parent
    for page in (render(content), model_card(content)):
        assert str(folder.parent) not in page
        assert folder.name in page.replace("\\", "")
