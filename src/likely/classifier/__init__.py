"""Train a model on labeled images, and classify with it.

`estimator` holds the scikit-learn interface, which takes half as long to import as torch and is not needed for a loaded model.
"""

from likely.classifier.inputs import BATCH_SIZE
from likely.classifier.predictor import Predictor
from likely.classifier.serialization import load, save
from likely.classifier.trainer import Snapshot

__all__ = ["BATCH_SIZE", "Predictor", "Snapshot", "load", "save"]
