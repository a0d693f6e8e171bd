"""The errors of migrations, with messages for operators."""

from __future__ import annotations


class MigrationError(Exception):
    """A migration that cannot run, or that was aborted.

    Args:
        message: What happened, and why.
        hint: What to do next.
    """

    def __init__(self, message: str, *, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint


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
