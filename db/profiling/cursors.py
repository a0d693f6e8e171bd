"""Cursors that tell a log what they did: psycopg2's, and asyncpg's as SQLAlchemy adapts it.

A class of cursors costs half of what a pair of SQLAlchemy's hooks costs, and it sees what they do
not: COPY, cursors that a program takes from the driver itself, and the fetching of rows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter
from types import FrameType
from typing import Any, Protocol

from db.profiling.callers import Site
from db.profiling.queries import Query


class Tap(Protocol):
    """Where cursors report to."""

    @property
    def keeps_parameters(self) -> bool:
        """Whether parameters are wanted."""

    @property
    def site(self) -> Callable[[FrameType | None], Site]:
        """Finds the place that caused a statement, from the frame of a cursor."""

    @property
    def add(self) -> Callable[[Query], None]:
        """Keeps one execution."""


def recording(base: type[Any], tap: Tap) -> type[Any]:
    """A class of cursors that reports the work of `base` to the tap."""

    class RecordingCursor(base):  # type: ignore[misc] # whatever class the connection has
        __slots__ = ("_asked",)

        def close(self) -> None:
            query = getattr(self, "_asked", None)
            if query is not None:
                query.running = False
            base.close(self)

    for name, size in _EXECUTING.items():
        if hasattr(base, name):
            setattr(RecordingCursor, name, _executing(base, name, tap, size))
    for name, count in _FETCHING.items():
        if hasattr(base, name):
            setattr(RecordingCursor, name, _fetching(getattr(base, name), count))
    return RecordingCursor


def _executing(
    base: type[Any], name: str, tap: Tap, size: Callable[[tuple[Any, ...]], int]
) -> Callable[..., Any]:
    method = getattr(base, name)
    clock, frame_of, site_of, add = perf_counter, sys._getframe, tap.site, tap.add  # noqa: SLF001 - documented
    keeps = tap.keeps_parameters
    copies = name in _COPIES

    def execute(self: Any, statement: Any, *arguments: Any, **named: Any) -> Any:
        site = site_of(frame_of(1))
        before = getattr(self, "_asked", None)
        if before is not None:
            before.running = False
        error = ""
        started = clock()
        try:
            return method(self, statement, *arguments, **named)
        except BaseException as raised:
            error = _name(raised)
            raise
        finally:
            seconds = clock() - started
            text = (
                statement
                if type(statement) is str and not copies
                else _text(self, name, statement, arguments)
            )
            self._asked = query = Query(
                text,
                site,
                started,
                seconds,
                -1 if error else self.rowcount,
                error,
                size(arguments),
                (arguments[0] if arguments else named.get("vars")) if keeps else None,
            )
            add(query)

    return execute


def _fetching(method: Callable[..., Any], count: Callable[[Any], int]) -> Callable[..., Any]:
    clock = perf_counter

    def fetch(self: Any, *arguments: Any, **named: Any) -> Any:
        started = clock()
        found = None
        query = getattr(self, "_asked", None)
        try:
            found = method(self, *arguments, **named)
        except BaseException as raised:
            if query is not None and not isinstance(raised, StopIteration):
                query.error = _name(raised)
            raise
        else:
            return found
        finally:
            if query is not None:
                query.fetching += clock() - started
                query.fetched += count(found)

    return fetch


def _name(error: BaseException) -> str:
    """The class of an error; of asyncpg's the one below SQLAlchemy's adapter."""
    below = getattr(error, "driver_exception", None) or error.__cause__
    if below is not None and type(below).__module__.startswith("asyncpg"):
        return type(below).__name__
    return type(error).__name__


def _text(cursor: Any, name: str, statement: Any, arguments: tuple[Any, ...]) -> str:
    """The SQL of what is no plain text."""
    if name == "callproc":
        return f"SELECT * FROM {statement}(...)"  # noqa: S608 - shown, never executed
    if name in _TABLES:
        table = arguments[0] if arguments else "(?)"
        return f"COPY {table} {_TABLES[name]}"
    if isinstance(statement, str):
        return statement
    if isinstance(statement, bytes):
        return statement.decode(errors="replace")
    # psycopg2.sql: the driver knows what it made of it.
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
_COPIES = frozenset({*_TABLES, "callproc"})
_FETCHING: dict[str, Callable[[Any], int]] = {
    "fetchone": lambda found: found is not None,
    "fetchmany": lambda found: len(found) if found else 0,
    "fetchall": lambda found: len(found) if found else 0,
    "__next__": lambda found: found is not None,
}
