"""Home directories for a test's own servers, and ways to use them from other processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy.engine import make_url

from aspen.local.postgres.paths import Places, Remembered
from aspen.local.postgres.prepare import prepare
from aspen.local.postgres.server import Cluster
from aspen.local.processes import file_lock
from tests.conftest import _run_folder

# These tests do not need data to be safe on disk.
FAST = {"fsync": "off", "shared_buffers": "16MB"}
_PREAMBLE = f"""
import os, pwd, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from pathlib import Path
from aspencli.errors import AspenError
from aspen.local.postgres.server import Cluster
from aspen.local.postgres.prepare import prepare
cluster = Cluster(Path(sys.argv[1]), settings={FAST!r})
"""
# Imported first, because other accounts may not be able to read the interpreter's files.
_AS_NOBODY = """
import aspen.database.migrate
nobody = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(nobody.pw_gid)
os.setuid(nobody.pw_uid)
"""
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

Script = Callable[..., "subprocess.Popen[str]"]


def make_home(name: str = "home") -> Path:
    """Return a folder that every account can pass through, unlike pytest's own."""
    top = Path(tempfile.mkdtemp(prefix="aspen-local-"))
    top.chmod(0o711)
    home = top / name
    home.mkdir(mode=0o755)
    return home


def end_home(home: Path) -> None:
    Cluster(home).reset()
    shutil.rmtree(home.parent)


@pytest.fixture
def home() -> Iterator[Path]:
    home = make_home("a home")  # with a space in it
    yield home
    end_home(home)


@pytest.fixture(scope="session")
def stopped_server(pytestconfig: pytest.Config) -> Path:
    """Return the home of a stopped server with a prepared database, made once per test run."""
    run = pytestconfig.stash[_run_folder]
    home = run / "servers-stopped" / "home"
    with file_lock(run / "servers-stopped.lock"):
        if not home.exists():
            home.parent.mkdir(mode=0o711)
            unfinished = home.with_name("unfinished")
            cluster = Cluster(unfinished, settings=FAST)
            cluster.up()
            prepare(cluster)
            cluster.down()
            unfinished.rename(home)
    return home


@pytest.fixture
def begun(home: Path, stopped_server: Path) -> Path:
    """Return a home whose server ran before, for tests that are not about the first start.

    A copy takes a tenth of the time of initdb and the migrations.
    """
    places = Places(stopped_server)
    if places.data.is_relative_to(stopped_server):  # otherwise, each home has another place
        subprocess.run(["cp", "-a", places.folder, home], check=True)
        Places(home).remember(Remembered())  # no port, as others may run a copy at the same time
    return home


@pytest.fixture
def cluster(begun: Path) -> Cluster:
    return Cluster(begun, settings=FAST)


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """Yield a running server for tests of a module that leave it unchanged."""
    home = make_home()
    cluster = Cluster(home, settings=FAST)
    cluster.up()
    yield cluster
    end_home(home)


@pytest.fixture
def run_script() -> Iterator[Script]:
    """Yield a function that runs Python in a process, with ``cluster`` as the home's server."""
    begun: list[subprocess.Popen[str]] = []

    def run(home: Path, script: str, *, as_nobody: bool = False) -> subprocess.Popen[str]:
        source = _PREAMBLE + (_AS_NOBODY if as_nobody else "") + script
        begun.append(
            subprocess.Popen(
                [sys.executable, "-c", source, str(home)],
                cwd="/",
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return begun[-1]

    yield run
    for process in begun:
        process.kill()
        process.communicate()


def query(address: str, statement: str) -> Any:
    """Run a statement by itself, and return its first value."""
    url = make_url(address)
    connection = psycopg2.connect(
        host=url.host,
        port=url.port,
        user=url.username,
        password=url.password,
        dbname=url.database,
    )
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None
    finally:
        connection.close()
