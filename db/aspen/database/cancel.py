"""Running long statements so that Ctrl-C can interrupt them.

The driver blocks in C, where no Python signal handler runs until the statement is over. But the
number of a signal is written to a file descriptor immediately. A thread reads it there, and cancels
the statement on the server. This adds 15 µs to a statement; running it in a separate thread, while
the main thread waits, would add 200 µs. (psycopg2's wait callback would do, but it rules out COPY.)
"""

from __future__ import annotations

# The functions of signal itself try to make an enum member of each handler, which takes 10 µs.
import _signal  # type: ignore[import-not-found] # it has no stubs
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from queue import Empty, Queue, SimpleQueue
from types import FrameType
from typing import Any, Generic, NoReturn, Self, TypeVar

import psycopg2
from sqlalchemy import Connection

T = TypeVar("T")

_INTERRUPT, _TERMINATE = int(signal.SIGINT), int(signal.SIGTERM)
_SIGNALS = (_INTERRUPT, _TERMINATE)
GLANCE_S = 0.1  # between checks for an interrupt
_PIECE = 1 << 16  # bytes; the capacity of a pipe


def cancellable(connection: Connection, work: Callable[[], T]) -> T:
    """Run the work; an interrupt cancels its statement on the server immediately.

    Raises:
        KeyboardInterrupt: The work was interrupted; its transaction has failed.
    """
    return run_cancellable(driver_of(connection), work)


def run_cancellable(driver: Any, work: Callable[..., T], *arguments: Any) -> T:
    """Call work that runs statements on a driver's connection; see `cancellable`."""
    thread = threading.get_ident()
    canceler = _CANCELERS.get(thread)
    if canceler is None:
        if threading.current_thread() is not threading.main_thread():
            return work(*arguments)  # interrupts reach the main thread only
        canceler = _CANCELERS[thread] = _Canceler()
    if canceler.is_busy:
        return work(*arguments)  # a part of other work
    return canceler.run_work(driver, work, arguments)


def fed(connection: Connection, pieces: Iterable[bytes], work: Callable[[Pipe], T]) -> T:
    """Run work that reads a file made of pieces; an interrupt also ends a wait for the next piece.

    The pieces are made in the calling thread, so their errors are raised unchanged.

    Raises:
        KeyboardInterrupt: The work was interrupted; the transaction has failed.
    """
    pipe = Pipe()
    worker = StatementThread(driver_of(connection), lambda: work(pipe))
    try:
        with NotedInterrupts():
            worker.start()
        pipe.fill(pieces, worker.done.is_set)
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


def read_ahead(connection: Connection, parts: Iterator[T]) -> Generator[T, None, None]:
    """Yield the parts of a result; each is fetched while the caller works on the one before.

    An interrupt cancels the query on the server immediately. Close the generator, or read it to its
    end, before the connection is used again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield from parts
        return
    asked: SimpleQueue[bool] = SimpleQueue()
    # A SimpleQueue may wait forever if a signal comes just as its timeout ends.
    fetched: Queue[T | None] = Queue()

    def fetch() -> None:
        try:
            while asked.get() and (part := next(parts, None)) is not None:
                fetched.put(part)
        finally:
            fetched.put(None)

    worker = StatementThread(driver_of(connection), fetch)
    try:
        with NotedInterrupts():
            worker.start()
        asked.put(True)
        while (part := _awaited(fetched, worker)) is not None:
            asked.put(True)
            yield part
    finally:
        asked.put(False)
        with NotedInterrupts():
            worker.wait(lambda: True)
    worker.result()


def _awaited(fetched: Queue[T], worker: StatementThread[Any]) -> T:
    with NotedInterrupts() as interrupts:
        while True:
            with suppress(Empty):
                return fetched.get(timeout=GLANCE_S)
            if interrupts.came:
                worker.cancel()


class _Canceler:
    """A thread that cancels the statement of the main thread when a signal arrives."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)
        self._outer = -1  # the file descriptor that the numbers of signals went to before
        self._driver: Any = None
        self._lock = threading.Lock()  # held while a request to cancel is under way
        self._cancels = False
        self._came: list[int] = []
        threading.Thread(target=self._watch, name="canceler", daemon=True).start()

    @property
    def is_busy(self) -> bool:
        """Return True while there is work that can be canceled."""
        return self._driver is not None

    def run_work(self, driver: Any, work: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        """Call the work; interrupts cancel its statement, and take effect at its end.

        Written without helpers, because it is a part of each statement in the console.
        """
        change, note = _signal.signal, self._came_in
        interrupt, terminate = _signal.getsignal(_INTERRUPT), _signal.getsignal(_TERMINATE)
        self._outer = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        try:
            self._driver = driver
            if callable(interrupt):  # otherwise it is ignored, or ends the process
                change(_INTERRUPT, note)
            if callable(terminate):
                change(_TERMINATE, note)
            return work(*arguments)
        finally:
            signal.set_wakeup_fd(self._outer, warn_on_full_buffer=False)
            with self._lock:
                if self._came or self._outer != -1:
                    self._read()  # it must not cancel the next statement
                self._driver, self._cancels = None, False
            if callable(terminate):
                change(_TERMINATE, terminate)
            if callable(interrupt):
                change(_INTERRUPT, interrupt)
            if self._came:
                self._pass_on({_INTERRUPT: interrupt, _TERMINATE: terminate})

    def _came_in(self, number: int, _frame: FrameType | None) -> None:
        self._came.append(number)

    def _pass_on(self, handlers: dict[int, Any]) -> NoReturn:
        """Call the original handlers, which decide what the interrupts mean.

        Raises:
            KeyboardInterrupt: Always, unless a handler raises something else.
        """
        came, self._came = self._came, []
        try:
            for number in came:
                handlers[number](number, None)
        except BaseException as error:
            raise error from None
        raise KeyboardInterrupt from None

    def _watch(self) -> None:
        while True:
            # Cancel repeatedly, because the first request may come before the statement.
            select.select([self._reading], [], [], GLANCE_S if self._cancels else None)
            with self._lock:
                numbers = self._read()
                if self._driver is None:
                    continue
                self._cancels |= any(number in _SIGNALS for number in numbers)
                if self._cancels:
                    with suppress(psycopg2.Error):  # a broken connection ends the work anyway
                        self._driver.cancel()

    def _read(self) -> bytes:
        """Return the numbers of the signals that came in, after passing them on."""
        try:
            numbers = os.read(self._reading, _PIECE)
        except BlockingIOError:
            return b""
        if self._outer not in {-1, self._writing}:
            os.write(self._outer, numbers)
        return numbers


_CANCELERS: dict[int, _Canceler] = {}
"""The canceler of the main thread, by its identifier; created when it is first needed."""
os.register_at_fork(after_in_child=_CANCELERS.clear)  # it has no threads of its parent


def driver_of(connection: Connection) -> Any:
    """Return the driver's connection; call it early, because the work may lose the connection."""
    return connection.connection.driver_connection


class StatementThread(threading.Thread, Generic[T]):
    """A thread that works on a driver connection while another thread waits for it.

    Attributes:
        asked_by: The frame of the waiting thread; None once the work is done.
        done: Set once the work is over.
        failure: The exception that it raised, if any.
    """

    def __init__(self, driver: Any, work: Callable[[], T]):
        super().__init__(name="statement", daemon=True)
        self._driver = driver
        self._work = work
        self._outcome: list[T] = []
        self.asked_by: FrameType | None = None
        self.done = threading.Event()
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Start the thread, for the calling one."""
        self.asked_by = sys._getframe(1)  # noqa: SLF001 - documented, despite the underscore
        super().start()

    def run(self) -> None:
        """Run the work."""
        try:
            self._outcome.append(self._work())
        except BaseException as error:  # noqa: BLE001 - raised by result(), in the main thread
            self.failure = error
        finally:
            self.asked_by = None
            self.done.set()

    def cancel(self) -> None:
        """Cancel the running statement."""
        with suppress(psycopg2.Error):  # a broken connection ends the work anyway
            self._driver.cancel()

    def wait(self, unwanted: Callable[[], object]) -> None:
        """Wait for the work to end; keep canceling its statement while `unwanted` returns true."""
        while self.ident and not self.done.wait(GLANCE_S):
            if unwanted():
                self.cancel()  # repeatedly, because the first may come before the statement

    def result(self) -> T:
        """Return the result of the work, or raise the exception that it raised."""
        if self.failure is not None:
            raise self.failure
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

    def __exit__(self, *_error: object) -> None:
        came = bool(self.came)
        self.pass_on()
        if came:
            raise KeyboardInterrupt

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


class Pipe:
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
        """Return the next bytes; empty at the end."""
        data = os.read(self._reading, _PIECE)
        if not data and not self._complete:
            raise EOFError("interrupted")
        return data

    def close(self) -> None:
        """Close the reading end."""
        os.close(self._reading)
