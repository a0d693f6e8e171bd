"""The recorder of one engine's database work, which leaves no trace when it is detached.

The connections of a recorded engine use cursors that record what they do, both psycopg2's and
asyncpg's as adapted by SQLAlchemy. A cursor class costs half as much as a pair of SQLAlchemy hooks,
and it sees what they do not: COPY, cursors that a program gets directly from the driver, and the
fetching of rows.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from time import perf_counter
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias
from weakref import WeakSet

from sqlalchemy.engine import Connection, Engine

from aspen.database.engine import Database
from aspen.database.profiling.callers import Site, calling_site, calling_site_of_task
from aspen.database.profiling.queries import Log, Query
from aspen.database.profiling.transactions import Outcome, Times, Transactions

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

Recordable: TypeAlias = "Engine | AsyncEngine | Database"
Classes: TypeAlias = Callable[[type[Any]], type[Any]]
"""A function that makes one cursor class from another."""
_Around: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]
_ATTACHED: WeakSet[Any] = WeakSet()
_LOCK = threading.Lock()


class Recorder:
    """A recorder of one engine's database work during a ``with`` block.

    It sits between SQLAlchemy and the driver, and listens to no events: the cursors of the
    engine's connections report what they execute and fetch. A connection that is already in use
    is recorded after the first statement of its next transaction. Work done directly on
    asyncpg's own connection, bypassing SQLAlchemy, is not seen.

    Args:
        engine: The engine to record, with those derived from it by ``execution_options``.
        parameters: Whether to keep the parameters of the slowest statement of each group.

    Raises:
        TypeError: It is not an engine.
    """

    def __init__(self, engine: Recordable, *, parameters: bool = False):
        self._engine = engine_of(engine)
        self.keeps_parameters = parameters
        self.log = Log()
        self.waits, self.commits, self.rollbacks = Times(), Times(), Times()
        self.transactions = Transactions()
        self.began, self.ended = perf_counter(), 0.0
        self._changed: list[tuple[Any, str, Any]] = []
        self._connections: dict[int, tuple[Any, Callable[[], None]]] = {}
        self._classes: dict[type[Any], type[Any]] = {}
        self._guard = threading.RLock()
        self.add: Callable[[Query], None] = self.log.add
        self.site: Callable[[FrameType | None], Site] = (
            calling_site_of_task if self._engine.dialect.is_async else calling_site
        )

    def __enter__(self) -> Self:
        """Start recording.

        Raises:
            RuntimeError: The engine is already being recorded.
        """
        dialect = self._engine.dialect
        with _LOCK:
            if dialect in _ATTACHED:
                raise RuntimeError("this engine is already being recorded")
            _ATTACHED.add(dialect)
        self.began, self.ended = perf_counter(), 0.0
        for name, around in (
            ("do_begin", self._beginning),
            ("do_commit", self._ending(self.commits, Outcome.COMMITTED)),
            ("do_rollback", self._ending(self.rollbacks, Outcome.ROLLED_BACK)),
            ("do_savepoint", self._saving),
            ("do_release_savepoint", self._leaving(Outcome.COMMITTED)),
            ("do_rollback_to_savepoint", self._leaving(Outcome.ROLLED_BACK)),
            ("do_close", self._closing),
            ("do_terminate", self._closing),
        ):
            self._put(dialect, name, around)
        self._put(self._engine.pool, "connect", self._connecting)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop recording."""
        self.stop()

    def stop(self) -> None:
        """Stop recording, and restore the engine, its pool and its connections."""
        if self.ended:
            return
        for owner, name, before in reversed(self._changed):
            if before is None:
                vars(owner).pop(name, None)
            else:
                vars(owner)[name] = before
        self._changed.clear()
        with self._guard:
            for _, restore in self._connections.values():
                restore()
            self._connections.clear()
        with _LOCK:
            _ATTACHED.discard(self._engine.dialect)
        self.ended = perf_counter()
        self.transactions.stop()
        self.log.fold(everything=True)

    def watch(self, connection: Connection) -> None:
        """Record a connection that is already in use, from its next statement on."""
        if (driver := connection.connection.dbapi_connection) is not None:
            self._watch(driver)

    @property
    def seconds(self) -> float:
        """Return the elapsed time that was recorded."""
        return (self.ended or perf_counter()) - self.began

    def _put(self, owner: Any, name: str, around: _Around) -> None:
        # On the object, not on its class, so that other objects are not affected.
        before = vars(owner).get(name)
        vars(owner)[name] = around(getattr(owner, name))
        self._changed.append((owner, name, before))

    def _connecting(self, connect: Callable[..., Any]) -> Callable[..., Any]:
        def connecting() -> Any:
            started = perf_counter()
            failed = True
            try:
                proxied = connect()
                failed = False
            finally:
                self.waits.add(started, failed=failed)
            self._watch(proxied.dbapi_connection)
            return proxied

        return connecting

    def _beginning(self, begin: Callable[..., Any]) -> Callable[..., Any]:
        def beginning(proxied: Any) -> Any:
            self.transactions.begin(id(proxied.dbapi_connection))
            self._watch(proxied.dbapi_connection)
            pool = self._engine.pool
            if "connect" not in vars(pool):  # the engine was disposed of, and has a new pool
                self._put(pool, "connect", self._connecting)
            return begin(proxied)

        return beginning

    def _ending(self, times: Times, outcome: Outcome) -> _Around:
        def around(end: Callable[..., Any]) -> Callable[..., Any]:
            def ending(proxied: Any) -> Any:
                number = id(proxied.dbapi_connection)
                if not self.transactions.is_open(number):  # the pool makes sure that none is open
                    return end(proxied)
                started = perf_counter()
                failed = True
                try:
                    result = end(proxied)
                    failed = False
                finally:
                    times.add(started, failed=failed)
                    self.transactions.end(number, Outcome.FAILED if failed else outcome)
                return result

            return ending

        return around

    def _saving(self, save: Callable[..., Any]) -> Callable[..., Any]:
        def saving(connection: Any, name: str) -> Any:
            result = save(connection, name)
            self.transactions.save(id(connection.connection.dbapi_connection), name)
            return result

        return saving

    def _leaving(self, outcome: Outcome) -> _Around:
        def around(leave: Callable[..., Any]) -> Callable[..., Any]:
            def leaving(connection: Any, name: str) -> Any:
                result = leave(connection, name)
                number = id(connection.connection.dbapi_connection)
                self.transactions.leave(number, name, outcome)
                return result

            return leaving

        return around

    def _closing(self, close: Callable[..., Any]) -> Callable[..., Any]:
        def closing(connection: Any) -> Any:
            self.transactions.end(id(connection), Outcome.CLOSED)
            with self._guard:
                self._connections.pop(id(connection), None)
            return close(connection)

        return closing

    def _watch(self, connection: Any) -> None:
        if id(connection) in self._connections:
            return
        with self._guard:
            if id(connection) not in self._connections:
                watch = watch_async if self._engine.dialect.is_async else watch_sync
                self._connections[id(connection)] = (connection, watch(connection, self._class_of))

    def _class_of(self, base: type[Any]) -> type[Any]:
        if base not in self._classes:
            self._classes[base] = recording(base, self)
        return self._classes[base]


def engine_of(engine: Recordable) -> Engine:
    """Return the engine whose dialect and pool do the work.

    Raises:
        TypeError: It is not an engine.
    """
    if isinstance(engine, Database):
        return engine.engine
    # An AsyncEngine wraps an engine; this avoids importing its class.
    below = getattr(engine, "sync_engine", engine)
    if isinstance(below, Engine):
        return below
    raise TypeError(f"expected an engine, not a {type(engine).__name__}")


def watch_sync(connection: Any, class_of: Classes) -> Callable[[], None]:
    """Make a psycopg2 connection use other cursor classes; return a function that undoes it."""
    from psycopg2.extensions import cursor

    before = connection.cursor_factory
    connection.cursor_factory = class_of(before or cursor)

    def restore() -> None:
        connection.cursor_factory = before

    return restore


def watch_async(connection: Any, class_of: Classes) -> Callable[[], None]:
    """Do the same for an asyncpg connection, as adapted by SQLAlchemy."""
    plain = type(connection)
    # The adapter takes its cursor class from a class attribute, and has no __dict__.
    connection.__class__ = type(
        plain.__name__,
        (plain,),
        {
            "__slots__": (),
            "_cursor_cls": class_of(plain._cursor_cls),  # noqa: SLF001 - there is no other way in
            "_ss_cursor_cls": class_of(plain._ss_cursor_cls),  # noqa: SLF001 - same
        },
    )

    def restore() -> None:
        connection.__class__ = plain

    return restore


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
