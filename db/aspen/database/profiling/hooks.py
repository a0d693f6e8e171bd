"""Hooks on statement execution, which report each execution to a sink and print nothing.

A sink is notified when a statement is passed to the driver and when the driver has responded. The
time in between is the execution time: sending the statement and waiting for the server. It does
not include fetching rows (although psycopg2 transfers a result without a named cursor during the
execution), nor COPY through the driver's own cursor, which SQLAlchemy does not see.

SQLAlchemy iterates over a deque of listeners for each event. Adding or removing a listener breaks
the iteration of another thread ("deque mutated during iteration"), whose query would then fail. So
listeners change only while no other thread iterates (`standstill`).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext, base
from sqlalchemy.engine.interfaces import ExecutionContext

PATIENCE_S = 1.0
"""Seconds to wait for a moment when no other thread iterates over listeners."""
_GLANCE_S = 0.0002
_UNDISTURBED_S = 1.0  # far longer than adding and removing takes
_ALONE = threading.Lock()


@dataclass(slots=True)
class Execution:
    """One statement passed to the driver.

    Attributes:
        statement: The SQL, with placeholders; its parameters are never kept.
        many: Whether it ran once per set of parameters (``executemany``).
        started: The start time (``time.perf_counter``).
        seconds: The execution time; None while it runs.
        error: The exception that the driver raised; None if it did not.
    """

    statement: str
    many: bool
    started: float
    seconds: float | None = None
    error: BaseException | None = None


class Sink(Protocol):
    """A receiver of executions, which several threads may call at once."""

    def started(self, execution: Execution) -> None:
        """Handle a statement that is about to be passed to the driver."""

    def completed(self, execution: Execution) -> None:
        """Handle a response from the driver; ``seconds`` is set."""

    def failed(self, execution: Execution) -> None:
        """Handle an error from the driver; ``seconds`` and ``error`` are set."""


class Hooks:
    """A set of listeners for any number of engines that reports to one sink.

    An execution is reported once however many of its targets are hooked (the class ``Engine``, the
    engine, the engine that it was derived from), because it is identified by its context.

    Args:
        sink: The receiver of the executions.
    """

    def __init__(self, sink: Sink):
        self._sink = sink
        # Keyed by execution context, so that neither threads nor tasks can mix up pairs, and
        # weakly, so that an execution that never ends leaks nothing.
        self._running: WeakKeyDictionary[ExecutionContext, Execution] = WeakKeyDictionary()

    def attach(self, target: Engine | type[Engine]) -> None:
        """Listen to the target's executions."""
        with standstill():
            for name, listener in self._listeners():
                event.listen(target, name, listener)

    def detach(self, target: Engine | type[Engine]) -> None:
        """Stop listening, and remove all of these listeners from the target."""
        with standstill():
            for name, listener in self._listeners():
                event.remove(target, name, listener)

    def _listeners(self) -> tuple[tuple[str, Any], ...]:
        return (
            ("before_cursor_execute", self._before),
            ("after_cursor_execute", self._after),
            # After an error, the after-hook never runs.
            ("handle_error", self._error),
        )

    def _before(
        self,
        _connection: Connection,
        _cursor: Any,
        statement: str,
        _parameters: Any,
        context: ExecutionContext | None,
        executemany: bool,
    ) -> None:
        if context is None or context in self._running:
            return
        execution = Execution(statement, executemany, time.perf_counter())
        self._running[context] = execution
        self._sink.started(execution)
        # The time spent in the sink is not part of the execution.
        execution.started = time.perf_counter()

    def _after(
        self,
        _connection: Connection,
        _cursor: Any,
        _statement: str,
        _parameters: Any,
        context: ExecutionContext | None,
        _executemany: bool,
    ) -> None:
        now = time.perf_counter()
        execution = self._end(context)
        if execution is None:
            return
        execution.seconds = now - execution.started
        self._sink.completed(execution)

    def _error(self, failure: ExceptionContext) -> None:
        now = time.perf_counter()
        execution = self._end(failure.execution_context)
        if execution is None:
            return
        execution.seconds = now - execution.started
        execution.error = _specific(failure)
        self._sink.failed(execution)

    def _end(self, context: ExecutionContext | None) -> Execution | None:
        return None if context is None else self._running.pop(context, None)


def _specific(failure: ExceptionContext) -> BaseException:
    """Return the driver's own exception, unwrapped from the adapters of asynchronous drivers."""
    raised = failure.sqlalchemy_exception
    driver = getattr(raised, "driver_exception", None)
    return driver if isinstance(driver, BaseException) else failure.original_exception


@contextmanager
def standstill() -> Iterator[None]:
    """Run a non-blocking ``with`` block while no other thread iterates over listeners."""
    deadline = time.monotonic() + PATIENCE_S
    with _ALONE:
        interval = sys.getswitchinterval()
        try:
            # No other thread may run between this check and the end of the block.
            sys.setswitchinterval(_UNDISTURBED_S)
            while _somebody_walks() and time.monotonic() < deadline:
                sys.setswitchinterval(interval)
                time.sleep(_GLANCE_S)
                sys.setswitchinterval(_UNDISTURBED_S)
            yield
        finally:
            sys.setswitchinterval(interval)


def _somebody_walks() -> bool:
    me = threading.get_ident()
    return any(_walks(frame) for thread, frame in sys._current_frames().items() if thread != me)  # noqa: SLF001 - documented, despite the underscore


def _walks(frame: FrameType | None) -> bool:
    """Return True if a thread is between two listeners, or in one.

    The engine's own module calls listeners, except while it waits for the driver in one of the
    dialect's ``do_...`` functions.
    """
    called = ""
    while frame is not None:
        if frame.f_code.co_filename == base.__file__:
            return not called.startswith("do_")
        called = frame.f_code.co_name
        frame = frame.f_back
    return False
