"""Streaming rows into and out of the server by COPY."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO, Any

from sqlalchemy import Connection

_CHUNK = 1 << 16  # bytes; larger ones were not faster
NULL = "\\N"
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def copy_line(*values: object) -> str:
    """A row as COPY's text format writes it."""
    cells = (NULL if value is None else str(value).translate(_ESCAPES) for value in values)
    return "\t".join(cells) + "\n"


class LineReader:
    """A file that the driver reads, made of lines that come one by one.

    Args:
        lines: Lines of COPY's text format, each with its line feed.
    """

    def __init__(self, lines: Iterable[str]):
        self._lines: Iterator[str] = iter(lines)

    def read(self, _size: int = -1) -> bytes:
        """The next lines, about 64 KiB; empty at the end."""
        parts: list[str] = []
        length = 0
        for line in self._lines:
            parts.append(line)
            length += len(line)
            if length >= _CHUNK:
                break
        return "".join(parts).encode()


def copy_in(connection: Connection, table: str, lines: Iterable[str]) -> None:
    """Send lines of COPY's text format into a table, within the connection's transaction."""
    with _driver(connection).cursor() as cursor:
        cursor.copy_expert(f"COPY {table} FROM STDIN", LineReader(lines), _CHUNK)


def copy_out(connection: Connection, query: str, file: IO[bytes]) -> None:
    """Write the rows of a query to a file as CSV with a header."""
    with _driver(connection).cursor() as cursor:
        cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)", file, _CHUNK)


def _driver(connection: Connection) -> Any:
    # copy_from would reject a schema-qualified table; copy_expert takes any statement.
    return connection.connection
