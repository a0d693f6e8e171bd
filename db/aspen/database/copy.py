"""Streaming rows to and from the server with COPY."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO, Any

from sqlalchemy import Connection

from aspen.database.cancel import Readable, cancellable, fed

_CHUNK = 1 << 16  # bytes; larger chunks were not faster
NULL = "\\N"
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


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
        with _driver(connection).cursor() as cursor:
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
        with _driver(connection).cursor() as cursor:
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


def _driver(connection: Connection) -> Any:
    # copy_from would reject a schema-qualified table; copy_expert takes any statement.
    return connection.connection
