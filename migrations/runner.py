"""The operations on migrations: upgrade, downgrade, inspect, compare, and write revisions.

Nothing is printed here. Each function takes an engine; to change something, its sessions must be
allowed to write. A `directory` holds more revisions, besides the program's own. Failures raise a
`MigrationError`, failures to connect an error of SQLAlchemy.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import Script
from sqlalchemy.engine import Engine

from migrations import alembic_config, authoring, drift
from migrations.guard import MigrationLimits
from migrations.journal import Journal
from migrations.translation import told_in_words

_DEFAULT_LIMITS = MigrationLimits()
_ALEMBIC = threading.Lock()
"""Alembic keeps its state in globals, so only one thread at a time may use it."""


@dataclass(frozen=True)
class UpgradeResult:
    """The result of an upgrade.

    Attributes:
        before: The previous revision of the database; None if it was empty.
        after: The revision that it is at now.
        applied: The revisions that were applied, in that order; empty if none were missing.
    """

    before: str | None
    after: str | None
    applied: tuple[str, ...]


@dataclass(frozen=True)
class DowngradeResult:
    """The result of a downgrade.

    Attributes:
        before: The previous revision of the database.
        after: The revision that it is at now; None if nothing is left.
        reverted: The revisions that were reverted, in that order.
    """

    before: str | None
    after: str | None
    reverted: tuple[str, ...]


@dataclass(frozen=True)
class Revision:
    """One step in the schema's history.

    Attributes:
        revision: The ID, which is the time it was created.
        down_revision: The previous revision; None for the first.
        message: A one-line description of the change.
        created: The time it was written (UTC); None if the ID does not say.
        is_current: True if the database is at this revision.
        is_head: True if it is the newest.
    """

    revision: str
    down_revision: str | None
    message: str
    created: datetime | None
    is_current: bool
    is_head: bool


def upgrade(
    engine: Engine,
    revision: str = "head",
    *,
    directory: Path | None = None,
    limits: MigrationLimits = _DEFAULT_LIMITS,
) -> UpgradeResult:
    """Apply the missing revisions, each in a transaction; the database may be empty.

    Raises:
        UnknownRevisionError: The program lacks the requested revision, or the database's.
        MigrationLockError: Another migration, or another session's use of a table, took too long.
        MigrationPermissionError: The role lacks privileges, or the session is read-only.
        MigrationError: Anything else; revisions applied before the failing one stay.
    """
    journal, after = _migrate(command.upgrade, engine, revision, directory, limits)
    return UpgradeResult(journal.before, after, tuple(journal.applied))


def downgrade(
    engine: Engine,
    revision: str,
    *,
    directory: Path | None = None,
    limits: MigrationLimits = _DEFAULT_LIMITS,
) -> DowngradeResult:
    """Revert revisions down to the given one, which stays; ``base`` leaves an empty schema.

    Raises:
        MigrationError: As in `upgrade`.
    """
    journal, after = _migrate(command.downgrade, engine, revision, directory, limits)
    return DowngradeResult(journal.before, after, tuple(journal.applied))


def current(engine: Engine) -> str | None:
    """Return the revision of the database, even if unknown, or None if it records none."""
    with told_in_words(_DEFAULT_LIMITS), engine.connect() as connection:
        return alembic_config.stands_at(connection)


def head(directory: Path | None = None) -> str:
    """Return the newest revision."""
    return alembic_config.only_head(alembic_config.scripts(directory))


def has(revision: str) -> bool:
    """Return True if a revision is one of the program's own."""
    return revision in {script.revision for script in alembic_config.scripts().walk_revisions()}


def history(engine: Engine | None = None, *, directory: Path | None = None) -> list[Revision]:
    """Return all revisions, newest first; without an engine, none of them is the current one.

    Raises:
        UnknownRevisionError: The database is at a revision that the program does not have.
    """
    existing = alembic_config.scripts(directory)
    at = None if engine is None else current(engine)
    alembic_config.require_known(at, existing)
    return [_listed(script, at) for script in existing.walk_revisions()]


def check(engine: Engine) -> list[str]:
    """Return the differences between database and models, one line each.

    It only reads, and needs no write privileges. Names, types with their lengths, NULLs, defaults,
    generated columns, indexes, constraints, triggers, rules, policies, views, functions, types, and
    sequences are compared. Rows, privileges, comments, and storage parameters are not.
    """
    with told_in_words(_DEFAULT_LIMITS), alembic_config.reading(engine) as connection:
        return drift.differences(connection)


def revision(
    engine: Engine, message: str, *, autogenerate: bool = True, directory: Path | None = None
) -> Path:
    """Write a new revision, and return its file (``YYYYMMDD_HHMMSS_message.py``, in UTC).

    Args:
        engine: A database at the newest revision, with which the models are compared.
        message: A one-line description of the change.
        autogenerate: True to fill it with what the models have and the database lacks.
        directory: The directory to write to, instead of the program's own.

    Raises:
        NotAtHeadError: The database is not at the newest revision.
        MigrationError: The message is empty, or as in `upgrade`.
    """
    with _ALEMBIC, told_in_words(_DEFAULT_LIMITS):
        return authoring.write_revision(
            engine, message, autogenerate=autogenerate, directory=directory
        )


def upgrade_sql(revision: str = "head", *, directory: Path | None = None) -> str:
    """Return the SQL of an upgrade of an empty database, or of a range such as ``from:to``."""
    existing = alembic_config.scripts(directory)
    for end in revision.split(":"):
        alembic_config.require_revision(end, existing)
    text = io.StringIO()
    with _ALEMBIC, told_in_words(_DEFAULT_LIMITS):
        command.upgrade(alembic_config.make_config(directory, output=text), revision, sql=True)
    return text.getvalue()


def _migrate(
    step: Callable[[Config, str], None],
    engine: Engine,
    target: str,
    directory: Path | None,
    limits: MigrationLimits,
) -> tuple[Journal, str | None]:
    existing = alembic_config.scripts(directory)
    alembic_config.require_revision(target, existing)
    config, journal = alembic_config.make_config(directory), Journal()
    with (
        _ALEMBIC,
        told_in_words(limits, journal),
        alembic_config.migration_engine(engine) as private,
        private.connect() as connection,
    ):
        alembic_config.require_known(alembic_config.stands_at(connection), existing)
        connection.rollback()
        journal.watch(connection)
        config.attributes.update(connection=connection, limits=limits, journal=journal)
        step(config, target)
        return journal, alembic_config.stands_at(connection)


def _listed(script: Script, at: str | None) -> Revision:
    down = script.down_revision
    return Revision(
        revision=script.revision,
        down_revision=down if down is None or isinstance(down, str) else ", ".join(down),
        message=script.doc,
        created=authoring.created(script.revision),
        is_current=script.revision == at,
        is_head=script.is_head,
    )
