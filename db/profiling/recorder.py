"""The recorder of one engine: attached for a while, gone without a trace."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable
from time import perf_counter
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from weakref import WeakSet

from sqlalchemy.engine import Engine

from db.database import Database
from db.profiling.callers import Site, calling_site, calling_site_of_task
from db.profiling.cursors import recording
from db.profiling.queries import Log, Query

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

Recordable: TypeAlias = "Engine | AsyncEngine | Database"
_ATTACHED: WeakSet[Any] = WeakSet()
_LOCK = threading.Lock()


class Spans:
    """How often something happened, and how long it took; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.started, self.seconds = array("d"), array("d")
        self.failed = 0

    def add(self, started: float, *, failed: bool = False) -> None:
        """One more, which ended now."""
        seconds = perf_counter() - started
        with self._lock:
            self.started.append(started)
            self.seconds.append(seconds)
            self.failed += failed

    def __len__(self) -> int:
        return len(self.started)

    @property
    def total(self) -> float:
        """Seconds, all together."""
        return sum(self.seconds)


class Recorder:
    """Records what is asked of the database by one engine, while a ``with`` block runs.

    It stands between SQLAlchemy and the driver, and listens to no event: the cursors of the
    engine's connections report what they execute and fetch. A connection that is in use when the
    recorder comes is recorded after the first statement of its next transaction. Work that goes to
    asyncpg's own connection, past SQLAlchemy, is not seen.

    Args:
        engine: What to record; engines made of it by ``execution_options`` are recorded with it.
        parameters: Whether the parameters of the slowest statement of each group are kept.

    Raises:
        TypeError: It is no engine.
    """

    def __init__(self, engine: Recordable, *, parameters: bool = False):
        self._engine = engine_of(engine)
        self.keeps_parameters = parameters
        self.log = Log()
        self.waits, self.commits, self.rollbacks = Spans(), Spans(), Spans()
        self._begun, self._open = array("d"), set[int]()
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
        """Begin.

        Raises:
            RuntimeError: The engine is being recorded already.
        """
        dialect = self._engine.dialect
        with _LOCK:
            if dialect in _ATTACHED:
                raise RuntimeError("this engine is being recorded already")
            _ATTACHED.add(dialect)
        self.began, self.ended = perf_counter(), 0.0
        for name, around in (
            ("do_begin", self._beginning),
            ("do_commit", self._ending(self.commits)),
            ("do_rollback", self._ending(self.rollbacks)),
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
        """End."""
        self.stop()

    def stop(self) -> None:
        """End now: the engine, its pool and its connections are as they were."""
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
        self.log.fold(everything=True)

    @property
    def begun(self) -> int:
        """How many transactions were begun."""
        return len(self._begun)

    @property
    def seconds(self) -> float:
        """How long it has recorded."""
        return (self.ended or perf_counter()) - self.began

    def _put(
        self, owner: Any, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]
    ) -> None:
        # On the object, not on its class: others of the class are nobody's business.
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
            self._open.add(id(proxied.dbapi_connection))
            self._begun.append(perf_counter())
            self._watch(proxied.dbapi_connection)
            pool = self._engine.pool
            if "connect" not in vars(pool):  # the engine was disposed of, and has a new one
                self._put(pool, "connect", self._connecting)
            return begin(proxied)

        return beginning

    def _ending(self, spans: Spans) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def around(end: Callable[..., Any]) -> Callable[..., Any]:
            def ending(proxied: Any) -> Any:
                number = id(proxied.dbapi_connection)
                if number not in self._open:  # the pool makes sure that there is no transaction
                    return end(proxied)
                self._open.discard(number)
                started = perf_counter()
                failed = True
                try:
                    result = end(proxied)
                    failed = False
                finally:
                    spans.add(started, failed=failed)
                return result

            return ending

        return around

    def _closing(self, close: Callable[..., Any]) -> Callable[..., Any]:
        def closing(connection: Any) -> Any:
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
            self._classes[base] = recording(base, self)
        return self._classes[base]


def engine_of(engine: Recordable) -> Engine:
    """The engine whose dialect and pool do the work.

    Raises:
        TypeError: It is no engine.
    """
    if isinstance(engine, Database):
        return engine.engine
    # An AsyncEngine works with the engine below it; its class is not imported for that.
    below = getattr(engine, "sync_engine", engine)
    if isinstance(below, Engine):
        return below
    raise TypeError(f"an engine is needed, not a {type(engine).__name__}")


def _watch_sync(connection: Any, class_of: Callable[[type[Any]], type[Any]]) -> Callable[[], None]:
    from psycopg2.extensions import cursor

    before = connection.cursor_factory
    connection.cursor_factory = class_of(before or cursor)

    def restore() -> None:
        connection.cursor_factory = before

    return restore


def _watch_async(connection: Any, class_of: Callable[[type[Any]], type[Any]]) -> Callable[[], None]:
    plain = type(connection)
    # The adapter knows its class of cursors by a class attribute only, and has no __dict__.
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
