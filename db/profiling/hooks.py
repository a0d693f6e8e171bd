"""Hooks on the execution of statements: they report each execution to a sink, and print nothing.

A sink is told when a statement is handed to the driver and when the driver has answered. The time
between the two is the execution's: sending the statement and waiting for the server. Fetching rows
is not in it (a psycopg2 result without a named cursor is transferred during the execution, though),
nor is a COPY through the driver's own cursor, which SQLAlchemy does not see.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.engine.interfaces import ExecutionContext

from db.profiling.standstill import standstill


@dataclass(slots=True)
class Execution:
    """One statement handed to the driver.

    Attributes:
        statement: The SQL, with placeholders; its parameters are never kept.
        many: Whether it ran once per set of parameters (``executemany``).
        started: When it was handed over (``time.perf_counter``).
        seconds: How long the driver took; None while it runs.
        error: What the driver raised; None when it did not.
    """

    statement: str
    many: bool
    started: float
    seconds: float | None = None
    error: BaseException | None = None


class Sink(Protocol):
    """What is told of executions; it may be called from several threads at once."""

    def started(self, execution: Execution) -> None:
        """The statement is about to be handed to the driver."""

    def completed(self, execution: Execution) -> None:
        """The driver answered; ``seconds`` is set."""

    def failed(self, execution: Execution) -> None:
        """The driver raised; ``seconds`` and ``error`` are set."""


class Hooks:
    """One set of listeners, for any number of engines, that reports to one sink.

    An execution is reported once however many of its targets are hooked (the class ``Engine``, the
    engine, the engine that it was derived from), because it is known by its context.

    Args:
        sink: What is told of each execution.
    """

    def __init__(self, sink: Sink):
        self._sink = sink
        # Keyed by the execution's own context, so neither threads nor tasks can mix up pairs, and
        # weakly, so an execution that never reaches its end leaks nothing.
        self._running: WeakKeyDictionary[ExecutionContext, Execution] = WeakKeyDictionary()

    def attach(self, target: Engine | type[Engine]) -> None:
        """Listen to the target's executions."""
        with standstill():
            for name, listener in self._listeners():
                event.listen(target, name, listener)

    def detach(self, target: Engine | type[Engine]) -> None:
        """Stop listening; no listener of ours is left on the target."""
        with standstill():
            for name, listener in self._listeners():
                event.remove(target, name, listener)

    def _listeners(self) -> tuple[tuple[str, Any], ...]:
        return (
            ("before_cursor_execute", self._before),
            ("after_cursor_execute", self._after),
            # On an error the after-hook never runs.
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
        # What the sink did is no part of the execution.
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
    """The driver's own exception, from below the adapters of the asynchronous drivers."""
    raised = failure.sqlalchemy_exception
    driver = getattr(raised, "driver_exception", None)
    return driver if isinstance(driver, BaseException) else failure.original_exception
