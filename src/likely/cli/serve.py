"""likely serve: models over HTTP, with web pages and a store of predictions."""

from __future__ import annotations

import errno
import gc
import logging
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from likely.cli import LOGGER
from likely.cli.model_argument import DEVICES, KEY_FILE, SIGNED, THREADS

if TYPE_CHECKING:
    from fastapi import FastAPI

    from likely.checkpoint.encryption import Keyring
    from likely.server.store import Store

STORE = "likely-store"
INITIAL_KEY = "initial-admin-key"  # file in the store, written if stderr is no terminal
DATABASE = click.option(
    "--database", metavar="URL", help="postgresql://USER@HOST/NAME, instead of the store's SQLite file."
)
GRACE = 20  # seconds that open requests have left after a stop signal


class _ServeCommand(click.Command):
    """A command with a flag for each field of Settings."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *_setting_flags()]


@click.command(cls=_ServeCommand)
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MODEL...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 for all.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port to listen at.")
@click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    default=STORE,
    show_default=True,
    help="Folder for predictions and their images.",
)
@DATABASE
@click.option(
    "--image-key",
    type=KEY_FILE,
    multiple=True,
    help="Encrypt stored images with the key in this file (`likely encrypt --new-key`); further keys decrypt older images.  "
    "[default: LIKELY_IMAGE_KEY, key files or keys]",
)
@click.option("--require-signature", "signer", type=KEY_FILE, help=SIGNED)
@click.option("--threads", type=click.IntRange(1), help=THREADS)
@click.option("--device", type=DEVICES, default="auto", show_default=True, help="Device to run on.")
def command(
    models: tuple[Path, ...],
    host: str,
    port: int,
    store: Path,
    database: str | None,
    image_key: tuple[Path, ...],
    signer: Path | None,
    threads: int | None,
    device: str,
    **settings: Any,
) -> None:
    """Serve every MODEL folder over HTTP, with web pages."""
    with require_packages():
        from likely.server.http.decode_pool import start_forkserver

        start_forkserver()
        from likely.server.http.app import application
        from likely.server.http.model_registry import ModelRegistry
        from likely.server.http.settings import Settings
        from likely.server.store import Store
    import torch

    from likely.checkpoint import TrustPolicy
    from likely.cli.flags import parse_flags
    from likely.training.device import free_cores, select_device

    options = parse_flags(Settings, settings)
    listening = _bind(host, port)
    torch.set_num_threads(threads or free_cores())
    registry = ModelRegistry(models, select_device(device).type, TrustPolicy(signer))
    opened = Store.open(store, database, image_keys(image_key), exclusive=True)
    _log_json()
    app = application(registry, opened, options)
    address = f"http://{'localhost' if host in ('127.0.0.1', '0.0.0.0') else host}:{listening.getsockname()[1]}"
    for line in (f"{registry[None].id} is served at {address}", *_first_key(opened, address)):
        click.echo(line, err=True)
    if not _run(app, listening):
        sys.exit(1)


def _run(app: FastAPI, listening: socket.socket) -> bool:
    """Serve until a stop signal; False if the server could not start."""
    import uvicorn

    # Full collections skip what is loaded by now. Without this, 64 clients get 6 % fewer images/s, and while the service is
    # overloaded 14 % fewer, and a health check takes 4.6 times as long (p99). `collect` resets the count by which the next
    # full collection is due.
    gc.freeze()
    gc.collect()
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=GRACE))
    with suppress(KeyboardInterrupt):  # uvicorn raises it again after it has answered the open requests
        server.run([listening])
    click.echo("Stopped.", err=True)
    return server.started


def _log_json() -> None:
    from likely.server.http.middleware import JsonFormatter

    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.getLogger(LOGGER).handlers.clear()
    logger = logging.getLogger("likely")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _bind(host: str, port: int) -> socket.socket:
    """Bind a socket before anything is written; a UsageError if the address cannot be used."""
    bound: socket.socket | None = None
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(kind, socket.SOCK_STREAM)
        if sys.platform != "win32":  # where SO_REUSEADDR lets two programs bind the same port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        if bound is not None:
            bound.close()
        other = "; try another --port" if error.errno == errno.EADDRINUSE else ""
        raise click.UsageError(f"cannot listen at {host}, port {port}: {error.strerror}{other}") from None
    return bound


@contextmanager
def require_packages() -> Iterator[None]:
    """Convert a missing package of the service to a UsageError."""
    try:
        yield
    except ImportError as error:
        raise click.UsageError(f"the service needs {error.name}: pip install 'likely[serve]'") from None


def image_keys(files: Sequence[Path]) -> Keyring:
    """Return the keys in the files, or those of LIKELY_IMAGE_KEY."""
    from likely.checkpoint.encryption import IMAGE_KEY_VARIABLE, Keyring

    return Keyring.from_files(files) if files else Keyring.from_environment(IMAGE_KEY_VARIABLE)


def _first_key(store: Store, address: str) -> list[str]:
    """Create the admin key of a new store, and return the lines that show it: its secret is never shown again."""
    from likely.checkpoint.signing import write_secret
    from likely.server.store import Scope

    if store.keys.all():
        return []
    key, secret = store.keys.add("the first", [Scope.ADMIN])
    store.audit("key added", f"{key.id} {key.name}", key=None, address="")
    if sys.stderr.isatty():
        return [
            *("", "The admin key, shown only once:", "", f"    {secret}", "", f"Log in with it at {address}, or:", ""),
            *(f'    curl -H "Authorization: Bearer {secret}" -F image=@photo.jpg {address}/v1/classify', ""),
        ]
    path = store.folder / INITIAL_KEY  # stderr may be a log that many can read
    write_secret(path, f"{secret}\n".encode())
    return [f"the admin key is in {path}; delete the file after reading it"]


@cache  # click tells parameters apart by identity
def _setting_flags() -> tuple[click.Option, ...]:
    from likely.cli.flags import flags
    from likely.server.http.settings import Settings

    return tuple(flags(Settings))
