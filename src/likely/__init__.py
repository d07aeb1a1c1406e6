"""Likely, the generative image classifier: it learns p(x | c) and classifies by Bayes' rule.

>>> from likely import Classifier
>>> from sklearn.datasets import load_iris
>>> flowers = load_iris()
>>> classifier = Classifier("gaussian").fit(flowers.data, flowers.target)
>>> bool(classifier.score(flowers.data, flowers.target) > 0.95)
True
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from likely.prediction import Prediction as Prediction
    from likely.classifier.estimator import Classifier as Classifier

__version__ = "0.1.0"
AUTO = "auto"  # the family is chosen by the data
DEFAULT_MODEL = AUTO  # of whoever names none
__all__ = ["AUTO", "DEFAULT_MODEL", "Prediction", "Classifier", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the names of this page when they are first used: `import likely` alone does not wait for torch."""
    if name == "Classifier":
        from likely.classifier.estimator import Classifier

        return Classifier
    if name == "Answer":
        from likely.prediction import Prediction

        return Prediction
    raise AttributeError(f"module 'likely' has no attribute {name!r}")
