"""What one does with migrations: upgrade, downgrade, look, compare, write a new one.

Nothing is printed here. Each function takes an engine; to change something, its sessions must be
allowed to write. Where a `directory` can be given, it is a folder of further revisions beside
those of the program. Failures are a `MigrationError`; those to connect are SQLAlchemy's.
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
"""Alembic keeps what it works on in globals, so that one thread at a time may use it."""


@dataclass(frozen=True)
class UpgradeResult:
    """What an upgrade did.

    Attributes:
        before: The revision that the database stood at; None where it was empty.
        after: The revision that it stands at now.
        applied: The revisions that were applied, in that order; empty where all were there.
    """

    before: str | None
    after: str | None
    applied: tuple[str, ...]


@dataclass(frozen=True)
class DowngradeResult:
    """What a downgrade did.

    Attributes:
        before: The revision that the database stood at.
        after: The revision that it stands at now; None where nothing is left.
        reverted: The revisions that were taken back, in that order.
    """

    before: str | None
    after: str | None
    reverted: tuple[str, ...]


@dataclass(frozen=True)
class Revision:
    """One step of the schema's history.

    Attributes:
        revision: Its id, which is the time of its making.
        down_revision: The one before it; None for the first.
        message: What it changes, in a line.
        created: When it was written (UTC); None where the id does not say.
        is_current: Whether the database stands there.
        is_head: Whether it is the newest.
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
    """Apply what is missing up to a revision, each in a transaction; an empty database will do.

    Raises:
        UnknownRevisionError: The program has not what was asked for, or what the database is at.
        MigrationLockError: Another migration, or somebody's use of a table, did not end in time.
        MigrationPermissionError: The role may not do it, or the session is read-only.
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
    """Take revisions back, down to one that stays; ``base`` leaves an empty schema.

    Raises:
        MigrationError: As `upgrade` does.
    """
    journal, after = _migrate(command.downgrade, engine, revision, directory, limits)
    return DowngradeResult(journal.before, after, tuple(journal.applied))


def current(engine: Engine) -> str | None:
    """The revision that the database stands at, known or not; None where it says nothing."""
    with told_in_words(_DEFAULT_LIMITS), engine.connect() as connection:
        return alembic_config.stands_at(connection)


def head(directory: Path | None = None) -> str:
    """The newest revision."""
    return alembic_config.only_head(alembic_config.scripts(directory))


def has(revision: str) -> bool:
    """Return True if a revision is one of the program's own."""
    return revision in {script.revision for script in alembic_config.scripts().walk_revisions()}


def history(engine: Engine | None = None, *, directory: Path | None = None) -> list[Revision]:
    """Every revision, the newest first; without an engine none of them is the current one.

    Raises:
        UnknownRevisionError: The database stands at a revision that the program has not.
    """
    existing = alembic_config.scripts(directory)
    at = None if engine is None else current(engine)
    alembic_config.require_known(at, existing)
    return [_listed(script, at) for script in existing.walk_revisions()]


def check(engine: Engine) -> list[str]:
    """How the database differs from the models, a line each; empty where they agree.

    It reads only, and needs no right to write. Names, types with their lengths, NULLs, defaults,
    generated columns, indexes, constraints, triggers, rules, policies, views, functions, types and
    sequences are compared. Rows, privileges, comments, and storage parameters are not.
    """
    with told_in_words(_DEFAULT_LIMITS), alembic_config.reading(engine) as connection:
        return drift.differences(connection)


def revision(
    engine: Engine, message: str, *, autogenerate: bool = True, directory: Path | None = None
) -> Path:
    """Write a new revision, and return its file (``YYYYMMDD_HHMMSS_message.py``, in UTC).

    Args:
        engine: A database at the newest revision, which the models are compared with.
        message: What the revision changes, in a line.
        autogenerate: Whether to fill it with what the models have and the database has not.
        directory: Where to write it, instead of among the program's own.

    Raises:
        NotAtHeadError: The database is not at the newest revision.
        MigrationError: The message is empty, or as `upgrade` does.
    """
    with _ALEMBIC, told_in_words(_DEFAULT_LIMITS):
        return authoring.write_revision(
            engine, message, autogenerate=autogenerate, directory=directory
        )


def upgrade_sql(revision: str = "head", *, directory: Path | None = None) -> str:
    """The SQL of an upgrade from nothing; of a part of it with a range such as ``from:to``."""
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
