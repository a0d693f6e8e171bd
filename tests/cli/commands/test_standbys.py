"""A primary that waits for a missing standby, and a standby that commands try to write to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy.engine import make_url

from aspen.local.postgres.server import SUPERUSER, Cluster
from tests import zygote
from tests.cli.commands.test_samples_interrupts import wait_until
from tests.conftest import CliRunner, migrate, seed

_SETTINGS = {"fsync": "off", "wal_level": "replica", "max_wal_senders": "4"}
_MAPPING = "private_identifier,public_identifier\nRCPHL-0000001,{}\n"
_NAME = "SELECT public_identifier FROM aspen.samples WHERE private_identifier = 'RCPHL-0000001'"
_LEFT = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'aspencli/%'"
_WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@dataclass(frozen=True)
class Server:
    """One of the two servers."""

    address: str

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement without waiting for a standby."""
        connection = psycopg2.connect(self.address.replace("+psycopg2", ""))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SET synchronous_commit = local")
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


@pytest.fixture(scope="module")
def servers(server_folder: Path) -> Iterator[tuple[Server, Server]]:
    """Yield a seeded primary, and a standby made from a copy of its files."""
    folder = server_folder
    clusters = [Cluster(folder / name, settings=_SETTINGS) for name in ("primary", "standby")]
    primary, standby = clusters
    try:
        primary.up()
        migrate(primary.url("postgres", SUPERUSER))
        seed(primary.url("postgres", SUPERUSER))
        primary.down()
        owner = primary.data.stat()
        shutil.copytree(folder / "primary", folder / "standby")
        _standing_by(standby, folder, primary)
        for path in (standby.data, *standby.data.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)
        primary.up()
        standby.up()
        yield (
            Server(primary.url("postgres", SUPERUSER)),
            Server(standby.url("postgres", SUPERUSER)),
        )
    finally:
        for each in clusters:
            each.reset()


def _standing_by(standby: Cluster, folder: Path, primary: Cluster) -> None:
    state = folder / "standby" / "postgres" / "state.json"
    if standby.data == primary.data:  # it is stored where the servers' account can reach it
        beside = primary.data.parent.with_name(f"{primary.data.parent.name}-standby")
        shutil.copytree(primary.data, beside / "data")
        shutil.copymode(primary.data.parent, beside)
        state.write_text(state.read_text().replace(str(primary.data.parent), str(beside)))
    (standby.data / "standby.signal").touch()


@pytest.fixture
def primary(servers: tuple[Server, Server]) -> Iterator[Server]:
    """Yield the primary, set to wait for a standby that does not exist."""
    server = servers[0]
    server.ask("ALTER SYSTEM SET synchronous_standby_names = 'ghost'")
    server.ask("SELECT pg_reload_conf()")
    wait_until(lambda: server.ask("SHOW synchronous_standby_names") == [("ghost",)])
    yield server
    server.ask("ALTER SYSTEM RESET synchronous_standby_names")
    server.ask("SELECT pg_reload_conf()")
    wait_until(lambda: server.ask("SHOW synchronous_standby_names") == [("",)])


@pytest.fixture
def standby(servers: tuple[Server, Server]) -> Server:
    return servers[1]


Start = Callable[..., Any]


@pytest.fixture
def start(cli_env: Callable[[str], dict[str, str]]) -> Start:
    @contextmanager
    def started(server: Server, *words: str) -> Iterator[subprocess.Popen[str]]:
        with zygote.start(
            words,
            env=cli_env(server.address),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    return started


def renaming(folder: Path, name: str) -> list[str]:
    mapping = folder / "ids.csv"
    mapping.write_text(_MAPPING.format(name))
    return ["samples", "update-public-ids", "--via", "db", "--group-id", "1", "-f", str(mapping)]


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Read stderr up to a line that contains the given words."""
    assert process.stderr
    read = ""
    for line in process.stderr:
        read += line
        if words in line:
            return read
    raise AssertionError(f"{words!r} is missing in: {read}")


def test_dry_run_does_not_wait_for_missing_standby(
    primary: Server, run_cli: CliRunner, tmp_path: Path
) -> None:
    words = renaming(tmp_path, "DRY-1")
    done = run_cli(*words, "--dry-run", database=primary.address, timeout=60)
    assert (done.code, "1 to update" in done.err) == (0, True), done.err
    wait_until(lambda: not primary.ask(_LEFT), seconds=60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_signal_ends_wait_for_missing_standby(
    number: signal.Signals, primary: Server, run_cli: CliRunner, start: Start, tmp_path: Path
) -> None:
    name = f"NEW-{number.name}"
    with start(primary, *renaming(tmp_path, name), "--yes") as process:
        read_until(process, "Waiting for a synchronous standby to confirm the commit")
        process.send_signal(number)
        _out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "committed on this server, but no synchronous standby has confirmed it" in err
    assert primary.ask(_NAME) == [(name,)]
    history = run_cli("history", "--output", "csv", database=primary.address)
    assert history.out.splitlines()[1].endswith(
        ",written,[],"
    )  # undone by no run, started by no assistant


def test_outcome_is_known_after_server_ends_waiting_session(
    primary: Server, start: Start, tmp_path: Path
) -> None:
    with start(primary, *renaming(tmp_path, "TERMINATED"), "--yes") as process:
        wait_until(lambda: primary.ask(_WAITING), seconds=60)
        primary.ask(f"SELECT pg_terminate_backend(pid) FROM ({_WAITING}) AS waiting")
        _out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert primary.ask(_NAME) == [("TERMINATED",)]


def test_signal_ends_standby_wait_of_orm_session(primary: Server, start: Start) -> None:
    words = (
        "--name",
        "W",
        "--email",
        "w@example.org",
        "--auth0-user-id",
        "auth0|w",
        "--group",
        "1",
    )
    with start(primary, "users", "create", "--via", "db", *words, "--yes") as process:
        wait_until(lambda: primary.ask(_WAITING), seconds=60)
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "committed on this server, but no synchronous standby has confirmed it" in err
    assert primary.ask("SELECT name FROM aspen.users WHERE email = 'w@example.org'") == [("W",)]


def test_signal_ends_standby_wait_of_create_database(primary: Server, start: Start) -> None:
    other = Server(make_url(primary.address).set(database="other").render_as_string(False))
    with start(other, "db", "create", "--yes") as process:
        wait_until(lambda: primary.ask(_WAITING), seconds=60)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    primary.ask("DROP DATABASE other")


WRITES: Mapping[str, list[str]] = {
    "rename": [],
    "rename, dry run": ["--dry-run"],
    "users create": [
        *("users", "create", "--via", "db", "--name", "S", "--email", "s@example.org"),
        *("--auth0-user-id", "auth0|s", "--group", "1", "--yes"),
    ],
    "downgrade": ["db", "downgrade", "base", "--yes", "--confirm", "local"],
}


@pytest.mark.parametrize("case", WRITES)
def test_write_on_standby_is_refused(
    case: str, standby: Server, run_cli: CliRunner, tmp_path: Path
) -> None:
    words = WRITES[case]
    if case.startswith("rename"):
        words = [*renaming(tmp_path, "STANDBY"), "--yes", *words]
    done = run_cli(*words, database=standby.address)
    assert done.code == 3, done.err
    assert "is a read-only standby. Nothing was written." in done.err
    assert "Connect to the primary" in done.err


@pytest.mark.parametrize("attributes", ["read-write", "primary"])
def test_reading_session_finds_primary_among_several_hosts(
    attributes: str, servers: tuple[Server, Server], run_cli: CliRunner
) -> None:
    address = f"{_several(servers)}?target_session_attrs={attributes}"
    done = run_cli("db", "status", "--output", "json", database=None, env=_local(address))
    assert done.code == 0, done.err
    (found,) = json.loads(done.out)
    assert (found["read_only"], found["port"]) == (False, make_url(servers[0].address).port)
    asked = ("db", "psql", "--", "-Atc", "SELECT pg_is_in_recovery()")
    done = run_cli(*asked, env=_local(address))
    assert (done.code, done.out) == (0, "f\n"), done.err


def test_write_finds_primary_among_several_hosts(
    servers: tuple[Server, Server], run_cli: CliRunner, tmp_path: Path
) -> None:
    address = f"{_several(servers)}?target_session_attrs=read-write"
    done = run_cli(*renaming(tmp_path, "SEVERAL"), "--yes", env=_local(address), timeout=120)
    assert done.code == 0, done.err
    assert servers[0].ask(_NAME) == [("SEVERAL",)]


def _several(servers: tuple[Server, Server]) -> str:
    """Return an address that lists the standby first."""
    primary, standby = (make_url(server.address) for server in servers)
    hosts = ",".join(f"{url.host}:{url.port}" for url in (standby, primary))
    return f"postgresql://{primary.username}:{primary.password}@{hosts}/{primary.database}"


def _local(address: str) -> dict[str, str]:
    return {"ASPEN_DATABASE_URL_LOCAL": address}
