"""Failures of the operator's code: short messages for errors, and Ctrl-C.

A message takes the place of a traceback that would not help. Ctrl-C cancels the running statement
on the server.
"""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.engine.interfaces import ExecutionContext
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from aspen.database.cancel import cancellable
from aspen.database.errors import NotAllowedError, StandbyError
from aspencli.cli.database_failures import PRIMARY_NEEDED
from aspencli.errors import AspenError

_SHOWN_LINES = 12
_SHOWN_SQL = 300
_READ_ONLY = "25006"
_HINTS = {
    "57014": "To allow more time in this session: "
    """session.execute(sa.text("SET statement_timeout = '10min'"))""",
    "55P03": "Another session holds a lock. Find it in pg_locks, or try again later.",
}
"""Hints for the prompt, by SQLSTATE (PostgreSQL manual, appendix A)."""


@dataclass(frozen=True)
class Brief:
    """An error message shown instead of a traceback."""

    message: str
    hint: str | None = None
    details: tuple[str, ...] = ()


def brief(
    error: BaseException, *, how_to_write: str, is_own: Callable[[str], bool]
) -> Brief | None:
    """Return a short message for an error, or None where the traceback is more useful.

    Args:
        error: Exception raised by the operator's code.
        how_to_write: Hint for a refused write.
        is_own: Returns True if a file name in the traceback is the operator's own code.
    """
    place = _place(error, is_own)
    if isinstance(error, KeyboardInterrupt):
        return Brief("Interrupted", details=place)
    if isinstance(error, AspenError):
        return Brief(error.message, error.hint, (*error.details, *place))
    if isinstance(error, StandbyError | NotAllowedError):
        hint = getattr(error, "hint", PRIMARY_NEEDED) or how_to_write
        return Brief(str(error), hint, place)
    if isinstance(error, DBAPIError):
        return _of_driver(error, how_to_write, place)
    if isinstance(error, SQLAlchemyError):
        # The first argument is the message without the link to the SQLAlchemy website.
        message = str(error.args[0]) if error.args else ""
        return Brief(f"{type(error).__name__}: {message}", details=place)
    return None


def _of_driver(error: DBAPIError, how_to_write: str, place: tuple[str, ...]) -> Brief:
    driver = error.orig
    lines = str(driver).strip().splitlines() or [""]
    details = [*lines[1:_SHOWN_LINES], *_statement(error), *place]
    state = getattr(driver, "pgcode", None)
    hint = how_to_write if state == _READ_ONLY else _HINTS.get(state or "")
    return Brief(f"{type(driver).__name__}: {lines[0]}", hint, tuple(details))


def _statement(error: DBAPIError) -> list[str]:
    if error.statement is None:
        return []
    sql = " ".join(error.statement.split())
    return ["SQL: " + (sql if len(sql) <= _SHOWN_SQL else sql[:_SHOWN_SQL] + "…")]


def _place(error: BaseException, is_own: Callable[[str], bool]) -> tuple[str, ...]:
    """Return the innermost line of the operator's code; empty if the code has only one line."""
    own = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if is_own(frame.f_code.co_filename)
    ]
    if not own or len(linecache.getlines(own[-1][0])) < 2:  # noqa: PLR2004 - at least two lines
        return ()
    filename, line = own[-1]
    return (f"at line {line}: {linecache.getline(filename, line).strip()}",)


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
