"""Reference counting for the profiling of engines."""

from __future__ import annotations

import threading
from weakref import WeakKeyDictionary, finalize

from sqlalchemy.engine import Engine

from db.profiling.hooks import Hooks
from db.profiling.sqltime import Visibility


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
