"""Classifier: a model with a prior, a temperature and calibration scores, behind scikit-learn's contract."""

from likely.classifier.classifier import Classifier, Snapshot
from likely.classifier.judging import BATCH

__all__ = ["BATCH", "Classifier", "Snapshot"]
