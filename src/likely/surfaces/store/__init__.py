"""The store of the service: predictions, images, labels, keys and the audit log, in SQLite or PostgreSQL."""

from likely.surfaces.store.engine import STORE_FAULTS, StoreError
from likely.surfaces.store.keys import Key, Scope
from likely.surfaces.store.selection import ClassFigures, Prediction, Selection
from likely.surfaces.store.store import Given, Picture, Store

__all__ = [
    "STORE_FAULTS",
    "ClassFigures",
    "Given",
    "Key",
    "Picture",
    "Prediction",
    "Scope",
    "Selection",
    "Store",
    "StoreError",
]
