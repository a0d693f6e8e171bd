"""SQL at the prompt: ``%sql`` with its options and formats, ``%explain``, and ``%watch``."""

from __future__ import annotations

import ast
import io
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.compiler import SQLCompiler

from aspen.database.driver import tokens
from aspen.database.profiling.queries import split_statements
from aspencli import files
from aspencli.cli.output.console import Output
from aspencli.cli.output.formats import Column, write_rows
from aspencli.errors import BadInputError
from aspencli.text import counted, visible

_SHOWN = 100  # rows of a result, unless all are wanted
# Run as SQL, these would end the session's transaction without the session knowing.
_THE_SESSIONS_OWN = frozenset({"begin", "start", "commit", "end", "rollback", "abort"})
_MEASURED = 1_000  # rows that decide whether a result fits the screen
_CLEAR = "\x1b[H\x1b[2J"
_SHORTEST_S = 0.1
_MARGIN = 2  # lines of the screen that are not the result's: the count, and the next prompt
_FLAGS = {
    "--expanded": "expanded",
    "-x": "expanded",
    "--json": "json",
    "--all": "whole",
    "--pager": "pager",
}
_CHANGES_NAMES = frozenset({"create", "alter", "drop"})
_OPTION = re.compile(r"--?[A-Za-z][\w-]*(?=\s|$)")
_FILE = re.compile(r"""'[^']+'|"[^"]+"|[^\s'"]+""")
_Statement = str | Executable


@dataclass(frozen=True)
class SqlLine:
    """A line or cell of ``%sql``: its options and what follows them.

    Attributes:
        whole: Show all rows, not only the first.
        pager: Show them in a pager, even if ``PAGER`` is not set.
        csv: The file to write the rows to.
    """

    text: str
    expanded: bool = False
    json: bool = False
    whole: bool = False
    pager: bool = False
    csv: Path | None = None


def read_line(text: str) -> SqlLine:
    """Return the options and the statements of a line or cell.

    Raises:
        UsageError: An option is unknown or incomplete.
    """
    found: dict[str, Any] = {}
    rest = text.strip()
    while option := _OPTION.match(rest):
        rest = rest[option.end() :].lstrip()
        if option[0] == "--csv":
            name = _FILE.match(rest)
            if name is None:
                raise _usage("Name the file: %sql --csv FILE SELECT ...")
            found["csv"] = files.expand(name[0].strip("'\""))
            rest = rest[name.end() :].lstrip()
        elif option[0] in _FLAGS:
            found[_FLAGS[option[0]]] = True
        else:
            raise _usage(
                f"Unknown option {option[0]}\n"
                "Use --expanded, --json, --csv FILE, --all, or --pager.\n"
                "(A comment needs a space after its two hyphens.)"
            )
    return SqlLine(rest, **found)


@dataclass
class SqlRunner:
    """The runner of ``%sql``: a session, the operator's names, and the output.

    Attributes:
        names_changed: Called after a statement that may have changed tables.
    """

    session: Session
    names: dict[str, Any]
    out: Output
    names_changed: Callable[[], None] = field(default=lambda: None)

    def show(self, text: str) -> None:
        """Run the statements one after the other and show their rows; nothing is committed.

        The text is SQL, or a Python expression that evaluates to a SQLAlchemy statement. After a
        statement that fails, the others do not run.

        Raises:
            UsageError: There is no statement, or one that would end the transaction.
        """
        line = read_line(text)
        statements = _statements(line.text, self.names)
        if line.csv and len(statements) > 1:
            raise _usage("With --csv, give one statement.")
        for statement in statements:
            self._show(line, self._run(statement))

    def fetch(self, text: str) -> Any:
        """Run the statements, and return the rows of the last one: all of them.

        They are a DataFrame if pandas is installed, else a list. A statement without rows gives
        the number of rows that it changed.
        """
        line = read_line(text)
        if line != SqlLine(line.text, whole=line.whole):
            raise _usage("Options choose how rows are shown; assigned rows are not shown.")
        result: Any = None
        for statement in _statements(line.text, self.names):
            result = self._run(statement)
        if not _has_rows(result):
            return max(result.rowcount, 0)
        keys = list(result.keys())
        rows = result.fetchall()
        if find_spec("pandas"):
            from pandas import DataFrame

            return DataFrame([tuple(row) for row in rows], columns=keys)
        return rows

    def _run(self, statement: _Statement) -> Any:
        result = _execute(self.session, statement)
        if isinstance(statement, str) and statement.split()[0].lower() in _CHANGES_NAMES:
            self.names_changed()
        return result

    def _show(self, line: SqlLine, result: Any) -> None:
        out = self.out
        if not _has_rows(result):
            return out.info(counted(max(result.rowcount, 0), "row"))
        titles = list(result.keys())
        names = _unique(titles)
        columns = [Column(name, title) for name, title in zip(names, titles, strict=True)]
        if line.csv:
            count = _write_csv(line.csv, columns, _rows(names, result))
            return out.info(f"{counted(count, 'row')} written to {line.csv}")
        if line.json:
            return replace(out, form="json").rows(columns, _rows(names, result))
        found = result.fetchall() if line.whole else result.fetchmany(_SHOWN + 1)
        result.close()
        rows = list(_rows(names, found if line.whole else found[:_SHOWN]))
        with paged(out, wanted=line.pager) as screen:
            if rows and (line.expanded or _is_too_wide(screen, columns, rows)):
                screen.records(columns, rows)
            else:
                screen.rows([replace(column, whole=True) for column in columns], rows)
        if not rows:
            return out.info("No rows.")
        if len(found) > len(rows):
            return out.info(f"Only the first {_SHOWN} rows are shown; use %sql --all for the rest.")
        return out.info(counted(len(rows), "row"))


def _is_too_wide(out: Output, columns: Sequence[Column], rows: Sequence[dict[str, Any]]) -> bool:
    """Return True if a table would not fit the screen without cutting values."""
    if out.chosen_form != "table" or len(columns) < 2:  # noqa: PLR2004 - one value needs no title
        return False
    from aspencli.cli.output.table import natural_width  # imports Rich

    return natural_width(columns, rows[:_MEASURED]) > out.width


def watch(text: str, session: Callable[[], Session], names: dict[str, Any], out: Output) -> None:
    """Run statements every few seconds until Ctrl-C, each time in a session that is rolled back.

    Raises:
        UsageError: The number of seconds, or the statement, is missing.
    """
    pause, statements = _parse_watch(text)
    screen = out.out.isatty()
    try:
        while True:
            with session() as one:
                runner = SqlRunner(one, names, replace(out, no_input=True))
                if screen:
                    out.out.write(_CLEAR)
                out.text(f"Every {pause:g} s, at {time.strftime('%H:%M:%S')}; stop with Ctrl-C")
                runner.show(statements)
                one.rollback()
            time.sleep(pause)
    except KeyboardInterrupt:
        out.info("Stopped.")


def _parse_watch(text: str) -> tuple[float, str]:
    """Return the number of seconds, and what follows it."""
    first, _, rest = text.strip().partition(" ")
    try:
        pause = float(first)
    except ValueError:
        pause = 0.0
    if pause < _SHORTEST_S or not rest.strip():
        raise _usage(
            "Use %watch SECONDS SELECT ..., such as: %watch 2 SELECT count(*) FROM samples"
        )
    return pause, rest


def explain(session: Session, text: str, names: dict[str, Any], out: Output) -> None:
    """Show the plan of a statement; if it starts with ``analyze``, run it and roll it back.

    Raises:
        UsageError: There is no statement, or one that would end the transaction.
    """
    word, _, rest = text.strip().partition(" ")
    analyze = word.lower() == "analyze"
    statements = _statements(rest if analyze else text, names)
    if len(statements) > 1:
        raise _usage("%explain shows the plan of one statement.")
    if not analyze:
        return _show_plan(session, "EXPLAIN ", statements[0], out)
    savepoint = session.begin_nested()
    try:
        _show_plan(session, "EXPLAIN (ANALYZE, BUFFERS) ", statements[0], out)
    finally:
        if savepoint.is_active:
            savepoint.rollback()
    return None


class _Explain(Executable, ClauseElement):
    """EXPLAIN of a SQLAlchemy statement, including its parameters."""

    inherit_cache = False

    def __init__(self, prefix: str, statement: Any):
        self.prefix = prefix
        self.statement = statement


@compiles(_Explain)
def _compile(element: _Explain, compiler: SQLCompiler, **options: Any) -> str:
    return element.prefix + compiler.process(element.statement, **options)


def _show_plan(session: Session, prefix: str, statement: _Statement, out: Output) -> None:
    whole = prefix + statement if isinstance(statement, str) else _Explain(prefix, statement)
    out.text("\n".join(visible(str(row[0])) for row in _execute(session, whole)))


def _execute(session: Session, statement: _Statement) -> Any:
    if isinstance(statement, str):
        connection: Connection = session.connection()
        # Sent unchanged: colons and percent signs in it are not parameters.
        return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
    return session.execute(statement)


def _has_rows(result: Any) -> bool:
    # ORM results always have rows, and lack this attribute.
    return bool(getattr(result, "returns_rows", True))


def _rows(names: Sequence[str], found: Any) -> Iterator[dict[str, Any]]:
    return (dict(zip(names, row, strict=True)) for row in found)


def _unique(names: Sequence[str]) -> list[str]:
    """Return the names, with a number added to those that occurred before."""
    found: list[str] = []
    for name in names:
        numbers = (f"{name}_{number}" for number in itertools.count(2))
        found.append(name if name not in found else next(n for n in numbers if n not in found))
    return found


def _write_csv(path: Path, columns: Sequence[Column], rows: Iterator[dict[str, Any]]) -> int:
    """Write rows to a new file as a whole, and return their number.

    Raises:
        BadInputError: The file exists, or cannot be written.
    """
    _require_new(path)
    count = 0

    def counting() -> Iterator[dict[str, Any]]:
        nonlocal count
        for row in rows:
            count += 1
            yield row

    try:
        with files.replacing(path) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
            write_rows(text, "csv", columns, counting())
            text.flush()
            text.detach()
    except OSError as error:
        raise BadInputError(files.write_failure(path, error)) from error
    return count


def _require_new(path: Path) -> None:
    if path.exists():
        raise BadInputError(
            f"{path} already exists; nothing was written.",
            hint="Choose another name, or delete it.",
        )


def _statements(text: str, names: dict[str, Any]) -> list[_Statement]:
    text = text.strip().rstrip(";").strip()
    if not text:
        raise _usage("No statement given. Use %sql SELECT ..., or %sql select(Sample).")
    if _is_python(text, names):
        value = eval(text, names)  # noqa: S307 - the operator's own, at the operator's own prompt
        if not isinstance(value, Executable):
            raise _usage(f"{text} is not a statement (its type is {type(value).__name__}).")
        return [value]
    found = [part.statement for part in split_statements(text)]
    if not found:
        raise _usage("No statement given, only a comment.")
    for statement in found:
        if _first_word(statement) in _THE_SESSIONS_OWN:
            raise _usage("Use session.commit() or session.rollback() instead.")
    return list(found)


def _first_word(statement: str) -> str:
    return next((word for kind, word, _ in tokens(statement) if kind != "gap"), "").lower()


def _is_python(text: str, names: dict[str, Any]) -> bool:
    try:
        parsed = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return False
    return not isinstance(parsed, ast.Name) or parsed.id in names


def _usage(message: str) -> Exception:
    from IPython.core.error import UsageError

    return UsageError(message)


class _Screen(io.StringIO):
    """Text on its way to a terminal: it is as wide and as colorful as there."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """Return True: it is shown on one."""
        return True

    def fileno(self) -> int:
        """Return the descriptor of the terminal, for its size."""
        return sys.stdout.fileno()


@contextmanager
def paged(out: Output, *, wanted: bool) -> Iterator[Output]:
    """Show what is written in a ``with`` block, in a pager if it is longer than the screen.

    ``PAGER`` chooses the program. Without it, there is a pager only if one is wanted.
    """
    pager = shlex.split(os.environ.get("PAGER", "less" if wanted else ""))
    if not (out.out.isatty() and pager and shutil.which(pager[0])):
        yield out
        return
    screen = _Screen()
    yield replace(out, stdout=screen)
    text = screen.getvalue()
    if text.count("\n") <= shutil.get_terminal_size().lines - _MARGIN:
        if text:
            out.text(text)
        return
    # Short texts stay on the screen, lines are cut and can be scrolled sideways, colors are kept.
    environment = {"LESS": "-FRSX", **os.environ}
    subprocess.run(  # noqa: S603 - the operator's own pager
        pager, input=text.encode(errors="replace"), env=environment, check=False
    )
