"""SQL in the console: profiling (``--profile``, ``%profile``), ``%sql``, and ``%explain``."""

from __future__ import annotations

import ast
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from pygments import highlight
from pygments.formatters import Terminal256Formatter
from pygments.lexers import PostgresLexer
from pygments.style import Style
from pygments.token import Comment, Keyword, Number, String
from sqlalchemy.engine import Connection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.compiler import SQLCompiler

from aspen.database.profiling import sqltime
from aspencli.cli.output.console import Output, escape, has_color, has_shades
from aspencli.cli.output.formats import Column
from aspencli.text import counted, visible

if TYPE_CHECKING:
    from aspen.database.profiling.budgets import Everything
    from aspen.database.profiling.queries import SqlRecording
    from aspen.database.profiling.summary import Profile

_CELL = re.compile(r"<ipython-input-(\d+)-\w+>")
_START = "Start Query: "
_LONGEST = 20_000  # characters; a longer statement is mostly data
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"
_SHOWN = 100  # rows of a result, at most
# Run as SQL, these would end the session's transaction without the session knowing.
_THE_SESSIONS_OWN = frozenset({"begin", "start", "commit", "end", "rollback", "abort"})
_Statement = str | Executable


class _Colors(Style):  # type: ignore[misc] # Pygments ships no types
    """Colors of statements that can be read on light and dark backgrounds.

    They are in the color cube of terminals, so that none of them is rounded to another.
    """

    styles: ClassVar[dict[Any, str]] = {
        Keyword: "#0087af",
        String: "#af8700",
        Number: "#af5faf",
        Comment: "italic",
    }


class ConsoleProfiling:
    """Query profiling for the console. While off, it has no cost: no listeners, no imports.

    The lines of ``sqltime`` come from SQLAlchemy's events, which tell of a statement as soon as it
    begins, even in a transaction that is already open; the figures come from recorders, which also
    cover the fetching of rows.
    """

    def __init__(self, messages: Output):
        self._messages = messages
        self._everything: Everything | None = None
        self._in_cell = False
        self._is_heard_by_record = False
        self.on = False

    def record(self, heard: Callable[[str, bool], None], connections: Iterable[Connection]) -> None:
        """Report every statement from now on, given with True if it failed, to a record."""
        from aspen.database.profiling.budgets import Everything

        self._everything = self._everything or Everything()
        self._everything.heard = lambda query: heard(query.statement, bool(query.error))
        self._is_heard_by_record = True
        self._everything.start()
        for connection in connections:
            self._everything.watch(connection)

    def switch_on(self, connections: Iterable[Connection]) -> None:
        """Start showing each query, also of these connections, which are in use already."""
        if self.on:
            return
        from aspen.database.profiling.budgets import Everything

        # All engines, because every query in a console is the operator's own.
        sqltime.enable_profiling()
        if self._is_heard and has_color(self._messages.err):
            _highlight()
        self._everything = self._everything or Everything()
        self._everything.start()
        for connection in connections:
            self._everything.watch(connection)
        self.on = True

    def switch_off(self) -> None:
        """Stop showing queries; what was recorded is kept for a report."""
        if self.on and self._everything is not None:
            sqltime.disable_profiling()
            if self._in_cell:
                self._everything.since()
            if not self._is_heard_by_record:
                self._everything.stop()
            self.on = False

    def close(self) -> None:
        """Stop everything."""
        self.switch_off()
        if self._everything is not None:
            self._everything.stop()

    @contextmanager
    def cell(self) -> Iterator[None]:
        """Summarize the queries of a ``with`` block after it ends, if there were any."""
        if self._in_cell:  # %rerun runs cells within a cell
            yield
            return
        if self._everything is not None:
            self._everything.mark()
        self._in_cell = True
        try:
            yield
        finally:
            self._in_cell = False
            if self.on and self._everything is not None:
                self._summarise(self._everything.since())

    def report(self, out: Output) -> None:
        """Show everything recorded in this session, as ``db profile`` does."""
        if self._everything is None:
            return self._messages.info("Nothing has been recorded yet; start with %profile on.")
        from aspencli.cli.output.profile import show

        tally = self._everything.tally
        tally.log.fold(everything=True)
        profile = _profile(tally)
        return show(out, profile, profile.statements, parameters=False)

    @property
    def _is_heard(self) -> bool:
        # The process may have been started without standard error.
        return bool(self._messages.stderr or sys.stderr)

    def _summarise(self, tally: SqlRecording) -> None:
        if not len(tally.log) or not self._is_heard:
            return
        # The queries have already run; a summary that cannot be printed must not fail the cell.
        with suppress(OSError):
            self._tell(tally)

    def _tell(self, tally: SqlRecording) -> None:
        from aspencli.cli.output.profile import short_place, totals_text

        profile = _profile(tally)
        self._messages.info(totals_text(profile))
        for one in profile.n_plus_one:
            for flag in (flag for flag in one.flags if flag.name == "n+1"):
                self._messages.warn(f"n+1: {visible(flag.text)} ({short_place(one, whole=False)})")
                self._messages.hint(visible(flag.cure))


def _profile(tally: SqlRecording) -> Profile:
    from aspen.database.profiling.summary import summarize

    profile = summarize(tally)
    for one in profile.statements:
        one.key = one.key._replace(file=_CELL.sub(r"In [\1]", one.key.file))
    return profile


def _highlight() -> None:
    """Color the profiler's default output; handlers of the application stay as they are."""
    for handler in sqltime.logger.handlers:
        if isinstance(handler, sqltime.CurrentStderrHandler):
            handler.setFormatter(HighlightingFormatter(sqltime.FORMAT))


class HighlightingFormatter(logging.Formatter):
    """A formatter that writes the same text as the plain one, with colors added."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record in color."""
        text = super().format(record)
        lead = f"{record.levelname}:{record.name}:"
        message = text.removeprefix(lead)
        if message.startswith(_START):
            return f"{lead}{_START}{colored(message.removeprefix(_START))}"
        what, colon, rest = message.partition(": ")
        style = escape("error") if what == "Query Failed" else _BOLD
        return f"{lead}{what}{colon}" + (f"{style}{rest}{_PLAIN}" if rest else "")


@lru_cache(maxsize=64)
def colored(statement: str) -> str:
    """Return a statement with colors and otherwise unchanged."""
    if len(statement) > _LONGEST or not has_shades():
        return statement
    lexer = PostgresLexer(stripnl=False, ensurenl=False)
    return str(highlight(statement, lexer, Terminal256Formatter(style=_Colors)))


class _Explain(Executable, ClauseElement):
    """EXPLAIN of a SQLAlchemy statement, including its parameters."""

    inherit_cache = False

    def __init__(self, prefix: str, statement: Any):
        self.prefix = prefix
        self.statement = statement


@compiles(_Explain)
def _compile(element: _Explain, compiler: SQLCompiler, **options: Any) -> str:
    return element.prefix + compiler.process(element.statement, **options)


def run_sql(session: Session, text: str, names: dict[str, Any], out: Output) -> None:
    """Run a statement and show its rows; nothing is committed.

    The text is SQL, or a Python expression that evaluates to a SQLAlchemy statement.

    Raises:
        UsageError: If there is no statement, or one that would end the transaction.
    """
    result = _execute(session, _statement(text, names))
    # ORM results always have rows, and lack this attribute.
    if not getattr(result, "returns_rows", True):
        return out.info(counted(max(result.rowcount, 0), "row"))
    columns = [Column(str(place), title) for place, title in enumerate(result.keys())]
    found = result.fetchmany(_SHOWN + 1)
    result.close()
    rows = [{str(place): value for place, value in enumerate(row)} for row in found[:_SHOWN]]
    out.rows(columns, rows, empty="No rows.")
    if len(found) > _SHOWN:
        out.info(f"Only the first {_SHOWN} rows are shown.")
    return None


def explain(session: Session, text: str, names: dict[str, Any], out: Output) -> None:
    """Show the plan of a statement; if it starts with ``analyze``, run it and roll it back.

    Arguments and errors are those of `run_sql`.
    """
    word, _, rest = text.strip().partition(" ")
    analyze = word.lower() == "analyze"
    statement = _statement(rest if analyze else text, names)
    if not analyze:
        return _show_plan(session, "EXPLAIN ", statement, out)
    savepoint = session.begin_nested()
    try:
        _show_plan(session, "EXPLAIN (ANALYZE, BUFFERS) ", statement, out)
    finally:
        if savepoint.is_active:
            savepoint.rollback()
    return None


def _show_plan(session: Session, prefix: str, statement: _Statement, out: Output) -> None:
    whole = prefix + statement if isinstance(statement, str) else _Explain(prefix, statement)
    out.text("\n".join(visible(str(row[0])) for row in _execute(session, whole)))


def _execute(session: Session, statement: _Statement) -> Any:
    if isinstance(statement, str):
        # Sent unchanged: colons and percent signs in it are not parameters.
        return session.connection().exec_driver_sql(
            statement, execution_options={"no_parameters": True}
        )
    return session.execute(statement)


def _statement(text: str, names: dict[str, Any]) -> _Statement:
    from IPython.core.error import UsageError

    text = text.strip().rstrip(";").strip()
    if not text:
        raise UsageError("No statement given. Use %sql SELECT ..., or %sql select(Sample).")
    if text.split()[0].lower() in _THE_SESSIONS_OWN:
        raise UsageError("Use session.commit() or session.rollback() instead.")
    if not _is_python(text, names):
        return text
    value = eval(text, names)  # noqa: S307 - the operator's own, at the operator's own prompt
    if not isinstance(value, Executable):
        raise UsageError(f"{text} is not a statement (its type is {type(value).__name__}).")
    return value


def _is_python(text: str, names: dict[str, Any]) -> bool:
    try:
        parsed = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return False
    return not isinstance(parsed, ast.Name) or parsed.id in names
