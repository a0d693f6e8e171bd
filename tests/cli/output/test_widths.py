"""The width of each stream: that of its own terminal, whatever the other stream is."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from aspen.database.engine import Database

CliEnvironment = Callable[[Database | None], dict[str, str]]

SCRIPT = """
from aspencli.cli.output.console import Output
from aspencli.cli.output.formats import Column

columns = (Column("id", "Id", whole=True), Column("text", "Text"))
rows = [{"id": 1, "text": "x" * 300}]
out = Output("table")
out.rows(columns, rows)
out.preview(columns, rows)
"""


@dataclass(frozen=True)
class Streams:
    """The output and the exit code of a process."""

    code: int
    out: str
    err: str


class _Terminal:
    """A terminal of a given width, and what was written to it."""

    def __init__(self, width: int):
        self._reading, self.descriptor = pty.openpty()
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        self._written: list[bytes] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                some = os.read(self._reading, 65_536)
            except OSError:  # no process has it open any more
                return
            self._written.append(some)

    def text(self) -> str:
        os.close(self.descriptor)
        self._reader.join(30)
        os.close(self._reading)
        shown = b"".join(self._written).decode().replace("\r\n", "\n")
        return re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", shown)


def _spawn(words: list[str], env: dict[str, str], *, out: int | None, err: int | None) -> Streams:
    """Run a command; each stream is a terminal of the given width, or a pipe."""
    terminals = [None if width is None else _Terminal(width) for width in (out, err)]
    stdout, stderr = (subprocess.PIPE if each is None else each.descriptor for each in terminals)
    done = subprocess.run(
        words,
        env={name: value for name, value in env.items() if name not in {"COLUMNS", "NO_COLOR"}}
        | {"TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
        timeout=60,
        check=False,
    )
    piped = (done.stdout, done.stderr)
    shown = [
        text if each is None else each.text() for each, text in zip(terminals, piped, strict=True)
    ]
    return Streams(done.returncode, *shown)


def _widest(text: str) -> int:
    return max(map(len, text.splitlines()))


@pytest.mark.parametrize(
    ("out", "err", "expected"),
    [
        (60, None, (60, None)),
        (None, 60, (120, 60)),
        (140, 60, (140, 60)),
        (60, 140, (60, 140)),
    ],
)
def test_each_stream_uses_width_of_its_own_terminal(
    out: int | None, err: int | None, expected: tuple[int, int | None]
) -> None:
    done = _spawn([sys.executable, "-c", SCRIPT], dict(os.environ), out=out, err=err)
    assert done.code == 0, done.err
    assert _widest(done.out) == expected[0]
    if expected[1] is None:
        assert done.err == f"id\ttext\n1\t{'x' * 300}\n"
    else:
        assert _widest(done.err) == expected[1]


def test_columns_variable_overrides_terminal_width() -> None:
    script = f"import os; os.environ['COLUMNS'] = '70'\n{SCRIPT}"
    done = _spawn([sys.executable, "-c", script], dict(os.environ), out=90, err=90)
    assert (_widest(done.out), _widest(done.err)) == (70, 70)


def test_terminal_of_unknown_size_has_80_columns() -> None:
    done = _spawn([sys.executable, "-c", SCRIPT], dict(os.environ), out=0, err=0)
    assert (_widest(done.out), _widest(done.err)) == (80, 80)


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (80, r"Line +Key .*Outcome\n +2 +member@example.org .*Morgan M\. .*update\n"),
        (50, r"Line +2\nKey +member@example.org\n"),  # no room for a table
    ],
)
def test_preview_uses_width_of_stderr(
    width: int, shown: str, cli_env: CliEnvironment, seeded: Database, tmp_path: Path
) -> None:
    file = tmp_path / "users.csv"
    file.write_text("email,name\nmember@example.org,Morgan M.\n")
    words = [sys.executable, "-m", "aspencli", "users", "import", str(file), "--yes"]
    done = _spawn(words, cli_env(seeded), out=None, err=width)
    assert done.code == 0, done.err
    assert done.out.startswith("rows\t")
    assert re.search(shown, done.err), done.err


@pytest.mark.parametrize(("out", "expected"), [(50, 50), (140, 140), (None, 80)])
def test_help_uses_width_of_stdout(out: int | None, expected: int, cli_env: CliEnvironment) -> None:
    words = [sys.executable, "-m", "aspencli", "samples", "list", "--help"]
    done = _spawn(words, cli_env(None), out=out, err=100)
    assert done.code == 0
    borders = [line for line in done.out.splitlines() if line.startswith(("╭", "╰"))]
    assert {len(line) for line in borders} == {expected}


def test_help_after_usage_error_uses_width_of_stderr(cli_env: CliEnvironment) -> None:
    done = _spawn([sys.executable, "-m", "aspencli", "samples"], cli_env(None), out=None, err=60)
    assert (done.code, done.out) == (2, "")
    borders = [line for line in done.err.splitlines() if line.startswith("╭")]
    assert {len(line) for line in borders} == {60}
