"""Where the processes come from that decode: a server which forks them, without the service's memory and at once."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext, SpawnContext

PRELOADED = "likely.server.http.decode_pool"  # what it has loaded by then


def context() -> ForkServerContext | SpawnContext:
    """Of such processes; where the system knows no such server, they begin slowly."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([PRELOADED])
    return found


def begin() -> None:
    """Have the server load while this process does."""
    if isinstance(context(), ForkServerContext):
        from multiprocessing import forkserver

        forkserver.ensure_running()
