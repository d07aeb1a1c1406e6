"""A PostgreSQL server for tests: a new one on a free port of this machine, gone with the tests."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

MISSING = "there is no PostgreSQL server here; `make test-system` brings one by the system's packages"
OWNER = "postgres"  # whom the server may run as where the tests run as root


def program(name):
    """Where a program of the server is; None if it is nowhere."""
    elsewhere = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(elsewhere[-1]) if elsewhere else None)


@contextmanager
def postgresql():
    """The address of a server, to which a database's name is to be added."""
    if program("initdb") is None or program("postgres") is None:
        if os.environ.get("LIKELY_SYSTEM_TESTS"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    folder = Path(tempfile.mkdtemp(prefix="likely-postgresql-"))
    how = {"cwd": folder}
    if os.geteuid() == 0:
        shutil.chown(folder, OWNER, OWNER)
        how |= {"user": OWNER, "group": OWNER, "extra_groups": []}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    subprocess.run(
        [program("initdb"), "-D", "data", "-U", OWNER, "-A", "trust", "-N"], check=True, capture_output=True, **how
    )
    settings = {"listen_addresses": "127.0.0.1", "fsync": "off", "unix_socket_directories": str(folder)}
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [program("postgres"), "-D", "data", "-p", str(port), *words], stdout=log, stderr=log, **how
        )
    try:
        _wait(port, server)
        yield f"postgresql://{OWNER}@127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)  # SIGTERM would wait for everybody to leave
        server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def created(server, name):
    """The address of a new, empty database."""
    import psycopg

    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"{server}/{name}"


def _wait(port, server):
    import time

    import psycopg

    for _ in range(200):
        assert server.poll() is None, "the server has ended"
        try:
            psycopg.connect(f"postgresql://{OWNER}@127.0.0.1:{port}/postgres").close()
            return
        except psycopg.OperationalError:
            time.sleep(0.05)
    raise TimeoutError("the server does not answer")
