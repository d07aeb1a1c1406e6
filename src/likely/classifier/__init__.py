"""Classifier: a model with a prior, a temperature and calibration scores, behind scikit-learn's contract."""

from likely.classifier.classifier import BATCH, Classifier, Snapshot

__all__ = ["BATCH", "Classifier", "Snapshot"]
