"""ORM sessions: read-only and writable."""

from __future__ import annotations

from sqlalchemy.orm import Session


class ReadSession(Session):
    """A session in which the server refuses to write."""


class WriteSession(ReadSession):
    """A session that may write; `db.database.Database.begin` commits it at the end."""
