"""Benchmark: all families and the baseline are measured alike, once, and can be resumed at any time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from likely import models
from likely.benchmark import (
    BASELINE,
    Benchmark,
    BenchmarkConfig,
    BenchmarkInterrupted,
    ProgressObserver,
    build_comparison,
    write_report,
)
from likely.benchmark.config import BenchmarkRun
from likely.benchmark.environment import PeakMemory, commit
from likely.benchmark.metrics import interleaved_timing
from likely.benchmark.results import ResultsLog
from likely.classifier import load
from likely.data.preprocessing import ImageOptions
from likely.evaluation.eval_split import eval_split
from likely.evaluation.evaluate import evaluate
from likely.exceptions import BenchmarkError, DivergenceError
from likely.models.gaussian import Gaussian
from likely.reporting.comparison import ResultKey, markdown_table
from likely.training.options import TrainingOptions


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three classes of digits, with a test split."""
    digits = load_digits(n_class=3)
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, x_train=pixels[:400], y_train=digits.target[:400], x_test=pixels[400:], y_test=digits.target[400:])
    return path


def plan(data, *families, epochs=1, **changes):
    training = TrainingOptions(epochs=epochs, threads=1)
    return BenchmarkConfig(
        data=str(data), families=families or ("gaussian",), training=training, options=NARROW, **changes
    )


NARROW = {"softmax": {"width": 4}, "vae": {"width": 4, "latent_dims": 4}}


def carried_out(plan, out, **how):
    benchmark = Benchmark(plan, out, **how)
    return benchmark, list(benchmark.outcomes())


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Two families over two seeds: the folder, the benchmark, its outcomes."""
    out = tmp_path_factory.mktemp("benchmark") / "results"
    return out, *carried_out(plan(data, "vae", "gaussian", seeds=(0, 1)), out)


class StopsIn(ProgressObserver):
    """Interrupts a training in its third step, like Ctrl-C."""

    def __init__(self, entry):
        self.entry = entry

    def steps(self, steps, entry):
        for step in steps:
            yield step
            if entry == self.entry and step.number == 3:
                return


def test_every_family_and_seed_is_measured_after_the_baseline(whole):
    out, _, outcomes = whole
    assert [outcome.run for outcome in outcomes] == [
        BenchmarkRun(family, seed) for seed in (0, 1) for family in (BASELINE, "vae", "gaussian")
    ]
    assert all(outcome.is_new and outcome.result.error is None for outcome in outcomes)
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [(line["family"], line["seed"]) for line in lines] == [tuple(outcome.run) for outcome in outcomes]
    assert {(line["threads"], line["commit"], line["version"]) for line in lines} == {(1, commit(), "0.1.0")}


def test_metrics_equal_those_of_evaluate(whole, data):
    out, _, outcomes = whole
    classifier = load(out / "models" / "vae-1")
    found = evaluate(classifier, eval_split(classifier, str(data)).images, alpha=0.05).as_json()
    result = next(outcome.result for outcome in outcomes if outcome.run == BenchmarkRun("vae", 1))
    for name in ("n", "accuracy", "balanced_accuracy", "nll", "ece", "brier", "bits_per_dim", "false_alarm_rate"):
        assert getattr(result.accuracy, name) == pytest.approx(found[name], rel=1e-5), name
    assert result.accuracy.reliability.reliability.ece == pytest.approx(found["ece"])
    assert result.model == classifier.id


def test_delta_is_relative_to_the_baseline_of_the_seed(whole):
    _, _, outcomes = whole
    accuracy = {outcome.run: outcome.result.accuracy.accuracy for outcome in outcomes}
    for entry, result, _ in outcomes:
        ahead, interval = result.accuracy.delta_vs_baseline, result.accuracy.delta_interval
        if entry.family == BASELINE:
            assert ahead is None
            assert result.efficiency.relative_to_baseline == 1
        else:
            assert ahead == pytest.approx(accuracy[entry] - accuracy[BenchmarkRun(BASELINE, entry.seed)])
            assert interval[0] <= ahead <= interval[1]
            assert result.efficiency.relative_to_baseline > 0


def test_fidelity_uses_the_features_of_the_first_baseline(whole):
    _, _, outcomes = whole
    found = [outcome.result.fidelity for outcome in outcomes if outcome.result.fidelity]
    assert len(found) == 4
    assert {fidelity.extractor.partition(",")[0] for fidelity in found} == {outcomes[0].result.model}
    for fidelity in found[1:]:
        assert found[0].difference(fidelity) is None
    classifiers = {
        outcome.run: outcome.result.sample_quality.class_consistency.classifier
        for outcome in outcomes
        if outcome.result.sample_quality
    }
    baselines = {outcome.run.seed: outcome.result.model for outcome in outcomes if outcome.run.family == BASELINE}
    assert classifiers == {
        BenchmarkRun(family, seed): baselines[seed] for seed in (0, 1) for family in ("vae", "gaussian")
    }


def test_efficiency_reports_epochs_and_images_per_second(whole):
    _, _, outcomes = whole
    for outcome in outcomes:
        spent = outcome.result.efficiency
        assert spent.n_parameters > 0
        if outcome.run.family == "gaussian":
            assert spent.epochs_done is None
        else:
            assert spent.epochs_done == pytest.approx(1)
            assert spent.train_images_per_second > 0


def test_finished_runs_are_neither_trained_nor_measured_again(whole, data):
    out, _, outcomes = whole
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    _, again = carried_out(plan(data, "vae", "gaussian", seeds=(0, 1)), out)
    assert not any(outcome.is_new for outcome in again)
    assert [outcome.result for outcome in again] == [outcome.result for outcome in outcomes]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_report_writes_table_page_and_image(whole):
    out, benchmark, outcomes = whole
    comparison = build_comparison(benchmark, [outcome.result for outcome in outcomes])
    write_report(benchmark, comparison)
    assert (out / "table.md").read_text() == markdown_table(comparison)
    assert (out / "index.html").read_text().startswith("<!doctype html>")
    assert (out / "samples.png").stat().st_size > 1000
    assert list(comparison.panels) == ["real", "vae", "gaussian"]
    assert set(comparison.learning_curves) == {BASELINE, "vae"}
    assert comparison.settings["vae"] == "width=4, latent_dims=4"
    assert comparison.difference_between_seeds is None
    benchmark_again = Benchmark(benchmark.config, out)  # what it wrote is not foreign to it
    assert benchmark_again.find_result(BenchmarkRun("vae", 0)) is not None


def test_interrupted_benchmark_resumes_to_identical_weights(whole, data, tmp_path):
    stopping = Benchmark(plan(data, "vae", "gaussian"), tmp_path / "b", observer=StopsIn(BenchmarkRun("vae", 0)))
    outcomes = stopping.outcomes()
    assert next(outcomes).run == BenchmarkRun(BASELINE, 0)
    with pytest.raises(BenchmarkInterrupted, match="vae, seed 0"):
        next(outcomes)
    assert (tmp_path / "b" / "models" / "vae-0" / "training_state.safetensors").exists()
    _, again = carried_out(plan(data, "vae", "gaussian"), tmp_path / "b")
    assert [outcome.is_new for outcome in again] == [False, True, True]
    ours, theirs = (load_file(out / "models/vae-0/model.safetensors") for out in (tmp_path / "b", whole[0]))
    assert all(ours[name].equal(value) for name, value in theirs.items())


class Astray(Gaussian):
    """A family whose training diverges."""

    def finalize_statistics(self):
        raise DivergenceError("the loss went astray\n\nand more")


def test_failed_family_is_recorded_and_the_others_continue(data, tmp_path, monkeypatch):
    monkeypatch.setitem(models.FAMILIES, "astray", Astray)
    asked = plan(data, "astray", "gaussian")
    benchmark, outcomes = carried_out(asked, tmp_path)
    assert [outcome.result.error for outcome in outcomes] == [None, "the loss went astray", None]
    comparison = build_comparison(benchmark, [outcome.result for outcome in outcomes])
    text = markdown_table(comparison)
    assert "astray failed with seed 0: the loss went astray" in text
    assert "| astray " in text
    monkeypatch.setitem(models.FAMILIES, "astray", Gaussian)
    _, again = carried_out(asked, tmp_path)
    assert [(outcome.is_new, outcome.result.error) for outcome in again] == [(False, None), (True, None), (False, None)]


def test_failed_baseline_leaves_comparisons_empty(data, tmp_path, monkeypatch):
    monkeypatch.setitem(models.FAMILIES, BASELINE, Astray)
    asked = plan(data).model_copy(update={"options": {}})
    _, (baseline, other) = carried_out(asked, tmp_path)
    assert baseline.result.error is not None
    assert other.result.error is None
    assert other.result.accuracy.accuracy > 0.8
    assert other.result.fidelity is other.result.sample_quality is other.result.efficiency.relative_to_baseline is None


def test_results_of_other_configurations_are_ignored(data, tmp_path):
    carried_out(plan(data, samples=20), tmp_path)
    benchmark, outcomes = carried_out(plan(data, samples=30), tmp_path)
    assert [(outcome.run.family, outcome.is_new) for outcome in outcomes] == [(BASELINE, False), ("gaussian", True)]
    assert outcomes[1].result.fidelity.n_generated == 30
    comparison = build_comparison(benchmark, [outcome.result for outcome in outcomes])
    assert "samples" in comparison.notes[0]
    assert len(comparison.results) == 2


def test_result_counts_only_for_the_current_model(data, tmp_path):
    carried_out(plan(data), tmp_path)
    for path in (tmp_path / "models" / "gaussian-0").iterdir():
        path.unlink()
    _, outcomes = carried_out(plan(data), tmp_path)
    assert [outcome.is_new for outcome in outcomes] == [False, True]


def test_models_of_another_configuration_are_rejected_before_training(whole, data):
    out = whole[0]
    with pytest.raises(BenchmarkError, match=r"epochs.* 1 .* 2"):
        Benchmark(plan(data, epochs=2), out)
    with pytest.raises(BenchmarkError, match=r"width.* 4 .* 32"):
        Benchmark(plan(data).model_copy(update={"options": {}}), out)
    with pytest.raises(BenchmarkError, match="size"):
        Benchmark(plan(data, images=ImageOptions(size=(6, 6))), out)


def test_models_of_a_version_with_other_options_are_rejected(data, tmp_path):
    carried_out(plan(data), tmp_path)
    path = tmp_path / "models" / "gaussian-0" / "model.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"options": document["options"] | {"forgotten": 3}}))
    with pytest.raises(BenchmarkError, match="forgotten"):
        Benchmark(plan(data), tmp_path)


def test_foreign_files_are_never_overwritten(data, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(BenchmarkError, match=r"precious\.txt"):
        Benchmark(plan(data), tmp_path)
    with pytest.raises(BenchmarkError, match="--out"):
        Benchmark(plan(data), tmp_path / "precious.txt")
    (tmp_path / "results" / "models" / "gaussian-0" / "mine").mkdir(parents=True)
    with pytest.raises(BenchmarkError, match="gaussian-0"):
        Benchmark(plan(data), tmp_path / "results")


def test_more_samples_than_real_images_are_rejected(data, tmp_path):
    with pytest.raises(BenchmarkError, match=r"--samples.*137"):
        Benchmark(plan(data, samples=138), tmp_path)


def test_threads_default_to_those_of_existing_models(whole, data):
    asked = plan(data, "vae").model_copy(update={"training": TrainingOptions(epochs=1)})
    assert Benchmark(asked, whole[0]).config.training.threads == 1


def test_evaluation_images_depend_on_the_seed_without_a_test_split(tmp_path):
    digits = load_digits(n_class=3)
    np.savez(tmp_path / "some.npz", x=digits.images.astype(np.uint8), y=digits.target)
    benchmark, outcomes = carried_out(plan(tmp_path / "some.npz", seeds=(0, 1)), tmp_path / "b")
    comparison = build_comparison(benchmark, [outcome.result for outcome in outcomes])
    assert "real images" in comparison.difference_between_seeds
    assert "mean of" not in markdown_table(comparison).partition("## Sample quality")[2]


def test_vectors_are_compared_without_images(tmp_path):
    digits = load_digits(n_class=3)
    np.savez(tmp_path / "some.npz", x=digits.data, y=digits.target)
    benchmark, outcomes = carried_out(plan(tmp_path / "some.npz"), tmp_path / "b")
    assert all(outcome.result.error is None for outcome in outcomes), outcomes
    comparison = build_comparison(benchmark, [outcome.result for outcome in outcomes])
    write_report(benchmark, comparison)
    assert not comparison.panels
    assert not (tmp_path / "b" / "samples.png").exists()
    assert "Sample quality" not in markdown_table(comparison)


def test_config_has_the_baseline_first_and_no_repetitions(data):
    asked = plan(data, "vae", BASELINE, "vae", seeds=(3, 3, 1))
    assert asked.families == (BASELINE, "vae")
    assert asked.seeds == (3, 1)
    assert plan(f"{data.parent}/./{data.name}").data == str(data)
    with pytest.raises(ValueError, match="--minutes"):
        BenchmarkConfig(data="digits", families=("vae",), training=TrainingOptions())
    with pytest.raises(ValueError, match="'vae'"):
        plan(data, "vea")


def test_damaged_result_line_is_skipped(whole, tmp_path):
    result = whole[2][0].result
    ledger = ResultsLog(tmp_path / "results.jsonl")
    ledger.append(result)
    with ledger.path.open("a") as file:
        file.write(result.line()[:100])
    ResultsLog(ledger.path).append(result)
    again = ResultsLog(ledger.path)
    assert (again.results, again.n_unreadable) == ([result, result], 1)
    assert again.last(result.key) == result
    assert again.last(ResultKey(**{**result.key.model_dump(), "seed": 9})) is None


def test_interleaved_timing_alternates_the_order_of_calls():
    called = []
    seconds = interleaved_timing({name: lambda name=name: called.append(name) for name in "ab"}, 3)
    assert "".join(called) == "ab" + "ba" + "ab" + "ba"
    assert {len(values) for values in seconds.values()} == {3}


def test_peak_memory_is_measured_from_creation():
    memory = PeakMemory()
    if memory.peak_gb is None:
        pytest.skip("this system keeps no peak")
    before = memory.peak_gb
    np.ones(200_000_000 // 8)
    assert memory.peak_gb >= before + 0.15
