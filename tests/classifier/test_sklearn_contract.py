"""scikit-learn's own checks of its contract, every one that applies to a classifier of vectors."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from likely import Classifier


@parametrize_with_checks([Classifier("gaussian")])
def test_estimator_check(estimator, check):
    check(estimator)
