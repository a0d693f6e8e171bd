"""The schema of the live service at revision 20230321_232555: its extensions, and its tables.

The tables are SQL, not models, which change with later revisions: this revision must not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from alembic import context, op
from sqlalchemy.exc import DBAPIError

from aspen.database.errors import MigrationError, MigrationPermissionError, sqlstate

SCHEMA = "aspen"
EXTENSIONS = ("cube", "earthdistance", "fuzzystrmatch")
"""For distances between places (`earthdistance` needs `cube`), and between spellings."""

_INSUFFICIENT_PRIVILEGE = "42501"
_NOT_INSTALLED = frozenset({"0A000", "58P01"})  # feature_not_supported, undefined_file


def create_extensions() -> None:
    """Create the schema and the extensions if they do not exist."""
    _create_schema()
    for name in EXTENSIONS:
        _create_extension(name)


def _create_schema() -> None:
    # CREATE SCHEMA IF NOT EXISTS requires the privilege even if there is nothing to create.
    if context.is_offline_mode() or not _exists("pg_namespace", "nspname", SCHEMA):
        op.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")


def _create_extension(name: str) -> None:
    try:
        op.execute(f"CREATE EXTENSION IF NOT EXISTS {name} SCHEMA public")
    except DBAPIError as error:
        code = sqlstate(error)
        if code == _INSUFFICIENT_PRIVILEGE:
            raise MigrationPermissionError(
                f"This role may not create the extension {name}.",
                hint="Ask a superuser to run in this database: "
                + " ".join(f"CREATE EXTENSION {each} SCHEMA public;" for each in EXTENSIONS),
            ) from error
        if code in _NOT_INSTALLED:
            raise MigrationError(
                f"The extension {name} is not available on this server.",
                hint="Install PostgreSQL's contrib modules on the server "
                "(part of postgresql on Debian; postgresql-contrib elsewhere).",
            ) from error
        raise


def _exists(catalog: str, column: str, name: str) -> bool:
    query = f"SELECT 1 FROM pg_catalog.{catalog} WHERE {column} = '{name}'"  # noqa: S608 - constants
    return op.get_bind().exec_driver_sql(query).first() is not None


def statements() -> Sequence[str]:
    """Return the statements that create the tables and insert their initial rows, in order."""
    text = (files("aspen.migrations") / "baseline.sql").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines(keepends=True) if not line.startswith("--"))
    return [found for part in "".join(lines).split(";\n") if (found := part.strip())]
