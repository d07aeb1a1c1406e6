"""The Classifier: from arrays, pictures and files to posteriors, answers and a folder."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError

from likely import Classifier, checkpoint
from likely.base import Domain, LikelihoodKind, LikelihoodType
from likely.classifier.trainer import ModelSpec, Trainer
from likely.data import arrays
from likely.data.preprocessing import ImageOptions
from likely.data.splits import make_splits
from likely.exceptions import CheckpointError, ImageError, InvalidValueError, UnsupportedError
from likely.prediction import Guarantee, Status
from likely.training.options import TrainingOptions

TINY = {"latent_dims": 4, "width": 4}
BRIEF = {"epochs": 2, "batch_size": 32}


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return (data.images * 255 / 16).round().astype(np.uint8), data.target


@pytest.fixture(scope="module")
def gaussian(digits):
    images, labels = digits
    return Classifier("gaussian").fit(images[:1200], labels[:1200])


@pytest.fixture(scope="module")
def vae(digits):
    images, labels = digits
    return Classifier("vae", options=TINY, training=BRIEF).fit(images[:1200], labels[:1200])


def test_every_family_learns_the_digits(digits):
    images, labels = digits
    for model, options in (("gaussian", {}), ("vae", {"width": 8}), ("softmax", {"width": 8})):
        classifier = Classifier(model, options=options, training={"epochs": 4}).fit(images[:1200], labels[:1200])
        assert classifier.score(images[1200:], labels[1200:]) > 0.8, model


def test_few_held_out_images_that_are_all_right_make_nobody_certain():
    """Few features of a vector separate the classes, and the held-out images are too few to measure overconfidence."""

    def samples(n, seed):
        rng = np.random.default_rng(seed)
        y = rng.integers(0, 2, n)
        return (rng.normal(size=(n, 120)) + y[:, None] * (np.arange(120) < 6)).astype(np.float32), y

    X, y = samples(600, seed=100)
    losses = []
    for seed in range(3):
        p = Classifier("gaussian").fit(*samples(120, seed)).predict_proba(X)
        losses.append(-np.log(p[np.arange(600), y]).mean())
    assert max(losses) < np.log(2)


def test_posteriors_sum_to_one_and_predict_is_their_argmax(gaussian, digits):
    images = digits[0][1200:1300]
    p = gaussian.predict_proba(images)
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_array_equal(gaussian.predict(images), gaussian.classes_[p.argmax(1)])
    np.testing.assert_allclose(np.log(p), gaussian.predict_log_proba(images), atol=1e-9)


def test_the_same_image_in_any_form_gets_the_same_answer(vae, digits, tmp_path):
    image = digits[0][1300]
    path = tmp_path / "digit.png"
    Image.fromarray(image).save(path)
    forms = [
        image[None],
        image[None, ..., None],
        [Image.fromarray(image)],
        [path],
        [str(path)],
        [path.read_bytes()],
        [image],
    ]
    answers = [vae.predict_proba(form) for form in forms]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])
    np.testing.assert_array_equal(vae.predict_proba(image[None] / 255), answers[0])


def test_one_image_and_a_batch_agree(vae, digits):
    images = digits[0][1300:1310]
    single = np.concatenate([vae.predict_log_proba(image[None]) for image in images])
    np.testing.assert_allclose(vae.predict_log_proba(images), single, rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_model_and_another_another(digits):
    images, labels = digits

    def fitted(seed):
        return Classifier("vae", options=TINY, training=BRIEF, random_state=seed).fit(images[:300], labels[:300])

    first, again, other = (fitted(seed).predict_proba(images[300:320]) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_fitting_does_not_disturb_the_global_random_numbers(digits):
    import torch

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    Classifier("vae", options=TINY, training={"epochs": 1}).fit(digits[0][:100], digits[1][:100])
    assert torch.equal(torch.rand(3), expected)


def test_parameters_are_stored_unchanged_and_cloned():
    parameters = {
        "model": "vae",
        "options": TINY,
        "training": BRIEF,
        "images": {"size": 16},
        "features": {"features": "pixels"},
        "random_state": 3,
    }
    classifier = Classifier(**parameters)
    assert classifier.get_params() == parameters
    assert clone(classifier).get_params() == parameters


def test_an_unfitted_classifier_says_so(digits):
    for method in ("predict", "predict_proba", "score_samples", "classify"):
        with pytest.raises(NotFittedError):
            getattr(Classifier(), method)(digits[0][:1])


def test_answers_keep_the_promises_of_the_format(gaussian, digits):
    answers = gaussian.classify(digits[0][1200:], alpha=0.05)
    for answer in answers:
        probabilities = [c.probability for c in answer.classes]
        assert probabilities == sorted(probabilities, reverse=True)
        assert answer.label == answer.classes[0].label
        assert (answer.status is Status.UNKNOWN) == (answer.p_value <= 0.05) == (answer.prediction_set == ())
        if answer.prediction_set:
            assert answer.label in answer.prediction_set
            assert answer.status is (Status.KNOWN if len(answer.prediction_set) == 1 else Status.AMBIGUOUS)
        assert answer.guarantee is Guarantee.OVERALL
        assert answer.calibration == "split"
        assert answer.bits_per_dim > 0
    assert {answer.status for answer in answers} == {Status.KNOWN, Status.AMBIGUOUS, Status.UNKNOWN}
    for prediction in gaussian.classify(digits[0][1200:], guarantee="class"):
        assert prediction.guarantee is Guarantee.CLASS
        assert prediction.p_value == max(c.p_value for c in prediction.classes)
    with pytest.raises(InvalidValueError):
        gaussian.classify(digits[0][:1], guarantee="per_class")


def test_top_k_keeps_the_most_probable_classes(gaussian, digits):
    whole, short = (gaussian.classify(digits[0][:1], top_k=k)[0] for k in (None, 2))
    assert short.classes == whole.classes[:2]
    assert len(whole.classes) == 10


def test_an_image_that_cannot_be_read_is_answered_by_a_sentence_and_the_rest_by_answers(gaussian, digits, tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.fromarray(digits[0][0]).save(good)
    bad.write_bytes(b"this is no picture")
    answers = gaussian.classify([good, bad, tmp_path / "missing.png", good])
    assert [a.status for a in answers] == [answers[0].status, Status.ERROR, Status.ERROR, answers[0].status]
    assert "bad.png" in answers[1].error
    assert "missing.png" in answers[2].error
    assert answers[0] == answers[3]
    with pytest.raises(ImageError, match=r"bad\.png"):
        gaussian.predict([good, bad])


def test_a_training_image_that_cannot_be_read_is_left_out_with_a_warning(digits, tmp_path):
    paths = []
    for i, image in enumerate(digits[0][:40]):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    paths[3].write_bytes(b"")
    with pytest.warns(UserWarning, match=r"3\.png"):
        classifier = Classifier("gaussian").fit(paths, digits[1][:40])
    assert classifier.predict(paths[:2]).shape == (2,)


def test_too_few_images_to_promise_anything_are_answered_as_uncalibrated(digits):
    images, labels = digits
    few = Classifier("gaussian").fit(images[:20], labels[:20])
    answer = few.classify(images[:1])[0]
    assert answer.status is Status.UNCALIBRATED
    assert answer.p_value is None
    assert answer.calibration is None
    assert answer.label in few.predictor_.labels


def test_classes_with_few_images_are_calibrated_together(digits):
    images, labels = digits
    answer = Classifier("gaussian").fit(images[:300], labels[:300]).classify(images[300:301], guarantee="class")[0]
    assert answer.calibration == "split-pooled"
    assert 0 < answer.p_value <= 1


def test_unlabeled_images_train_a_vae(digits):
    images, labels = digits
    some = np.array([label if i % 3 else None for i, label in enumerate(labels[:300])], dtype=object)
    classifier = Classifier("vae", options=TINY, training=BRIEF).fit(images[:300], some)
    assert classifier.classes_.tolist() == list(range(10))
    assert classifier.predict(images[:2]).shape == (2,)


def test_vectors_of_any_range_are_learned():
    rng = np.random.default_rng(0)
    y = np.repeat(["left", "right"], 100)
    X = rng.normal(np.where(y == "left", -2.0, 2.0)[:, None], 1.0, (200, 3)) * [1, 1e4, 1e-3] + [0, 1e6, 0]
    for model in ("gaussian", "vae", "softmax"):
        classifier = Classifier(model, training={"epochs": 5}).fit(X, y)
        assert classifier.score(X, y) > 0.95, model
        assert classifier.classify(X[:1])[0].bits_per_dim is None


def test_score_samples_is_higher_for_what_was_learned(vae, digits):
    images = digits[0][1200:1300]
    rng = np.random.default_rng(0)
    assert vae.score_samples(images).mean() > vae.score_samples(rng.permuted(images, axis=2)).mean()


def test_the_twin_has_no_likelihood_and_says_so(digits):
    baseline = Classifier("softmax", options={"width": 4}, training=BRIEF).fit(digits[0][:200], digits[1][:200])
    for call in (lambda: baseline.score_samples(digits[0][:1]), lambda: baseline.sample(3)):
        with pytest.raises(AttributeError, match="generative"):
            call()
    assert baseline.classify(digits[0][:1])[0].classes[0].log_likelihood is None


def test_samples_are_images_of_the_training_images_kind(vae):
    images = vae.sample(3, n=4, seed=1)
    assert images.shape == (4, 1, 8, 8)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, vae.sample("3", n=4, seed=1))
    with pytest.raises(ValueError, match="'eleven'"):
        vae.sample("eleven")


def test_saved_models_moved_and_loaded_in_a_new_process_answer_the_same_to_the_last_digit(
    gaussian, vae, digits, tmp_path
):
    images, answers = digits[0][1200:1230], []
    for classifier in (gaussian, vae):
        classifier.save(tmp_path / "first")
        (tmp_path / "first").rename(tmp_path / classifier.model)
        answers += [answer.model_dump(mode="json") for answer in classifier.classify(images)]
    np.save(tmp_path / "images.npy", images)
    program = (
        "import sys, numpy, torch; from likely import Classifier; torch.set_num_threads(1)\n"
        "for folder in sys.argv[2:]:\n"
        "    for answer in Classifier.load(folder).classify(numpy.load(sys.argv[1])): print(answer.model_dump_json())"
    )
    command = [sys.executable, "-c", program, "images.npy", "gaussian", "vae"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.splitlines()
    assert [json.loads(line) for line in printed] == answers


def test_a_loaded_model_asks_for_the_same_images_when_it_is_fitted_anew(digits, tmp_path):
    first = Classifier("gaussian", images={"size": 6, "resize": "stretch"}).fit(digits[0][:200], digits[1][:200])
    first.save(tmp_path)
    again = Classifier.load(tmp_path).fit(digits[0][:200], digits[1][:200])
    assert again.predictor_.format == first.predictor_.format


def test_labels_that_are_all_none_are_a_sentence(digits):
    with pytest.raises(ValueError, match="20 times None"):
        Classifier("gaussian").fit(digits[0][:20], np.array([None] * 20))


def test_a_loaded_model_keeps_its_classes_and_options(vae, tmp_path):
    vae.save(tmp_path / "m")
    loaded = Classifier.load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.classes_, vae.classes_)
    assert loaded.classes_.dtype == vae.classes_.dtype
    assert loaded.predictor_.model.options == vae.predictor_.model.options
    assert loaded.predictor_.id.startswith("m@")
    np.testing.assert_array_equal(loaded.predictor_.hashes, vae.predictor_.hashes)


def test_a_model_of_another_format_version_says_what_to_do(gaussian, tmp_path):
    gaussian.save(tmp_path / "m")
    path = tmp_path / "m" / "model.json"
    for version, advice in ((99, "upgrade"), (0, "train the model again"), (None, "train the model again")):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": version}))
        with pytest.raises(CheckpointError, match=advice):
            Classifier.load(tmp_path / "m")


def test_a_folder_that_is_no_model_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="likely train"):
        Classifier.load(tmp_path)
    with pytest.raises(CheckpointError, match="no folder"):
        Classifier.load(tmp_path / "nothing")


def test_damaged_model_files_say_so(gaussian, tmp_path):
    gaussian.save(tmp_path / "m")
    tensors = tmp_path / "m" / "model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        Classifier.load(tmp_path / "m")
    (tmp_path / "m" / "model.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"model\.json"):
        Classifier.load(tmp_path / "m")


def test_a_model_with_other_weights_than_its_family_has_says_so(vae, tmp_path):
    vae.save(tmp_path / "m")
    tensors, document = checkpoint.load(tmp_path / "m")
    del document["sha256"]
    checkpoint.save(tmp_path / "older", {k: t for k, t in tensors.items() if "component" not in k}, document)
    with pytest.raises(CheckpointError, match="open it with the version of Likely that wrote it"):
        Classifier.load(tmp_path / "older")


@pytest.fixture
def trainer(digits):
    """Return a function that makes a trainer of a few digits."""

    def make(resume=None):
        dataset = arrays.labeled_dataset(
            digits[0][:300], digits[1][:300].astype(np.int64), list("0123456789"), ImageOptions()
        )
        spec = ModelSpec("vae", TINY, TrainingOptions(**BRIEF))
        return Trainer(spec, make_splits(dataset, 0), dataset.classes, dataset.format, resume=resume)

    return make


def test_an_unfinished_training_of_other_weights_says_so(trainer):
    begun = trainer()
    next(steps := begun.steps())
    tensors, document = begun.state.snapshot()
    steps.close()
    other = {name: t for name, t in tensors.items() if not name.startswith("model/component")}
    with pytest.raises(CheckpointError, match="the version of Likely that began it"):
        next(trainer(resume=(other, document)).steps())


def test_the_evidence_of_a_vae_on_images_is_a_bound_on_pixels(vae):
    assert vae.predictor_.model.likelihood_type == LikelihoodType(LikelihoodKind.LOWER_BOUND, Domain.PIXELS8)


def test_a_trainer_yields_the_steps_that_fit_drains(trainer, digits):
    training = trainer()
    steps = list(training.steps())
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert [step.fraction for step in steps] == pytest.approx([step.number / len(steps) for step in steps])
    assert {step.epoch for step in steps} == {0, 1}
    assert all(("nll" in step.validation) == step.ends_epoch for step in steps)
    images, labels = digits
    whole = Classifier("vae", options=TINY, training=BRIEF).fit(images[:300], labels[:300])
    found = training.predictor.log_posterior(arrays.images(images[:5], training.predictor.format))
    np.testing.assert_array_equal(whole.predict_log_proba(images[:5]), found)


@pytest.mark.parametrize("wrong", [{"alpha": 0}, {"alpha": 1.5}, {"top_k": 0}])
def test_a_request_out_of_range_is_refused_by_name(gaussian, digits, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        gaussian.classify(digits[0][:1], **wrong)


def test_one_image_of_each_group_calibrates_a_classifier_of_vectors(digits):
    X, y = digits[0][:200].reshape(200, -1), digits[1][:200]
    groups = [f"sheet {i // 4}" for i in range(200)]
    fitted = Classifier("gaussian").fit(X, y, groups=groups), Classifier("gaussian").fit(X, y)
    assert [len(each.predictor_.decision_rule.typicality.labels) for each in fitted] == [50, 200]
    with pytest.raises(InvalidValueError, match="groups"):
        Classifier("gaussian").fit(X, y, groups=groups[:-1])


def test_classes_of_few_groups_are_named(digits):
    X, y = digits[0][:200].reshape(200, -1), digits[1][:200]
    with pytest.warns(UserWarning, match="groups.*: 7$"):
        Classifier("gaussian").fit(X, y, groups=np.where(y == 7, -1, np.arange(200)))


def test_labels_and_images_must_go_together(digits):
    with pytest.raises(ValueError, match="one label an image"):
        Classifier("gaussian").fit(digits[0][:10], digits[1][:9])


def test_wrong_options_are_refused_by_name(digits):
    for wrong, name in (({"options": {"latentdims": 3}}, "latentdims"), ({"training": {"epoch": 3}}, "epoch")):
        with pytest.raises(ValueError, match=name):
            Classifier("vae", **wrong).fit(digits[0][:40], digits[1][:40])


def test_training_and_prediction_do_not_warn(digits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Classifier("vae", options=TINY, training=BRIEF).fit(digits[0][:100], digits[1][:100]).classify(digits[0][:2])


def test_unknown_images_make_images_like_them_atypical_and_forbid_extension(tmp_path):
    rng, y = np.random.default_rng(0), np.repeat([0, 1], 150)
    X = rng.normal(size=(300, 4)) + 4 * y[:, None]
    unknown = rng.normal(size=(60, 4), scale=0.3) + np.array([1.2, -1.2, 1.2, -1.2])
    plain, informed = Classifier("gaussian").fit(X, y), Classifier("gaussian").fit(X, y, unknown=unknown[:30])
    p_values = [np.array([each.p_value for each in c.classify(unknown[30:])]) for c in (plain, informed)]
    assert np.median(p_values[1]) < np.median(p_values[0])
    informed.save(tmp_path / "model")
    restored = Classifier.load(tmp_path / "model").classify(unknown[30:])
    assert [each.p_value for each in restored] == p_values[1].tolist()
    with pytest.raises(UnsupportedError, match="unknown images"):
        informed.extend(2, X[:5] - 9)
    with pytest.raises(UnsupportedError, match="gaussian"):
        Classifier("softmax", training={"epochs": 1}).fit(X, y, unknown=unknown)
