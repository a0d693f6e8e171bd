"""The work that a profile records: a file of SQL, or a request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aspen.database.profiling.queries import fingerprint, split_statements
from aspen.database.profiling.recorder import Recorder
from aspen.database.profiling.rehearsal import rehearsed
from aspencli.errors import BadInputError, RefusedError

if TYPE_CHECKING:
    from aspen.database.engine import Database


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


_ENDING = frozenset({"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "PREPARE"})


READING = frozenset({"GET", "HEAD"})


@dataclass
class Bench:
    """The setup that work is profiled with.

    Attributes:
        parameters: True to keep statement parameters.
        rehearse: True to roll back at the end whatever the work commits.
        recorder: The recorder, once the work has started.
    """

    parameters: bool
    rehearse: bool
    recorder: Recorder | None = None

    @contextmanager
    def around(self, engine: Any) -> Iterator[None]:
        """Record the statements of an engine during a ``with`` block."""
        with ExitStack() as opened:
            if self.rehearse:
                opened.enter_context(rehearsed(engine))
            self.recorder = opened.enter_context(Recorder(engine, parameters=self.parameters))
            yield

    def stop(self) -> None:
        """Stop recording; the rehearsal continues to the end of its block."""
        if self.recorder is not None:
            self.recorder.stop()


def run_sql(text: str, database: Database, bench: Bench, source: str = "--sql") -> None:
    """Execute statements one by one in one transaction, and fetch their rows.

    Args:
        text: The statements.
        database: The database to run them on.
        bench: The profiling setup.
        source: The name of the script in the report's line references.

    Raises:
        BadInputError: There is no statement, or one that cannot run here.
        DBAPIError: The server rejected a statement.
    """
    parts = split_statements(text)
    if not parts:
        raise BadInputError("No SQL statement was given.", hint='For example: --sql "SELECT 1"')
    for line, statement in parts:
        _check_statement(line, statement)
    with bench.around(database.engine), database.engine.begin() as connection:
        plainly = connection.execution_options(no_parameters=True)

        def execute(statement: str) -> None:
            result = plainly.exec_driver_sql(statement)
            if result.returns_rows:
                result.fetchall()

        for line, statement in parts:
            # Compiled as Python at the same line number, so that the report can name that line.
            call = compile("\n" * (line - 1) + "execute(statement)", source, "exec")
            exec(call, {"execute": execute, "statement": statement})  # noqa: S102 - our own code


def _check_statement(line: int, statement: str) -> None:
    words = fingerprint(statement).upper().split()
    shown = f"{statement.partition(chr(10))[0][:60]!r} (line {line})"
    if statement.startswith("\\"):
        raise BadInputError(
            f"{shown} is a psql command, not SQL.",
            hint="Remove it, or run the file in psql: aspencli db psql -- -f FILE",
        )
    if words[0] in _ENDING:
        raise BadInputError(
            f"{shown} would end the transaction that all statements run in.",
            hint="Remove it. To commit at the end, pass --write --commit.",
        )
    if words[0] == "COPY" and not {"STDIN", "STDOUT"}.isdisjoint(words):
        raise BadInputError(
            f"{shown} transfers data through the client, which cannot be profiled.",
            hint="Profile the SELECT or INSERT instead, or run it in psql: aspencli db psql",
        )


def read_file(path: Path) -> str:
    """Return the text of an input file, without a byte-order mark.

    Raises:
        BadInputError: It cannot be read, or is not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInputError(
            f"Could not read {path}: {error.strerror}", hint="Check the file name."
        ) from error
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"{path} is not UTF-8 text (byte {error.start + 1}).", hint="Save it as UTF-8."
        ) from error
    if "\0" in text:
        raise BadInputError(f"{path} is not text: it contains NUL bytes.", hint="Save it as UTF-8.")
    return text


def split_request(text: str, *, write: bool) -> tuple[str, str]:
    """Return the method and the path of a request such as ``GET /v2/users/me``.

    Raises:
        BadInputError: It has another form.
        RefusedError: It writes, and ``write`` is False.
    """
    method, _, path = text.strip().partition(" ")
    method, path = method.upper(), path.strip()
    if method not in METHODS or not path.startswith("/"):
        raise BadInputError(
            f"Invalid request: {text!r}",
            hint='Use the form "GET /v2/orgs/1/pathogens/SC2/samples/".',
        )
    if method not in READING and not write:
        raise RefusedError(
            f"{method} requests write, and profiling is read-only by default.",
            hint="Pass --write. Changes are rolled back unless you also pass --commit.",
        )
    return method, path
