"""What can go wrong with migrations, told in words."""

from __future__ import annotations


class MigrationError(Exception):
    """A migration that cannot be done, or was given up.

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
    """Revisions that cannot be applied in any order, or whose files cannot be read."""


class NotAtHeadError(MigrationError):
    """The database lacks revisions that must be there first."""


class MigrationLockError(MigrationError):
    """Somebody else migrates the database, or holds a lock on what would be changed."""


class MigrationPermissionError(MigrationError):
    """The role may not do this, or the session may not write."""


class MigrationRefusedError(MigrationError):
    """A migration cannot run safely over this connection."""
