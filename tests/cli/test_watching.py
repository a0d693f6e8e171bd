"""``--watch`` of `db activity`, `db locks`, `jobs list`, and `jobs show`."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pexpect
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from aspen.database.engine import Database
from aspencli.cli.watching import with_seconds
from tests import zygote
from tests.conftest import CliRunner

BEGIN, END = "\x1b[?1049h", "\x1b[?1049l"
CliEnvironment = Callable[[Database | str | None], dict[str, str]]


class Relay:
    """A way to a server that can be cut and repaired."""

    def __init__(self, address: str):
        self._url = make_url(address)
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._serve()

    @property
    def address(self) -> str:
        url = self._url.set(host="127.0.0.1", port=self.port)
        return url.render_as_string(hide_password=False)

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection((str(self._url.host), self._url.port or 5432))
                self._sockets += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._sockets.clear()

    def repair(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._serve()


@pytest.fixture
def watching(cli_env: CliEnvironment, seeded: Database) -> Iterator[Callable[..., Any]]:
    """Return a function that starts a command on a terminal."""
    children: list[Any] = []

    def start(*words: str, address: str | None = None, **env: str) -> Any:
        child = zygote.at_terminal(
            words,
            env={**cli_env(address or seeded), "TERM": "xterm-256color", **env},
            encoding="utf-8",
            timeout=60,
            dimensions=(12, 120),
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.close(force=True)


def our_sessions(database: Database) -> list[tuple[int, str]]:
    """Return the PIDs of the program's sessions, except this one."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'aspencli/%' AND pid <> pg_backend_pid() ORDER BY pid"
    )
    engine = sa.create_engine(database.url)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query))]
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("db activity --watch 0.5", "Activity of local, every 0.5 s"),
        ("db locks --watch=0.5", "Locks of local, every 0.5 s"),
        ("jobs list --watch 0.5 --limit 3", "Jobs of local, every 0.5 s"),
    ],
)
def test_terminal_is_redrawn_and_restored_and_exit_code_is_0(
    watching: Callable[..., Any], words: str, shown: str
) -> None:
    child = watching(*words.split())
    child.expect_exact(BEGIN)
    for _ in range(3):
        child.expect_exact(f"\x1b[H{shown}")
    child.sendintr()
    child.expect_exact(END)
    child.expect_exact("Stopped.")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_usual_pause_is_two_seconds(watching: Callable[..., Any]) -> None:
    child = watching("db", "locks", "--watch")
    child.expect_exact("Locks of local, every 2 s")


def test_sigterm_restores_screen_and_exits_with_143(watching: Callable[..., Any]) -> None:
    child = watching("db", "locks", "--watch")
    child.expect_exact("every 2 s")
    child.kill(signal.SIGTERM)
    child.expect_exact(END)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 143


@pytest.mark.unpooled("connections to a pooler are closed after each use")
def test_one_connection_serves_all_refreshes(
    watching: Callable[..., Any], seeded: Database
) -> None:
    child = watching("db", "activity", "--watch", "0.5")
    child.expect_exact("every 0.5 s")
    first = our_sessions(seeded)
    assert len(first) == 1
    for _ in range(4):
        child.expect_exact("every 0.5 s")
    assert our_sessions(seeded) == first


@pytest.mark.unpooled("the way to the server itself is cut")
@pytest.mark.parametrize("words", ["db activity --all", "jobs list"])
def test_lost_connection_is_reported_and_watching_goes_on(
    watching: Callable[..., Any], seeded: Database, words: str
) -> None:
    relay = Relay(seeded.url.render_as_string(hide_password=False))
    child = watching(*words.split(), "--watch", "0.5", address=relay.address)
    child.expect_exact("every 0.5 s")
    relay.cut()
    child.expect_exact("Lost at")
    child.expect_exact("What follows is from before.")
    relay.repair()
    deadline = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline
        child.expect_exact("\x1b[H")
        child.expect_exact("\x1b[J")
        if "Lost at" not in child.before:
            break
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    relay.cut()
    assert child.exitstatus == 0


def test_piped_output_has_one_block_per_refresh(cli_env: CliEnvironment, seeded: Database) -> None:
    command = [sys.executable, "-m", "aspencli", "db", "activity", "--all", "--watch", "0.5"]
    with subprocess.Popen(
        [*command, "-o", "tsv"],
        env=cli_env(seeded),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        heads = 0
        for line in process.stdout:
            assert "\x1b" not in line
            heads += line.startswith("pid\t")
            if heads == 3:
                break
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert "Stopped." in process.stderr.read()
    assert process.returncode == 0


def test_closed_pipe_ends_watching(cli_env: CliEnvironment, seeded: Database) -> None:
    line = f"{sys.executable} -m aspencli db activity --all --watch 0.5 -o json | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        env=cli_env(seeded),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0
    assert "Error" not in done.stderr


def test_terminal_without_cursor_gets_one_block_after_the_other(
    watching: Callable[..., Any],
) -> None:
    child = watching("db", "activity", "--all", "--watch", "0.5", TERM="dumb")
    child.expect_exact("No other sessions.")
    child.expect_exact("No other sessions.")
    child.sendintr()
    child.expect(pexpect.EOF)
    assert "\x1b" not in child.before


def test_error_before_first_result_is_that_of_the_command(
    run_cli: CliRunner, seeded: Database
) -> None:
    nowhere = {"ASPEN_DATABASE_URL_LOCAL": "postgresql://u@127.0.0.1:9/nothing"}
    assert run_cli("db", "locks", "--watch", env=nowhere).code == 5
    done = run_cli("jobs", "show", "999999", "--watch", database=seeded)
    assert done.code == 6
    done = run_cli("db", "locks", "--watch", "0.1", database=seeded)
    assert (done.code, "0.5" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--watch"], ["--watch", "2"]),
        (["--watch", "--all"], ["--watch", "2", "--all"]),
        (["--watch", "5", "--all"], ["--watch", "5", "--all"]),
        (["--watch", "0.5"], ["--watch", "0.5"]),
        (["7", "--watch"], ["7", "--watch", "2"]),
        (["--", "--watch"], ["--", "--watch"]),
        (["--watch=3"], ["--watch=3"]),
    ],
)
def test_seconds_are_optional(args: list[str], expected: list[str]) -> None:
    assert with_seconds(args, {"--watch": True}) == expected


def test_other_commands_keep_their_arguments() -> None:
    assert with_seconds(["--watch", "x"], {}) == ["--watch", "x"]
