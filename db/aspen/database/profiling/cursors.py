"""Cursors that record what they do: psycopg2's, and asyncpg's as adapted by SQLAlchemy.

A cursor class costs half as much as a pair of SQLAlchemy hooks, and it sees what they do not:
COPY, cursors that a program gets directly from the driver, and the fetching of rows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter
from types import FrameType
from typing import Any, Protocol

from aspen.database.profiling.callers import Site
from aspen.database.profiling.queries import Query


class Tap(Protocol):
    """A receiver of reports from cursors."""

    @property
    def keeps_parameters(self) -> bool:
        """Return True if parameters are wanted."""

    @property
    def site(self) -> Callable[[FrameType | None], Site]:
        """Return a function that finds the site of a statement, given the frame of a cursor."""

    @property
    def add(self) -> Callable[[Query], None]:
        """Return a function that stores one execution."""


def recording(base: type[Any], tap: Tap) -> type[Any]:
    """Return a subclass of the cursor class `base` that reports its work to the tap."""

    class RecordingCursor(base):  # type: ignore[misc] # whatever class the connection has
        _asked: Query | None = None

        def close(self) -> None:
            query = self._asked
            if query is not None:
                query.running = False
            base.close(self)

    for name, size in _EXECUTING.items():
        if hasattr(base, name):
            make = _executing if name == "execute" else _executing_otherwise
            setattr(RecordingCursor, name, make(base, name, tap, size))
    for name, count in _FETCHING.items():
        if hasattr(base, name):
            setattr(RecordingCursor, name, _fetching(getattr(base, name), count))
    return RecordingCursor


def _executing(
    base: type[Any], name: str, tap: Tap, _size: Callable[[tuple[Any, ...]], int]
) -> Callable[..., Any]:
    """Return ``execute``, which runs most statements; names are looked up only once, for speed."""
    method = getattr(base, name)
    clock, frame_of, site_of, add = perf_counter, sys._getframe, tap.site, tap.add  # noqa: SLF001 - documented
    keeps = tap.keeps_parameters

    def execute(self: Any, statement: Any, vars: Any = None) -> Any:  # noqa: A002 - psycopg2's
        site = site_of(frame_of(1))
        if self._asked is not None:
            self._asked.running = False
        error = ""
        started = clock()
        try:
            return method(self, statement, vars)
        except BaseException as raised:
            error = _name(raised)
            raise
        finally:
            seconds = clock() - started
            rows = -1 if error else self.rowcount
            if type(statement) is not str:
                statement = _text(self, name, statement, ())
            kept = vars if keeps else None
            self._asked = Query(statement, site, started, seconds, rows, error, 1, kept)
            add(self._asked)

    return execute


def _executing_otherwise(
    base: type[Any], name: str, tap: Tap, size: Callable[[tuple[Any, ...]], int]
) -> Callable[..., Any]:
    method = getattr(base, name)
    clock, frame_of = perf_counter, sys._getframe  # noqa: SLF001 - documented

    def execute(self: Any, statement: Any, *arguments: Any, **named: Any) -> Any:
        site = tap.site(frame_of(1))
        if self._asked is not None:
            self._asked.running = False
        error = ""
        started = clock()
        try:
            return method(self, statement, *arguments, **named)
        except BaseException as raised:
            error = _name(raised)
            raise
        finally:
            seconds = clock() - started
            text = _text(self, name, statement, arguments)
            rows = -1 if error else self.rowcount
            kept = arguments[0] if arguments and tap.keeps_parameters else None
            self._asked = Query(text, site, started, seconds, rows, error, size(arguments), kept)
            tap.add(self._asked)

    return execute


def _fetching(method: Callable[..., Any], count: Callable[[Any], int]) -> Callable[..., Any]:
    clock = perf_counter

    def fetch(self: Any, *arguments: Any) -> Any:
        query = self._asked
        if query is None:
            return method(self, *arguments)
        started = clock()
        try:
            found = method(self, *arguments)
        except BaseException as raised:
            if not isinstance(raised, StopIteration):
                query.error = _name(raised)
            raise
        else:
            query.fetched += count(found)
            return found
        finally:
            query.fetching += clock() - started

    return fetch


def _name(error: BaseException) -> str:
    """Return the class name of an error; for asyncpg, of the error inside SQLAlchemy's adapter."""
    below = getattr(error, "driver_exception", None) or error.__cause__
    if below is not None and type(below).__module__.startswith("asyncpg"):
        return type(below).__name__
    return type(error).__name__


def _text(cursor: Any, name: str, statement: Any, arguments: tuple[Any, ...]) -> str:
    """Return the SQL of a statement that may not be plain text."""
    if name == "callproc":
        return f"SELECT * FROM {statement}(...)"  # noqa: S608 - shown, never executed
    if name in _TABLES:
        table = arguments[0] if arguments else "(?)"
        return f"COPY {table} {_TABLES[name]}"
    if isinstance(statement, str):
        return statement
    if isinstance(statement, bytes):
        return statement.decode(errors="replace")
    # psycopg2.sql objects: the driver has the SQL that it sent.
    sent = getattr(cursor, "query", None)
    return sent.decode(errors="replace") if isinstance(sent, bytes) else repr(statement)


def _one(_arguments: tuple[Any, ...]) -> int:
    return 1


def _sets(arguments: tuple[Any, ...]) -> int:
    return len(arguments[0]) if arguments and hasattr(arguments[0], "__len__") else 1


_EXECUTING: dict[str, Callable[[tuple[Any, ...]], int]] = {
    "execute": _one,
    "executemany": _sets,
    "callproc": _one,
    "copy_expert": _one,
    "copy_from": _one,
    "copy_to": _one,
}
_TABLES = {"copy_from": "FROM STDIN", "copy_to": "TO STDOUT"}
_FETCHING: dict[str, Callable[[Any], int]] = {
    "fetchone": lambda found: found is not None,
    "fetchmany": len,
    "fetchall": len,
    "__next__": lambda found: found is not None,
}
