"""Sessions and queries of diagnostics, and what the user is allowed to see on the server."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from aspencli.text import counted, sql_name

if TYPE_CHECKING:
    from aspen.database.engine import Database
    from aspen.database.sessions import ReadSession

OURS = (
    "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'"
    " AND n.nspname NOT LIKE 'pg\\_temp\\_%'"
)
"""The SQL condition for schemas ``n`` that are neither system nor temporary schemas."""
HIDDEN = "<insufficient privilege>"
"""The text that the server shows instead of another user's statement."""
# Diagnostics must not get stuck behind the problem that they investigate.
_LOCK_MS = 500
_STATEMENT_MS = 15_000
_STEPS = 10  # statements listed below a table
_NAMED = 5  # tables named in a message
# Statements such as CREATE ROLE contain the password. Inside another literal its quotes are
# doubled, and a long statement may be truncated in the middle of it.
_PASSWORD = re.compile(
    r"(\bpassword\s*(?:=|:=)?\s*)(?:[eu]&?)?(?:''[^']*(?:''|$)|'(?:[^']|'')*(?:'|$))", re.IGNORECASE
)
_RIGHTS = """
SELECT current_user::text AS user,
    pg_has_role(current_user, 'pg_read_all_settings', 'USAGE') AS settings
"""
# Reading the size of a relation takes a lock on it, which would wait for any session that holds an
# exclusive lock or is queued for one.
_HELD = """
WITH held AS MATERIALIZED (
    SELECT DISTINCT relation FROM pg_locks
    WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND pid <> pg_backend_pid()
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'p') AND (c.oid IN (SELECT relation FROM held)
    OR c.reltoastrelid IN (SELECT relation FROM held WHERE relation <> 0)
    OR c.oid IN (SELECT indrelid FROM pg_index JOIN held ON relation = indexrelid))
"""


class VisibilityRights(NamedTuple):
    """A session's user, and what it may see."""

    user: str
    settings: bool  # all of them

    @property
    def cure(self) -> str:
        """Return the statement that lets this user see everything."""
        return f"GRANT pg_monitor TO {sql_name(self.user)}"


def patient(database: Database) -> Database:
    """Return the same database with short timeouts; the caller must dispose of it."""
    return database.with_limits(lock_ms=_LOCK_MS, statement_ms=_STATEMENT_MS)


@contextmanager
def looking(database: Database) -> Iterator[ReadSession]:
    """Yield a read-only session with short lock and statement timeouts."""
    limited = patient(database)
    try:
        with limited.observing() as session:
            yield session
    finally:
        limited.dispose()


def query(session: ReadSession, sql: str, **values: Any) -> list[dict[str, Any]]:
    """Return the rows of a query."""
    import sqlalchemy as sa

    return [dict(row) for row in session.execute(sa.text(sql), values).mappings()]


def scalar(session: ReadSession, sql: str, **values: Any) -> Any:
    """Return the first value of a query's first row; None if there is no row."""
    import sqlalchemy as sa

    return session.scalar(sa.text(sql), values)


def rights(session: ReadSession) -> VisibilityRights:
    """Return what the current user is allowed to see."""
    (row,) = query(session, _RIGHTS)
    return VisibilityRights(**row)


def columns_of(session: ReadSession, view: str) -> frozenset[str]:
    """Return the columns that a view has on this server; empty if the view does not exist."""
    found = query(
        session,
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:view)"
        " AND attnum > 0 AND NOT attisdropped",
        view=view,
    )
    return frozenset(row["attname"] for row in found)


def held(session: ReadSession) -> dict[int, str]:
    """Return the tables that are exclusively locked, or about to be, by OID.

    The server is asked once per connection: three of the doctor's checks need the answer within a
    second, and a table locked since then is reported when its lock times out.
    """
    kept: dict[int, str] | None = session.connection().info.get(_HELD)
    if kept is None:
        kept = {row["oid"]: row["name"] for row in query(session, _HELD)}
        session.connection().info[_HELD] = kept
    return kept


def masked(statement: str | None) -> str | None:
    """Return a statement's text with its passwords masked; None if it is hidden."""
    return None if statement in {None, HIDDEN} else _PASSWORD.sub(r"\1'***'", statement or "")


def moment(at: dt.datetime | None) -> str | None:
    """Return a time in UTC, to the second."""
    return None if at is None else at.astimezone(dt.UTC).isoformat(timespec="seconds")


def hidden_notes(
    rights: VisibilityRights, count: int, noun: str, part: str
) -> list[tuple[str, str]]:
    """Return what the server hides from this user, and how to make it visible."""
    if not count:
        return []
    return [
        ("warn", f"User {rights.user} cannot see {part} {counted(count, noun)} of other users."),
        ("hint", f"Ask an administrator to run: {rights.cure}"),
    ]


def omitted_notes(tables: Sequence[str], how: str) -> list[tuple[str, str]]:
    """Return which tables could not be examined because another session locks them."""
    if not tables:
        return []
    verb = "is" if len(tables) == 1 else "are"
    names = ", ".join(sorted(tables)[:_NAMED]) + (" ..." if len(tables) > _NAMED else "")
    counts = counted(len(tables), "table")
    return [
        ("warn", f"{counts} {verb} locked by another session, and {how}: {names}"),
        ("hint", "Find the session: aspencli db activity"),
    ]


def step_notes(steps: Sequence[str]) -> list[tuple[str, str]]:
    """Return corrective statements, which the cells of a table would truncate."""
    notes = [("hint", step) for step in steps[:_STEPS]]
    if len(steps) > _STEPS:
        more = f"{len(steps) - _STEPS} more statements not shown; show all with -o json"
        notes.append(("info", more))
    return notes
