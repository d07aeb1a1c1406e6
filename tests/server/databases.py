"""A PostgreSQL server for tests: a new one on a free port of this machine, gone with the tests."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

MISSING = "there is no PostgreSQL server here; `make test-system` brings one by the system's packages"
OWNER = "postgres"  # whom the server may run as where the tests run as root


def program(name):
    """Where a program of the server is; None if it is nowhere."""
    elsewhere = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(elsewhere[-1]) if elsewhere else None)


class Server:
    """A server with its files in a folder, which may be stopped and begun again."""

    def __init__(self, folder):
        self.folder, self.how = folder, {"cwd": folder}
        if os.geteuid() == 0:
            shutil.chown(folder, OWNER, OWNER)
            self.how |= {"user": OWNER, "group": OWNER, "extra_groups": []}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        words = ["-D", "data", "-U", OWNER, "-A", "trust", "-N"]
        subprocess.run([program("initdb"), *words], check=True, capture_output=True, **self.how)

    @property
    def address(self):
        """To which a database's name is to be added."""
        return f"postgresql://{OWNER}@127.0.0.1:{self.port}"

    def start(self):
        settings = {"listen_addresses": "127.0.0.1", "fsync": "off", "unix_socket_directories": str(self.folder)}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            command = [program("postgres"), "-D", "data", "-p", str(self.port), *words]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, **self.how)
        self._wait()

    def stop(self, how=signal.SIGINT):
        """SIGTERM would wait for everybody to leave; SIGQUIT is a crash, from which the next start recovers."""
        self.process.send_signal(how)
        self.process.wait(20)

    def created(self, name):
        """The address of a new, empty database."""
        import psycopg

        with psycopg.connect(f"{self.address}/postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return f"{self.address}/{name}"

    def _wait(self):
        import psycopg

        for _ in range(200):
            assert self.process.poll() is None, "the server has ended"
            try:
                psycopg.connect(f"{self.address}/postgres").close()
                return
            except psycopg.OperationalError:
                time.sleep(0.05)
        raise TimeoutError("the server does not answer")


@contextmanager
def postgresql():
    """A server that runs."""
    if program("initdb") is None or program("postgres") is None:
        if os.environ.get("LIKELY_SYSTEM_TESTS"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    folder = Path(tempfile.mkdtemp(prefix="likely-postgresql-"))
    server = Server(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
