"""Temporary tables that stage the rows of a run: filled with COPY, and kept between transactions.

A direct connection keeps its temporary tables. Behind a pooler, the next transaction may run in
another server session, and another client's transaction in this one. So each table is dropped with
its transaction, its contents are saved in a local file, and the next transaction recreates it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from sqlalchemy import Connection

from aspen.database.cancel import Readable, cancellable, driver_of, fed

KEPT = "ON COMMIT PRESERVE ROWS"
"""The clause by which our statements keep a temporary table."""
DROPPED = "ON COMMIT DROP"
NULL = "\\N"

_CHUNK = 1 << 16  # bytes; larger chunks were not faster
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_IN_MEMORY = 1 << 22  # bytes
_TABLES = """
SELECT c.relname, string_agg(
           format('%I %s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
                  CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
                  coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '')),
           ', ' ORDER BY a.attnum)
  FROM pg_class c
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
 WHERE c.relnamespace = pg_my_temp_schema() AND c.relkind = 'r' AND c.relname LIKE 'aspencli\\_%'
 GROUP BY c.relname ORDER BY c.relname
"""


@dataclass(frozen=True)
class _Table:
    """A temporary table and its contents."""

    name: str
    columns: str
    rows: IO[bytes]


def copy_line(*values: object) -> str:
    """Return a row in COPY's text format."""
    cells = (NULL if value is None else str(value).translate(_ESCAPES) for value in values)
    return "\t".join(cells) + "\n"


def copy_in(connection: Connection, table: str, lines: Iterable[str]) -> int:
    """Send lines in COPY's text format to a table, within the connection's transaction.

    Returns:
        The number of rows.

    Raises:
        KeyboardInterrupt: It was interrupted, perhaps while waiting for a line.
    """
    statement = f"COPY {table} FROM STDIN (ENCODING 'UTF8')"

    def copy(file: Readable) -> int:
        with driver_of(connection).cursor() as cursor:
            # copy_from would reject a schema-qualified table.
            cursor.copy_expert(statement, file, _CHUNK)
            return int(cursor.rowcount)

    return fed(connection, _pieces(lines), copy)


def copy_out(connection: Connection, query: str, file: IO[bytes]) -> None:
    """Write the rows of a query to a file as CSV with a header.

    Raises:
        KeyboardInterrupt: It was interrupted.
    """
    statement = f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER, ENCODING 'UTF8')"

    def copy() -> None:
        with driver_of(connection).cursor() as cursor:
            cursor.copy_expert(statement, file, _CHUNK)

    cancellable(connection, copy)


def _pieces(lines: Iterable[str]) -> Iterator[bytes]:
    parts: list[str] = []
    length = 0
    for line in lines:
        parts.append(line)
        length += len(line)
        if length >= _CHUNK:
            yield "".join(parts).encode()
            parts.clear()
            length = 0
    if parts:
        yield "".join(parts).encode()


class Carrier:
    """A carrier of a run's temporary tables from one transaction to the next.

    Args:
        connection: The connection that they are created on.
    """

    def __init__(self, connection: Connection):
        self._connection = connection
        self._tables: list[_Table] = []
        self.is_needed = bool(getattr(driver_of(connection), "pooled", False))
        """True if a pooler is in between."""

    def suited(self, statement: str) -> str:
        """Return a statement; behind a pooler, change it to drop its tables on commit."""
        return statement.replace(KEPT, DROPPED) if self.is_needed else statement

    def unpack(self) -> None:
        """Recreate the tables in the open transaction."""
        if not self.is_needed:
            return
        driver = driver_of(self._connection)

        def restore() -> None:
            with driver.cursor() as cursor:
                for table in self._tables:
                    cursor.execute(
                        f"CREATE TEMPORARY TABLE {table.name} ({table.columns}) {DROPPED}"
                    )
                    table.rows.seek(0)
                    copy = f"COPY pg_temp.{table.name} FROM STDIN (FORMAT binary)"
                    cursor.copy_expert(copy, table.rows, _CHUNK)
                    cursor.execute(f"ANALYZE pg_temp.{table.name}")

        cancellable(self._connection, restore)

    def pack(self) -> None:
        """Save the contents of the tables before the transaction ends."""
        if not self.is_needed:
            return
        driver = driver_of(self._connection)

        def keep() -> list[_Table]:
            with driver.cursor() as cursor:
                cursor.execute(_TABLES)
                return [_kept(cursor, *row) for row in cursor.fetchall()]

        packed = cancellable(self._connection, keep)
        self.close()
        self._tables = packed

    def close(self) -> None:
        """Close the files."""
        while self._tables:
            self._tables.pop().rows.close()


def _kept(cursor: Any, name: str, columns: str) -> _Table:
    rows = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed with the run
    cursor.copy_expert(f"COPY pg_temp.{name} TO STDOUT (FORMAT binary)", rows, _CHUNK)
    return _Table(name, columns, rows)
