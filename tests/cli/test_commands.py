"""The command line: options, output formats and exit codes."""

import csv
import io
import json
import re
import subprocess
import sys
import time

import click
import numpy as np
import pytest
import torch
from PIL import Image
from program import run
from sklearn.datasets import load_digits

from likely.inference.false_discovery import benjamini_hochberg
from likely.prediction import Prediction

BRIEF = (
    "--epochs",
    "2",
    "--batch-size",
    "64",
    "--width",
    "4",
    "--latent-dims",
    "4",
    "--threads",
    "1",
    "--label-check-folds",
    "0",
)


def subprocess_likely(*words):
    """Run the program in a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "likely", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of class folders: 60 digits each of three classes."""
    root = tmp_path_factory.mktemp("photos")
    digits = load_digits()
    for label in (1, 4, 7):
        (root / f"digit-{label}").mkdir()
        for i, image in enumerate(digits.images[digits.target == label][:60]):
            Image.fromarray((image * 15.9).astype(np.uint8)).save(root / f"digit-{label}" / f"{i:02d}.png")
    return root


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "digits"
    code, _, err = run("train", folder, "--out", out, "--model", "gaussian", "--label-check-folds", 0)
    assert code == 0, err
    return out


@pytest.fixture
def picture(folder):
    return folder / "digit-4" / "03.png"


def test_help_takes_less_than_three_tenths_of_a_second():
    def seconds():
        start = time.perf_counter()
        assert "train" in subprocess_likely("--help").stdout
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.3


def test_help_loads_neither_torch_nor_pydantic():
    check = "import sys, runpy; sys.argv = ['likely', '--help']\ntry: runpy.run_module('likely', run_name='__main__')\n"
    check += "except SystemExit: pass\nprint([m for m in ('torch', 'pydantic', 'numpy', 'rich') if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout
    assert printed.splitlines()[-1] == "[]"


def test_every_command_has_a_help_page():
    from likely.cli import COMMANDS

    for name in COMMANDS:
        code, out, _ = run(name, "--help")
        assert code == 0
        assert "Usage: likely " + name in out


def test_classify_uses_the_model_that_train_writes(model, picture):
    code, out, _ = run("classify", model, picture, "--format", "jsonl")
    assert code == 0
    prediction = Prediction.model_validate_json(out)
    assert prediction.input == str(picture)
    assert prediction.label == "digit-4"
    assert prediction.model.startswith("digits@")


def test_train_has_the_flags_of_the_family(folder, tmp_path):
    assert "--latent-dims" in run("train", "--help", "--model", "vae")[1]
    assert "--covariance" in run("train", "--help", "--model", "gaussian")[1]
    code, _, err = run("train", folder, "--out", tmp_path / "m", "--model", "gaussian", "--latent-dims", "4")
    assert code == 2
    assert "--latent-dims" in err
    assert not (tmp_path / "m").exists()


def test_unknown_family_suggests_the_nearest(folder, tmp_path):
    code, _, err = run("train", folder, "--out", tmp_path / "m", "--model", "vea")
    assert code == 2
    assert "'vae'" in err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--epochs", "0"), "--epochs"),
        (("--learning-rate", "-1"), "--learning-rate"),
        (("--seed", str(2**32)), "--seed"),
        (("--label-check-folds", "1"), "--label-check-folds"),
        (("--epochs", "3", "--minutes", "1"), "minutes"),
        (("--size", "12by12"), "32x48"),
        (("--augment-shift", "3"), "--augment-shift"),
        (("--schedule", "cosin"), "cosine"),
        (("--device", "tpu"), "cuda"),
    ],
)
def test_options_out_of_range_are_named(folder, tmp_path, words, named):
    code, _, err = run("train", folder, "--out", tmp_path / "m", *words)
    assert code == 2
    assert named in err
    assert "Traceback" not in err


def test_missing_data_is_named(tmp_path):
    code, _, err = run("train", tmp_path / "nowhere", "--out", tmp_path / "m")
    assert code == 2
    assert "nowhere" in err


def test_out_is_overwritten_only_on_request(folder, model, tmp_path):
    before = (model / "model.json").read_bytes()
    code, _, err = run("train", folder, "--out", model, "--model", "gaussian")
    assert code == 2
    assert "--overwrite" in err
    assert (model / "model.json").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("mine")
    code, _, err = run("train", folder, "--out", tmp_path / "mine", "--overwrite")
    assert code == 2
    assert "precious.txt" in err
    assert (tmp_path / "mine" / "precious.txt").exists()


def test_overwrite_removes_nothing_before_the_new_training_starts(folder, model, tmp_path):
    import shutil

    import torch

    old = shutil.copytree(model, tmp_path / "m")
    missing = "cuda" if torch.backends.mps.is_available() else "mps"
    for words in ((tmp_path / "nowhere",), (folder, "--width", "0"), (folder, "--device", missing)):
        assert run("train", *words, "--out", old, "--overwrite")[0] == 2
    assert {path.name: path.read_bytes() for path in old.iterdir()} == {
        path.name: path.read_bytes() for path in model.iterdir()
    }


def test_output_folder_with_subfolders_is_never_emptied(tmp_path):
    from likely.cli.output_folder import clear

    (tmp_path / "report.html").mkdir()
    with pytest.raises(click.UsageError, match=r"report\.html"):
        clear(tmp_path)


def test_overwrite_replaces_a_model(folder, tmp_path):
    for _ in range(2):
        code, _, err = run(
            "train", folder, "--out", tmp_path / "m", "--model", "gaussian", "--label-check-folds", 0, "--overwrite"
        )
        assert code == 0, err


def test_resume_rejects_changed_options_by_name(folder, tmp_path):
    from likely.experiment import TrainConfig, start_run
    from likely.training.options import TrainingOptions

    session = start_run(
        TrainConfig(
            data=str(folder), model="vae", options={"width": 4}, training=TrainingOptions(epochs=3), label_check_folds=0
        ),
        tmp_path / "m",
    )
    for step in session.steps():
        if step.number == 2:
            session.save_progress()
            break
    code, _, err = run("train", folder, "--out", tmp_path / "m", "--resume", "--epochs", "9")
    assert code == 2
    assert "epochs" in err
    code, _, err = run("train", f"{folder}/../{folder.name}/", "--out", tmp_path / "m", "--resume")
    assert code == 0, err  # the same data, spelled in another way
    assert (tmp_path / "m" / "model.json").exists()
    assert run("train", folder, "--out", tmp_path / "m", "--resume").code == 2  # it is complete


def test_unreadable_file_does_not_stop_a_training(folder, tmp_path):
    import shutil

    data = shutil.copytree(folder, tmp_path / "data")
    (data / "digit-1" / "broken.png").write_bytes(b"\x89PNG nothing")
    code, _, err = run("train", data, "--out", tmp_path / "m", "--model", "gaussian", "--label-check-folds", 0)
    assert code == 1
    assert "broken.png" in err
    assert (tmp_path / "m" / "model.json").exists()


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory, folder):
    """Unreadable files of every kind, and one good image."""
    root = tmp_path_factory.mktemp("bad")
    good = (folder / "digit-7" / "05.png").read_bytes()
    (root / "good.png").write_bytes(good)
    (root / "truncated.png").write_bytes(good[: len(good) // 2])
    (root / "empty.png").write_bytes(b"")
    (root / "text.jpg").write_text("I am no picture")
    Image.fromarray(np.full((8, 8), 1e9, np.float32)).save(root / "floats.tiff")
    header = bytearray(good)
    header[16:24] = (50_000).to_bytes(4, "big") * 2
    (root / "bomb.png").write_bytes(header)
    return root


@pytest.mark.parametrize("name", ["truncated.png", "empty.png", "text.jpg", "floats.tiff", "bomb.png", "missing.png"])
def test_unreadable_file_is_named_and_all_others_are_classified(model, bad_files, name):
    code, out, err = run("classify", model, bad_files / name, bad_files / "good.png", "--format", "jsonl")
    assert code == 1
    bad, good = map(Prediction.model_validate_json, out.splitlines())
    assert bad.status.value == "error"
    assert name in bad.error
    assert name in err
    assert bad.label is None
    assert good.label == "digit-7"
    assert "Traceback" not in err


def test_folder_is_expanded_to_its_images(model, bad_files):
    code, out, _ = run("classify", model, bad_files, "--format", "jsonl")
    assert code == 1
    assert len(out.splitlines()) == 6


def test_folder_without_images_is_an_invalid_request(model, tmp_path):
    code, _, err = run("classify", model, tmp_path)
    assert code == 2
    assert str(tmp_path) in err


def test_output_formats_have_equal_content(model, folder, tmp_path):
    images = sorted((folder / "digit-1").iterdir())[:3]
    lines = [json.loads(line) for line in run("classify", model, *images, "--format", "jsonl")[1].splitlines()]
    rows = list(csv.DictReader(io.StringIO(run("classify", model, *images, "--format", "csv")[1])))
    assert [row["label"] for row in rows] == [line["label"] for line in lines]
    assert [float(row["probability"]) for row in rows] == [line["probability"] for line in lines]
    table = run("classify", model, *images)[1]
    assert table.count("digit-1") >= 3
    pyarrow = pytest.importorskip("pyarrow.parquet")
    assert run("classify", model, *images, "--format", "parquet", "--out", tmp_path / "a.parquet")[0] == 0
    assert pyarrow.read_table(tmp_path / "a.parquet").to_pylist() == lines


def test_out_determines_the_format_and_is_not_overwritten(model, picture, tmp_path):
    out = tmp_path / "predictions.csv"
    assert run("classify", model, picture, "--out", out)[0] == 0
    assert out.read_text().startswith("input,status,label")
    code, _, err = run("classify", model, picture, "--out", out)
    assert code == 2
    assert "--overwrite" in err


def test_larger_alpha_rejects_more(model, folder):
    def n_unknown(alpha):
        lines = run("classify", model, folder, "--format", "jsonl", "--alpha", alpha)[1].splitlines()
        return sum(json.loads(line)["status"] == "unknown" for line in lines)

    assert n_unknown(0.1) <= n_unknown(0.4)
    for alpha in ("0", "1.5", "nan"):
        assert run("classify", model, folder, "--alpha", alpha).code == 2


def test_evaluate_prints_one_object_with_the_documented_metrics(model, folder, tmp_path):
    noise = tmp_path / "noise"
    noise.mkdir()
    for i in range(20):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(noise / f"{i}.png")
    report = tmp_path / "report.html"
    code, out, err = run("evaluate", model, folder, "--json", "--unknown", noise, "--report", report)
    assert code == 0, err
    found = json.loads(out)
    assert set(found) >= {
        "n",
        "skipped",
        "accuracy",
        "balanced_accuracy",
        "nll",
        "ece",
        "bits_per_dim",
        "likelihood_kind",
        "false_alarm_rate",
        "alpha",
        "ambiguous_rate",
        "images_per_second",
        "per_class",
        "auroc",
        "fpr_at_95_tpr",
        "unknown_rate",
    }
    assert found["n"] + found["skipped"] == 180
    assert found["n"] == 36
    assert found["auroc"] > 0.9
    assert report.read_text().startswith("<!")


def test_evaluate_rejects_data_that_the_model_was_trained_on(model, folder, tmp_path):
    from likely import Classifier
    from likely.data.loading import load_dataset

    loaded = Classifier.load(model)
    train = load_dataset(folder, loaded.predictor_.format).train
    known = [i for i in range(len(train)) if train.hashes[i] in loaded.predictor_.hashes]
    data = tmp_path / "known.npz"
    names = [train.images.name(i) for i in known]
    pixels = train.images.batch(known).numpy()[:, 0]
    np.savez(data, x=pixels, y=np.array([name.split("/")[-2] for name in names]))
    assert run("evaluate", model, data).code == 2


def test_evaluate_bounds_the_likelihood_by_importance_weighting(folder, tmp_path):
    code, _, err = run("train", folder, "--out", tmp_path / "m", "--model", "vae", *BRIEF)
    assert code == 0, err
    found = json.loads(run("evaluate", tmp_path / "m", folder, "--json", "--importance-samples", "8")[1])
    assert found["bits_per_dim_importance_weighted"] < found["bits_per_dim"] + 0.05


def test_evaluate_names_unreadable_files_of_the_unknown_images(model, folder, tmp_path):
    (tmp_path / "good.png").write_bytes((folder / "digit-4" / "03.png").read_bytes())
    for i in range(12):
        (tmp_path / f"broken-{i}.png").write_bytes(b"nothing")
    code, _, err = run("evaluate", model, folder, "--unknown", tmp_path)
    assert code == 1
    assert all(f"broken-{i}.png" in err for i in range(12))  # no terminal: every one of them


def test_terminal_shows_the_first_skipped_files_and_the_command_that_lists_all(capsys, monkeypatch):
    from likely.cli.console import MAX_SHOWN, console, print_skipped
    from likely.data.sources.base import LoadError

    monkeypatch.setattr(console, "_force_terminal", True)
    errors = [LoadError("x", f"photo[{i}].png: is broken") for i in range(MAX_SHOWN + 2)]
    print_skipped(errors, list_command="likely info m --json")
    err = capsys.readouterr().err
    assert err.count("is broken") == MAX_SHOWN
    assert "photo[3].png" in err
    assert "likely info m --json" in err


def test_importance_samples_need_a_lower_bound(model, folder):
    code, _, err = run("evaluate", model, folder, "--importance-samples", "8")
    assert code == 2
    assert "--importance-samples" in err


def test_generate_writes_one_picture_or_a_folder_of_files(model, tmp_path):
    code, _, err = run("generate", model, "--out", tmp_path / "all.png", "-n", "3")
    assert code == 0, err
    with Image.open(tmp_path / "all.png") as picture:
        assert picture.size[0] > 3 * 8
    assert run("generate", model, "--class", "digit-4", "-n", "2", "--out", tmp_path / "some")[0] == 0
    assert sorted(p.name for p in (tmp_path / "some" / "digit-4").iterdir()) == ["0000.png", "0001.png"]
    code, _, err = run("generate", model, "--class", "digit-5", "--out", tmp_path / "other")
    assert code == 2
    assert "digit-" in err
    assert run("generate", model, "--out", tmp_path / "all.png")[0] == 2


def test_generate_rejects_class_names_that_escape_the_folder(model, tmp_path):
    import shutil

    other = shutil.copytree(model, tmp_path / "m")
    text = (other / "model.json").read_text().replace("digit-1", "../../x").replace("digit-7", "7/by me")
    (other / "model.json").write_text(text)
    code, _, err = run("generate", other, "--out", tmp_path / "deep" / "images", "-n", 1)
    assert code == 2
    assert "'../../x'" in err
    assert not (tmp_path / "x").exists()
    code, _, err = run("generate", other, "--class", "7/by me", "--out", tmp_path / "nested", "-n", 1)
    assert code == 0, err
    assert (tmp_path / "nested" / "7" / "by me" / "0000.png").exists()


def test_info_shows_the_card_and_the_document(model):
    code, out, _ = run("info", model)
    assert code == 0
    assert "digit-4" in out
    assert json.loads(run("info", model, "--json")[1])["family"] == "gaussian"
    assert run("info", model.parent).code == 2


def test_models_lists_every_option_of_every_family():
    out = run("models")[1]
    assert all(word in out for word in ("gaussian", "--latent-dims", "softmax", "--shrinkage"))
    assert set(json.loads(run("models", "vae", "--json")[1])) == {"vae"}
    assert run("models", "vea")[0] == 2


def test_model_of_an_unsupported_format_version_is_rejected(model, picture, tmp_path):
    import shutil

    other = shutil.copytree(model, tmp_path / "m")
    document = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps(document | {"format_version": 99}))
    code, _, err = run("classify", other, picture)
    assert code == 2
    assert "99" in err


def test_interrupted_training_saves_the_model_and_its_state(folder, tmp_path):
    """Ctrl-C, sent to a real process once it has begun to train."""
    import signal

    out = tmp_path / "m"
    words = [
        "train",
        str(folder),
        "--out",
        str(out),
        "--model",
        "vaegan",
        *BRIEF[2:],
        "--epochs",
        "100000",
        "--patience",
        "100000",
    ]
    with subprocess.Popen([sys.executable, "-m", "likely", *words], stderr=subprocess.PIPE, text=True) as process:
        next(line for line in process.stderr if line.startswith("epoch"))
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
        assert process.wait(60) == 0, err
    assert "--resume" in err
    assert (out / "model.json").exists()
    assert (out / "training_state.safetensors").exists()


def test_unknown_image_has_no_probability_in_the_table(model, folder, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "noise.png")
    asked = ("classify", model, tmp_path / "noise.png")
    prediction = Prediction.model_validate_json(run(*asked, "--format", "jsonl").out)
    assert prediction.status.value == "unknown"
    row = run(*asked).out.splitlines()[1]
    assert f"{prediction.probability:.3f}" not in row
    assert f"{prediction.p_value:.3f}" in row


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prior.json", '{"digit-1": 0.5, "digit-4": "many", "digit-7": 0.1}'),
        ("prior.json", "[1, 2]"),
        ("prior.csv", "label,share\ndigit-1,1\n"),
        ("prior.csv", "label,fraction\ndigit-1,1\n"),
        ("prior.csv", "label,fraction\ndigit-1,0.5\ndigit-4,0.9\ndigit-7,-0.4\n"),
    ],
)
def test_invalid_prior_file_is_an_invalid_request(model, picture, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    code, out, err = run("classify", model, picture, "--prior", tmp_path / name)
    assert (code, out) == (2, "")
    assert name in err


def test_prior_file_changes_the_posterior(model, picture, tmp_path):
    (tmp_path / "prior.csv").write_text("label,fraction\ndigit-1,0.98\ndigit-4,0.01\ndigit-7,0.01\n")
    asked = ("classify", model, picture, "--format", "jsonl")
    plain, changed = (json.loads(run(*asked, *more).out) for more in ((), ("--prior", tmp_path / "prior.csv")))
    before, after = ({c["label"]: c["probability"] for c in each["classes"]} for each in (plain, changed))
    assert after["digit-1"] >= before["digit-1"]
    assert before != after


def noise_images(folder, n):
    for i in range(n):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8), np.uint8)).save(folder / f"noise{i}.png")


def test_fdr_rejects_by_benjamini_hochberg_over_all_images(model, folder, tmp_path):
    noise_images(tmp_path, 30)
    (tmp_path / "broken.png").write_bytes(b"nothing")
    asked = ("classify", model, tmp_path, folder / "digit-1", "--format", "jsonl")
    (code, out, _), plain = run(*asked, "--fdr", 0.2), run(*asked).out
    assert code == 1
    found, before = ([Prediction.model_validate_json(line) for line in text.splitlines()] for text in (out, plain))
    assert [each.input for each in found] == [each.input for each in before]
    assert [each.p_value for each in found] == [each.p_value for each in before]
    read = [each for each in found if each.error is None]
    rejected = benjamini_hochberg(torch.tensor([each.p_value for each in read]), 0.2).tolist()
    assert [each.status.value == "unknown" for each in read] == rejected
    assert [not each.prediction_set for each in read] == rejected
    assert sum(rejected) > 20


def test_fdr_names_the_number_of_calibration_images_that_it_needs(model, folder, tmp_path):
    noise_images(tmp_path, 1)
    code, out, err = run("classify", model, tmp_path, folder, "--fdr", 0.001, "--format", "jsonl")
    assert code == 0
    assert "unknown" not in out
    assert re.search(r"[1-9]\d*,\d{3} are needed", err)


def test_fdr_with_a_mask_is_an_invalid_request(model, picture):
    assert run("classify", model, picture, "--fdr", 0.1, "--mask", picture).code == 2


def test_prior_adapt_runs_the_network_once_per_image(model, folder, tmp_path, monkeypatch):
    from likely.classifier import load
    from likely.classifier.predictor import Predictor
    from likely.classifier.prior_adaptation import adapt_prior

    images = [*(folder / "digit-4").iterdir(), *sorted((folder / "digit-1").iterdir())[:5]]
    (tmp_path / "broken.png").write_bytes(b"nothing")
    loaded = load(model)
    prior = adapt_prior(loaded, [loaded.outputs(loaded.load_images(images).images)]).prior_estimate
    expected = loaded.classify(images, log_prior=prior.log_prior)
    counts, batches = [], Predictor.batches

    def counted(self, images):
        for block, outputs in batches(self, images):
            counts.append(len(block))
            yield block, outputs

    monkeypatch.setattr(Predictor, "batches", counted)
    code, out, err = run("classify", model, tmp_path / "broken.png", *images, "--prior", "adapt", "--format", "jsonl")
    assert code == 1, err
    failed, *found = map(Prediction.model_validate_json, out.splitlines())
    assert failed.status.value == "error"
    assert prior.shifted
    assert found == expected
    assert sum(counts) == len(images)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("train", "", "--out", "m"), "train"),
        (("train", "digits", "--out", ""), "--out"),
        (("train", "digits", "--out="), "--out"),
        (("train", "digits", "--out", "m", "--backbone="), "--backbone"),
        (("train", "digits", "--out", "m", "--augment-with", ":5"), "--augment-with"),
        (("classify", "m", ""), "m"),
        (("classify", "", "a.png"), "classify"),
        (("evaluate", "m", "digits", "--unknown", ""), "--unknown"),
        (("extend", "m", "coat=", "--out", "larger"), "NAME=DIR"),
        (("store", "backup", ""), "backup"),
        (("keys", "add", "", "--scope", "read"), "add"),
    ],
)
def test_empty_argument_is_named_and_nothing_is_written(likely, tmp_path, words, named):
    (tmp_path / "boot").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "boot" / "a.png")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = likely(*words)
    assert (code, out) == (2, "")
    assert named in err.splitlines()[-1]
    assert sorted(tmp_path.rglob("*")) == before
