"""A session to look at a server with, and what this user is allowed to see there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from db.database import Database
from db.sessions import ReadSession

# Whoever asks what is going on must not wait for what goes on.
_LOCK_MS = 500
_STATEMENT_MS = 15_000
# CREATE ROLE and the like come with the password in their text.
# Within another text its quotes are doubled, and a long statement may be cut in the middle of it.
_PASSWORD = re.compile(
    r"(\bpassword\s*(?:=|:=)?\s*)(?:[eu]&?)?(?:''[^']*(?:''|$)|'(?:[^']|'')*(?:'|$))", re.IGNORECASE
)


@dataclass(frozen=True)
class Rights:
    """What the server shows to the user of this session.

    Attributes:
        user: Whom the server takes us for.
        stats: Whether it shows what the sessions and statements of other users are.
        settings: Whether it shows every setting.
    """

    user: str
    stats: bool
    settings: bool

    @property
    def cure(self) -> str:
        """The statement that shows everything to this user."""
        return f"GRANT pg_monitor TO {quoted(self.user)}"


def patient(database: Database) -> Database:
    """The same database, with sessions that wait for nobody for long; the caller disposes of it."""
    return database.with_limits(lock_ms=_LOCK_MS, statement_ms=_STATEMENT_MS)


@contextmanager
def looking(database: Database) -> Iterator[ReadSession]:
    """A read-only session that neither waits long for a lock nor keeps the server busy."""
    limited = patient(database)
    try:
        with limited.reading() as session:
            yield session
    finally:
        limited.dispose()


def rights(session: ReadSession) -> Rights:
    """Ask the server what it would show us."""
    row = session.execute(
        sa.text(
            "SELECT current_user::text, pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),"
            " pg_has_role(current_user, 'pg_read_all_settings', 'USAGE')"
        )
    ).one()
    return Rights(*row)


def columns_of(session: ReadSession, view: str) -> frozenset[str]:
    """The columns that a view has in this version; none where there is no such view.

    Args:
        session: Where to look.
        view: Its name, with the schema where that is not ``pg_catalog``.
    """
    query = (
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:view)"
        " AND attnum > 0 AND NOT attisdropped"
    )
    return frozenset(session.scalars(sa.text(query), {"view": view}))


def masked(query: str | None) -> str | None:
    """A statement's text with its passwords starred out."""
    return None if query is None else _PASSWORD.sub(r"\1'***'", query)


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever is in it."""
    plain = re.fullmatch(r"[a-z_][a-z0-9_]*", name)
    return name if plain else '"' + name.replace('"', '""') + '"'
