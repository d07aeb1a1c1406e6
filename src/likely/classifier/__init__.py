"""BayesClassifier: a model with a prior, a temperature and calibration scores.

`estimator` has it behind scikit-learn's contract. To load that takes half as long as torch, and who only asks a model need not
wait for it.
"""

from likely.classifier.inputs import BATCH_SIZE
from likely.classifier.predictor import Predictor
from likely.classifier.trainer import Snapshot

__all__ = ["BATCH_SIZE", "Predictor", "Snapshot"]
