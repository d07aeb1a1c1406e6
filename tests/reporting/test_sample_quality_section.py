"""The section on generated images: class consistency, near-duplicates and fidelity."""

from __future__ import annotations

import pytest
from report_contents import HEADER

from likely.evaluation.fidelity import KID, Fidelity, IntraClassFID
from likely.evaluation.sample_quality import ClassConsistency, NearDuplicates, SampleQuality
from likely.reporting.html.content import ReportContent
from likely.reporting.html.page import Block, Paragraph, Table
from likely.reporting.html.sections.sample_quality import extractor_description, fidelity_tiles, sample_quality_sections

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
    class_consistency=CONSISTENCY,
)


def blocks(sample_quality: SampleQuality | None, fidelity: Fidelity | None = None, names=NAMES) -> tuple[Block, ...]:
    content = ReportContent(HEADER, tuple(names), sample_quality=sample_quality, fidelity=fidelity)
    return tuple(block for section in sample_quality_sections(content) for block in section.blocks)


def tables(*args, **kwargs) -> dict[str, Table]:
    return {block.caption: block for block in blocks(*args, **kwargs) if isinstance(block, Table)}


def values(table: Table) -> dict[str, str]:
    return {str(row[0]): str(row[1]) for row in table.rows}


def paragraphs(*args) -> list[str]:
    return [block.text for block in blocks(*args) if isinstance(block, Paragraph)]


def test_metrics_of_generated_images() -> None:
    found = tables(SAMPLE_QUALITY, FIDELITY)
    assert values(found["Class consistency and near-duplicates"]) == {
        "Class consistency": "85.0%",
        "Near-duplicates": "0.0%",
    }
    fidelity = values(found["Fidelity"])
    assert fidelity == {tile.label: tile.value for tile in fidelity_tiles(FIDELITY)}
    assert (fidelity["FID"], fidelity["KID"], fidelity["Intra-class FID"]) == ("12.35", "0.0123", "30.50")


def test_fidelity_names_its_images_and_its_extractor() -> None:
    text = extractor_description(FIDELITY)
    assert all(words in text for words in ("2,000 generated images", "2,000 real images", FIDELITY.extractor))


def test_intra_class_fid_is_a_dash_without_large_classes() -> None:
    none = IntraClassFID(frechet=None, n_classes=0, n_excluded=3, min_images=50)
    tiles = fidelity_tiles(FIDELITY.model_copy(update={"intra_class_fid": none}))
    assert {tile.label: tile.value for tile in tiles}["Intra-class FID"] == "–"


def test_section_shows_only_what_was_measured() -> None:
    assert blocks(None) == ()
    for quality, fidelity in ((SAMPLE_QUALITY, None), (None, FIDELITY), (SAMPLE_QUALITY, FIDELITY)):
        found = tables(quality, fidelity)
        assert ("Class consistency and near-duplicates" in found) == (quality is not None)
        assert ("Fidelity" in found) == (fidelity is not None)


def test_classes_without_images_have_no_row_and_many_rows_are_folded() -> None:
    table = tables(SAMPLE_QUALITY)["Generated images of each class"]
    assert [row[0] for row in table.rows] == ["a", "b"]
    many = CONSISTENCY.model_copy(update={"n_generated": (10,) * 30, "n_consistent": tuple(i % 11 for i in range(30))})
    quality = SAMPLE_QUALITY.model_copy(update={"class_consistency": many})
    table = tables(quality, names=[str(c) for c in range(30)])["Generated images of each class"]
    assert [row[0] for row in table.rows][:3] == ["0", "11", "22"]
    assert (len(table.rows), len(table.folded)) == (20, 10)


@pytest.mark.parametrize(
    ("consistent", "duplicates", "n_warnings"),
    [((40, 45, 0), 0, 1), ((50, 50, 0), 0, 1), ((48, 47, 0), 0, 0), ((48, 47, 0), 9, 1)],
)
def test_significant_differences_have_a_warning(consistent: tuple[int, ...], duplicates: int, n_warnings: int) -> None:
    quality = SampleQuality(
        seed=0,
        class_consistency=CONSISTENCY.model_copy(update={"n_consistent": consistent}),
        near_duplicates=DUPLICATES.model_copy(update={"n_duplicates": duplicates}),
    )
    assert len(paragraphs(quality, None)) == n_warnings + 1  # the last names the seed


def test_fewer_images_than_features_have_a_warning() -> None:
    few = FIDELITY.model_copy(update={"n_features": 2048})
    assert len(paragraphs(None, few)) == len(paragraphs(None, FIDELITY)) + 1
