"""Quiet: what Pillow would warn of while it decodes is either read well or refused in a sentence, so its warnings stay in."""

from __future__ import annotations

import threading
import warnings


class suppress_pillow_warnings:  # noqa: N801  # used as a function, like contextlib.suppress
    """Keeps Pillow's warnings in while any thread is inside.

    `warnings.catch_warnings` alone is undone in the wrong order once two threads overlap; here the first in opens one
    and the last out closes it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._caught.__exit__(None, None, None)


QUIET = suppress_pillow_warnings()
