"""Likely, the generative image classifier: it learns p(x | c) and classifies by Bayes' rule.

>>> from likely import Classifier
>>> from sklearn.datasets import load_iris
>>> flowers = load_iris()
>>> classifier = Classifier("gaussian").fit(flowers.data, flowers.target)
>>> bool(classifier.score(flowers.data, flowers.target) > 0.95)
True
"""

from typing import TYPE_CHECKING, Any

from likely.version import __version__

if TYPE_CHECKING:
    from likely.classifier.estimator import Classifier as Classifier
    from likely.prediction import Prediction as Prediction

__all__ = ["Classifier", "Prediction", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that `import likely` does not wait for torch."""
    if name == "Classifier":
        from likely.classifier.estimator import Classifier

        return Classifier
    if name == "Prediction":
        from likely.prediction import Prediction

        return Prediction
    raise AttributeError(f"module 'likely' has no attribute {name!r}")
