"""A service in a separate process that can be killed, and a command that renames through it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from aspen.database.engine import Database
from aspen.database.migrate import upgrade
from aspen.local.aws.content import ObjectFolder
from aspen.local.seed import seed_base, seed_roles, seed_samples
from tests import zygote
from tests.api.conftest import CLIENT_ID, Provider, settings_of_tests
from tests.cli.commands.ending import Ended
from tests.cli.commands.renames_lab import Renames
from tests.conftest import Server

_START_S = 120


class ApiProcess:
    """The running service, on a port that it keeps across restarts.

    Args:
        database: Its database.
        provider: The provider whose tokens it accepts.
        folder: The folder for its log.
    """

    def __init__(self, database: Database, provider: Provider, folder: Path):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        dsn = database.url.render_as_string(hide_password=False)
        self._environment = {**os.environ, **settings_of_tests(dsn, provider.url, self.url)}
        self._log = folder / "api.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = zygote.start(
                ["--port", str(self._port)],
                module="aspen.api",
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_S
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, "the service did not start in time"
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill it immediately, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/v2/health/", timeout=1):
                return True
        except OSError:
            return False


class Site:
    """A group of samples, the service, and the command.

    Args:
        renames: The samples.
        api: The service.
        provider: The provider whose tokens it accepts.
        folder: The folder for files.
    """

    def __init__(self, renames: Renames, api: ApiProcess, provider: Provider, folder: Path):
        self.renames = renames
        self.api = api
        self.folder = folder
        self._provider = provider

    def held(self) -> dict[int, str]:
        """Return the public identifier of each sample, by ID."""
        return {row["id"]: row["public_identifier"] for row in self.renames.state()}

    def start(self, address: str, home: Path, *arguments: str) -> subprocess.Popen[str]:
        """Start the command with an API address."""
        return zygote.start(
            arguments,
            env={**os.environ, **self.environment(address, home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, address: str, home: Path, *arguments: str) -> Ended:
        """Run the command to its end."""
        process = self.start(address, home, *arguments)
        return ended(process)

    @property
    def token(self) -> str:
        """Return a token of a member of the group."""
        return self._provider.token("auth0|member")

    def environment(self, address: str, home: Path) -> dict[str, str]:
        """Return the variables of a command that renames through an address."""
        return {
            "ASPEN_HOME": str(home),
            "ASPEN_API": address,
            "ASPEN_VIA": "api",
            "ASPEN_AUTH_URL_LOCAL": self._provider.url,
            "ASPEN_AUTH_CLIENT_ID_LOCAL": CLIENT_ID,
            "ASPEN_TOKEN": self.token,
        }


def ended(process: subprocess.Popen[str]) -> Ended:
    """Wait for a command, and return its result."""
    out, err = process.communicate(timeout=1_800)
    return Ended(process.returncode, out, err)


@contextmanager
def site_on(database: Database, provider: Provider, folder: Path) -> Iterator[Site]:
    """Run a site on a database that has every role."""
    api = ApiProcess(database, provider, folder)
    try:
        api.start()
        yield Site(Renames(database), api, provider, folder)
    finally:
        api.kill()


@contextmanager
def opened(folder: Path, server: Server, samples: int, *, roles: bool = True) -> Iterator[Site]:
    """Run a site whose group has at least the given number of samples.

    Args:
        folder: The folder for files.
        server: The server for its database.
        samples: The minimum number of samples in the group.
        roles: True if the database has every role, and with them 1,000 samples.
    """
    with ExitStack() as stack:
        name = server.create()
        stack.callback(server.drop, name)
        engine = sa.create_engine(server.url(name), poolclass=NullPool)
        upgrade(engine)
        engine.dispose()
        database = Database(server.url(name), application_name="tests", writable=True)
        stack.callback(database.dispose)
        if roles:
            seed_roles(database, ObjectFolder(folder / "objects"))
        else:
            seed_base(database)
        renames = Renames(database)
        more = samples - len(renames.state())
        if more > 0:
            seed_samples(database, more, group=1)
        renames.give_sequencing_dates()
        provider = Provider()
        stack.callback(provider.close)
        yield stack.enter_context(site_on(database, provider, folder))
