"""Classifiers of features, for every extractor and family."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits

from likely import Classifier
from likely.classifier.trainer import ModelSpec, Trainer
from likely.data import arrays
from likely.data.arrays import load_images
from likely.data.preprocessing import ImageOptions
from likely.data.splits import make_splits
from likely.evaluation.evaluate import N_TIMED, evaluate
from likely.evaluation.metrics import auroc
from likely.exceptions import UnsupportedError
from likely.features.feature_extraction import augmented_images
from likely.features.feature_extractors import FeatureOptions, RandomConvolutions

IMAGES, LABELS = (array[:300] for array in (load_digits().images / 16, load_digits().target))
NEW = load_digits().images[300:500] / 16
DIGITS = [str(c) for c in range(10)]
SHORT = {"epochs": 3, "threads": 1}


@pytest.fixture(scope="module", autouse=True)
def few_filters():
    """An eighth of the random features: covariances of a thousand numbers take seconds each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RandomConvolutions.__init__.__kwdefaults__, "n_filters", 16)
        yield


@pytest.fixture(scope="module", params=["random", "autoencoder", "backbone", "tuned backbone"])
def features(request, backbone):
    if request.param.endswith("backbone"):
        tuned = {"finetune_stages": 1, "finetune_rate": 1e-3} if request.param.startswith("tuned") else {}
        return {"backbone": str(backbone), "feature_epochs": 2, **tuned}
    return {"features": request.param, "feature_epochs": 4, "feature_components": 32}


@pytest.fixture(scope="module")
def classifier(features):
    return Classifier("gaussian", features=features).fit(IMAGES, LABELS)


def test_classifier_of_features_is_accurate(classifier, features):
    assert classifier.score(IMAGES, LABELS) > (0.3 if "backbone" in features else 0.95)
    assert_allclose(classifier.predict_proba(IMAGES[:9]).sum(1), 1)


def test_saved_model_predicts_the_same(classifier, tmp_path):
    classifier.save(tmp_path / "model")
    again = Classifier.load(tmp_path / "model")
    assert_allclose(again.predict_log_proba(IMAGES[:20]), classifier.predict_log_proba(IMAGES[:20]), rtol=1e-5)
    assert again.classify(IMAGES[:2])[0].status is classifier.classify(IMAGES[:2])[0].status


def test_new_class_leaves_other_likelihoods_unchanged(classifier):
    larger = classifier.extend("noise", np.random.default_rng(0).random((12, 8, 8)))
    assert larger.predictor_.labels[-1] == "noise"
    assert_allclose(
        larger.predictor_.model.log_likelihood(torch.zeros(1, classifier.predictor_.model.task.n_dims))[:, :10],
        classifier.predictor_.model.log_likelihood(torch.zeros(1, classifier.predictor_.model.task.n_dims)),
        rtol=1e-5,
    )


def test_explanation_has_pixel_attributions(classifier):
    found = classifier.explain(IMAGES[0])
    assert found.attribution.shape == classifier.predictor_.shape
    assert found.counterfactual_path is None


def test_pixel_capabilities_are_rejected(classifier):
    with pytest.raises(ValueError, match="has no decoder"):
        classifier.sample(3)
    with pytest.raises(UnsupportedError, match="whole images"):
        classifier.classify(IMAGES[:1], mask=np.zeros(classifier.predictor_.shape[1:], bool))


@pytest.mark.parametrize("family", ["vae", "flow", "softmax"])
def test_other_families_model_principal_components(family):
    classifier = Classifier(family, features={"features": "random"}, training=SHORT, options={"width": 8})
    classifier.fit(IMAGES, LABELS)
    assert classifier.predictor_.model.task.shape == (128,)
    assert classifier.predictor_.features.scaler.kind == "whiten"
    assert classifier.predict(IMAGES[:3]).shape == (3,)


def test_features_of_an_image_are_computed_once(monkeypatch):
    seen = []
    forward = RandomConvolutions.forward
    monkeypatch.setattr(RandomConvolutions, "forward", lambda self, x: seen.append(len(x)) or forward(self, x))
    arguments = {"features": {"features": "random"}, "random_state": 5}
    first = Classifier("gaussian", **arguments).fit(IMAGES, LABELS)
    assert sum(seen) == len(IMAGES)
    again = Classifier("gaussian", **arguments).fit(IMAGES, LABELS)
    assert sum(seen) == len(IMAGES)
    assert_allclose(again.predict_log_proba(IMAGES[:5]), first.predict_log_proba(IMAGES[:5]), rtol=1e-6)
    assert sum(seen) == len(IMAGES) + 10  # what is arguments of a model is nobody's business afterwards


def test_vectors_use_no_feature_pipeline():
    classifier = Classifier("gaussian", features={"features": "random"}).fit(IMAGES.reshape(len(IMAGES), -1), LABELS)
    assert classifier.predictor_.features is None


def test_extra_features_are_the_norms_of_groups(classifier):
    # Half as bright, the direction of most features is the same; their length is not.
    features, pixels = classifier.predictor_.features, torch.from_numpy((IMAGES[:5] * 255).astype(np.uint8))[:, None]
    described = features.model_input(pixels).extra_features
    assert described.shape == (5, len(features.extractor.groups))
    assert (features.model_input(pixels // 2).extra_features < described).all()
    examined = classifier.predictor_.outputs(load_images(IMAGES[:5], classifier.predictor_.format).images)
    assert examined.features.shape == described.shape


def test_differentiable_and_cached_inputs_agree(classifier):
    features, pixels = classifier.predictor_.features, torch.from_numpy((IMAGES[:5] * 255).astype(np.uint8))[:, None]
    plain, differentiated = features.model_input(pixels), features.differentiable(pixels / 255)
    features.enable_cache()
    cached, again = features.model_input(pixels), features.model_input(pixels)
    features.disable_cache()
    for other in (differentiated, cached, again):
        assert_allclose(other.x.detach(), plain.x, rtol=1e-4, atol=1e-5)
        assert_allclose(other.extra_features.detach(), plain.extra_features, rtol=1e-4, atol=1e-5)


def test_throughput_is_measured_without_cache():
    dataset = digits()
    splits = make_splits(dataset, 0)
    classifier = trained(dataset, splits)
    classifier.features.enable_cache()
    evaluate(classifier, splits.validation, alpha=0.05)
    generated_images = []
    classifier.features.extractor.register_forward_hook(lambda module, inputs, out: generated_images.append(len(out)))
    evaluate(classifier, splits.validation, alpha=0.05)
    assert sum(generated_images) == min(N_TIMED, len(splits.validation))


def test_noise_and_plain_colors_are_detected(classifier):
    rng = np.random.default_rng(0)
    unknown_images = [*rng.random((20, 8, 8)), *np.broadcast_to(rng.random((20, 1, 1)), (20, 8, 8))]
    known, strange = (
        classifier.predictor_.conformal_output(load_images(images, classifier.predictor_.format).images, alpha=0.05)
        .nonconformity.amin(1)
        .numpy()
        for images in (NEW, unknown_images)
    )
    assert auroc(-known, -strange) > 0.98


@pytest.mark.parametrize(("n_classes", "n"), [(2, 1), (2, 2), (2, 3), (3, 4), (10, 1)])
def test_training_with_very_few_images(n_classes, n):
    chosen = np.concatenate([np.flatnonzero(c == LABELS)[:n] for c in range(n_classes)])
    classifier = Classifier().fit(IMAGES[chosen], LABELS[chosen])
    assert classifier.predictor_.family == "gaussian"
    assert_allclose(classifier.predict_proba(NEW[:5]).sum(1), 1)
    assert len(classifier.classify(NEW[:5])) == 5


def test_features_are_cached_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("LIKELY_CACHE", str(tmp_path))
    Classifier("gaussian", features={"features": "random"}).fit(IMAGES, LABELS)
    assert [file.suffix for file in (tmp_path / "features").iterdir()] == [".sqlite"]


def test_generated_images_affect_neither_prior_nor_calibration():
    dataset = digits()
    splits = make_splits(dataset, 0)
    generated_images = splits.train.subset(np.flatnonzero(splits.train.labels == 3)[:20])
    plain, helped = (trained(dataset, replace(splits, generated=generated)) for generated in (None, generated_images))
    assert torch.equal(plain.log_prior, helped.log_prior)
    assert not torch.equal(plain.model.mean[3], helped.model.mean[3])
    assert len(helped.decision_rule.typicality.scores) == len(plain.decision_rule.typicality.scores)


def digits():
    return arrays.labeled_dataset(IMAGES, LABELS, DIGITS, ImageOptions())


def trained(dataset, splits):
    spec = ModelSpec("gaussian", features=FeatureOptions(features="random"))
    trainer = Trainer(spec, splits, dataset.classes, dataset.format)
    for _ in trainer.steps():
        pass
    return trainer.predictor


def test_augmented_copy_of_an_image_depends_on_its_content_alone():
    images = arrays.labeled_dataset(IMAGES[:6], LABELS[:6], DIGITS, ImageOptions()).train
    assert images is not None
    copy, other = augmented_images(images, seed=1, copy=0), augmented_images(images, seed=1, copy=1)
    order = np.array([4, 0, 5])
    assert torch.equal(augmented_images(images.subset(order), seed=1, copy=0).batch(range(3)), copy.batch(order))
    assert copy.shape == images.images.shape
    assert not torch.equal(copy.batch(range(6)), other.batch(range(6)))


def test_closed_form_fit_uses_augmented_copies_of_its_own_images_alone(backbone):
    def trained(n_copies):
        features = FeatureOptions(backbone=str(backbone), augmented_copies=n_copies)
        splits = make_splits(arrays.labeled_dataset(IMAGES[:60], LABELS[:60], DIGITS, ImageOptions()), seed=0)
        trainer = Trainer(ModelSpec("gaussian", features=features), splits, DIGITS, None)
        for _ in trainer.steps():
            pass
        return trainer

    plain, copied = trained(0), trained(2)
    assert len(plain.plan.copies) == 0
    assert len(copied.plan.copies) == 2
    vectors = copied.pipeline.vectors(copied.splits.train)
    assert len(copied.plan.with_copies(vectors)) == 3 * len(vectors)
    assert copied.predictor.model.task.class_counts == plain.predictor.model.task.class_counts
    assert not torch.equal(copied.predictor.model.mean, plain.predictor.model.mean)
