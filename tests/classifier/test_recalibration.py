"""Recalibration: p-values and temperature from images of another source, with or without labels."""

import numpy as np
import pytest
import torch
from scipy.stats import betabinom
from sklearn.datasets import load_digits

from likely import Classifier
from likely.classifier.recalibration import recalibrate
from likely.data import arrays
from likely.data.decoding import ImageWarning
from likely.exceptions import InvalidValueError
from likely.prediction import CalibrationMethod, Guarantee

ALPHA = 0.05


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return data.images / 16, data.target


@pytest.fixture(scope="module")
def shifted(digits):
    """Digits with noise, which the models were not trained on."""
    noise = np.random.default_rng(0).normal(0, 0.15, digits[0][900:].shape)
    return np.clip(digits[0][900:] + noise, 0, 1), digits[1][900:]


@pytest.fixture(scope="module")
def classifier(digits):
    return Classifier("gaussian").fit(digits[0][:900], digits[1][:900])


def output(classifier, X, guarantee=Guarantee.OVERALL):
    predictor = classifier.predictor_
    return predictor.conformal_output(arrays.images(X, predictor.format), alpha=ALPHA, guarantee=guarantee)


def test_false_alarms_are_within_the_guarantee_over_calibration_draws(classifier, shifted):
    """Given all images, the counts of random divisions into calibration and test images are independent beta-binomials."""
    X, rng, n, count, n_draws = shifted[0], np.random.default_rng(1), 99, 0, 20
    for _ in range(n_draws):
        order = rng.permutation(len(X))
        count += int(output(classifier.calibrate(X[order[:n]]), X[order[n:]]).is_unknown.sum())
    k = int(ALPHA * (n + 1))
    sums = betabinom.rvs(len(X) - n, k, n + 1 - k, size=(20_000, n_draws), random_state=0).sum(1)
    assert count <= np.quantile(sums, 0.999)
    assert output(classifier, X).is_unknown.float().mean() > 2 * ALPHA


def test_unlabeled_images_leave_posteriors_and_classes_as_they_are(classifier, shifted):
    X = shifted[0]
    before, after = (output(each, X[500:]) for each in (classifier, classifier.calibrate(X[:500])))
    for name in ("log_posterior", "p_values", "posterior_p_values", "image_score"):
        assert torch.equal(getattr(before, name), getattr(after, name))
    assert not torch.equal(before.image_p_value, after.image_p_value)


def test_labels_calibrate_the_classes_with_enough_images_alone(classifier, shifted):
    X, y = shifted
    chosen = np.flatnonzero((y != 3) | (np.cumsum(y == 3) <= 10))[:500]
    rules = [each.predictor_.decision_rule for each in (classifier, classifier.calibrate(X[chosen], y[chosen]))]
    for before, after in ([rule.typicality for rule in rules], [rule.posterior for rule in rules]):
        assert torch.equal(after.scores[after.labels == 3], before.scores[before.labels == 3])
        for c in {*range(10)} - {3}:
            assert int((after.labels == c).sum()) == (y[chosen] == c).sum()
            assert not torch.isin(after.scores[after.labels == c], before.scores).all()


def test_labels_improve_probabilities(classifier, shifted):
    X, y = shifted

    def nll(each):
        return -each.predict_log_proba(X[400:])[np.arange(len(X) - 400), y[400:]].mean()

    assert nll(classifier.calibrate(X[:400], y[:400])) < nll(classifier)


def test_scores_do_not_depend_on_the_images_that_calibrate_them(classifier, shifted):
    """Otherwise calibration and test images would not be exchangeable."""
    X, y = shifted
    before, after = (output(each, X[500:]) for each in (classifier, classifier.calibrate(X[:500], y[:500])))
    assert torch.equal(before.image_score, after.image_score)
    assert not torch.equal(before.log_posterior, after.log_posterior)


def test_calibrating_again_with_the_same_images_changes_nothing(classifier, shifted):
    X, y = shifted
    once = classifier.calibrate(X[:500], y[:500])
    one, other = (output(each, X[500:]) for each in (once, once.calibrate(X[:500], y[:500])))
    assert torch.equal(one.image_p_value, other.image_p_value)
    assert torch.equal(one.log_posterior, other.log_posterior)
    assert torch.equal(one.p_values, other.p_values)


def test_unlabeled_images_do_not_undo_what_labels_taught(classifier, shifted):
    X, y = shifted
    labeled = classifier.calibrate(X[:500], y[:500])
    one, other = (output(each, X[500:]) for each in (labeled, labeled.calibrate(X[:500])))
    assert torch.equal(one.log_posterior, other.log_posterior)
    assert torch.equal(one.p_values, other.p_values)


def test_saved_and_loaded_it_gives_the_same_predictions(classifier, shifted, tmp_path):
    X, y = shifted
    calibrated = classifier.calibrate(X[:500], y[:500])
    calibrated.save(tmp_path)
    one, other = (output(each, X[500:]) for each in (calibrated, Classifier.load(tmp_path)))
    for name in ("log_posterior", "p_values", "posterior_p_values", "image_p_value"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name))


@pytest.fixture(scope="module")
def cross_conformal(digits):
    X = digits[0].reshape(-1, 64)
    return Classifier("gaussian").fit(X[:900], digits[1][:900])


def test_the_method_is_that_of_the_guarantee(cross_conformal, shifted):
    X, y = shifted[0].reshape(-1, 64), shifted[1]
    methods = {}
    for name, each in {
        "before": cross_conformal,
        "unlabeled": cross_conformal.calibrate(X[:500]),
        "labeled": cross_conformal.calibrate(X[:500], y[:500]),
    }.items():
        methods[name] = [output(each, X[500:], guarantee).calibration for guarantee in Guarantee]
    split, cross = CalibrationMethod.SPLIT.value, CalibrationMethod.CROSS_CONFORMAL.value
    assert methods["before"][0] == cross
    assert methods["unlabeled"] == [split, methods["before"][1]]
    assert methods["labeled"] == [split, split]


def test_a_class_can_be_added_afterwards(classifier, shifted):
    X, y = shifted
    calibrated = classifier.calibrate(X[:500], y[:500])
    extended = calibrated.extend("noise", np.random.default_rng(2).random((40, 8, 8)))
    assert len(extended.classes_) == 11
    before, after = (output(each, X[500:]) for each in (calibrated, extended))
    assert after.p_values.shape == (len(X) - 500, 11)
    assert abs(before.is_unknown.float().mean() - after.is_unknown.float().mean()) < 0.1


def test_an_added_class_is_calibrated_like_the_others(classifier, shifted):
    extended = classifier.extend("noise", np.random.default_rng(2).random((40, 8, 8)))
    noise = np.random.default_rng(3).random((60, 8, 8))
    again = extended.calibrate(noise, ["noise"] * 60)
    assert int((again.predictor_.decision_rule.typicality.labels == 10).sum()) == 60
    assert len(again.predictor_.decision_rule.image_calibrator.scores) == 60


def test_training_images_are_left_out_with_a_warning(classifier, digits, shifted):
    X = np.concatenate([digits[0][:100], shifted[0][:100]])
    with pytest.warns(ImageWarning, match="100"):
        calibrated = classifier.calibrate(X)
    expected = classifier.calibrate(shifted[0][:100]).predictor_.decision_rule.image_calibrator
    found = calibrated.predictor_.decision_rule.image_calibrator
    assert torch.equal(found.scores.sort().values, expected.scores.sort().values)


@pytest.mark.parametrize(
    ("n", "labels", "named"),
    [(18, None, "19"), (40, ["7"] * 39, "39"), (40, ["seven"] * 40, "'seven'")],
    ids=["too few", "labels missing", "unknown label"],
)
def test_invalid_input_is_named(classifier, shifted, n, labels, named):
    with pytest.raises(InvalidValueError, match=named):
        classifier.calibrate(shifted[0][:n], labels)


def test_the_most_atypical_image_comes_first(classifier, shifted):
    X = np.concatenate([shifted[0][:100], np.random.default_rng(4).random((1, 8, 8))])
    data = arrays.labeled_dataset(X, np.full(101, -1), classifier.predictor_.labels, classifier.predictor_.format)
    found = recalibrate(classifier.predictor_, data.train)
    assert found.names[0] == data.train.images.name(100)
    assert (found.p_values.diff() >= 0).all()
    assert found.n_rejected(ALPHA) == int((output(classifier, X).p_value <= ALPHA).sum())


def test_one_image_of_each_group_calibrates(classifier, shifted):
    X, groups = shifted[0][:120], np.repeat(np.arange(40), 3)
    scores = classifier.calibrate(X, groups=groups).predictor_.decision_rule.image_calibrator.scores
    of_images = output(classifier, X).image_score.reshape(40, 3)
    assert len(scores) == 40
    assert all(int(torch.isin(of_group, scores).sum()) == 1 for of_group in of_images)
    with pytest.raises(InvalidValueError, match="99"):
        classifier.calibrate(X, groups=groups, alpha=0.01)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0])
def test_alpha_is_a_significance_level(classifier, shifted, alpha):
    with pytest.raises(InvalidValueError, match="alpha"):
        classifier.calibrate(shifted[0], alpha=alpha)


def test_a_smaller_alpha_needs_more_images(classifier, shifted):
    with pytest.raises(InvalidValueError, match="99"):
        classifier.calibrate(shifted[0][:98], alpha=0.01)
    assert (
        classifier.calibrate(shifted[0][:99], alpha=0.01).predictor_.decision_rule.image_calibrator.n_missing(0.01) == 0
    )
