"""What takes long to load, loaded while the operator looks at the prompt."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Loading(Generic[T]):
    """Work in a thread of its own, begun when told to, and waited for when its result is needed.

    Args:
        work: Makes the result.
    """

    def __init__(self, work: Callable[[], T]):
        self._work = work
        self._thread: threading.Thread | None = None
        self.future: Future[T] = Future()

    def start(self) -> None:
        """Begin, unless it has begun."""
        if self._thread is None:
            # A daemon, so that a server that does not answer cannot hold up the exit.
            self._thread = threading.Thread(target=self._load, name="loading", daemon=True)
            self._thread.start()

    def result(self) -> T:
        """The result, waited for; what the work raised is raised. Ctrl-C ends the wait."""
        self.start()
        return self.future.result()

    def loaded(self) -> T | None:
        """The result if there is one by now."""
        if not self.future.done() or self.future.exception() is not None:
            return None
        return self.future.result()

    def finish(self, timeout: float) -> T | None:
        """The result if there is one within so many seconds, and the work was begun at all."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self.loaded()

    def _load(self) -> None:
        try:
            result = self._work()
        except BaseException as error:  # noqa: BLE001 - raised again where the result is needed
            self.future.set_exception(error)
        else:
            self.future.set_result(result)
