"""Prediction store of the service: predictions, images, labels, keys and the audit log, in SQLite or PostgreSQL."""

from likely.exceptions import StoreError
from likely.server.store.db import STORE_FAULTS
from likely.server.store.keys import Key, Scope
from likely.server.store.queries import ClassStats, PredictionFilter, PredictionRecord
from likely.server.store.store import NewPrediction, Store, StoredImage

__all__ = [
    "STORE_FAULTS",
    "ClassStats",
    "Key",
    "NewPrediction",
    "PredictionFilter",
    "PredictionRecord",
    "Scope",
    "Store",
    "StoreError",
    "StoredImage",
]
