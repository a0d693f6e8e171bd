"""What a run of migrations did."""

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
    """Filled while migrations run.

    Attributes:
        before: The revision that the database stood at, once it was this run's turn.
        applied: The revisions applied (or, downgrading, taken back), in that order.
        kept: The statements of the revision at work that are committed already, although it is not
            done; a revision does that with ``autocommit_block()`` or a COMMIT of its own.
    """

    before: str | None = None
    applied: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)
    _is_done: bool = False

    def note(
        self, ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: object
    ) -> None:
        """Take down one revision; Alembic calls it, with names, in the revision's transaction."""
        del ctx, heads, run_args
        self.applied.extend(step.up_revision_ids)
        self._is_done = True

    def watch(self, connection: Connection) -> None:
        """Take down what is committed on a connection before its revision is done."""
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
        # No transaction is open: a block in autocommit mode, or after a COMMIT in the statements,
        # from which on each of them commits by itself.
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
        """Return what is left of a revision that failed, in words."""
        before = f"Applied before it, and kept: {', '.join(self.applied)}. " if self.applied else ""
        if not self.kept:
            return f"{before}Nothing of this revision was kept."
        listed = "; ".join(one if len(one) <= _SHOWN else f"{one[:_SHOWN]}..." for one in self.kept)
        return (
            f"{before}This revision had already committed these statements, which were kept, "
            f"although it is not recorded as applied: {listed}. Undo them by hand before you run "
            "it again."
        )
