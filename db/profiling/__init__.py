"""Query times on the logger ``sqltime``, for one engine or for all.

```
DEBUG:sqltime:Start Query: SELECT …
DEBUG:sqltime:Query Complete!
DEBUG:sqltime:Total Time: 0.012416
```

The times are execution times in seconds: sending the statement and waiting for the server,
without fetching rows. Parameters are not logged, because they may contain personal data.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from db.profiling.connections import Recordable, engine_of
from db.profiling.hooks import Hooks
from db.profiling.profiler import Profiler
from db.profiling.sqltime import LogSink, Visibility

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

__all__ = ["disable_profiling", "enable_profiling", "enable_profiling_ctx"]

Profiled: TypeAlias = "Recordable | None"
"""An engine to profile; None means every engine of the process."""

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
