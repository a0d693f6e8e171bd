"""The console's database wrapper, which writes only after writing was requested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy.orm import Session

from aspencli.errors import RefusedError
from db.connecting import Guard
from db.database import Database
from db.sessions import ReadSession


class GuardedDatabase(Database):
    """A database in which every way to write follows the console's mode.

    Elsewhere, a program asks to write by calling ``begin()`` or ``writing()``; at a prompt these
    would bypass the confirmation that the safety rules require. Databases derived from this one,
    its engines, and their connections are guarded the same way (see `db.driver`). A new engine
    created from ``engine.url`` is not.

    Args:
        source: Database that the console was given.
        writable: Whether it may write.
        on_session: Called with each new session.
        how_to_write: Hint for a refused write.
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
            guard = Guard.NONE  # writing was requested
        super().__init__(source.url, policy=replace(policy, writable=writable, guard=guard))
        self._on_session = on_session
        self._how_to_write = how_to_write

    def make_session(self) -> ReadSession:
        """Return a new session, which is rolled back when one of its statements fails."""
        session = super().make_session()
        self._on_session(session)
        return session

    def _require_writing(self) -> None:
        if not self.writable:
            raise RefusedError(
                "this console only reads; nothing was written", hint=self._how_to_write
            )
