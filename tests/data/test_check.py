"""`likely data check`: each kind of issue is found, and clean data has none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from likely.cli.data import command
from likely.data.quality.check import CheckOptions, check
from likely.data.quality.issues import DataIssues
from likely.data.quality.near_duplicates import NearDuplicateOptions, Thumbnails
from likely.exceptions import DataError


def photograph(seed: int, *, size: int = 48) -> Image.Image:
    """A smooth image with edges, like a photograph."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    waves = [
        np.sin(2 * np.pi * (rng.uniform(-3, 3) * x + rng.uniform(-3, 3) * y) + rng.uniform(0, 6)) for _ in range(4)
    ]
    picture = np.stack([sum(w * rng.uniform(-1, 1) for w in waves) for _ in range(3)], axis=2)
    picture += 1.0 * ((x - rng.uniform()) ** 2 + (y - rng.uniform()) ** 2 < 0.05)[:, :, None]
    return Image.fromarray(np.uint8(255 * (picture - picture.min()) / np.ptp(picture)))


def save(path: Path, image: Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Two classes, each of 20 training and 3 test photographs, without issues."""
    for i in range(46):
        split, name = ("train", "cat" if i % 2 else "dog") if i < 40 else ("test", "cat" if i % 2 else "dog")
        save(tmp_path / "good" / split / name / f"{i}.png", photograph(i))
    return tmp_path / "good"


def kinds(findings: DataIssues) -> set[str]:
    return {finding.kind for finding in findings.issues}


def only(findings: DataIssues, kind: str) -> tuple[str, int, tuple[str, ...]]:
    (finding,) = [finding for finding in findings.issues if finding.kind == kind]
    return finding.severity.value, finding.count, finding.examples


def test_clean_data_has_no_issues(good) -> None:
    findings = check(good)
    assert findings.issues == ()
    assert findings.counts == {"train": (20, 20), "test": (3, 3)}
    assert check("digits").issues == ()


def test_exact_and_near_leaks_are_issues(good) -> None:
    exact = save(good / "test" / "cat" / "exact.png", photograph(1))
    near = save(good / "test" / "cat" / "near.jpg", photograph(3), quality=92)
    smaller = save(good / "test" / "dog" / "smaller.png", photograph(4).resize((36, 36)))
    findings = check(good)
    assert only(findings, "leak") == ("error", 1, (f"{exact} = {good / 'train/cat/1.png'}",))
    severity, count, examples = only(findings, "near-leak")
    assert (severity, count) == ("warning", 2)
    assert set(examples) == {f"{near} ~ {good / 'train/cat/3.png'}", f"{smaller} ~ {good / 'train/dog/4.png'}"}
    assert kinds(findings) == {"leak", "near-leak"}


def test_duplicates_and_label_conflicts_are_issues(good) -> None:
    save(good / "train" / "cat" / "again.png", photograph(1))
    save(good / "train" / "dog" / "nearly.jpg", photograph(2), quality=92)
    save(good / "train" / "dog" / "mistaken.png", photograph(5))
    findings = check(good)
    cat, dog = good / "train" / "cat", good / "train" / "dog"
    assert only(findings, "duplicate")[:2] == ("warning", 2)
    assert f"{cat / '1.png'} = {cat / 'again.png'}" in only(findings, "duplicate")[2]
    assert only(findings, "label-conflict") == ("error", 2, (f"{cat / '5.png'} (cat) = {dog / 'mistaken.png'} (dog)",))
    assert only(findings, "near-duplicate") == ("note", 2, (f"{dog / '2.png'} ~ {dog / 'nearly.jpg'}",))


def test_unreadable_files_are_counted_and_named(good) -> None:
    (good / "train" / "cat" / "broken.png").write_bytes(b"no")
    findings = check(good)
    assert findings.n_unreadable == 1
    assert only(findings, "unreadable")[2][0].startswith(str(good / "train" / "cat" / "broken.png"))
    assert findings.issues[0].kind == "unreadable"


def test_small_and_imbalanced_classes_are_issues(tmp_path) -> None:
    for name, n in (("many", 25), ("few", 2), ("one", 1)):
        for i in range(n):
            save(tmp_path / "train" / name / f"{i}.png", photograph(100 * n + i))
    save(tmp_path / "test" / "zebra" / "1.png", photograph(999))
    save(tmp_path / "test" / "many" / "1.png", photograph(998))
    findings = check(tmp_path)
    assert only(findings, "untrained-class") == ("error", 1, ("zebra",))
    assert only(findings, "one-image-class") == ("warning", 1, ("one",))
    assert only(findings, "tiny-class") == ("warning", 1, ("few (2)",))
    assert only(findings, "imbalance")[2] == ("many", "one")
    assert only(findings, "untested-class")[2] == ("few", "one")
    assert [finding.severity.value for finding in findings.issues] == [
        "error",
        "warning",
        "warning",
        "warning",
        "note",
    ]


def test_constant_tiny_and_long_images_are_issues(good) -> None:
    blank = [save(good / "train" / "cat" / f"blank{i}.png", Image.new("RGB", (48, 48), "gray")) for i in range(2)]
    tiny = save(good / "train" / "cat" / "tiny.png", photograph(70, size=5))
    long = save(good / "train" / "dog" / "long.png", photograph(71, size=60).crop((0, 0, 60, 10)))
    findings = check(good)
    assert only(findings, "constant") == ("warning", 2, tuple(map(str, blank)))
    assert only(findings, "tiny-image") == ("warning", 1, (f"{tiny} (5 x 5)",))
    assert only(findings, "long-image") == ("warning", 1, (f"{long} (60 x 10)",))
    assert kinds(findings) == {"constant", "tiny-image", "long-image", "duplicate"}


def test_single_class_is_an_error(tmp_path) -> None:
    save(tmp_path / "cat" / "1.png", photograph(0))
    assert only(check(tmp_path), "few-classes")[0] == "error"


def test_vectors_are_checked_for_exact_duplicates(tmp_path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 4))
    x[7] = x[3]
    np.savez(tmp_path / "v.npz", x=x, y=np.arange(60) // 30)
    assert only(check(tmp_path / "v.npz"), "duplicate") == (
        "warning", 1, (f"{tmp_path}/v.npz:x[3] = {tmp_path}/v.npz:x[7]",),
    )  # fmt: skip


# ---- near-duplicates


def thumbnails_of(thumbnails: np.ndarray) -> Thumbnails:
    centered = thumbnails - thumbnails.mean(axis=(1, 2, 3), keepdims=True)
    unit = centered / np.sqrt((centered**2).sum(axis=(1, 2, 3), keepdims=True))
    n = len(unit)
    return Thumbnails(unit.astype(np.float32), np.random.default_rng(n).integers(0, 1 << 60, n), np.zeros(n, np.bool_))


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.5])
def test_nearest_duplicates_equal_those_of_an_exhaustive_comparison(noise) -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(300, 3, 16, 16))
    those = thumbnails_of(base)
    these = thumbnails_of(
        np.concatenate([base[:100] + noise * rng.normal(size=(100, 3, 16, 16)), rng.normal(size=(50, 3, 16, 16))])
    )
    correlation = these.thumbnails.reshape(150, -1) @ those.thumbnails.reshape(300, -1).T
    expected = np.where(
        correlation.max(axis=1) >= NearDuplicateOptions().min_correlation, correlation.argmax(axis=1), -1
    )
    assert np.array_equal(these.nearest_duplicates(those), expected)
    assert ((expected >= 0).sum() > 0) == (noise < 0.06)


def test_large_cluster_has_a_near_duplicate_of_each_image() -> None:
    rng = np.random.default_rng(0)
    crowd = thumbnails_of(rng.normal(size=(1, 1, 16, 16)) + 0.01 * rng.normal(size=(400, 1, 16, 16)))
    duplicates_of = crowd.nearest_duplicates(crowd)
    assert (duplicates_of >= 0).all()
    assert (duplicates_of != np.arange(400)).all()


def test_sampled_comparison_is_an_issue(good) -> None:
    assert only(check(good, options=CheckOptions(max_compared=10)), "sampled")[:2] == ("note", 10)


# ---- the command


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(command, ["check", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_data_check_prints_a_summary_on_stderr(good) -> None:
    code, out, err = run(good)
    assert (code, out) == (0, "")
    assert "dog" in err


def test_data_check_prints_json_on_stdout(good) -> None:
    (good / "train" / "cat" / "broken.png").write_bytes(b"no")
    code, out, _ = run(good, "--json", "--size", "8x6", "--color", "gray")
    document = json.loads(out)
    assert code == 1
    assert document["n_unreadable"] == 1
    size = {"channels": 1, "height": 8, "width": 6}
    assert document["format"] == size | {"resize": "pad", "center_crop_ratio": 1.0, "resample": "lanczos"}
    assert document["counts"] == {"train": {"cat": 20, "dog": 20}, "test": {"cat": 3, "dog": 3}}
    assert document["issues"][0]["kind"] == "unreadable"
    assert document["issues"][0]["severity"] == "error"


def test_data_check_prints_names_without_markup(tmp_path) -> None:
    for name in ("[bold]a", "[/x]"):
        save(tmp_path / name.replace("/", "") / "1.png", photograph(len(name)))
    code, _, err = run(tmp_path)
    assert code == 0
    assert "[bold]a" in err


def test_data_check_shortens_a_long_class_table(tmp_path) -> None:
    np.savez(
        tmp_path / "a.npz", x=np.random.default_rng(0).integers(0, 256, (100, 4, 4), np.uint8), y=np.arange(100) % 40
    )
    _, _, err = run(tmp_path / "a.npz")
    assert " 24 " in err


def test_unknown_data_source_is_an_error(tmp_path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        run(tmp_path / "nowhere")


def test_constant_images_have_no_near_duplicates() -> None:
    blank = Thumbnails(np.zeros((3, 1, 16, 16), np.float32), np.arange(3), np.ones(3, np.bool_))
    assert (blank.nearest_duplicates(blank) == -1).all()
