"""The rows of a file in temporary tables: filled with COPY, and kept between transactions.

A direct connection keeps its temporary tables. Behind a pooler, the next transaction may run in
another server session, and another client's transaction in this one. So each table is dropped with
its transaction, its contents are saved in a local file, and the next transaction recreates it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from aspen.database.bulk import sql_plan
from aspen.database.bulk.spec import KEEP, Cell, RowRequest, Spec
from aspen.database.bulk.sql_plan import DROPPED, KEPT, ROWS, current, given, in_scope, sides
from aspen.database.cancel import Pipe, cancellable, driver_of, fed
from aspen.database.engine import Database
from aspen.database.errors import TemporaryTablesDeniedError, sqlstate

_NULL = "\\N"
_ODD = re.compile(r"[\\\t\n\r]").search
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_CHUNK = 1 << 16  # bytes; larger chunks were not faster
_IN_MEMORY = 1 << 22  # bytes
_BATCH = 2_000  # rows per fetch
_FORBIDDEN = "42501"
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

Values = dict[str, object]


# COPY


def copy_line(*values: object) -> str:
    """Return a row in COPY's text format."""
    cells = (_NULL if value is None else str(value).translate(_ESCAPES) for value in values)
    return "\t".join(cells) + "\n"


def copy_in(connection: Connection, table: str, lines: Iterable[str]) -> int:
    """Send lines in COPY's text format to a table, within the connection's transaction.

    Returns:
        The number of rows.

    Raises:
        KeyboardInterrupt: It was interrupted, perhaps while waiting for a line.
    """
    statement = f"COPY {table} FROM STDIN (ENCODING 'UTF8')"

    def copy(file: Pipe) -> int:
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


def lines_of(spec: Spec, requests: Iterable[RowRequest]) -> Iterator[str]:
    """Return the requests in COPY's text format, for the table of `sql_plan.create_rows`."""
    if spec.is_plain and not spec.expects:
        return _plain_lines(requests)
    return _lines(spec, requests)


def _plain_lines(requests: Iterable[RowRequest]) -> Iterator[str]:
    for line, key, (value,), _expected, _within, _label in requests:
        # Control characters were rejected earlier, so only backslashes need escaping.
        if value.__class__ is str and "\\" not in key and "\\" not in value:
            yield f"{line}\t{key}\t{value}\n"
        else:
            yield copy_line(line, key, value)


def _lines(spec: Spec, requests: Iterable[RowRequest]) -> Iterator[str]:
    partial, expects, labels = spec.partial, spec.expects, spec.tells_label
    within = spec.within is not None
    for line, key, values, expected, place, label in requests:
        cells = [str(line), _cell(key)]
        if labels:
            cells.append(_cell(label))
        if within:
            cells.append(_cell(place))
        for number, value in enumerate(values):
            cells.append(_cell(value))
            if partial:
                cells.append("f" if value is KEEP else "t")
            if expects:
                cells.append(_cell(expected[number] if expected else None))
        cells[-1] += "\n"
        yield "\t".join(cells)


def _cell(value: Cell) -> str:
    if isinstance(value, str):
        return copy_line(value)[:-1] if _ODD(value) else value
    return _NULL


# Temporary tables


@contextmanager
def temporary_tables(connection: Connection) -> Iterator[None]:
    """Create temporary tables in the block; on refusal, raise an error that names the GRANT.

    Raises:
        TemporaryTablesDeniedError: The role may not create temporary tables.
    """
    try:
        yield
    except DBAPIError as error:
        if sqlstate(error) != _FORBIDDEN:
            raise
        url, quote = connection.engine.url, connection.dialect.identifier_preparer.quote
        raise TemporaryTablesDeniedError(
            quote(url.database or ""), quote(url.username or "")
        ) from error


class Statements:
    """A connection, the values that its statements are bound to, and its temporary tables.

    Args:
        connection: The connection to run them on.
        values: The values that they may refer to, such as the scope.

    Attributes:
        is_pooled: True if a pooler is in between.
    """

    def __init__(self, connection: Connection, values: Mapping[str, object]):
        self.connection = connection
        self.is_pooled = bool(getattr(driver_of(connection), "pooled", False))
        self._values = values
        self._saved: list[tuple[str, str, IO[bytes]]] = []  # name, columns, and rows of each table

    def close(self) -> None:
        """Discard the tables that are kept between transactions."""
        while self._saved:
            self._saved.pop()[-1].close()

    @contextmanager
    def staging(
        self, *, of_one_moment: bool = False, durable: bool = False, keep: bool = True
    ) -> Iterator[None]:
        """Run the block in a transaction that creates temporary tables.

        Args:
            of_one_moment: Whether all statements see the same snapshot of the database.
            durable: Whether it writes anything that outlives the session. If not, its commit waits
                for neither the disk nor a standby.
            keep: Whether the contents of the tables are needed later.
        """
        with self.connection.begin():
            self.run(sql_plan.ONE_MOMENT if of_one_moment else sql_plan.READ_WRITE)
            lasting = sql_plan.DURABLE if durable else sql_plan.FLEETING_NOW
            self.run(f"{lasting}; {sql_plan.RESOURCES}")
            self._restore()
            yield
            if keep and self.is_pooled:
                self._save()

    def run(self, statement: str, **values: object) -> sa.CursorResult[Any]:
        """Run a statement in the open transaction.

        Raises:
            KeyboardInterrupt: It was interrupted.
        """
        clause, bound = self._bind(statement, values)
        return cancellable(self.connection, lambda: self.connection.execute(clause, bound))

    def stream(self, statement: str, **values: object) -> Iterator[Any]:
        """Yield rows as they arrive, in a separate transaction."""
        clause, bound = self._bind(statement, values)
        with self.connection.begin():
            if self.is_pooled:
                self.run(sql_plan.READ_WRITE)
                self.run(sql_plan.FLEETING_NOW)
                self._restore()
            yield from self.connection.execute(clause.execution_options(yield_per=_BATCH), bound)

    def _bind(self, statement: str, values: Values) -> tuple[sa.TextClause, Values]:
        clause = sa.text(statement.replace(KEPT, DROPPED) if self.is_pooled else statement)
        known = {**self._values, **values}
        return clause, {name: known[name] for name in clause.compile().params}

    def _restore(self) -> None:
        """Recreate the saved tables in the open transaction."""
        if not self.is_pooled:
            return
        driver = driver_of(self.connection)

        def restore() -> None:
            with driver.cursor() as cursor:
                for name, columns, rows in self._saved:
                    cursor.execute(f"CREATE TEMPORARY TABLE {name} ({columns}) {DROPPED}")
                    rows.seek(0)
                    cursor.copy_expert(
                        f"COPY pg_temp.{name} FROM STDIN (FORMAT binary)", rows, _CHUNK
                    )
                    cursor.execute(f"ANALYZE pg_temp.{name}")

        cancellable(self.connection, restore)

    def _save(self) -> None:
        """Save the contents of the tables before the transaction ends."""
        driver = driver_of(self.connection)

        def save() -> list[tuple[str, str, IO[bytes]]]:
            with driver.cursor() as cursor:
                cursor.execute(_TABLES)
                return [(*table, _saved_rows(cursor, table[0])) for table in cursor.fetchall()]

        saved = cancellable(self.connection, save)
        self.close()
        self._saved = saved


def _saved_rows(cursor: Any, table: str) -> IO[bytes]:
    rows = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed with the run
    cursor.copy_expert(f"COPY pg_temp.{table} TO STDOUT (FORMAT binary)", rows, _CHUNK)
    return rows


# The rows of an undo file


@dataclass(frozen=True)
class Comparison:
    """The number of an undo file's rows in each state."""

    written: int  # they hold what the run wrote
    before: int  # they hold what was there before it
    otherwise: int  # they hold something else
    gone: int


def compare(
    database: Database, spec: Spec, scope: int | None, requests: Iterable[RowRequest]
) -> Comparison:
    """Compare the rows of an undo file with the database, leaving nothing behind there.

    Args:
        database: The database; read access is enough, because the rows go to a temporary table.
        spec: The specification of the undo run.
        scope: The scope of the original run.
        requests: Each row as a request to replace the new values with the old ones.
    """
    with database.engine.connect() as connection:  # rolled back at the end, with the table
        connection.execute(sa.text(sql_plan.READ_WRITE))
        with temporary_tables(connection):
            connection.execute(sa.text(sql_plan.create_rows(spec)))
        copy_in(connection, ROWS, lines_of(spec, requests))
        statement = sa.text(_count(spec))
        values = {"scope": scope} if spec.table.scope else {}
        row = cancellable(connection, lambda: connection.execute(statement, values).one())
        return Comparison(*row)


def _count(spec: Spec) -> str:
    """Return a query that counts the rows as written, as before, otherwise, and gone."""
    table = spec.table
    is_there = "s.id IS NOT NULL"
    written, before = (_holds(spec, side, is_there) for side in ("e", "v"))
    return f"""
SELECT count(*) FILTER (WHERE {written}) AS written,
       count(*) FILTER (WHERE {before}) AS before,
       count(*) FILTER (WHERE {is_there} AND NOT ({written} OR {before})) AS otherwise,
       count(*) FILTER (WHERE NOT {is_there} AND NOT ({written} OR {before})) AS gone
  FROM {ROWS} m
  LEFT JOIN {table.name} s ON {in_scope(spec, "s")} AND s.{spec.key.stored} = m.key\
{sides(spec, within="m.vw::integer")}
"""


def _holds(spec: Spec, side: str, is_there: str) -> str:
    """Return the condition that a row holds what one side of the undo file says.

    The side is ``e`` for what was written, or ``v`` for what was there before.
    """
    conditions = []
    for number, column in spec.numbered():
        value = f"m.{side}{number}"
        if column.reference and side == "v":  # an undo file has the ID
            value += "::integer"
        same = f"{current(number, column)} {column.equals} {value}"
        conditions.append(f"({same} OR NOT {given(spec, number, 'm')})" if spec.partial else same)
    holds = " AND ".join(conditions)
    if not spec.creates:
        return f"({is_there} AND {holds})"
    # A row with NULL as its label is one that does not exist. The same is true of its further
    # lines for another table, which say nothing more.
    gone = f"m.g{spec.labelled} AND m.{side}{spec.labelled} IS NULL"
    return f"CASE WHEN {gone} THEN NOT {is_there} ELSE {holds} END"
