"""The columns and rows of differences between the identity provider and the database.

The columns are contracts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aspencli.cli.output.formats import OUTCOME, Column
from aspencli.identity.sync import written_object

if TYPE_CHECKING:
    from aspencli.identity.comparison import Difference
    from aspencli.identity.sync import Result, Source, Step

DIFF_COLUMNS = (
    Column("kind", "Kind", whole=True, of=str),
    Column("group", "Group"),
    Column("organization_id", "Organization", secondary=True, whole=True),
    Column("email", "E-mail", whole=True),
    Column("auth0_user_id", "Auth0 id", secondary=True, whole=True),
    Column("provider", "Provider"),
    Column("database", "Database"),
    Column("note", "Note", secondary=True),
)
_KIND = Column("kind", "Kind", retired=True, of=str)
_OBJECT = Column("object", "Object", whole=True, of=str)
SYNC_COLUMNS = (_KIND, _OBJECT, *DIFF_COLUMNS[1:], Column("reason", "Reason"), OUTCOME)
PREVIEW_COLUMNS = (OUTCOME, _OBJECT, *DIFF_COLUMNS[1:])
"""The columns before the question: what is done to which object comes first."""


def difference_row(one: Difference) -> dict[str, Any]:
    """Return the row of a difference."""
    group, person = one.group, one.person
    return {
        "kind": one.kind.value,
        "group": group.name if group else None,
        "organization_id": group.key if group else None,
        "email": person.email if person else None,
        "auth0_user_id": (person.key or None) if person else None,
        "provider": one.provider,
        "database": one.database,
        "note": one.note or None,
    }


def step_row(step: Step, source: Source) -> dict[str, Any]:
    """Return the row of a step in a plan."""
    row = difference_row(step.difference)
    written = written_object(step.difference.kind, source)
    return {**row, "object": written, "reason": step.reason or None, "outcome": step.outcome}


def result_row(result: Result, source: Source) -> dict[str, Any]:
    """Return the row of a step in a result; ``late`` is not shown."""
    row = step_row(result.step, source)
    reason = result.reason or None
    return {**row, "reason": reason, "outcome": result.outcome, "late": result.is_late}
