"""The store of the service: predictions, images, labels, keys and the audit log, in SQLite or PostgreSQL."""

from likely.surfaces.store.engine import STORE_FAULTS, StoreError
from likely.surfaces.store.keys import Key, Scope
from likely.surfaces.store.selection import ClassStats, PredictionRecord, PredictionFilter
from likely.surfaces.store.store import NewPrediction, StoredImage, Store

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
