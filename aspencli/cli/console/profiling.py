"""Statements that run in the console: their profile (``--profile``, ``%profile``), in color."""

from __future__ import annotations

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

from aspen.database.profiling import sqltime
from aspencli.cli.output.console import Output, escape, has_color, has_shades
from aspencli.text import visible

if TYPE_CHECKING:
    from aspen.database.profiling.budgets import Everything
    from aspen.database.profiling.queries import SqlRecording
    from aspen.database.profiling.summary import Profile

_CELL = re.compile(r"<ipython-input-(\d+)-\w+>")
_START = "Start Query: "
_LONGEST = 20_000  # characters; a longer statement is mostly data
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


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
