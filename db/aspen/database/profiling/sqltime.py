"""Query times on the logger ``sqltime``, for one engine or for all.

```
DEBUG:sqltime:Start Query: SELECT …
DEBUG:sqltime:Query Complete!
DEBUG:sqltime:Total Time: 0.012416
```

The times are execution times in seconds: sending the statement and waiting for the server,
without fetching rows (although psycopg2 transfers a result without a named cursor during the
execution). COPY through the driver's own cursor, which SQLAlchemy does not see, is left out.
Parameters are not logged, because they may contain personal data. Profiling is counted: it ends,
and the logger is restored, with its last user.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, finalize

from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.engine.interfaces import ExecutionContext

from aspen.database.profiling.recorder import Recordable, engine_of, error_name, listen

LOGGER_NAME = "sqltime"
FORMAT = "%(levelname)s:%(name)s:%(message)s"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

logger = logging.getLogger(LOGGER_NAME)

Profiled: TypeAlias = "Recordable | None"
"""An engine to profile; None means every engine of the process."""
__all__ = ["disable_profiling", "enable_profiling", "enable_profiling_ctx"]


class _Statements:
    """The listeners that log the executions of any number of engines, but never parameters.

    An execution is logged once however many of its targets are listened to (the class ``Engine``,
    the engine, the engine that it was derived from), because it is identified by its context.
    """

    def __init__(self) -> None:
        # Keyed by execution context, so that neither threads nor tasks can mix up pairs, and
        # weakly, so that an execution that never ends leaks nothing.
        self._started: WeakKeyDictionary[ExecutionContext, float] = WeakKeyDictionary()
        self.listeners: dict[str, Callable[..., None]] = {
            "before_cursor_execute": self._before,
            "after_cursor_execute": self._after,
            "handle_error": self._failed,  # after an error, the after-hook never runs
        }

    def _before(
        self,
        _connection: Any,
        _cursor: Any,
        statement: str,
        _values: Any,
        context: Any,
        _many: bool,
    ) -> None:
        if context is None or context in self._started:
            return
        # A literal in the SQL must not be able to control the terminal.
        logger.debug("Start Query: %s", _CONTROL.sub("\N{REPLACEMENT CHARACTER}", statement))
        self._started[context] = perf_counter()

    def _after(
        self, _connection: Any, _cursor: Any, _sql: str, _values: Any, context: Any, _many: bool
    ) -> None:
        self._end(context, "Query Complete!")

    def _failed(self, failure: ExceptionContext) -> None:
        # The class only: the message may contain data.
        name = error_name(failure.original_exception)
        self._end(failure.execution_context, f"Query Failed: {name}")

    def _end(self, context: ExecutionContext | None, how: str) -> None:
        now = perf_counter()
        started = None if context is None else self._started.pop(context, None)
        if started is not None:
            logger.debug(how)
            logger.debug("Total Time: %f", now - started)


class CurrentStderrHandler(logging.Handler):
    """A handler for the current ``sys.stderr``, which a console or a test may replace."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter(FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        if sys.stderr is None:  # the process was started without one
            return
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            self.handleError(record)  # closed or broken, which must not fail a query


def _somebody_shows_debug() -> bool:
    """Return True if a handler of the application gets this logger's DEBUG records."""
    current: logging.Logger | None = logger
    while current is not None:
        for handler in current.handlers:
            if handler.level <= logging.DEBUG and not isinstance(handler, logging.NullHandler):
                return True
        current = current.parent if current.propagate else None
    return False


class _Profiler:
    """A profiler that listens to each engine, and shows the records, as long as it has users."""

    def __init__(self) -> None:
        self._statements = _Statements()
        # Reentrant, because an engine's finalizer runs in whichever thread collects it.
        self._lock = threading.RLock()
        self._users: dict[int | None, int] = {}  # by the ID of the engine; None means all engines
        self._finalizers: dict[int, finalize[[int], Engine]] = {}
        self._handler: CurrentStderrHandler | None = None
        self._found = (logger.level, logger.propagate, logger.disabled)

    def enable(self, engine: Engine | None) -> None:
        """Add a user of the engine's profiling; None means all engines."""
        key = None if engine is None else id(engine)
        with self._lock:
            if not self._users:
                self._show()
            self._users[key] = self._users.get(key, 0) + 1
            if self._users[key] > 1:
                return
            listen(engine or Engine, self._statements.listeners, on=True)
            if engine is not None:
                # An engine that is garbage-collected while profiled releases its share.
                self._finalizers[id(engine)] = finalize(engine, self._forget, id(engine))
                self._finalizers[id(engine)].atexit = False

    def disable(self, engine: Engine | None) -> None:
        """Remove a user of the engine's profiling; do nothing if there is none."""
        key = None if engine is None else id(engine)
        with self._lock:
            if key not in self._users:
                return
            self._users[key] -= 1
            if not self._users[key]:
                listen(engine or Engine, self._statements.listeners, on=False)
                self._forget(key)

    def _forget(self, key: int | None) -> None:
        with self._lock:
            del self._users[key]
            if key is not None:
                self._finalizers.pop(key).detach()
            if not self._users:
                self._restore()

    def _show(self) -> None:
        """Make the records visible."""
        self._found = (logger.level, logger.propagate, logger.disabled)
        self._handler = None if _somebody_shows_debug() else CurrentStderrHandler()
        logger.setLevel(logging.DEBUG)
        logger.disabled = False  # logging.config.fileConfig disables loggers it does not know
        if self._handler is not None:
            logger.addHandler(self._handler)
            # Logging that is configured later must not print the records a second time.
            logger.propagate = False

    def _restore(self) -> None:
        """Return the logger to its original state."""
        if self._handler is not None:
            logger.removeHandler(self._handler)
            self._handler.close()
        level, logger.propagate, logger.disabled = self._found
        logger.setLevel(level)


_PROFILER = _Profiler()


def enable_profiling(engine: Profiled = None) -> None:
    """Log each query of the engine and its execution time.

    The lines go where the application sends DEBUG records of ``sqltime``, or else to stderr.
    Calls are counted: an engine that was enabled twice must be disabled twice. An engine that is
    enabled both by itself and through "all engines" is reported once.

    Raises:
        TypeError: It is not an engine.
    """
    _PROFILER.enable(_sync(engine))


def disable_profiling(engine: Profiled = None) -> None:
    """Undo one `enable_profiling` call for the same engine; do nothing if there was none.

    After the last one, no listener is left on the engine, and the logger is restored.

    Raises:
        TypeError: It is not an engine.
    """
    _PROFILER.disable(_sync(engine))


@contextmanager
def enable_profiling_ctx(engine: Profiled = None) -> Iterator[None]:
    """Profile the engine during a ``with`` block.

    Raises:
        TypeError: It is not an engine.
    """
    target = _sync(engine)
    _PROFILER.enable(target)
    try:
        yield
    finally:
        _PROFILER.disable(target)


def _sync(engine: Profiled) -> Engine | None:
    return None if engine is None else engine_of(engine)
