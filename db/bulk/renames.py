"""Renaming samples of one group in bulk: staged, planned in SQL, applied in one transaction."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from db.bulk import rename_sql as sql
from db.bulk import write_sql
from db.bulk.committing import commit_surely
from db.bulk.copying import copy_in, copy_line, copy_out
from db.bulk.rename_types import AssessedRow, MovedRow, Plan, PlannedRow, Problem, Request
from db.database import Database
from db.errors import OutcomeUnknownError, RowsMovedError
from db.interrupts import cancellable
from db.transactions import CURRENT, DatabaseIdentity, identify

_UNIQUE_VIOLATION = "23505"
_BATCH = 2_000  # rows fetched at once

Values = dict[str, object]


class _MovedError(Exception):
    """A row was not as planned; leaves the transaction."""


class RenameRun:
    """One bulk rename on one connection: `load`, `plan`, and perhaps `apply`.

    Between the three no transaction is open, so that an operator who is asked holds no lock. Memory
    does not grow with the number of rows: they live in temporary tables of the server.

    Args:
        database: Where; `apply` needs one that may write.
        group_id: The submitting group whose samples are renamed.
    """

    def __init__(self, database: Database, group_id: int):
        self._database = database
        self._group = {"group": group_id}
        self._token = secrets.token_hex(6)
        self._plan: Plan | None = None

    def __enter__(self) -> Self:
        self._connection = self._database.engine.connect()
        with self._connection.begin():
            self._run(sql.NOTICE_LOSS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The temporary tables go with the server's session, so it must not return to the pool.
        self._connection.invalidate()
        self._connection.close()

    def identity(self) -> DatabaseIdentity:
        """Which database it works on."""
        return identify(self._connection)

    def group_name(self) -> str | None:
        """The name of the group; None when there is no such group."""
        with self._connection.begin():
            name = self._run(sql.GROUP_EXISTS).scalar()
        return None if name is None else str(name)

    def load(self, requests: Iterable[Request]) -> int:
        """Copy the mapping to the server; the number of rows."""
        count = 0

        def lines() -> Iterator[str]:
            nonlocal count
            for line, private, public, expected in requests:
                count += 1
                # Control characters were refused there, so only a backslash needs care.
                if expected is None and "\\" not in private and "\\" not in public:
                    yield f"{line}\t{private}\t{public}\t\\N\n"
                else:
                    yield copy_line(line, private, public, expected)

        with self._staging():
            self._run(sql.CREATE_MAPPING)
            copy_in(self._connection, sql.MAPPING, lines())
        return count

    def plan(self, *, skip_moved: bool = False, force: bool = False) -> Plan:
        """Compare the mapping with the database, and find what stands in its way.

        Args:
            skip_moved: Leave out the rows that do not hold what was expected of them, instead of
                counting them as problems; see `left_out`.
            force: Plan them too, whatever they hold; see `moved`.
        """
        with self._staging():
            self._run(sql.CREATE_PLAN)
            self._run(sql.CREATE_PROBLEM)
            counts = self._run(sql.COUNT).one()
            self._find_repeats(texts=bool(counts.unknown))
            if counts.moved and not force:
                self._run(sql.MOVED_OUT if skip_moved else sql.MOVED)
            if counts.unknown:
                self._run(sql.LEAVE_UNKNOWN if skip_moved else sql.UNKNOWN)
            self._find_holders(skip_taken=skip_moved)
            totals = self._run(sql.TOTALS).one()
        self._plan = Plan(
            rows=counts.total,
            to_change=totals.to_change,
            already=totals.already,
            left_out=totals.left_out,
            detours=totals.detours,
            problems=totals.problems,
            forced=totals.moved if force else 0,
        )
        return self._plan

    def problems(self) -> Generator[Problem, None, None]:
        """Everything that stands in the way, by line."""
        for row in self._stream(sql.PROBLEMS):
            yield Problem(row.line, row.column_name, row.reason)

    def left_out(self) -> Generator[Problem, None, None]:
        """The rows that were left out of the plan, and why, by line."""
        for row in self._stream(sql.LEFT_OUT):
            yield Problem(row.line, row.column_name, row.reason)

    def moved(self) -> Generator[MovedRow, None, None]:
        """The rows of the plan that do not hold what was expected of them, by line."""
        for row in self._stream(sql.MOVED_ROWS):
            yield MovedRow(row.line, row.private_identifier, row.expected, row.old_value)

    def outcomes(self) -> Generator[AssessedRow, None, None]:
        """Every row of the mapping, by line, with the reason why it is not applied, if any."""
        for row in self._stream(sql.OUTCOMES):
            yield AssessedRow(
                row.line,
                row.private_identifier,
                row.old_value,
                row.new_value,
                row.reason,
                bool(row.left_out),
            )

    def rows(self, *, limit: int | None = None, changed_only: bool = False) -> Iterator[PlannedRow]:
        """The plan, by line of the file."""
        query = sql.CHANGED_ROWS if changed_only else sql.ROWS
        for row in self._stream(query, {"limit": limit}):
            yield PlannedRow(row.line, row.private_identifier, row.old_value, row.new_value)

    def apply(
        self,
        write_undo: Callable[[Callable[[IO[bytes]], None]], Path],
        before_commit: Callable[[], None] = lambda: None,
        begun: Callable[[int], None] = lambda _transaction: None,
    ) -> Path:
        """Write the plan, all of it or nothing.

        Args:
            write_undo: Is handed a function that writes the undo rows to an open file; it must
                return only when that file is safe on disk.
            before_commit: Is called when everything but the commit is done.
            begun: Is called with the transaction's id before anything is written or locked.

        Returns:
            The undo file. Where nothing was written there is none.

        Raises:
            RowsMovedError: Somebody else changed these rows meanwhile; nothing was written.
            OutcomeUnknownError: The connection was lost at the commit and did not come back; the
                undo file stays.
        """
        if not self._database.writable:
            raise RuntimeError("apply() needs a database that may write")
        try:
            return self._transact(write_undo, before_commit, begun)
        except _MovedError:
            raise self._moved(write_sql.MOVED_SINCE) from None
        except IntegrityError as error:
            if getattr(error.orig, "pgcode", None) != _UNIQUE_VIOLATION:
                raise
            raise self._moved(write_sql.TAKEN_SINCE) from error

    def _transact(
        self,
        write_undo: Callable[[Callable[[IO[bytes]], None]], Path],
        before_commit: Callable[[], None],
        begun: Callable[[int], None],
    ) -> Path:
        undo: Path | None = None
        try:
            with self._staging():
                transaction = int(self._run(CURRENT).scalar_one())
                begun(transaction)
                self._run(write_sql.LOCK_GROUP)
                self._write()
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

    def _write(self) -> None:
        """Lock every row, and write those that change.

        Raises:
            _MovedError: One is not as planned.
        """
        plan = self._known_plan
        values: Values = {"token": self._token}
        if plan.already and self._run(write_sql.LOCK_SAME).scalar_one() != plan.already:
            raise _MovedError
        if plan.detours and self._run(write_sql.PARK, values).rowcount != plan.detours:
            raise _MovedError
        update = write_sql.UPDATE_PARKED if plan.detours else write_sql.UPDATE
        if self._run(update, values).rowcount != plan.to_change:
            raise _MovedError

    def _moved(self, query: str) -> RowsMovedError:
        rows = list(self._stream(query))
        return RowsMovedError([row.text for row in rows], rows[0].total if rows else 0)

    def _write_undo(self, file: IO[bytes]) -> None:
        copy_out(self._connection, write_sql.UNDO, file)

    @property
    def _known_plan(self) -> Plan:
        if self._plan is None or self._plan.problems:
            raise RuntimeError("apply() needs a plan without problems")
        return self._plan

    def _find_repeats(self, *, texts: bool) -> None:
        """Rows of the file that name the same sample or the same new identifier."""
        # Where every sample is known its number tells repeats, at half the price of the text.
        if self._run(sql.HAS_REPEATED_TEXT if texts else sql.HAS_REPEATED_ID).scalar():
            self._run(sql.REPEATED_PRIVATE)
        if self._run(sql.HAS_REPEATED_PUBLIC).scalar():
            self._run(sql.REPEATED_PUBLIC)

    def _find_holders(self, *, skip_taken: bool) -> None:
        """Samples that hold an identifier which a row of the plan wants."""
        self._run(sql.CREATE_HELD)
        if not self._run(sql.HAS_HELD).scalar():
            return
        if not skip_taken:
            self._run(sql.TAKEN)
            return
        self._run(sql.PREPARE_TAKEN_OUT)
        self._run(sql.TAKEN_OUT)

    # Transactions

    @contextmanager
    def _staging(self) -> Iterator[None]:
        """A transaction that makes temporary tables."""
        with self._connection.begin():
            self._run(sql.READ_WRITE)
            self._run(sql.WORK_MEM)
            yield

    def _run(self, statement: str, values: Values | None = None) -> sa.CursorResult[Any]:
        clause, bound = self._bind(statement, values)
        return cancellable(self._connection, lambda: self._connection.execute(clause, bound))

    def _stream(self, statement: str, values: Values | None = None) -> Iterator[sa.Row[Any]]:
        """Rows as they come, in a transaction of their own."""
        clause, bound = self._bind(statement, values)
        with self._connection.begin():
            yield from self._connection.execute(clause.execution_options(yield_per=_BATCH), bound)

    def _bind(self, statement: str, values: Values | None) -> tuple[sa.TextClause, Values]:
        clause = sa.text(statement)
        given = {**self._group, **(values or {})}
        return clause, {name: given[name] for name in clause.compile().params}
