"""PgBouncer in front of the test server, with one server connection per database and user."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psycopg2
from sqlalchemy.engine import URL

from aspen.local.processes import server_account

SWITCH = "ASPEN_TEST_POOLER"
"""Routes all databases of a run through a pooler: ``session``, ``transaction,ignore``, ..."""
MODES = ("session", "session,ignore", "transaction", "transaction,ignore")
_PATIENCE_S = 20.0
_behind: dict[int, URL] = {}  # the server behind each pooler, by the pooler's port


def direct(address: URL) -> URL:
    """Return the address of the server itself, even if a pooler is in front of it."""
    server = _behind.get(address.port or 0)
    return address.set(host=server.host, port=server.port) if server else address


def find_pgbouncer() -> str | None:
    """Return the path of PgBouncer, which Debian installs where only root's PATH leads."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which("pgbouncer", path=path)


@dataclass
class Pooler:
    """A PgBouncer that runs during a ``with`` block.

    Attributes:
        folder: The folder for its files; its account must be able to reach it.
        server: The address of the server behind it, as a superuser.
        mode: How it pools, and whether it drops startup options; one of `MODES`.
        size: The number of server connections for each database and user.
    """

    folder: Path
    server: URL
    mode: str
    size: int = 1

    def __enter__(self) -> Self:
        program = find_pgbouncer()
        assert program is not None
        with contextlib.closing(socket.socket()) as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        account = server_account(self.folder / "none")
        self.folder.mkdir(parents=True, exist_ok=True)
        account.give(self.folder)
        settings = self.folder / "pgbouncer.ini"
        settings.write_text(self._settings())
        users = self.folder / "users.txt"
        users.write_text(f'"{self.server.username}" "{self.server.password}"\n')
        for file in (settings, users):
            file.chmod(0o600)
            account.give(file)
        self._process = subprocess.Popen(
            [program, "-q", str(settings)], stdin=subprocess.DEVNULL, cwd="/", **account.run_as()
        )
        self._wait()
        _behind[self.port] = self.server
        return self

    def __exit__(self, *_error: object) -> None:
        del _behind[self.port]
        self._process.terminate()
        self._process.wait(_PATIENCE_S)

    def url(self, direct: URL) -> URL:
        """Return the address of the same database through the pooler."""
        return direct.set(host="127.0.0.1", port=self.port, query={})

    def _settings(self) -> str:
        mode, _, ignore = self.mode.partition(",")
        server = self.server
        return f"""
[databases]
* = host={server.host} port={server.port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
logfile = {self.folder}/pgbouncer.log
auth_type = scram-sha-256
auth_file = {self.folder}/users.txt
auth_user = {server.username}
pool_mode = {mode}
default_pool_size = {self.size}
max_client_conn = 200
query_wait_timeout = 4
ignore_startup_parameters = extra_float_digits{", options" if ignore else ""}
"""

    def _wait(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                psycopg2.connect(
                    host="127.0.0.1",
                    port=self.port,
                    user=self.server.username,
                    password=self.server.password,
                    dbname="postgres",
                ).close()
            except psycopg2.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return
