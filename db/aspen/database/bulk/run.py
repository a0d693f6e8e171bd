"""A bulk run on one table: staged, planned in SQL, and applied in one transaction.

If the connection breaks during the commit, the server is asked for the outcome.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import sqlalchemy as sa
from psycopg2.extensions import encodings
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from aspen.database.bulk import sql_create, sql_plan, sql_read, sql_write
from aspen.database.bulk.plan import Made, Statements, links, make_plan, temporary_tables
from aspen.database.bulk.spec import (
    KEEP,
    AssessedRow,
    Cell,
    Change,
    MovedRow,
    Plan,
    PlannedRow,
    Problem,
    Request,
    Spec,
)
from aspen.database.cancel import driver_of
from aspen.database.engine import Database
from aspen.database.errors import OutcomeUnknownError, RowsMovedError, sqlstate
from aspen.database.roles import Right, missing_rights
from aspen.database.staging import NULL, copy_in, copy_line, copy_out
from aspen.database.transactions import CURRENT, STATUS, DatabaseIdentity, identify

_ODD = re.compile(r"[\\\t\n\r]").search
_PAUSES = (0.1, 0.5, 1, 2, 5, 10)  # seconds before each attempt to ask
_SINCE: dict[str, Callable[[Spec], str]] = {
    "23503": sql_read.deleted_since,  # foreign_key_violation
    "23505": sql_read.taken_since,  # unique_violation
}
_CREATE = "create"
_NOTHING_BESIDE = (None, None, None, None)


class _MovedError(Exception):
    """A row that is not as planned; raised to leave the transaction."""


class BulkRun:
    """One bulk run on one connection: `load`, `plan`, and perhaps `apply`.

    No transaction is open between the three, so no locks are held while an operator is prompted.
    Memory use does not grow with the number of rows, which are in temporary tables on the server.

    Args:
        database: The database; `apply` needs one that may write.
        spec: The specification of what changes and how rows are found.
        scope: The scope of the run, such as a group ID; None if the table has none.
    """

    def __init__(self, database: Database, spec: Spec, scope: int | None):
        self._database = database
        self._spec = spec
        self._values = {"scope": scope, "token": secrets.token_hex(6)}
        self._changes_of = changes_of(spec)
        self._beside = 4 if spec.creates else 0  # cells before the columns; see `sql_read`
        self._skips_moved = False
        self._made: Made | None = None

    def __enter__(self) -> Self:
        self._connection = self._database.engine.connect()
        self._statements = Statements(self._connection, self._values)
        if not self._statements.is_pooled:
            with self._connection.begin():
                self._statements.run(sql_plan.FLEETING)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._statements.close()
        # Ending the session drops its temporary tables, so it must not return to the pool.
        self._connection.invalidate()
        self._connection.close()

    @property
    def encoding(self) -> str | None:
        """Return Python's name for the database encoding; None if it can store every character."""
        name = driver_of(self._connection).get_parameter_status("server_encoding")
        return None if name in {None, "UTF8", "SQL_ASCII"} else encodings[name]

    def identity(self) -> DatabaseIdentity:
        """Return the identity of the database."""
        return identify(self._connection)

    def scope_name(self) -> str | None:
        """Return the name of the group in scope, or None if it does not exist."""
        with self._connection.begin():
            name = self._statements.run(sql_plan.GROUP_NAME).scalar()
        return None if name is None else str(name)

    def load(self, requests: Iterable[Request]) -> int:
        """Copy the rows of the file to the server, and return their number."""
        with self._statements.staging():
            with temporary_tables(self._connection):
                self._statements.run(sql_plan.create_rows(self._spec))
            count = copy_in(self._connection, sql_plan.ROWS, lines_of(self._spec, requests))
            self._statements.run(sql_plan.ANALYSE_ROWS)
        return count

    def plan(self, *, skip_moved: bool = False, force: bool = False) -> Plan:
        """Compare the rows of the file with the table, and find their problems.

        Args:
            skip_moved: Leave out the rows that do not hold the expected values, instead of
                counting them as problems; see `left_out`.
            force: Plan them anyway, whatever they hold; see `moved`.
        """
        self._skips_moved = skip_moved
        with self._statements.staging(of_one_moment=True):
            self._made = make_plan(self._statements, self._spec, skip_moved=skip_moved, force=force)
        return self._made.plan

    def explain(self, unknown: Mapping[int, tuple[str, str]]) -> None:
        """Add to the problem of each of these lines why its key names no row.

        Args:
            unknown: For each line, what is odd about its key, and the key that may be meant.
        """
        words = [found[0] for found in unknown.values()]
        near = [found[1] for found in unknown.values()]
        with self._statements.staging():
            self._statements.run(
                sql_read.explain(self._spec), lines=list(unknown), words=words, near=near
            )

    def problems(self) -> Generator[Problem, None, None]:
        """Return a generator of all problems, by line."""
        return self._problems(left_out=False)

    def left_out(self) -> Generator[Problem, None, None]:
        """Return a generator of the rows left out of the plan, and why, by line."""
        return self._problems(left_out=True)

    def _problems(self, *, left_out: bool) -> Generator[Problem, None, None]:
        for row in self._statements.stream(sql_read.PROBLEMS, left_out=left_out):
            yield Problem(*row)

    def moved(self) -> Generator[MovedRow, None, None]:
        """Yield the unexpected values in rows of the plan, by line."""
        for row in self._statements.stream(sql_read.moved_cells(self._spec)):
            yield MovedRow(*row)

    def outcomes(self) -> Generator[AssessedRow, None, None]:
        """Yield every row of the file, by line, with the reason why it is not applied, if any."""
        skipped = 4 + self._beside
        label = self._spec.key.name
        query = sql_read.outcomes(self._spec, with_left=self._skips_moved)
        for row in self._statements.stream(query):
            line, key, reason, left_out = row[:4]
            becomes, within, leads, named = row[4:skipped] or _NOTHING_BESIDE
            changes = self._changes_of(row[skipped:])
            if becomes == _CREATE and leads and label not in {each.column for each in changes}:
                changes = (Change(label, None, named), *changes)  # the key is written, too
            yield AssessedRow(line, key, changes, reason, bool(left_out), becomes, within)

    def rows(
        self, *, limit: int | None = None, changed_only: bool = False
    ) -> Generator[PlannedRow, None, None]:
        """Yield the plan, by line of the file."""
        query = sql_read.rows(self._spec, changed_only=changed_only)
        skipped = 2 + self._beside
        for row in self._statements.stream(query, limit=limit):
            becomes, within, leads, _named = row[2:skipped] or _NOTHING_BESIDE
            changes = self._changes_of(row[skipped:])
            yield PlannedRow(row[0], row[1], changes, becomes if leads else None, within)

    def lacking_rights(self) -> list[Right]:
        """Return the privileges that `apply` would need and the user does not have."""
        made, spec = self._ready(), self._spec
        own = tuple(column.stored for _number, column in spec.own())
        tally, wanted = made.plan.tally, []
        if made.own:
            wanted.append(Right("UPDATE", spec.table.name, own))
        if tally and tally.created:
            wanted.append(Right("INSERT", spec.table.name, own))
        if tally and tally.deleted:
            wanted.append(Right("DELETE", spec.table.name))
        for number, side, column in spec.aside():
            count = made.aside[number]
            if count.changed:
                wanted.append(Right("UPDATE", side.table, (column.stored,)))
            if count.put:
                wanted.append(Right("INSERT", side.table, (column.stored, *(side.inserts or ()))))
            if count.dropped:
                wanted.append(Right("DELETE", side.table))
        with self._connection.begin():
            return missing_rights(self._connection, dict.fromkeys(wanted))

    def apply(
        self,
        write_undo: Callable[[Callable[[IO[bytes]], None]], Path],
        before_commit: Callable[[], None] = lambda: None,
        begun: Callable[[int], None] = lambda _transaction: None,
    ) -> Path:
        """Write the whole plan, or nothing.

        Args:
            write_undo: Called with a function that writes the undo rows to an open file; it must
                return only when that file is safely on disk.
            before_commit: Called when everything but the commit is done.
            begun: Called with the transaction ID before anything is written or locked.

        Returns:
            The undo file, which is deleted if nothing was written.

        Raises:
            RowsMovedError: Someone else changed these rows meanwhile; nothing was written.
            IntegrityError: The database refused it for another reason; nothing was written.
            OutcomeUnknownError: The connection was lost at the commit and could not be restored;
                the undo file is kept.
        """
        if not self._database.writable:
            raise RuntimeError("apply() needs a database that may write")
        try:
            return self._transact(self._ready(), write_undo, before_commit, begun)
        except _MovedError:
            raise self._moved(sql_read.changed_since) from None
        except IntegrityError as error:
            since = _SINCE.get(sqlstate(error) or "")
            moved = self._moved(since) if since else None
            if moved is None or not moved.rows:
                raise  # no one else's change: the next ID may already be taken, for example
            raise moved from error

    def _transact(
        self,
        made: Made,
        write_undo: Callable[[Callable[[IO[bytes]], None]], Path],
        before_commit: Callable[[], None],
        begun: Callable[[int], None],
    ) -> Path:
        undo: Path | None = None
        try:
            with self._statements.staging(durable=True, keep=False):
                transaction = int(self._statements.run(CURRENT).scalar_one())
                begun(transaction)
                self._statements.run(sql_write.lock(self._spec))
                self._write(made)
                undo = write_undo(self._write_undo)
                before_commit()
                commit_surely(self._connection, self._database, transaction)
        except OutcomeUnknownError as error:
            error.undo_file = undo
            raise
        except BaseException:
            if undo is not None:
                undo.unlink(missing_ok=True)
            raise
        return undo

    def _write(self, made: Made) -> None:
        """Lock every row, and write those that change.

        Raises:
            _MovedError: One is not as planned.
        """
        spec = self._spec
        for number, side, column in spec.aside():
            if made.aside[number].dropped:
                self._do(sql_create.delete_aside(number, side, column), made.aside[number].dropped)
        tally = made.plan.tally
        if tally and tally.deleted:
            self._do(sql_create.delete(spec), tally.deleted)
        for number, rows in made.detours.items():
            self._do(sql_write.park(spec, number), rows)
        run = self._statements.run
        run(sql_write.IN_ORDER)
        if made.kept and run(sql_write.lock_same(spec)).scalar_one() != made.kept:
            raise _MovedError
        if made.own:
            self._do(sql_write.update(spec, made.detours), made.own)
        run(sql_write.IN_ANY_ORDER)
        if tally and tally.created:
            run(sql_create.number_new(spec))
            run(sql_create.ANALYSE_NUMBERS)
            self._do(sql_create.insert(spec), tally.created)
        self._write_aside(made)

    def _write_aside(self, made: Made) -> None:
        """Write the values in other tables, and lock those that do not change."""
        spec = self._spec
        for number, side, column in spec.aside():
            count = made.aside[number]
            lock = sql_write.lock_aside(spec, number, side, column)
            if count.same and self._statements.run(lock).scalar_one() != count.same:
                raise _MovedError
            if count.changed:
                self._do(sql_write.update_aside(spec, number, side, column), count.changed)
            if count.put:
                self._do(sql_create.insert_aside(spec, number, side, column), count.put)

    def _do(self, statement: str, rows: int) -> None:
        if self._statements.run(statement).rowcount != rows:
            raise _MovedError

    def _moved(self, since: Callable[[Spec], str]) -> RowsMovedError:
        found = self._moved_anyhow() if self._spec.creates else since(self._spec)
        rows = list(self._statements.stream(sql_read.first(found)))
        return RowsMovedError([row.text for row in rows], rows[0].total if rows else 0)

    def _moved_anyhow(self) -> str:
        """Return a query for every kind of conflict, because one kind can show up as another."""
        with self._connection.begin():
            referring = links(self._statements, self._spec)
        found = [sql_read.changed_since(self._spec), sql_create.created_since(self._spec)]
        found += [since(self._spec) for since in _SINCE.values()]
        found += [sql_create.used_since(self._spec, referring)] if referring else []
        return " UNION ".join(query for query in found if query)

    def _write_undo(self, file: IO[bytes]) -> None:
        copy_out(self._connection, sql_write.undo(self._spec), file)

    def _ready(self) -> Made:
        if self._made is None or self._made.plan.problems:
            raise RuntimeError("apply() needs a plan without problems")
        return self._made


def lines_of(spec: Spec, requests: Iterable[Request]) -> Iterator[str]:
    """Return the requests in COPY's text format, for the table of `sql_plan.create_rows`."""
    if spec.is_plain and not spec.expects:
        return _plain_lines(requests)
    return _lines(spec, requests)


def _plain_lines(requests: Iterable[Request]) -> Iterator[str]:
    for line, key, (value,), _expected, _within, _label in requests:
        # Control characters were rejected earlier, so only backslashes need escaping.
        if value.__class__ is str and "\\" not in key and "\\" not in value:
            yield f"{line}\t{key}\t{value}\n"
        else:
            yield copy_line(line, key, value)


def _lines(spec: Spec, requests: Iterable[Request]) -> Iterator[str]:
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
    return NULL


def changes_of(spec: Spec) -> Callable[[Sequence[Any]], tuple[Change, ...]]:
    """Return a function that converts the cells queried by `sql_read` to changes."""
    if spec.is_plain:
        (column,) = spec.columns
        return lambda cells: (Change(column.name, *cells),)
    # For each column: whether it is given, the old value, the new value, whether they are the same.
    parts, start = [], 0
    for column in spec.columns:
        first = start + spec.partial
        end = first + (3 if column.reference else 2)
        if not column.hidden:
            parts.append((column.name, start if spec.partial else None, first, end))
        start = end

    def changes(cells: Sequence[Any]) -> tuple[Change, ...]:
        return tuple(
            [
                Change(name, *cells[first:end])
                for name, named, first, end in parts
                if named is None or cells[named]
            ]
        )

    return changes


def commit_surely(connection: Connection, database: Database, transaction: int) -> None:
    """Commit; if the connection is lost meanwhile, ask the server for the outcome.

    Args:
        connection: The connection with the open transaction.
        database: The database to ask.
        transaction: The transaction ID.

    Raises:
        DBAPIError: It was not committed.
        OutcomeUnknownError: The server could not be reached.
    """
    try:
        connection.commit()
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        if _ask(database, transaction) != "committed":
            raise


def _ask(database: Database, transaction: int) -> str:
    """Return ``committed`` or ``aborted``."""
    for pause in _PAUSES:
        time.sleep(pause)
        try:
            with database.reading() as session:
                status = session.scalar(sa.text(STATUS), {"transaction": transaction})
        except OperationalError:
            continue
        # The server may take a moment to notice that the client is gone.
        if status in {"committed", "aborted"}:
            return str(status)
    raise OutcomeUnknownError(transaction)
