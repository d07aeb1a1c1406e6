"""The section on generated images: class consistency, near-duplicates and fidelity."""

from __future__ import annotations

from dataclasses import replace

import pytest

from likely.evaluation.fidelity import KID, Fidelity, IntraClassFID
from likely.evaluation.sample_quality import ClassConsistency, NearDuplicates, SampleQuality
from likely.reporting.html import ReportContent, render
from likely.reporting.html.sections.fidelity import (
    extractor_description,
    fidelity_lines,
    generated,
    sample_quality_lines,
)

NAMES = tuple("abc")
CONSISTENCY = ClassConsistency(
    classifier="softmax@3f2a", n_generated=(50, 50, 0), n_consistent=(40, 45, 0), n_real=200, real_accuracy=0.95
)
DUPLICATES = NearDuplicates(n=100, n_duplicates=0, n_real=200, n_real_duplicates=1, n_train=5000)
SAMPLE_QUALITY = SampleQuality(seed=7, class_consistency=CONSISTENCY, near_duplicates=DUPLICATES)
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
    classes=CONSISTENCY,
)


def test_every_figure_is_shown_with_its_number_of_images() -> None:
    lines = {line.label: line for line in (*sample_quality_lines(SAMPLE_QUALITY), *fidelity_lines(FIDELITY))}
    assert lines["FID"].value == "12.35"
    assert lines["KID"].value == "0.0123"
    assert lines["Copies"].value == "0.0%"
    assert "of 100 generated images" in lines["Copies"].note
    assert "Of 200 real images that were kept from the training, 0.5% are" in lines["Copies"].note
    assert lines["Right class"].value == "85.0%"
    assert "by the classifier softmax@3f2a for the class" in lines["Right class"].note
    assert "right about 95.0% of 200 real images" in lines["Right class"].note
    assert "1 class with fewer than 50 images left out" in lines["FID within classes"].note
    none = FIDELITY.model_copy(
        update={"intra_class_fid": IntraClassFID(frechet=None, n_classes=0, n_excluded=3, min_images=50)}
    )
    assert {line.label: line.value for line in fidelity_lines(none)}["FID within classes"] == "–"
    assert "2,000 generated images beside 2,000 real images" in extractor_description(FIDELITY)
    assert "softmax@3f2a, 64 features" in extractor_description(FIDELITY)


def test_the_report_shows_what_is_there(bare: ReportContent) -> None:
    assert generated(None, None, NAMES) is None
    for sample_quality, measured in ((SAMPLE_QUALITY, None), (None, FIDELITY), (SAMPLE_QUALITY, FIDELITY)):
        section = generated(sample_quality, measured, NAMES)
        assert section is not None
        html = render(replace(bare, extra=(section,)))
        assert ("Right class" in html) == (sample_quality is not None or measured is not None)
        assert ("KID" in html) == (measured is not None)
        assert ("The judge: softmax@3f2a" in html) == (sample_quality is not None)


def test_classes_that_were_not_drawn_have_no_row_and_many_wait() -> None:
    section = generated(SAMPLE_QUALITY, None, NAMES)
    assert section is not None
    assert [row[0] for row in section.blocks[-1].rows] == ["a", "b"]
    many = SAMPLE_QUALITY.class_consistency.model_copy(
        update={"n_generated": (10,) * 30, "n_consistent": tuple(i % 11 for i in range(30))}
    )
    table = generated(
        SAMPLE_QUALITY.model_copy(update={"class_consistency": many}), None, [str(c) for c in range(30)]
    ).blocks[-1]
    assert [row[0] for row in table.rows][:3] == ["0", "11", "22"]
    assert (len(table.rows), len(table.folded)) == (20, 10)


@pytest.mark.parametrize(
    ("right", "copies", "words"),
    [
        ((40, 45, 0), 0, ("Fewer generated images than real ones",)),
        ((50, 50, 0), 0, ("More generated images than real ones",)),
        ((48, 47, 0), 0, ()),
        ((48, 47, 0), 9, ("More are copies than chance explains",)),
    ],
)
def test_doubts_are_said_where_chance_does_not_explain_them(
    right: tuple[int, ...], copies: int, words: tuple[str, ...]
) -> None:
    classes = CONSISTENCY.model_copy(update={"n_consistent": right})
    found = SampleQuality(
        seed=0, class_consistency=classes, near_duplicates=DUPLICATES.model_copy(update={"n_duplicates": copies})
    )
    section = generated(found, None, NAMES)
    assert section is not None
    said = [block.text for block in section.blocks if hasattr(block, "text")][:-1]
    assert tuple(text.partition(":")[0].partition(" are recognized")[0] for text in said) == words


def test_fewer_images_than_features_are_warned_of() -> None:
    texts = [getattr(b, "text", "") for b in generated(None, FIDELITY, NAMES).blocks]
    assert not any("much too large" in text for text in texts)
    few = FIDELITY.model_copy(update={"n_features": 2048})
    texts = [getattr(b, "text", "") for b in generated(None, few, NAMES).blocks]
    assert any("2,048 features and no more images than that" in text for text in texts)
