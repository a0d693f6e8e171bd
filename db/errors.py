"""What can go wrong in the database layer, in its own words."""

from __future__ import annotations

from collections.abc import Sequence


class RowsMovedError(Exception):
    """Rows were changed by somebody else between the plan and the write; nothing was written.

    Attributes:
        rows: A line of text for each row that moved.
    """

    def __init__(self, rows: Sequence[str]):
        super().__init__(f"{len(rows)} rows changed since they were planned")
        self.rows = tuple(rows)


class OutcomeUnknownError(Exception):
    """The connection was lost at the commit, and the database could not be asked since.

    Attributes:
        transaction: The transaction's id, to ask later with ``pg_xact_status``.
    """

    def __init__(self, transaction: int):
        super().__init__(f"the outcome of transaction {transaction} is not known")
        self.transaction = transaction
