"""Homes for servers of a test's own, and ways to work on them from other processes."""

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

from local.postgres import Cluster

# Waiting for the disk is not what these tests are about.
FAST = {"fsync": "off", "shared_buffers": "16MB"}
_PREAMBLE = f"""
import os, pwd, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from pathlib import Path
from aspencli.errors import AspenError
from local.postgres import Cluster
from local.prepare import prepare
cluster = Cluster(Path(sys.argv[1]), settings={FAST!r})
"""
# Loaded before: the interpreter may lie where nobody else can read.
_AS_NOBODY = """
import migrations.runner
nobody = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(nobody.pw_gid)
os.setuid(nobody.pw_uid)
"""
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

Script = Callable[..., "subprocess.Popen[str]"]


def make_home(name: str = "home") -> Path:
    """A folder that every account can pass through, which pytest's own are not."""
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


@pytest.fixture
def cluster(home: Path) -> Cluster:
    return Cluster(home, settings=FAST)


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """A running server for the tests of a module that leave it as it was."""
    home = make_home()
    cluster = Cluster(home, settings=FAST)
    cluster.up()
    yield cluster
    end_home(home)


@pytest.fixture
def run_script() -> Iterator[Script]:
    """Begins a piece of Python in a process of its own, where ``cluster`` is a home's server."""
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
    """The first value of a statement, run by itself."""
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
