"""The schema itself, and the PostgreSQL extensions that the service's queries use."""

from __future__ import annotations

from alembic import context, op
from sqlalchemy.exc import DBAPIError

from migrations.baseline.common import SCHEMA
from migrations.errors import MigrationError, MigrationPermissionError

EXTENSIONS = ("cube", "earthdistance", "fuzzystrmatch")
"""For distances between places (`earthdistance` needs `cube`), and between spellings."""

_INSUFFICIENT_PRIVILEGE = "42501"
_NOT_INSTALLED = frozenset({"0A000", "58P01"})  # feature_not_supported, undefined_file


def create() -> None:
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
        code = getattr(error.orig, "pgcode", None)
        if code == _INSUFFICIENT_PRIVILEGE:
            raise MigrationPermissionError(
                f"this role may not create the extension {name}",
                hint="Let a superuser run, in this database: "
                + " ".join(f"CREATE EXTENSION {each} SCHEMA public;" for each in EXTENSIONS),
            ) from error
        if code in _NOT_INSTALLED:
            raise MigrationError(
                f"this server does not have the extension {name}",
                hint="Install PostgreSQL's contrib modules on the server "
                "(on Debian they come with postgresql, elsewhere as postgresql-contrib).",
            ) from error
        raise


def _exists(catalog: str, column: str, name: str) -> bool:
    query = f"SELECT 1 FROM pg_catalog.{catalog} WHERE {column} = '{name}'"  # noqa: S608 - constants
    return op.get_bind().exec_driver_sql(query).first() is not None
