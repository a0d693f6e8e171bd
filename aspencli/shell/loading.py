"""Background loading of slow imports and connections while the prompt is already shown."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Loading(Generic[T]):
    """A task in a separate thread, started on request and awaited when its result is needed.

    Args:
        work: Produces the result.
    """

    def __init__(self, work: Callable[[], T]):
        self._work = work
        self._thread: threading.Thread | None = None
        self.future: Future[T] = Future()

    def start(self) -> None:
        """Start the task unless it has been started."""
        if self._thread is None:
            # A daemon thread, so that an unresponsive server cannot delay the exit.
            self._thread = threading.Thread(target=self._load, name="loading", daemon=True)
            self._thread.start()

    def result(self) -> T:
        """Wait for the result, and return it or raise the task's error. Ctrl-C ends the wait."""
        self.start()
        return self.future.result()

    def loaded(self) -> T | None:
        """Return the result if it is available already, else None."""
        if not self.future.done() or self.future.exception() is not None:
            return None
        return self.future.result()

    def finish(self, timeout: float) -> T | None:
        """Return the result if the task was started and ends within the timeout, in seconds."""
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
