"""Sessions of the ORM, by what they may do."""

from __future__ import annotations

from sqlalchemy.orm import Session


class ReadSession(Session):
    """A session through which the server refuses to write."""


class WriteSession(ReadSession):
    """A session that may write; it commits where its context manager ends."""
