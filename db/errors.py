"""What can go wrong in the database layer, in its own words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class NotAllowedError(Exception):
    """A session, or a statement, that the rules of this database do not allow; nothing was written.

    Attributes:
        message: What was not allowed, and why.
        hint: What to do next.
    """

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint


class ServerReadOnlyError(NotAllowedError):
    """The server's own settings make every session of this database or role read-only."""


class RowsMovedError(Exception):
    """Rows were changed by somebody else between the plan and the write; nothing was written.

    Attributes:
        rows: A line of text for each row that moved; only the first where they are many.
        total: How many moved.
    """

    def __init__(self, rows: Sequence[str], total: int):
        super().__init__(f"{total} rows changed since they were planned")
        self.rows = tuple(rows)
        self.total = total


class OutcomeUnknownError(Exception):
    """The connection was lost at the commit, and the database could not be asked since.

    Attributes:
        transaction: The transaction's id, to ask later with ``txid_status``.
        undo_file: What takes the change back, if it was written; None where there is no such file.
    """

    def __init__(self, transaction: int):
        super().__init__(f"the outcome of transaction {transaction} is not known")
        self.transaction = transaction
        self.undo_file: Path | None = None


class StandbyError(Exception):
    """A write reached a standby, which only reads; nothing was written.

    Attributes:
        place: The host and port of the standby.
    """

    def __init__(self, place: str):
        super().__init__(f"{place} is a read-only standby; nothing was written")
        self.place = place


class TemporaryTablesDeniedError(Exception):
    """The role may not create temporary tables in the database; nothing was written.

    Attributes:
        grant: The statement to ask an administrator for.
    """

    def __init__(self, database: str, role: str):
        super().__init__(
            f"the role {role} may not create temporary tables in database {database}; "
            "nothing was written"
        )
        self.grant = f"GRANT TEMPORARY ON DATABASE {database} TO {role}"
