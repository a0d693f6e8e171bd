"""What a run of migrations did."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from alembic.runtime.migration import MigrationContext, MigrationInfo


@dataclass
class Journal:
    """Filled while migrations run.

    Attributes:
        before: The revision that the database stood at, once it was this run's turn.
        applied: The revisions applied (or, downgrading, taken back), in that order.
    """

    before: str | None = None
    applied: list[str] = field(default_factory=list)

    def note(
        self, ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: object
    ) -> None:
        """Take down one revision; Alembic calls it, with names, in the revision's transaction."""
        del ctx, heads, run_args
        self.applied.extend(step.up_revision_ids)
