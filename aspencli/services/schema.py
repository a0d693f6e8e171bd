"""The schema's revisions on a target: where it stands, what is to come, and moving it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aspencli.errors import (
    AspenError,
    BadInputError,
    ConflictError,
    CredentialsError,
    NotFoundError,
    RefusedError,
)
from aspencli.services import databases
from db.database import Database
from migrations import runner
from migrations.alembic_config import is_older, unknown_revision
from migrations.errors import (
    BrokenRevisionsError,
    MigrationError,
    MigrationLockError,
    MigrationPermissionError,
    MigrationRefusedError,
    NotAtHeadError,
    UnknownRevisionError,
)
from migrations.runner import DowngradeResult, Revision, UpgradeResult

BASE = "base"
_KINDS: tuple[tuple[type[MigrationError], type[AspenError], str], ...] = (
    (BrokenRevisionsError, BadInputError, ""),
    (UnknownRevisionError, NotFoundError, "See what there is: aspencli db history"),
    (MigrationLockError, ConflictError, "See who holds it: aspencli db activity"),
    (MigrationRefusedError, RefusedError, ""),
    (NotAtHeadError, ConflictError, "That is: aspencli db upgrade"),
    (MigrationPermissionError, CredentialsError, ""),
)
_STEPS = re.compile(r"[+-]\d+")


@dataclass(frozen=True)
class SchemaState:
    """Where a database's schema stands.

    Attributes:
        revision: The revision that the database names; None where it has no schema.
        head: The newest revision of this program.
        behind: How many revisions lie between them; None when the program does not know the
            database's revision.
        hidden: Why the revision cannot be read; None where it can.
        older: How to bring a database up to date that is older than the program's oldest revision;
            None for others.
    """

    revision: str | None
    head: str
    behind: int | None
    hidden: str | None = None
    older: str | None = None

    @property
    def word(self) -> str:
        """``up to date``, ``behind``, ``empty`` or ``unknown``."""
        if self.revision is None and not self.hidden:
            return "empty"
        if self.older is not None:
            return "behind"
        if self.behind is None:
            return "unknown"
        return "behind" if self.behind else "up to date"


@dataclass(frozen=True)
class SetupPlan:
    """What setting a database up would do.

    Attributes:
        database: Its name.
        create: It is missing, and would be made.
        steps: The revisions that would be applied, the oldest first.
    """

    database: str
    create: bool
    steps: tuple[Revision, ...]


@dataclass(frozen=True)
class Setup:
    """What setting a database up did.

    Attributes:
        created: The database was made now.
        migrated: What the migration did.
    """

    created: bool
    migrated: UpgradeResult


@contextmanager
def told() -> Iterator[None]:
    """Turn what migrations say into the command line's errors and exit codes."""
    try:
        yield
    except MigrationError as error:
        for kind, told_as, step in _KINDS:
            if isinstance(error, kind):
                hint = " ".join(part for part in (error.hint, step) if part)
                raise told_as(error.message, hint=hint) from error
        raise AspenError(error.message, hint=error.hint) from error


def schema_state(database: Database) -> SchemaState:
    """Where the database stands, and how far from the newest revision."""
    with told():
        at = runner.current(database.engine)
        chain = _chain()
    position = _position(chain, at)
    behind = None if position is None else len(chain) - 1 - position
    older = None
    if at is not None and is_older(at, chain[0].revision):
        older = unknown_revision(at, chain[0].revision).hint
    return SchemaState(at, chain[-1].revision, behind, older=older)


def visible_schema_state(database: Database) -> SchemaState:
    """Return the same; where the user may not read the revision, the reason."""
    try:
        return schema_state(database)
    except CredentialsError as error:
        return SchemaState(None, _chain()[-1].revision, None, error.message)


def history(database: Database, *, directory: Path | None = None) -> list[Revision]:
    """Every revision, the newest first, with the database's own marked."""
    with told():
        return runner.history(database.engine, directory=directory)


def pending(
    database: Database, revision: str = "head", *, directory: Path | None = None
) -> list[Revision]:
    """What an upgrade to a revision would apply, the oldest first.

    Raises:
        NotFoundError: There is no such revision, or the database's own is not known here.
        BadInputError: The revision lies behind the database.
    """
    chain, at = _stand(database, directory)
    to = _resolve(chain, at, revision)
    if to < at:
        raise BadInputError(
            f"{revision} lies behind {_name(chain, at)}, where the database stands",
            hint=f"To go back: aspencli db downgrade {_name(chain, to)}",
        )
    return chain[at + 1 : to + 1]


def undone(database: Database, revision: str, *, directory: Path | None = None) -> list[Revision]:
    """What a downgrade to a revision would take back, the newest first.

    Raises:
        NotFoundError: There is no such revision, or the database's own is not known here.
        BadInputError: The revision lies ahead of the database.
    """
    chain, at = _stand(database, directory)
    to = _resolve(chain, at, revision)
    if to > at:
        raise BadInputError(
            f"{revision} lies ahead of {_name(chain, at)}, where the database stands",
            hint=f"To go there: aspencli db upgrade {_name(chain, to)}",
        )
    return chain[to + 1 : at + 1][::-1]


def upgrade(
    database: Database, steps: Sequence[Revision], *, directory: Path | None = None
) -> UpgradeResult:
    """Apply what is `pending`; the database's sessions must be allowed to write."""
    with told():
        if not steps:
            at = runner.current(database.engine)
            return UpgradeResult(at, at, ())
        return runner.upgrade(database.engine, steps[-1].revision, directory=directory)


def downgrade(
    database: Database, steps: Sequence[Revision], *, directory: Path | None = None
) -> DowngradeResult:
    """Take back what would be `undone`; the database's sessions must be allowed to write."""
    with told():
        if not steps:
            at = runner.current(database.engine)
            return DowngradeResult(at, at, ())
        end = steps[-1].down_revision or BASE
        return runner.downgrade(database.engine, end, directory=directory)


def upgrade_sql(steps: Sequence[Revision], *, directory: Path | None = None) -> str:
    """The SQL that would apply some revisions in their order; empty where there are none."""
    if not steps:
        return ""
    ends = f"{steps[0].down_revision or BASE}:{steps[-1].revision}"
    with told():
        return runner.upgrade_sql(ends, directory=directory)


def differences(database: Database) -> list[str]:
    """How the database differs from the models, a line each."""
    with told():
        return runner.check(database.engine)


def write_revision(
    database: Database, message: str, *, empty: bool = False, directory: Path | None = None
) -> Path:
    """Write a new revision file, filled with what the models have beyond the database."""
    with told():
        return runner.revision(
            database.engine, message, autogenerate=not empty, directory=directory
        )


def plan_setup(database: Database) -> SetupPlan:
    """What is missing: the database, revisions, or nothing."""
    there = databases.exists(database)
    with told():
        steps = pending(database) if there else _chain()
    return SetupPlan(databases.name_of(database), not there, tuple(steps))


def setup(database: Database, plan: SetupPlan) -> Setup:
    """Make the database where it is missing, and bring its schema to the newest revision."""
    created = databases.create(database) if plan.create else False
    return Setup(created, upgrade(database, plan.steps))


def _chain(directory: Path | None = None) -> list[Revision]:
    """Every revision of the program, the oldest first; each follows the one before it."""
    return runner.history(directory=directory)[::-1]


def _position(chain: Sequence[Revision], revision: str | None) -> int | None:
    """The place of a revision in the chain; -1 stands for an empty database."""
    if revision is None:
        return -1
    return next((i for i, step in enumerate(chain) if step.revision == revision), None)


def _stand(database: Database, directory: Path | None) -> tuple[list[Revision], int]:
    with told():
        chain = _chain(directory)
        at = runner.current(database.engine)
    position = _position(chain, at)
    if position is None and is_older(at or "", chain[0].revision):
        error = unknown_revision(at or "", chain[0].revision)
        raise NotFoundError(error.message, hint=error.hint)
    if position is None:
        raise NotFoundError(
            f"the database stands at revision {at}, which this version of aspencli does not have",
            hint="A newer version migrated it: update aspencli and try again.",
        )
    return chain, position


def _resolve(chain: Sequence[Revision], at: int, wanted: str) -> int:
    """The place that ``head``, ``base``, ``+1``, ``-1``, or (the start of) an id means."""
    if wanted == "head":
        return len(chain) - 1
    if wanted == BASE:
        return -1
    if _STEPS.fullmatch(wanted):
        found = [at + int(wanted)] if -1 <= at + int(wanted) < len(chain) else []
    else:
        found = [i for i, step in enumerate(chain) if step.revision.startswith(wanted)]
    if len(found) != 1:
        what = f"{len(found)} revisions begin with" if found else "there is no revision"
        raise NotFoundError(f"{what} {wanted!r}", hint="See them all: aspencli db history")
    return found[0]


def _name(chain: Sequence[Revision], position: int) -> str:
    return BASE if position < 0 else chain[position].revision
