"""Alembic's environment: `aspen.database.migrate` passes in the connection; no config file.

It reads from ``config.attributes``: ``connection`` (a `Connection`), ``limits`` (a
`MigrationLimits`), and ``journal`` (a `MigrationRecord`); the last two are optional.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy.engine import Connection

from aspen.database import alembic
from aspen.database.errors import MigrationError
from aspen.database.migrate import MigrationLimits, MigrationRecord, guarded


def _run_online() -> None:
    attributes = context.config.attributes
    connection = attributes.get("connection")
    if not isinstance(connection, Connection):
        raise MigrationError(
            "No connection was passed to the migrations.",
            hint="Run them through aspen.database.migrate.",
        )
    journal = attributes.get("journal") or MigrationRecord()
    with guarded(connection, attributes.get("limits") or MigrationLimits()):
        context.configure(connection=connection, on_version_apply=journal.note, **alembic.options())
        journal.before = context.get_context().get_current_revision()
        connection.rollback()  # reading began a transaction; each revision needs its own
        with context.begin_transaction():
            context.run_migrations()


def _run_offline() -> None:
    context.configure(dialect_name="postgresql", literal_binds=True, **alembic.options())
    for name, value in MigrationLimits().settings().items():
        context.get_context().impl.static_output(f"SET {name} = '{value}';\n")
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    _run_offline()
else:
    _run_online()
