"""Errors raised by the database layer and by migrations, and the SQLSTATE of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError

_LOST_AT_COMMIT = "aspen_lost_at_commit"


def sqlstate(error: DBAPIError) -> str | None:
    """Return the SQLSTATE of a database error; None if the server did not give one."""
    return getattr(error.orig, "pgcode", None)


def lost_at_commit(error: DBAPIError) -> bool:
    """Return True if the connection was lost at a commit, so that its outcome is unknown."""
    return error.orig is not None and _LOST_AT_COMMIT in vars(error.orig)


def mark_lost_commit(error: BaseException) -> None:
    """Mark a driver's error that leaves the outcome of a commit unknown."""
    vars(error)[_LOST_AT_COMMIT] = True


class ExplainedError(Exception):
    """An error with a message (what happened, and why) and a hint (what to do next)."""

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotAllowedError(ExplainedError):
    """A session or statement that the rules of this database do not allow; nothing was written."""


class ServerReadOnlyError(NotAllowedError):
    """A server whose own settings make every session of this database or role read-only."""


class RowsMovedError(Exception):
    """A conflict: rows were changed between the plan and the write; nothing was written."""

    def __init__(self, rows: Sequence[str], total: int):
        super().__init__(f"{total} rows changed since they were planned.")
        self.rows = tuple(rows)  # one line of text each; only the first ones if there are many
        self.total = total


class OutcomeUnknownError(Exception):
    """A commit with an unknown outcome: the connection was lost and could not be restored."""

    def __init__(self, transaction: int):
        super().__init__(f"The outcome of transaction {transaction} is unknown.")
        self.transaction = transaction  # for checking later with ``txid_status``
        self.undo_file: Path | None = None  # in case the change was written


class StandbyError(Exception):
    """A write that reached a read-only standby (host and port); nothing was written."""

    def __init__(self, place: str):
        super().__init__(f"{place} is a read-only standby. Nothing was written.")
        self.place = place


class TemporaryTablesDeniedError(Exception):
    """A role without permission to create temporary tables in the database; nothing was written."""

    def __init__(self, database: str, role: str):
        super().__init__(
            f"Role {role} may not create temporary tables in database {database}. "
            "Nothing was written."
        )
        # What to ask an administrator to run.
        self.grant = f"GRANT TEMPORARY ON DATABASE {database} TO {role}"


class MigrationError(ExplainedError):
    """A migration that cannot run, or that was aborted."""


class UnknownRevisionError(MigrationError):
    """A revision that this version of the program does not have."""


class BrokenRevisionsError(MigrationError):
    """Revisions that cannot be applied in any order, or whose files cannot be loaded."""


class NotAtHeadError(MigrationError):
    """A database that lacks revisions that must be applied first."""


class MigrationLockError(MigrationError):
    """A conflict with another migration, or with a lock on what would be changed."""


class MigrationPermissionError(MigrationError):
    """A role without the required privileges, or a read-only session."""


class MigrationRefusedError(MigrationError):
    """A connection over which a migration cannot run safely."""
