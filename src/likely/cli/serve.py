"""likely serve: models behind HTTP and pages, with a store beside them."""

from __future__ import annotations

import errno
import gc
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from likely.cli.model_argument import DEVICES, PUBLIC_KEY, SIGNED

if TYPE_CHECKING:
    from likely.checkpoint.encryption import Keyring
    from likely.server.store import Store

STORE = "likely-store"
INITIAL_KEY = "initial-admin-key"  # in the store, where nobody watches
EXTRA = "the service takes packages of its own: pip install 'likely[serve]'"
DATABASE = click.option(
    "--database", metavar="URL", help="postgresql://USER@HOST/NAME in place of the SQLite file in the store."
)
GRACE = 20  # seconds in which those who wait are answered when the service is told to stop


class ServeCommand(click.Command):
    """A command that has a flag for each of the service's settings, declared where they are and loaded when needed."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *_setting_flags()]


@click.command(cls=ServeCommand)
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MODEL...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 for all of them.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port to listen at.")
@click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    default=STORE,
    show_default=True,
    help="Folder of what was answered, with its images.",
)
@DATABASE
@click.option(
    "--image-key",
    type=PUBLIC_KEY,
    multiple=True,
    help="Encrypt images on the disk with the key in this file (`likely encrypt --new-key` makes one); more keys open what "
    "older ones have encrypted. Without it LIKELY_IMAGE_KEY names the files, or holds the keys.",
)
@click.option("--require-signature", "signer", type=PUBLIC_KEY, help=SIGNED)
@click.option("--threads", type=click.IntRange(1), help="Processor threads; the free cores when left out.")
@click.option("--device", type=DEVICES, default="auto", show_default=True, help="Where to compute.")
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
    **given: Any,
) -> None:
    """Answer over HTTP, and show pages to people, with every MODEL folder."""
    import logging

    with require_packages():
        from likely.server.http.decode_pool import start_forkserver

        start_forkserver()
        import uvicorn

        from likely.server.http.app import application
        from likely.server.http.middleware import JsonFormatter
        from likely.server.http.model_registry import ModelRegistry
        from likely.server.http.settings import Settings
        from likely.server.store import Store
    import torch

    from likely.checkpoint import TrustPolicy
    from likely.cli.flags import chosen
    from likely.training.device import free_cores, select_device

    settings = Settings(**chosen(Settings, given))
    listening = _socket(host, port)
    torch.set_num_threads(threads or free_cores())
    fleet = ModelRegistry(models, select_device(device).type, TrustPolicy(signer))
    opened = Store.open(store, database, image_keys(image_key), exclusive=True)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.getLogger("likely").addHandler(handler)
    logging.getLogger("likely").setLevel(logging.INFO)
    app = application(fleet, opened, settings)
    for line in _welcome(opened, fleet[None].id, host, listening.getsockname()[1]):
        click.echo(line, err=True)
    # Full collections skip what is loaded by now. Without this, 64 clients get 6 % fewer images/s, and while the service is
    # overloaded 14 % fewer, and a health check takes 4.6 times as long (p99). `collect` resets the count by which the next
    # full collection is due.
    gc.freeze()
    gc.collect()
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=GRACE))
    with suppress(KeyboardInterrupt):  # all who waited have been answered
        server.run([listening])
    click.echo("Stopped.", err=True)
    if not server.started:
        sys.exit(1)


def _socket(host: str, port: int) -> socket.socket:
    """Bound before anything is written anywhere; a UsageError if that cannot be."""
    bound: socket.socket | None = None
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(kind, socket.SOCK_STREAM)
        if sys.platform != "win32":  # where it means something else
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        if bound is not None:
            bound.close()
        other = "; another --port may be free" if error.errno == errno.EADDRINUSE else ""
        raise click.UsageError(f"cannot listen at {host}, port {port}: {error.strerror}{other}") from None
    return bound


@contextmanager
def require_packages() -> Iterator[None]:
    """A UsageError if what the service takes is not installed."""
    try:
        yield
    except ImportError as error:
        raise click.UsageError(f"{EXTRA} ({error.name} is missing)") from None


def image_keys(files: Sequence[Path]) -> Keyring:
    """Those of the files, or of the environment."""
    from likely.checkpoint.encryption import OF_IMAGES, Keyring

    return Keyring.from_files(files) if files else Keyring.from_environment(OF_IMAGES)


def _welcome(store: Store, model: str, host: str, port: int) -> list[str]:
    """What to do next; the first key of a new store is told here and nowhere else."""
    from likely.checkpoint.signing import write_secret
    from likely.server.store import Scope

    address = f"http://{'localhost' if host in ('127.0.0.1', '0.0.0.0') else host}:{port}"
    lines = [f"{model} answers at {address}"]
    if not store.keys.all():
        key, secret = store.keys.add("the first", [Scope.ADMIN])
        store.audit("key added", f"{key.id} {key.name}", key=None, address="")
        if sys.stderr.isatty():
            lines += ["", "The first key, for everything, shown this once:", "", f"    {secret}", ""]
            lines += [f"Log in with it at {address}, or:", ""]
            lines += [f'    curl -H "Authorization: Bearer {secret}" -F image=@photo.jpg {address}/v1/classify', ""]
        else:  # what is written here is kept in a log
            path = store.folder / INITIAL_KEY
            write_secret(path, f"{secret}\n".encode())
            lines.append(f"the first key, for everything, is in {path}; delete the file once you have it")
    return lines


@cache
def _setting_flags() -> tuple[click.Option, ...]:
    from likely.cli.flags import flags
    from likely.server.http.settings import Settings

    return tuple(flags(Settings))
