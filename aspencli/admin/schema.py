"""The schema revision of a target's database: showing it, planning migrations, running them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aspen.database import migrate
from aspen.database.alembic import is_older, unknown_revision
from aspen.database.engine import Database
from aspen.database.errors import (
    BrokenRevisionsError,
    MigrationError,
    MigrationLockError,
    MigrationPermissionError,
    MigrationRefusedError,
    NotAtHeadError,
    UnknownRevisionError,
)
from aspen.database.migrate import DowngradeResult, Revision, UpgradeResult
from aspencli.admin import databases
from aspencli.errors import (
    AspenError,
    BadInputError,
    ConflictError,
    CredentialsError,
    NotFoundError,
    RefusedError,
)

BASE = "base"
_KINDS: tuple[tuple[type[MigrationError], type[AspenError], str], ...] = (
    (BrokenRevisionsError, BadInputError, ""),
    (UnknownRevisionError, NotFoundError, "List all revisions: aspencli db history"),
    (MigrationLockError, ConflictError, "See what is running: aspencli db activity"),
    (MigrationRefusedError, RefusedError, ""),
    (NotAtHeadError, ConflictError, "Run: aspencli db upgrade"),
    (MigrationPermissionError, CredentialsError, ""),
)
_STEPS = re.compile(r"[+-]\d+")


@dataclass(frozen=True)
class SchemaState:
    """The state of a database's schema.

    Attributes:
        revision: The database's revision, or None if it has no schema.
        head: The newest revision in this program.
        behind: The number of revisions between them, or None if this program does not know the
            database's revision.
        hidden: The reason why the revision cannot be read, or None if it can.
        older: How to update a database older than this program's oldest revision; None for others.
    """

    revision: str | None
    head: str
    behind: int | None
    hidden: str | None = None
    older: str | None = None

    @property
    def word(self) -> str:
        """Return ``up to date``, ``behind``, ``empty``, or ``unknown``."""
        if self.revision is None and not self.hidden:
            return "empty"
        if self.older is not None:
            return "behind"
        if self.behind is None:
            return "unknown"
        return "behind" if self.behind else "up to date"


@dataclass(frozen=True)
class SetupPlan:
    """The plan for setting up a database.

    Attributes:
        database: Its name.
        create: True if the database is missing and would be created.
        steps: The revisions that would be applied, oldest first.
    """

    database: str
    create: bool
    steps: tuple[Revision, ...]


@dataclass(frozen=True)
class Setup:
    """The result of setting up a database.

    Attributes:
        created: True if the database was created.
        migrated: The result of the migration.
    """

    created: bool
    migrated: UpgradeResult


@contextmanager
def translated_failures() -> Iterator[None]:
    """Translate migration errors into the command line's errors and exit codes."""
    try:
        yield
    except MigrationError as error:
        for kind, told_as, step in _KINDS:
            if isinstance(error, kind):
                hint = " ".join(part for part in (error.hint, step) if part)
                raise told_as(error.message, hint=hint) from error
        raise AspenError(error.message, hint=error.hint) from error


def schema_state(database: Database) -> SchemaState:
    """Return the schema's revision and how far it is behind the newest one."""
    with translated_failures():
        at = migrate.current(database.engine)
        chain = _chain()
    position = _position(chain, at)
    behind = None if position is None else len(chain) - 1 - position
    older = None
    if at is not None and is_older(at, chain[0].revision):
        older = unknown_revision(at, chain[0].revision).hint
    return SchemaState(at, chain[-1].revision, behind, older=older)


def visible_schema_state(database: Database) -> SchemaState:
    """Return the same, or the reason why the user may not read the revision."""
    try:
        return schema_state(database)
    except CredentialsError as error:
        return SchemaState(None, _chain()[-1].revision, None, error.message)


def history(database: Database, *, directory: Path | None = None) -> list[Revision]:
    """Return all revisions, newest first, with the database's current one marked."""
    with translated_failures():
        return migrate.history(database.engine, directory=directory)


def pending(
    database: Database, revision: str = "head", *, directory: Path | None = None
) -> list[Revision]:
    """Return the revisions that an upgrade would apply, oldest first.

    Raises:
        NotFoundError: The revision does not exist, or the database's own revision is unknown here.
        BadInputError: The revision is older than the database's.
    """
    chain, at = _stand(database, directory)
    to = _resolve(chain, at, revision)
    if to < at:
        raise BadInputError(
            f"Revision {revision} is older than the database's current revision "
            f"({_name(chain, at)}).",
            hint=f"To downgrade: aspencli db downgrade {_name(chain, to)}",
        )
    return chain[at + 1 : to + 1]


def undone(database: Database, revision: str, *, directory: Path | None = None) -> list[Revision]:
    """Return the revisions that a downgrade would revert, newest first.

    Raises:
        NotFoundError: The revision does not exist, or the database's own revision is unknown here.
        BadInputError: The revision is newer than the database's.
    """
    chain, at = _stand(database, directory)
    to = _resolve(chain, at, revision)
    if to > at:
        raise BadInputError(
            f"Revision {revision} is newer than the database's current revision "
            f"({_name(chain, at)}).",
            hint=f"To upgrade: aspencli db upgrade {_name(chain, to)}",
        )
    return chain[to + 1 : at + 1][::-1]


def upgrade(
    database: Database, steps: Sequence[Revision], *, directory: Path | None = None
) -> UpgradeResult:
    """Apply `pending` revisions; the database's sessions must be writable."""
    with translated_failures():
        if not steps:
            at = migrate.current(database.engine)
            return UpgradeResult(at, at, ())
        return migrate.upgrade(database.engine, steps[-1].revision, directory=directory)


def downgrade(
    database: Database, steps: Sequence[Revision], *, directory: Path | None = None
) -> DowngradeResult:
    """Revert the `undone` revisions; the database's sessions must be writable."""
    with translated_failures():
        if not steps:
            at = migrate.current(database.engine)
            return DowngradeResult(at, at, ())
        end = steps[-1].down_revision or BASE
        return migrate.downgrade(database.engine, end, directory=directory)


def upgrade_sql(steps: Sequence[Revision], *, directory: Path | None = None) -> str:
    """Return the SQL that applies the revisions in order, or "" if there are none."""
    if not steps:
        return ""
    ends = f"{steps[0].down_revision or BASE}:{steps[-1].revision}"
    with translated_failures():
        return migrate.upgrade_sql(ends, directory=directory)


def differences(database: Database) -> list[str]:
    """Return the differences between the database and the models, one per line."""
    with translated_failures():
        return migrate.check(database.engine)


def write_revision(
    database: Database, message: str, *, empty: bool = False, directory: Path | None = None
) -> Path:
    """Write a new revision file, filled with the changes that the models have over the database."""
    with translated_failures():
        return migrate.revision(
            database.engine, message, autogenerate=not empty, directory=directory
        )


def plan_setup(database: Database) -> SetupPlan:
    """Return what is missing: the database, revisions, or nothing."""
    there = databases.exists(database)
    with translated_failures():
        steps = pending(database) if there else _chain()
    return SetupPlan(databases.name_of(database), not there, tuple(steps))


def setup(database: Database, plan: SetupPlan) -> Setup:
    """Create the database if it is missing, and upgrade its schema to the newest revision."""
    created = databases.create(database) if plan.create else False
    return Setup(created, upgrade(database, plan.steps))


def _chain(directory: Path | None = None) -> list[Revision]:
    """Return every revision in this program, oldest first, each following the one before."""
    return migrate.history(directory=directory)[::-1]


def _position(chain: Sequence[Revision], revision: str | None) -> int | None:
    """Return the index of a revision in the chain; -1 for an empty database, None if unknown."""
    if revision is None:
        return -1
    return next((i for i, step in enumerate(chain) if step.revision == revision), None)


def _stand(database: Database, directory: Path | None) -> tuple[list[Revision], int]:
    with translated_failures():
        chain = _chain(directory)
        at = migrate.current(database.engine)
    position = _position(chain, at)
    if position is None and is_older(at or "", chain[0].revision):
        error = unknown_revision(at or "", chain[0].revision)
        raise NotFoundError(error.message, hint=error.hint)
    if position is None:
        raise NotFoundError(
            f"The database is at revision {at}, which this version of aspencli does not know.",
            hint="A newer version migrated it. Update aspencli, then try again.",
        )
    return chain, position


def _resolve(chain: Sequence[Revision], at: int, wanted: str) -> int:
    """Return the index that ``head``, ``base``, ``+1``, ``-1``, or a revision prefix refers to."""
    if wanted == "head":
        return len(chain) - 1
    if wanted == BASE:
        return -1
    if _STEPS.fullmatch(wanted):
        found = [at + int(wanted)] if -1 <= at + int(wanted) < len(chain) else []
    else:
        found = [i for i, step in enumerate(chain) if step.revision.startswith(wanted)]
    if len(found) != 1:
        message = f"Revision not found: {wanted!r}"
        if found:
            message = f"Ambiguous revision: {wanted!r} matches {len(found)} revisions."
        raise NotFoundError(message, hint="List all revisions: aspencli db history")
    return found[0]


def _name(chain: Sequence[Revision], position: int) -> str:
    return BASE if position < 0 else chain[position].revision
