"""Descriptions of the differences between a database and the models."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection

from db.models import SCHEMA, Base
from migrations import comparison
from migrations.objects import object_differences


def differences(connection: Connection) -> list[str]:
    """Return every difference, one line each; empty if models and database agree."""
    context = MigrationContext.configure(connection, opts=comparison.options())
    with warnings.catch_warnings():
        # Alembic warns that it cannot migrate generated columns; they are compared below.
        warnings.filterwarnings("ignore", message="Computed default on", category=UserWarning)
        diffs = list(_flat(compare_metadata(context, Base.metadata)))
    missing = {diff[1].fullname for diff in diffs if diff[0] == "add_table"}
    lines = [
        _described(diff)
        for diff in diffs
        # Indexes of a missing table are not reported separately.
        if not (diff[0] == "add_index" and diff[1].table.fullname in missing)
    ]
    more = (*_key_differences(connection), *object_differences(connection))
    return sorted({*lines, *more})


def _flat(diffs: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    """Flatten the differences; Alembic nests those of one column in a list."""
    for diff in diffs:
        if isinstance(diff, list):
            yield from diff
        else:
            yield diff


def _described(diff: tuple[Any, ...]) -> str:
    kind, *rest = diff
    match kind:
        case "add_table" | "remove_table":
            return _one_sided(kind, f"table {rest[0].fullname}")
        case "add_column" | "remove_column":
            return _one_sided(kind, f"column {rest[0]}.{rest[1]}.{rest[2].name}")
        case "add_index" | "remove_index":
            return _one_sided(kind, f"index {rest[0].name} on {rest[0].table.fullname}")
        case "add_constraint" | "remove_constraint" | "add_fk" | "remove_fk":
            return _one_sided(kind, f"constraint {rest[0].name} of {rest[0].table.fullname}")
        case "modify_type" | "modify_nullable" | "modify_default":
            schema, table, column, _, database, models = rest
            what = kind.removeprefix("modify_")
            return (
                f"column {schema}.{table}.{column}: {what} is {_value(database)} in the database, "
                f"{_value(models)} in the models"
            )
        case _:
            return f"{kind}: {rest}"


def _one_sided(kind: str, what: str) -> str:
    if kind.startswith("add_"):
        return f"{what} is missing in the database"
    return f"{what} is only in the database"


def _value(value: object) -> str:
    """Return a type, a default, or a flag as it is written in SQL."""
    if isinstance(value, sa.DefaultClause):
        return str(value.arg)
    return "none" if value is None else str(value)


def _key_differences(connection: Connection) -> Iterator[str]:
    """Compare the primary keys of tables that both sides have, which Alembic ignores."""
    found = sa.inspect(connection).get_multi_pk_constraint(schema=SCHEMA)
    for (_, name), key in found.items():
        table = Base.metadata.tables.get(f"{SCHEMA}.{name}")
        if table is None:
            continue
        database = (key["name"], key["constrained_columns"]) if key["name"] else None
        models = _key_of(table, connection)
        if database != models:
            yield (
                f"primary key of {table.fullname}: {_key(database)} in the database, "
                f"{_key(models)} in the models"
            )


def _key_of(table: sa.Table, connection: Connection) -> tuple[str | None, list[str]] | None:
    columns = [column.name for column in table.primary_key]
    name = connection.dialect.identifier_preparer.format_constraint(table.primary_key)
    return (name, columns) if columns else None


def _key(key: tuple[str | None, list[str]] | None) -> str:
    return "none" if key is None else f"{key[0]} ({', '.join(key[1])})"
