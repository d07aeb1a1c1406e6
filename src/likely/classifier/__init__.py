"""Classifier: a model with a prior, a temperature and calibration scores, behind scikit-learn's contract."""

from likely.classifier.classifier import Classifier
from likely.classifier.fitting import Snapshot
from likely.classifier.sight import BATCH

__all__ = ["BATCH", "Classifier", "Snapshot"]
