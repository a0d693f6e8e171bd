"""The console's own database: it writes only after the console was asked to write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from aspencli.errors import RefusedError
from db.database import Database
from db.sessions import ReadSession, WriteSession


class GuardedDatabase(Database):
    """A database whose every way to write follows the console's mode.

    Elsewhere ``begin()`` and ``writing()`` are how a program asks for writing; at a prompt they
    would pass by the question that the safety rules demand. (This keeps a hand from slipping; it
    does not lock out a determined one.)

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
        super().__init__(
            source.url,
            application_name=source.application_name,
            writable=writable,
            limits=source.limits,
            schema=source.schema,
        )
        self._on_session = on_session
        self._how_to_write = how_to_write

    def make_session(self) -> ReadSession:
        """A new session; it is rolled back when one of its statements fails."""
        session = super().make_session()
        self._on_session(session)
        return session

    @contextmanager
    def begin(self) -> Iterator[WriteSession]:
        """A writing session: one transaction, committed at the end, rolled back on any error.

        Raises:
            RefusedError: The console only reads.
        """
        self._require_writing()
        with super().begin() as session:
            yield session

    def writing(self) -> Database:
        """This database, where it writes.

        Raises:
            RefusedError: The console only reads.
        """
        self._require_writing()
        return self

    def _require_writing(self) -> None:
        if not self.writable:
            raise RefusedError(
                "this console only reads; nothing was written", hint=self._how_to_write
            )
