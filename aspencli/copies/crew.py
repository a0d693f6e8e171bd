"""A few threads that work on a list of tasks, each with database connections of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import psycopg2

_GLANCE_S = 0.1


class StoppedError(Exception):
    """The end of a task that another one's failure made pointless."""


class Crew:
    """The workers of one job; the first failure, or an interrupt, stops all of them."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._busy: dict[int, Any] = {}  # driver connections, by identity
        self._lock = threading.Lock()
        self.done = 0  # rows, for a progress bar

    def add(self, rows: int) -> None:
        """Count rows that are done."""
        with self._lock:
            self.done += rows

    def check(self) -> None:
        """Raise if the work is to stop.

        Raises:
            StoppedError: It is.
        """
        if self._stop.is_set():
            raise StoppedError

    def using(self, driver: Any) -> None:
        """Register a driver connection whose statement is canceled if the work is to stop."""
        with self._lock:
            self._busy[id(driver)] = driver

    def run(
        self,
        tasks: Sequence[Callable[[int], None]],
        workers: int,
        tick: Callable[[int], None] = lambda _done: None,
    ) -> None:
        """Run the tasks, each with the number of the worker that runs it.

        Raises:
            BaseException: The first failure, once all workers have stopped.
        """
        waiting: SimpleQueue[Callable[[int], None]] = SimpleQueue()
        for task in tasks:
            waiting.put(task)
        failures: list[BaseException] = []

        def work(number: int) -> None:
            while not self._stop.is_set():
                try:
                    task = waiting.get_nowait()
                except Empty:
                    return
                try:
                    task(number)
                except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
                    failures.append(error)
                    self._stop.set()

        count = min(workers, len(tasks))
        threads = [
            threading.Thread(target=work, args=(number,), name=f"copy {number}", daemon=True)
            for number in range(count)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(_GLANCE_S)
                    tick(self.done)
                    if self._stop.is_set():
                        self._cancel()
        finally:
            self._stop.set()
            while any(thread.is_alive() for thread in threads):
                self._cancel()
                for thread in threads:
                    thread.join(_GLANCE_S)
            self._busy.clear()
        real = [error for error in failures if not isinstance(error, StoppedError)]
        if failures:
            raise real[0] if real else failures[0]
        self._stop.clear()

    def _cancel(self) -> None:
        """Cancel the statements of all workers; repeatedly, as the first may come too early."""
        with self._lock:
            busy = list(self._busy.values())
        for driver in busy:
            with suppress(psycopg2.Error):  # a broken connection ends the work anyway
                driver.cancel()
