"""Cancellation of the running statement on the server when Ctrl-C is pressed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.engine.interfaces import ExecutionContext

from db.interrupts import cancellable


@contextmanager
def interruptible() -> Iterator[None]:
    """Make every statement on every engine interruptible by Ctrl-C within a ``with`` block.

    psycopg2's own solution, a wait callback, is not used: it forbids COPY, and it makes the driver
    ignore ``connect_timeout``.
    """
    listeners = (
        ("do_execute", _execute),
        ("do_executemany", _execute_many),
        ("do_execute_no_params", _execute_no_params),
        ("handle_error", _keep_connection),
    )
    for name, listener in listeners:
        event.listen(Engine, name, listener)
    try:
        yield
    finally:
        for name, listener in listeners:
            event.remove(Engine, name, listener)


def _execute(cursor: Any, statement: str, parameters: Any, context: ExecutionContext) -> bool:
    return _run(context, lambda: context.dialect.do_execute(cursor, statement, parameters, context))


def _execute_many(cursor: Any, statement: str, parameters: Any, context: ExecutionContext) -> bool:
    return _run(
        context, lambda: context.dialect.do_executemany(cursor, statement, parameters, context)
    )


def _execute_no_params(cursor: Any, statement: str, context: ExecutionContext) -> bool:
    return _run(context, lambda: context.dialect.do_execute_no_params(cursor, statement, context))


def _run(context: ExecutionContext, work: Callable[[], None]) -> bool:
    """Execute with the dialect and return True; return False to leave it to SQLAlchemy."""
    if context.dialect.is_async:
        return False
    cancellable(context.root_connection, work)
    return True


def _keep_connection(failure: ExceptionContext) -> None:
    # SQLAlchemy discards a connection when an interrupt passes through it, because the driver may
    # be mid-operation. Here the statement has ended, and the transaction is rolled back.
    if isinstance(failure.original_exception, KeyboardInterrupt):
        failure.is_disconnect = False
