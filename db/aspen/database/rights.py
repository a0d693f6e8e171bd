"""Checks of a user's privileges in a database, without using them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection

_COLUMN = "SELECT has_column_privilege(:table, :column, :right)"
_TABLE = "SELECT has_table_privilege(:table, :right)"


@dataclass(frozen=True)
class Right:
    """A privilege that a write needs.

    Attributes:
        name: ``INSERT``, ``UPDATE`` or ``DELETE``.
        table: The table, including its schema.
        columns: The columns; empty for the whole table.
    """

    name: str
    table: str
    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        columns = f" ({', '.join(self.columns)})" if self.columns else ""
        return f"{self.name}{columns} ON {self.table}"


def lacking(connection: Connection, wanted: Iterable[Right]) -> list[Right]:
    """Return the privileges that the user does not have."""
    return [right for right in wanted if not _has(connection, right)]


def _has(connection: Connection, right: Right) -> bool:
    facts = {"table": right.table, "right": right.name}
    if not right.columns:
        return bool(connection.scalar(sa.text(_TABLE), facts))
    return all(
        connection.scalar(sa.text(_COLUMN), {**facts, "column": column}) for column in right.columns
    )
