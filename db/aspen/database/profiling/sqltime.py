"""Query times on the logger ``sqltime``, for one engine or for all.

```
DEBUG:sqltime:Start Query: SELECT …
DEBUG:sqltime:Query Complete!
DEBUG:sqltime:Total Time: 0.012416
```

The times are execution times in seconds: sending the statement and waiting for the server,
without fetching rows. Parameters are not logged, because they may contain personal data. Profiling
is counted: it ends, and the logger is restored, with its last user.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias
from weakref import WeakKeyDictionary, finalize

from sqlalchemy.engine import Engine

from aspen.database.profiling.hooks import Execution, Hooks
from aspen.database.profiling.recorder import Recordable, engine_of

LOGGER_NAME = "sqltime"
FORMAT = "%(levelname)s:%(name)s:%(message)s"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

logger = logging.getLogger(LOGGER_NAME)

Profiled: TypeAlias = "Recordable | None"
"""An engine to profile; None means every engine of the process."""
__all__ = ["disable_profiling", "enable_profiling", "enable_profiling_ctx"]


class LogSink:
    """A sink that logs each execution to ``sqltime`` at DEBUG, but never its parameters."""

    def started(self, execution: Execution) -> None:
        """Log the statement."""
        # A literal in the SQL must not be able to control the terminal.
        logger.debug(
            "Start Query: %s", _CONTROL.sub("\N{REPLACEMENT CHARACTER}", execution.statement)
        )

    def completed(self, execution: Execution) -> None:
        """Log the execution time, in seconds."""
        logger.debug("Query Complete!")
        logger.debug("Total Time: %f", execution.seconds)

    def failed(self, execution: Execution) -> None:
        """Log the class of the error and the time; not the message, which may contain data."""
        logger.debug("Query Failed: %s", type(execution.error).__name__)
        logger.debug("Total Time: %f", execution.seconds)


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


@dataclass(frozen=True)
class _Found:
    """The original state of the logger, to be restored."""

    level: int
    propagate: bool
    disabled: bool
    handler: logging.Handler | None


class Visibility:
    """A counted switch that makes ``sqltime`` records visible, then restores the logger."""

    def __init__(self) -> None:
        self._users = 0
        self._found: _Found | None = None

    def acquire(self) -> None:
        """Add a user; the first one sets up the logger."""
        self._users += 1
        if self._users == 1:
            self._found = self._set_up()

    def release(self) -> None:
        """Remove a user; the last one restores the logger."""
        self._users -= 1
        if self._users or self._found is None:
            return
        found, self._found = self._found, None
        if found.handler is not None:
            logger.removeHandler(found.handler)
            found.handler.close()
        logger.setLevel(found.level)
        logger.propagate = found.propagate
        logger.disabled = found.disabled

    def _set_up(self) -> _Found:
        handler = None if _somebody_shows_debug() else CurrentStderrHandler()
        found = _Found(logger.level, logger.propagate, logger.disabled, handler)
        logger.setLevel(logging.DEBUG)
        logger.disabled = False  # logging.config.fileConfig disables loggers it does not know
        if handler is not None:
            logger.addHandler(handler)
            # Logging that is configured later must not print the records a second time.
            logger.propagate = False
        return found


def _somebody_shows_debug() -> bool:
    """Return True if a handler of the application gets this logger's DEBUG records."""
    current: logging.Logger | None = logger
    while current is not None:
        for handler in current.handlers:
            if handler.level <= logging.DEBUG and not isinstance(handler, logging.NullHandler):
                return True
        current = current.parent if current.propagate else None
    return False


class Profiler:
    """A profiler that listens to each engine as long as it has users.

    Args:
        hooks: The listeners.
        visibility: Makes the records visible meanwhile.
    """

    def __init__(self, hooks: Hooks, visibility: Visibility):
        self._hooks = hooks
        self._visibility = visibility
        # Reentrant, because an engine's finalizer runs in whichever thread collects it.
        self._lock = threading.RLock()
        self._everywhere = 0
        self._engines: WeakKeyDictionary[Engine, int] = WeakKeyDictionary()
        self._forgetting: WeakKeyDictionary[Engine, finalize[[], Engine]] = WeakKeyDictionary()

    def enable(self, engine: Engine | None) -> None:
        """Add a user of the engine's profiling; None means all engines."""
        with self._lock:
            users = self._count(engine, +1)
            if users > 1:
                return
            self._visibility.acquire()
            self._hooks.attach(Engine if engine is None else engine)
            if engine is not None:
                # An engine that is garbage-collected while profiled releases its share.
                forgetting = finalize(engine, self._release)
                forgetting.atexit = False
                self._forgetting[engine] = forgetting

    def disable(self, engine: Engine | None) -> None:
        """Remove a user of the engine's profiling; do nothing if there is none."""
        with self._lock:
            if not self._users(engine) or self._count(engine, -1):
                return
            self._hooks.detach(Engine if engine is None else engine)
            if engine is not None:
                self._forgetting.pop(engine).detach()
            self._release()

    def _release(self) -> None:
        with self._lock:
            self._visibility.release()

    def _users(self, engine: Engine | None) -> int:
        return self._everywhere if engine is None else self._engines.get(engine, 0)

    def _count(self, engine: Engine | None, change: int) -> int:
        users = self._users(engine) + change
        if engine is None:
            self._everywhere = users
        elif users:
            self._engines[engine] = users
        else:
            del self._engines[engine]
        return users


_PROFILER = Profiler(Hooks(LogSink()), Visibility())


def enable_profiling(engine: Profiled = None) -> None:
    """Log each query of the engine and its execution time.

    The lines go where the application sends DEBUG records of ``sqltime``, or else to stderr.
    Calls are counted: an engine that was enabled twice must be disabled twice. An engine that is
    enabled both by itself and through "all engines" is reported once.

    Raises:
        TypeError: It is not an engine.
    """
    _PROFILER.enable(_sync_engine(engine))


def disable_profiling(engine: Profiled = None) -> None:
    """Undo one `enable_profiling` call for the same engine; do nothing if there was none.

    After the last one, no listener is left on the engine, and the logger is restored.

    Raises:
        TypeError: It is not an engine.
    """
    _PROFILER.disable(_sync_engine(engine))


@contextmanager
def enable_profiling_ctx(engine: Profiled = None) -> Iterator[None]:
    """Profile the engine during a ``with`` block.

    Raises:
        TypeError: It is not an engine.
    """
    target = _sync_engine(engine)
    _PROFILER.enable(target)
    try:
        yield
    finally:
        _PROFILER.disable(target)


def _sync_engine(engine: Profiled) -> Engine | None:
    return None if engine is None else engine_of(engine)
