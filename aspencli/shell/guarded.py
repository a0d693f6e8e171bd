"""The console's own database: it writes only after the console was asked to write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy.orm import Session

from aspencli.errors import RefusedError
from db.connecting import Guard
from db.database import Database
from db.sessions import ReadSession


class GuardedDatabase(Database):
    """A database whose every way to write follows the console's mode.

    Elsewhere ``begin()`` and ``writing()`` are how a program asks for writing; at a prompt they
    would pass by the question that the safety rules demand. What is derived of it, every engine,
    and every connection of theirs are guarded in the same way (see `db.driver`). A new engine on
    ``engine.url`` is not.

    Args:
        source: The database that the console was given.
        writable: Whether it may write.
        on_session: Is told of each session that is made.
        how_to_write: What to do when a write is refused.
    """

    def __init__(
        self,
        source: Database,
        *,
        writable: bool,
        on_session: Callable[[Session], None],
        how_to_write: str,
    ):
        policy = source.policy
        guard = Guard.READING if not writable else policy.guard
        if writable and guard is Guard.READING:
            guard = Guard.NONE  # the console was asked to write
        super().__init__(source.url, policy=replace(policy, writable=writable, guard=guard))
        self._on_session = on_session
        self._how_to_write = how_to_write

    def make_session(self) -> ReadSession:
        """Return a new session; it is rolled back when one of its statements fails."""
        session = super().make_session()
        self._on_session(session)
        return session

    def _require_writing(self) -> None:
        if not self.writable:
            raise RefusedError(
                "this console only reads; nothing was written", hint=self._how_to_write
            )
