"""PostgreSQL server for tests, on a free port of this machine."""

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

MISSING = "PostgreSQL is not installed; `make test-system` installs it"
OWNER = "postgres"  # user of the server when the tests run as root


def program(name):
    """Return the path of a PostgreSQL program, or None."""
    elsewhere = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(elsewhere[-1]) if elsewhere else None)


class Server:
    """PostgreSQL server with its files in a folder; it can be stopped and started again."""

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
        """URL of the server, without the name of a database."""
        return f"postgresql://{OWNER}@127.0.0.1:{self.port}"

    def start(self):
        settings = {"listen_addresses": "127.0.0.1", "fsync": "off", "unix_socket_directories": str(self.folder)}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            command = [program("postgres"), "-D", "data", "-p", str(self.port), *words]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, **self.how)
        self._wait()

    def stop(self, how=signal.SIGINT):
        """Stop the server: SIGTERM would wait for clients; SIGQUIT is a crash, from which the next start recovers."""
        self.process.send_signal(how)
        self.process.wait(20)

    def create_database(self, name):
        """Create an empty database and return its URL."""
        import psycopg

        with psycopg.connect(f"{self.address}/postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return f"{self.address}/{name}"

    def _wait(self):
        import psycopg

        for _ in range(200):
            assert self.process.poll() is None, "the server exited"
            try:
                psycopg.connect(f"{self.address}/postgres").close()
                return
            except psycopg.OperationalError:
                time.sleep(0.05)
        raise TimeoutError("the server does not respond")


@contextmanager
def postgresql():
    """Run a server during the context."""
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
