"""Running long statements so that Ctrl-C can interrupt them.

The driver blocks in C, where no Python signal handler runs until the statement is over. So each
statement runs in a separate thread, while the main thread waits where signals can reach it.
(psycopg2's wait callback would do for statements, but it rules out COPY.)
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import psycopg2
from sqlalchemy import Connection

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
GLANCE_S = 0.1
"""Seconds between checks for an interrupt."""
_PIECE = 1 << 16  # bytes; the capacity of a pipe


class Readable(Protocol):
    """A file that the driver reads from."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes; empty at the end."""


def cancellable(connection: Connection, work: Callable[[], T]) -> T:
    """Run the work; an interrupt cancels its statement on the server immediately.

    Raises:
        KeyboardInterrupt: The work was interrupted; its transaction has failed.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    worker = Worker(driver_of(connection), work)
    with NotedInterrupts() as interrupts:
        worker.start()
        worker.wait(lambda: interrupts.came)
    return worker.result()


def fed(connection: Connection, pieces: Iterable[bytes], work: Callable[[Readable], T]) -> T:
    """Run work that reads a file made of pieces; an interrupt also ends a wait for the next piece.

    The pieces are made in the calling thread, so their errors are raised unchanged.

    Raises:
        KeyboardInterrupt: The work was interrupted; the transaction has failed.
    """
    pipe = _Pipe()
    worker = Worker(driver_of(connection), lambda: work(pipe))
    try:
        with NotedInterrupts():
            worker.start()
        pipe.fill(pieces, worker.has_ended)
        with NotedInterrupts() as interrupts:
            pipe.end(complete=True)
            worker.wait(lambda: interrupts.came)
    except BaseException:
        with NotedInterrupts():
            pipe.end(complete=False)
            worker.wait(lambda: True)
        raise
    finally:
        pipe.close()
    return worker.result()


class StatementThread(threading.Thread):
    """A thread that runs a statement while another thread waits for it.

    Attributes:
        asked_by: The frame of the waiting thread; None once the work is done.
    """

    def __init__(self, work: Callable[[], None], asked_by: FrameType):
        super().__init__(name="statement", daemon=True)
        self._work = work
        self.asked_by: FrameType | None = asked_by

    def run(self) -> None:
        """Run the work."""
        try:
            self._work()
        finally:
            self.asked_by = None


def driver_of(connection: Connection) -> Any:
    """Return the driver's connection; call it early, because the work may lose the connection."""
    return connection.connection.driver_connection


class Worker(Generic[T]):
    """Work on a driver connection, done in a separate thread."""

    def __init__(self, driver: Any, work: Callable[[], T]):
        self._driver = driver
        self._work = work
        self._started = False
        self._done = threading.Event()
        self._outcome: list[T] = []
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Start the thread."""
        self._started = True
        StatementThread(self._run, sys._getframe(1)).start()  # noqa: SLF001 - documented, despite the underscore

    def _run(self) -> None:
        try:
            self._outcome.append(self._work())
        except BaseException as error:  # noqa: BLE001 - raised by result(), in the main thread
            self._failure = error
        finally:
            self._done.set()

    def has_ended(self) -> bool:
        """Return True once the work is over."""
        return self._done.is_set()

    def ended_within(self, seconds: float) -> bool:
        """Wait up to `seconds` for the work to end; return True if it has."""
        return self._done.wait(seconds)

    def cancel(self) -> None:
        """Cancel the running statement."""
        with suppress(psycopg2.Error):  # a broken connection ends the work anyway
            self._driver.cancel()

    def wait(self, unwanted: Callable[[], object]) -> None:
        """Wait for the work to end; keep canceling its statement while `unwanted` returns true."""
        while self._started and not self._done.wait(GLANCE_S):
            if unwanted():
                self.cancel()  # repeatedly, because the first may come before the statement

    def failure(self) -> BaseException | None:
        """Return the exception that the work raised, if any."""
        return self._failure

    def result(self) -> T:
        """Return the result of the work, or raise the exception that it raised."""
        if self._failure is not None:
            raise self._failure
        return self._outcome[0]


class NotedInterrupts:
    """A ``with`` block in which interrupts are only recorded; they take effect at its end."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # interrupts reach the main thread only
        try:
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):  # otherwise it is ignored, or ends the process
                    self._handlers[number] = handler
                    signal.signal(number, self._note)
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()
        for number in self.came:
            self._handlers[number](number, None)
        if self.came:
            raise KeyboardInterrupt

    def forget(self) -> None:
        """Discard the interrupts recorded so far."""
        self.came.clear()

    def pass_on(self) -> None:
        """Pass the recorded interrupts to their original handlers, which decide what they mean."""
        self._restore()
        while self.came:
            number = self.came.pop(0)
            self._handlers[number](number, None)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.came.append(number)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


class _Pipe:
    """An operating system pipe, which has no Python lock that an interrupt could leave locked."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._complete = True
        self._ended = False

    def fill(self, pieces: Iterable[bytes], unread: Callable[[], bool]) -> None:
        """Write the pieces; stop if the reader has ended, because its result says why."""
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                if unread():
                    return
                if select.select([], [self._writing], [], GLANCE_S)[1]:
                    rest = rest[os.write(self._writing, rest) :]

    def end(self, *, complete: bool) -> None:
        """Close the writing end; if not complete, the reader gets an `EOFError`."""
        if not self._ended:
            self._ended = True
            self._complete = complete
            os.close(self._writing)

    def read(self, _size: int = -1, /) -> bytes:
        data = os.read(self._reading, _PIECE)
        if not data and not self._complete:
            raise EOFError("interrupted")
        return data

    def close(self) -> None:
        os.close(self._reading)
