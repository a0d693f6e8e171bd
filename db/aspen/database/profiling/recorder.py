"""The recorder of one engine's database work, which leaves no trace when it is detached.

The connections of a recorded engine use cursors that record what they do, both psycopg2's and
asyncpg's as adapted by SQLAlchemy. A cursor class costs half as much as a pair of SQLAlchemy hooks,
and it sees what they do not: COPY, cursors that a program gets directly from the driver, and the
fetching of rows.

SQLAlchemy iterates over a deque of listeners for each event. Adding or removing a listener breaks
the iteration of another thread ("deque mutated during iteration"), whose query would then fail. So
listeners change only while no other thread iterates (`listen`).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from time import perf_counter
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, base
from sqlalchemy.pool import StaticPool

from aspen.database.engine import Database
from aspen.database.profiling.callers import Site, calling_site, calling_site_of_task
from aspen.database.profiling.queries import Query, SqlRecording, Times, TransactionOutcome

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

Recordable: TypeAlias = "Engine | AsyncEngine | Database"
_Classes: TypeAlias = Callable[[type[Any]], type[Any]]
_Around: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]
_PATIENCE_S = 1.0  # to wait for a moment when no other thread iterates over listeners
_GLANCE_S = 0.0002
_UNDISTURBED_S = 1.0  # far longer than adding and removing takes
_ALONE = threading.Lock()
_ATTACHED: WeakSet[Any] = WeakSet()
_LOCK = threading.Lock()


class Recorder(SqlRecording):
    """A recorder of one engine's database work during a ``with`` block.

    It sits between SQLAlchemy and the driver, and listens to no events: the cursors of the
    engine's connections report what they execute and fetch. A connection that is already in use
    is recorded after the first statement of its next transaction. Work done directly on
    asyncpg's own connection, bypassing SQLAlchemy, is not seen. Engines derived from the engine by
    ``execution_options`` are recorded with it. Parameters are kept on request: those of the slowest
    statement of each group.

    Raises:
        TypeError: It is not an engine.
    """

    def __init__(self, engine: Recordable, *, parameters: bool = False):
        super().__init__()
        self._engine = engine_of(engine)
        self.keeps_parameters = parameters
        self._exits = ExitStack()
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
            ("do_commit", self._ending(self.commits, TransactionOutcome.COMMITTED)),
            ("do_rollback", self._ending(self.rollbacks, TransactionOutcome.ROLLED_BACK)),
            ("do_savepoint", self._saving),
            ("do_release_savepoint", self._leaving(TransactionOutcome.COMMITTED)),
            ("do_rollback_to_savepoint", self._leaving(TransactionOutcome.ROLLED_BACK)),
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
        self._exits.close()
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

    def _put(self, owner: Any, name: str, around: _Around) -> None:
        self._exits.callback(_put(owner, name, around(getattr(owner, name))))

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

    def _ending(self, times: Times, outcome: TransactionOutcome) -> _Around:
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
                    self.transactions.end(number, TransactionOutcome.FAILED if failed else outcome)
                return result

            return ending

        return around

    def _saving(self, save: Callable[..., Any]) -> Callable[..., Any]:
        def saving(connection: Any, name: str) -> Any:
            result = save(connection, name)
            self.transactions.save(id(connection.connection.dbapi_connection), name)
            return result

        return saving

    def _leaving(self, outcome: TransactionOutcome) -> _Around:
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
            self.transactions.end(id(connection), TransactionOutcome.CLOSED)
            with self._guard:
                self._connections.pop(id(connection), None)
            return close(connection)

        return closing

    def _watch(self, connection: Any) -> None:
        if id(connection) in self._connections:
            return
        with self._guard:
            if id(connection) not in self._connections:
                watch = _watch_async if self._engine.dialect.is_async else _watch_sync
                self._connections[id(connection)] = (connection, watch(connection, self._class_of))

    def _class_of(self, base: type[Any]) -> type[Any]:
        if base not in self._classes:
            self._classes[base] = _recording(base, self)
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


def _put(owner: Any, name: str, function: Callable[..., Any]) -> Callable[[], None]:
    """Put a function on an object, but not on its class; return a function that undoes it."""
    before = vars(owner).get(name)
    vars(owner)[name] = function

    def restore() -> None:
        if before is None:
            vars(owner).pop(name, None)
        else:
            vars(owner)[name] = before

    return restore


def _watch_sync(connection: Any, class_of: _Classes) -> Callable[[], None]:
    """Make a psycopg2 connection use other cursor classes; return a function that undoes it."""
    from psycopg2.extensions import cursor

    before = connection.cursor_factory
    connection.cursor_factory = class_of(before or cursor)

    def restore() -> None:
        connection.cursor_factory = before

    return restore


def _watch_async(connection: Any, class_of: _Classes) -> Callable[[], None]:
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


def _recording(base: type[Any], recorder: Recorder) -> type[Any]:
    """Return a subclass of the cursor class `base` that reports its work to the recorder."""

    class RecordingCursor(base):  # type: ignore[misc] # whatever class the connection has
        _asked: Query | None = None

        def close(self) -> None:
            query = self._asked
            if query is not None:
                query.running = False
            base.close(self)

    for name in _EXECUTING:
        if hasattr(base, name):
            make = _executing if name == "execute" else _executing_otherwise
            setattr(RecordingCursor, name, make(base, name, recorder))
    for name, size in _FETCHING.items():
        if hasattr(base, name):
            setattr(RecordingCursor, name, _fetching(getattr(base, name), size))
    return RecordingCursor


# The pool's check that a connection is alive is part of waiting for it, not a query.
_PING = "do_ping"


def _executing(base: type[Any], name: str, recorder: Recorder) -> Callable[..., Any]:
    """Return ``execute``, which runs most statements; names are looked up only once, for speed."""
    method = getattr(base, name)
    clock, frame_of = perf_counter, sys._getframe  # noqa: SLF001 - documented
    site_of, add, keeps = recorder.site, recorder.add, recorder.keeps_parameters

    def execute(self: Any, statement: Any, vars: Any = None) -> Any:  # noqa: A002 - psycopg2's
        caller = frame_of(1)
        if caller.f_code.co_name == _PING:
            return method(self, statement, vars)
        site = site_of(caller)
        if self._asked is not None:
            self._asked.running = False
        error = ""
        started = clock()
        try:
            return method(self, statement, vars)
        except BaseException as raised:
            error = error_name(raised)
            raise
        finally:
            seconds = clock() - started
            rows = -1 if error else self.rowcount
            if type(statement) is not str:
                statement = _text(self, name, statement, ())
            kept = vars if keeps else None
            self._asked = Query(statement, site, started, seconds, rows, error, kept, not error)
            add(self._asked)

    return execute


def _executing_otherwise(base: type[Any], name: str, recorder: Recorder) -> Callable[..., Any]:
    method = getattr(base, name)
    clock, frame_of = perf_counter, sys._getframe  # noqa: SLF001 - documented

    def execute(self: Any, statement: Any, *arguments: Any, **named: Any) -> Any:
        site = recorder.site(frame_of(1))
        if self._asked is not None:
            self._asked.running = False
        error = ""
        started = clock()
        try:
            return method(self, statement, *arguments, **named)
        except BaseException as raised:
            error = error_name(raised)
            raise
        finally:
            seconds = clock() - started
            text = _text(self, name, statement, arguments)
            rows = -1 if error else self.rowcount
            kept = arguments[0] if arguments and recorder.keeps_parameters else None
            self._asked = Query(text, site, started, seconds, rows, error, kept, not error)
            recorder.add(self._asked)

    return execute


def _fetching(method: Callable[..., Any], size: Callable[[Any], int]) -> Callable[..., Any]:
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
                query.error = error_name(raised)
            raise
        else:
            query.fetched += size(found)
            return found
        finally:
            query.fetching += clock() - started

    return fetch


def error_name(error: BaseException) -> str:
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


_EXECUTING = ("execute", "executemany", "callproc", "copy_expert", "copy_from", "copy_to")
_TABLES = {"copy_from": "FROM STDIN", "copy_to": "TO STDOUT"}
_FETCHING: dict[str, Callable[[Any], int]] = {
    "fetchone": lambda found: found is not None,
    "fetchmany": len,
    "fetchall": len,
    "__next__": lambda found: found is not None,
}


@contextmanager
def rehearsed(engine: Recordable) -> Iterator[None]:
    """Roll back everything that an engine does during a ``with`` block.

    Meanwhile the engine has one connection in one transaction: beginning a transaction sets a
    savepoint, and committing releases it. So later statements see what earlier ones committed.
    Do not use it for work in several threads. Effects outside transactions, such as those on
    sequences, remain.
    """
    inner = engine_of(engine)
    dialect, pool = inner.dialect, inner.pool
    numbers, open_ = count(1), list[int]()

    def begin(proxied: Any) -> None:
        if not _rehearses(proxied):
            open_.append(next(numbers))
            _say(proxied, f"SAVEPOINT rehearsal_{open_[-1]}")

    def ending(words: str) -> Callable[[Any], None]:
        def end(proxied: Any) -> None:
            if _rehearses(proxied):
                proxied.commit() if words.startswith("RELEASE") else proxied.rollback()
            elif open_:  # otherwise it is the pool, making sure that no transaction is open
                _say(proxied, f"{words} rehearsal_{open_.pop()}")

        return end

    shadows = {
        "do_begin": begin,
        "do_commit": ending("RELEASE SAVEPOINT"),
        "do_rollback": ending("ROLLBACK TO SAVEPOINT"),
    }
    inner.pool = StaticPool(
        pool._creator,  # noqa: SLF001 - as Pool.recreate() does
        dialect=dialect,
        _dispatch=pool.dispatch,
    )
    with ExitStack() as exits:
        for name, function in shadows.items():
            exits.callback(_put(dialect, name, function))
        try:
            yield
        finally:
            # Closing the connection during its transaction makes the server roll it back.
            used, inner.pool = inner.pool, pool
            exits.callback(used.dispose)


def _rehearses(proxied: Any) -> bool:
    """Return True if the connection's own policy makes it rehearse."""
    return getattr(proxied.dbapi_connection, "rehearsing", False)


def _say(proxied: Any, words: str) -> None:
    """Run a statement, bypassing any recorder."""
    connection = proxied.dbapi_connection
    if hasattr(connection, "cursor_factory"):
        from psycopg2.extensions import cursor

        bare: Any = cursor(connection)
    else:
        from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_cursor

        bare = AsyncAdapt_asyncpg_cursor(connection)
    try:
        bare.execute(words)
    finally:
        bare.close()


def listen(
    target: Engine | type[Engine], listeners: Mapping[str, Callable[..., Any]], *, on: bool
) -> None:
    """Start or stop listening to events of an engine, or of all; no listener is left."""
    change = event.listen if on else event.remove
    with _standstill():
        for name, listener in listeners.items():
            change(target, name, listener)


@contextmanager
def _standstill() -> Iterator[None]:
    """Run a non-blocking ``with`` block while no other thread iterates over listeners."""
    deadline = time.monotonic() + _PATIENCE_S
    with _ALONE:
        interval = sys.getswitchinterval()
        try:
            # No other thread may run between this check and the end of the block.
            sys.setswitchinterval(_UNDISTURBED_S)
            while _somebody_walks() and time.monotonic() < deadline:
                sys.setswitchinterval(interval)
                time.sleep(_GLANCE_S)
                sys.setswitchinterval(_UNDISTURBED_S)
            yield
        finally:
            sys.setswitchinterval(interval)


def _somebody_walks() -> bool:
    me = threading.get_ident()
    return any(_walks(frame) for thread, frame in sys._current_frames().items() if thread != me)  # noqa: SLF001 - documented, despite the underscore


def _walks(frame: FrameType | None) -> bool:
    """Return True if a thread is between two listeners, or in one.

    The engine's own module calls listeners, except while it waits for the driver in one of the
    dialect's ``do_...`` functions.
    """
    called = ""
    while frame is not None:
        if frame.f_code.co_filename == base.__file__:
            return not called.startswith("do_")
        called = frame.f_code.co_name
        frame = frame.f_back
    return False
