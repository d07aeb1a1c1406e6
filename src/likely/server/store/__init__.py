"""The store of the service: predictions, images, labels, keys and the audit log, in SQLite or PostgreSQL."""

from likely.server.store.db import STORE_FAULTS, StoreError
from likely.server.store.keys import Key, Scope
from likely.server.store.queries import ClassStats, PredictionRecord, PredictionFilter
from likely.server.store.store import NewPrediction, StoredImage, Store

__all__ = [
    "STORE_FAULTS",
    "ClassStats",
    "NewPrediction",
    "Key",
    "StoredImage",
    "PredictionRecord",
    "Scope",
    "PredictionFilter",
    "Store",
    "StoreError",
]
