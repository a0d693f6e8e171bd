"""A record of what a migration run did."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext, MigrationInfo
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy.engine import Connection

_SHOWN = 100  # characters of a statement


@dataclass
class Journal:
    """A record that is filled while migrations run.

    Attributes:
        before: The revision that the database was at when this run got the migration lock.
        applied: The revisions applied (or, in a downgrade, reverted), in that order.
        kept: The statements of the current revision that are already committed, although it is not
            done; this happens with ``autocommit_block()`` or with a COMMIT in the revision.
    """

    before: str | None = None
    applied: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)
    _is_done: bool = False

    def note(
        self, ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: object
    ) -> None:
        """Record one revision; Alembic calls this, with keywords, in the revision's transaction."""
        del ctx, heads, run_args
        self.applied.extend(step.up_revision_ids)
        self._is_done = True

    def watch(self, connection: Connection) -> None:
        """Record statements that are committed on a connection before their revision is done."""
        sa.event.listen(connection, "after_cursor_execute", self._executed)
        sa.event.listen(connection, "commit", self._committed)
        sa.event.listen(connection, "rollback", self._rolled_back)

    def _executed(
        self,
        connection: Connection,
        _cursor: object,
        statement: str,
        _parameters: object,
        _context: object,
        _many: bool,
    ) -> None:
        words = statement.split(None, 1)
        verb = words[0].upper().rstrip(";") if words else ""
        if verb in {"ROLLBACK", "ABORT"}:
            self._open.clear()
        elif verb not in {"SELECT", "SHOW", "SET", "BEGIN", "COMMIT", "END"}:
            self._open.append(" ".join(statement.split()))
        driver = connection.connection.dbapi_connection
        # No transaction is open, either in autocommit mode or after a COMMIT in the revision. From
        # then on, each statement is committed at once.
        if driver is not None and driver.info.transaction_status == TRANSACTION_STATUS_IDLE:
            self._committed(connection)

    def _committed(self, _connection: Connection) -> None:
        self.kept += self._open
        self._open.clear()
        if self._is_done:  # this was the commit of the whole revision
            self.kept.clear()
            self._is_done = False

    def _rolled_back(self, _connection: Connection) -> None:
        self._open.clear()

    @property
    def words(self) -> str:
        """Return a description of what a failed revision left behind."""
        before = f"Applied before it, and kept: {', '.join(self.applied)}. " if self.applied else ""
        if not self.kept:
            return f"{before}Nothing of this revision was kept."
        listed = "; ".join(one if len(one) <= _SHOWN else f"{one[:_SHOWN]}..." for one in self.kept)
        return (
            f"{before}This revision had already committed these statements, which were kept, "
            f"although it is not recorded as applied: {listed}. Undo them by hand before you run "
            "it again."
        )
