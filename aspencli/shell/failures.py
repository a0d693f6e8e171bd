"""An error of the operator's code in few words, where the words say more than the frames do."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from aspencli.dbfailures import PRIMARY_NEEDED
from aspencli.errors import AspenError
from db.errors import NotAllowedError, StandbyError

_SHOWN_LINES = 12
_SHOWN_SQL = 300
_READ_ONLY = "25006"
_HINTS = {
    "57014": "Longer, for this session: "
    """session.execute(sa.text("SET statement_timeout = '10min'"))""",
    "55P03": "Somebody else holds a lock; see who in pg_locks, or try again later.",
}
"""By SQLSTATE (PostgreSQL, appendix A): what helps at a prompt."""


@dataclass(frozen=True)
class Brief:
    """What is told of an error instead of its traceback."""

    message: str
    hint: str | None = None
    details: tuple[str, ...] = ()


def brief(
    error: BaseException, *, how_to_write: str, is_own: Callable[[str], bool]
) -> Brief | None:
    """The error in few lines; None where the traceback is what helps.

    Args:
        error: What the operator's code raised.
        how_to_write: What to do when a write was refused.
        is_own: Whether a file is the operator's own code, by its name in the traceback.
    """
    place = _place(error, is_own)
    if isinstance(error, KeyboardInterrupt):
        return Brief("interrupted", details=place)
    if isinstance(error, AspenError):
        return Brief(error.message, error.hint, (*error.details, *place))
    if isinstance(error, StandbyError | NotAllowedError):
        hint = getattr(error, "hint", PRIMARY_NEEDED) or how_to_write
        return Brief(str(error), hint, place)
    if isinstance(error, DBAPIError):
        return _of_driver(error, how_to_write, place)
    if isinstance(error, SQLAlchemyError):
        # Its first argument is the message without the link to SQLAlchemy's site.
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
    """The innermost line of the operator's own code; none where there is but one."""
    own = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if is_own(frame.f_code.co_filename)
    ]
    if not own or len(linecache.getlines(own[-1][0])) < 2:  # noqa: PLR2004 - "but one"
        return ()
    filename, line = own[-1]
    return (f"at line {line}: {linecache.getline(filename, line).strip()}",)
