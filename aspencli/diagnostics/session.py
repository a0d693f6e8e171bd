"""Sessions for diagnostics, and what the user is allowed to see on the server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from aspen.database.engine import Database, ReadSession
from aspencli.text import sql_name

# Diagnostics must not get stuck behind the problem that they investigate.
_LOCK_MS = 500
_STATEMENT_MS = 15_000
# Statements such as CREATE ROLE contain the password. Inside another literal its quotes are
# doubled, and a long statement may be truncated in the middle of it.
_PASSWORD = re.compile(
    r"(\bpassword\s*(?:=|:=)?\s*)(?:[eu]&?)?(?:''[^']*(?:''|$)|'(?:[^']|'')*(?:'|$))", re.IGNORECASE
)


@dataclass(frozen=True)
class Rights:
    """The visibility rights of a session's user on the server.

    Attributes:
        user: The current database user.
        stats: True if the sessions and statements of other users are visible.
        settings: True if all settings are visible.
    """

    user: str
    stats: bool
    settings: bool

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
        with limited.reading() as session:
            yield session
    finally:
        limited.dispose()


def rights(session: ReadSession) -> Rights:
    """Return what the current user is allowed to see."""
    row = session.execute(
        sa.text(
            "SELECT current_user::text, pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),"
            " pg_has_role(current_user, 'pg_read_all_settings', 'USAGE')"
        )
    ).one()
    return Rights(*row)


def columns_of(session: ReadSession, view: str) -> frozenset[str]:
    """Return the columns of a view in this server version; none if there is no such view.

    Args:
        session: The session to query.
        view: The name of the view, with its schema unless that is ``pg_catalog``.
    """
    query = (
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:view)"
        " AND attnum > 0 AND NOT attisdropped"
    )
    return frozenset(session.scalars(sa.text(query), {"view": view}))


def masked(query: str | None) -> str | None:
    """Return a statement's text with its passwords masked."""
    return None if query is None else _PASSWORD.sub(r"\1'***'", query)
