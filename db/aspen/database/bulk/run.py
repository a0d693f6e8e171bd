"""A bulk run on one table: staged, planned in SQL, and applied in one transaction.

If the connection breaks during the commit, the server is asked for the outcome.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

from psycopg2.extensions import encodings
from sqlalchemy.exc import IntegrityError

from aspen.database.bulk import sql_apply, sql_create, sql_plan
from aspen.database.bulk.spec import (
    AssessedRow,
    MovedRow,
    Plan,
    Problem,
    RowRequest,
    Spec,
    Tally,
    ValueChange,
)
from aspen.database.bulk.sql_create import Link
from aspen.database.bulk.staging import Statements, copy_in, copy_out, lines_of, temporary_tables
from aspen.database.cancel import driver_of
from aspen.database.engine import CURRENT, Database, DatabaseIdentity, commit_surely, identify
from aspen.database.errors import OutcomeUnknownError, RowsMovedError, sqlstate
from aspen.database.roles import Right, missing_rights

_SINCE: dict[str, Callable[[Spec], str]] = {
    "23503": sql_apply.deleted_since,  # foreign_key_violation
    "23505": sql_apply.taken_since,  # unique_violation
}
_CREATE = "create"
_NOTHING_BESIDE = (None, None, None, None)


class _MovedError(Exception):
    """A row that is not as planned; raised to leave the transaction."""


class Aside(NamedTuple):
    """The numbers of rows that change a column in another table; see `sql_plan.count`."""

    aside: int
    same: int
    put: int
    dropped: int


@dataclass(frozen=True)
class Made:
    """A plan, and what is needed only to write it."""

    plan: Plan
    counts: Any  # its totals; see `sql_plan.count`
    detours: Mapping[int, int]  # rows that give up their value first, for each column with any

    def aside(self, number: int) -> Aside:
        """Return the totals for a column in another table."""
        return Aside(*(getattr(self.counts, f"{what}{number}") for what in Aside._fields))


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
        self._changes_of = _changes_of(spec)
        self._beside = 4 if spec.creates else 0  # cells before the columns; see `sql_apply`
        self._skips_moved = False
        self._made: Made | None = None

    def __enter__(self) -> Self:
        self._connection = self._database.engine.connect()
        self._statements = Statements(self._connection, self._values)
        if not self._statements.is_pooled:
            with self._connection.begin():
                self._statements.run(sql_plan.FLEETING)
        return self

    def __exit__(self, *_error: object) -> None:
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

    def load(self, requests: Iterable[RowRequest]) -> int:
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
                sql_apply.explain(self._spec), lines=list(unknown), words=words, near=near
            )

    def left_out(self) -> Generator[Problem, None, None]:
        """Return a generator of the rows left out of the plan, and why, by line."""
        return self.problems(left_out=True)

    def problems(self, *, left_out: bool = False) -> Generator[Problem, None, None]:
        """Yield all problems, or those of the rows left out of the plan, by line."""
        for row in self._statements.stream(sql_apply.PROBLEMS, left_out=left_out):
            yield Problem(*row)

    def moved(self) -> Generator[MovedRow, None, None]:
        """Yield the unexpected values in rows of the plan, by line."""
        for row in self._statements.stream(sql_apply.moved_cells(self._spec)):
            yield MovedRow(*row)

    def outcomes(self) -> Generator[AssessedRow, None, None]:
        """Yield every row of the file, by line, with the reason why it is not applied, if any."""
        skipped = 4 + self._beside
        label = self._spec.key.name
        query = sql_apply.outcomes(self._spec, with_left=self._skips_moved)
        for row in self._statements.stream(query):
            line, key, reason, left_out = row[:4]
            becomes, within, leads, named = row[4:skipped] or _NOTHING_BESIDE
            changes = self._changes_of(row[skipped:])
            if becomes == _CREATE and leads and label not in {each.column for each in changes}:
                changes = (ValueChange(label, None, named), *changes)  # the key is written, too
            yield AssessedRow(line, key, changes, reason, bool(left_out), becomes, within)

    def rows(
        self, *, limit: int | None = None, changed_only: bool = False
    ) -> Generator[AssessedRow, None, None]:
        """Yield the plan, by line of the file."""
        query = sql_apply.rows(self._spec, changed_only=changed_only)
        skipped = 2 + self._beside
        for row in self._statements.stream(query, limit=limit):
            becomes, within, leads, _named = row[2:skipped] or _NOTHING_BESIDE
            changes = self._changes_of(row[skipped:])
            becomes = becomes if leads else None
            yield AssessedRow(row[0], row[1], changes, becomes=becomes, within=within)

    def digest(self) -> str:
        """Return the SHA-256 of the rows that change, in hexadecimal."""
        ((found,),) = self._statements.stream(sql_apply.digest(self._spec))
        return str(found)

    def lacking_rights(self) -> list[Right]:
        """Return the privileges that `apply` would need and the user does not have."""
        made, spec = self._ready(), self._spec
        own = tuple(column.stored for _number, column in spec.own())
        tally = made.plan.tally or Tally(0, 0, 0)
        needed = [
            (made.counts.own, Right("UPDATE", spec.table.name, own)),
            (tally.created, Right("INSERT", spec.table.name, own)),
            (tally.deleted, Right("DELETE", spec.table.name)),
        ]
        for number, side, column in spec.aside():
            count, inserted = made.aside(number), (column.stored, *(side.inserts or ()))
            needed += [
                (count.aside, Right("UPDATE", side.table, (column.stored,))),
                (count.put, Right("INSERT", side.table, inserted)),
                (count.dropped, Right("DELETE", side.table)),
            ]
        with self._connection.begin():
            wanted = dict.fromkeys(right for rows, right in needed if rows)
            return missing_rights(self._connection, wanted)

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
            raise self._moved(sql_apply.changed_since) from None
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
                self._statements.run(sql_apply.lock(self._spec))
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
        """Lock every row, and write those that change, unless one is not as planned."""
        spec = self._spec
        for number, side, column in spec.aside():
            if dropped := made.aside(number).dropped:
                self._do(sql_create.delete_aside(number, side, column), dropped)
        tally = made.plan.tally
        if tally and tally.deleted:
            self._do(sql_create.delete(spec), tally.deleted)
        for number, rows in made.detours.items():
            self._do(sql_apply.park(spec, number), rows)
        run = self._statements.run
        run(sql_apply.IN_ORDER)
        counts = made.counts
        if counts.kept and run(sql_apply.lock_same(spec)).scalar_one() != counts.kept:
            raise _MovedError
        if counts.own:
            self._do(sql_apply.update(spec, made.detours), counts.own)
        run(sql_apply.IN_ANY_ORDER)
        if tally and tally.created:
            run(sql_create.number_new(spec))
            run(sql_create.ANALYSE_NUMBERS)
            self._do(sql_create.insert(spec), tally.created)
        self._write_aside(made)

    def _write_aside(self, made: Made) -> None:
        """Write the values in other tables, and lock those that do not change."""
        spec = self._spec
        for number, side, column in spec.aside():
            count = made.aside(number)
            lock = sql_apply.lock_aside(spec, number, side, column)
            if count.same and self._statements.run(lock).scalar_one() != count.same:
                raise _MovedError
            if count.aside:
                self._do(sql_apply.update_aside(spec, number, side, column), count.aside)
            if count.put:
                self._do(sql_create.insert_aside(spec, number, side, column), count.put)

    def _do(self, statement: str, rows: int) -> None:
        if self._statements.run(statement).rowcount != rows:
            raise _MovedError

    def _moved(self, since: Callable[[Spec], str]) -> RowsMovedError:
        found = self._moved_anyhow() if self._spec.creates else since(self._spec)
        rows = list(self._statements.stream(sql_apply.first(found)))
        return RowsMovedError([row.text for row in rows], rows[0].total if rows else 0)

    def _moved_anyhow(self) -> str:
        """Return a query for every kind of conflict, because one kind can show up as another."""
        with self._connection.begin():
            referring = _links(self._statements, self._spec)
        found = [sql_apply.changed_since(self._spec), sql_create.created_since(self._spec)]
        found += [since(self._spec) for since in _SINCE.values()]
        found += [sql_create.used_since(self._spec, referring)] if referring else []
        return " UNION ".join(query for query in found if query)

    def _write_undo(self, file: IO[bytes]) -> None:
        copy_out(self._connection, sql_apply.undo(self._spec), file)

    def _ready(self) -> Made:
        if self._made is None or self._made.plan.problems:
            raise RuntimeError("apply() needs a plan without problems")
        return self._made


def _changes_of(spec: Spec) -> Callable[[Sequence[Any]], tuple[ValueChange, ...]]:
    """Return a function that converts the cells queried by `sql_apply` to changes."""
    if spec.is_plain:
        (column,) = spec.columns
        return lambda cells: (ValueChange(column.name, *cells),)
    # For each column: whether it is given, the old value, the new value, whether they are the same.
    parts, start = [], 0
    for column in spec.columns:
        first = start + spec.partial
        end = first + (3 if column.reference else 2)
        if not column.hidden:
            parts.append((column.name, start if spec.partial else None, first, end))
        start = end

    def changes(cells: Sequence[Any]) -> tuple[ValueChange, ...]:
        return tuple(
            [
                ValueChange(name, *cells[first:end])
                for name, named, first, end in parts
                if named is None or cells[named]
            ]
        )

    return changes


# Plans


def make_plan(run: Statements, spec: Spec, *, skip_moved: bool, force: bool) -> Made:
    """Compare the rows of the file with the table, within the open transaction.

    Rows that do not hold the expected values, or are gone, are left out (`skip_moved`), or planned
    anyway (`force`).
    """
    for number, reference, _column in spec.looked_up():
        run.run(sql_plan.create_found(number, reference))
    run.run(sql_create.create_plan(spec) if spec.creates else sql_plan.create_plan(spec))
    run.run(sql_plan.analyse_plan(spec))
    run.run(sql_plan.CREATE_PROBLEM)
    if skip_moved:
        run.run(sql_plan.CREATE_LEFT)
    if spec.creates:
        is_clean = _gather(run, spec)
        counts = run.run(sql_plan.count(spec)).one()
    else:
        counts = run.run(sql_plan.count_all(spec)).one()
        if counts.unknown and spec.key_number is not None:
            run.run(sql_plan.find_renamed(spec, spec.key_number))
            counts = run.run(sql_plan.count_all(spec)).one()
        is_clean = _find_repeated_keys(run, spec, counts)
    # Duplicate values are looked for among changing rows only, because an unchanged row is found as
    # the holder of its own value. This works only if every row is found, and only once.
    at_once = not is_clean or counts.unknown or spec.expects or spec.creates
    if at_once:
        is_clean &= _find_repeated_values(run, spec, None)
    tell = sql_apply.leave if skip_moved else sql_apply.name
    for found in _problems(run, spec, counts, skip_moved=skip_moved, force=force):
        is_clean &= not run.run(tell(found)).rowcount
    is_held = _find_holders(run, spec, skip_taken=skip_moved)
    if spec.creates and skip_moved and not (is_clean and not is_held):
        run.run(sql_apply.leave(sql_create.of_incomplete_rows(spec)))
    if not at_once:
        is_clean &= _find_repeated_values(run, spec, None if is_held else counts)
    return _summed(run, spec, counts, is_clean=is_clean, is_held=is_held, force=force)


def _gather(run: Statements, spec: Spec) -> bool:
    """Merge the lines that mean the same row of the table; return True if there are no problems."""
    is_clean = True
    if run.run(sql_create.DOUBLED).scalar():
        run.run(sql_apply.name(sql_create.doubled(spec)))
        run.run(sql_create.TAKE_DOUBLED)
        is_clean = False
    if run.run(sql_create.has_repeated(spec)).scalar():
        run.run(sql_apply.name(sql_create.repeated(spec)))
        is_clean = False
    if spec.within and not spec.expects and run.run(sql_create.HAS_COMPANY).scalar():
        found = run.run(sql_apply.name(sql_create.contradicting(spec)))
        is_clean &= not found.rowcount
        run.run(sql_create.gather(spec))
    return is_clean


def _problems(
    run: Statements, spec: Spec, counts: Any, *, skip_moved: bool, force: bool
) -> Iterator[str]:
    """Yield queries for the rows that cannot be applied, whatever the other rows are."""
    if counts.moved and not force:
        yield sql_apply.moved_values(spec)
    if counts.unknown:
        yield sql_apply.unknown(spec, any_more=skip_moved)
    for number, reference, column in spec.looked_up():
        if run.run(sql_plan.has_unresolved(number)).scalar():
            if run.run(sql_plan.HAS_DISTANCES).scalar():
                run.run(sql_plan.find_near(number, reference))
            yield sql_plan.unresolved(number, reference, column)
    for number, side, column in spec.aside():
        if getattr(counts, f"lacking{number}"):
            yield sql_apply.without_target(spec, number, side, column)
    if spec.creates:
        yield from _existence_problems(run, spec, counts)
        if skip_moved:
            yield sql_create.of_incomplete_rows(spec)


def _existence_problems(run: Statements, spec: Spec, counts: Any) -> Iterator[str]:
    """Yield queries for rows that cannot be created or deleted; some may find none."""
    if not spec.expects:
        if counts.created:
            yield sql_create.without_required(spec)
        if not spec.keeps_key:
            yield sql_create.of_missing_rows(spec)
        if spec.within:
            for number, _side, column in spec.aside():
                yield sql_create.without_scope(spec, number, column)
    if counts.deleted:
        found = _links(run, spec)
        if found:
            yield sql_create.in_use(spec, found)


def _find_repeated_keys(run: Statements, spec: Spec, counts: Any) -> bool:
    """Report rows of the file that name the same row of the table; return True if none do."""
    is_repeated = counts.repeated_ids
    if counts.unknown:
        is_repeated = run.run(sql_apply.HAS_REPEATED_KEY).scalar()
    if is_repeated:
        run.run(sql_apply.repeated_key(spec))
    return not is_repeated


def _find_repeated_values(run: Statements, spec: Spec, counts: Any) -> bool:
    """Report rows of the file that want the same unique value; return True if there are none.

    Without the totals of the plan, rows that do not change are included.
    """
    is_clean = True
    for number, column in spec.unique():
        if counts is None:
            is_repeated = run.run(sql_apply.has_repeated_value(spec, number)).scalar()
        else:
            is_repeated = getattr(counts, f"repeated_{number}")
        if is_repeated:
            run.run(sql_apply.repeated_value(spec, number, column))
            is_clean = False
    return is_clean


def _find_holders(run: Statements, spec: Spec, *, skip_taken: bool) -> bool:
    """Report wanted values that other rows keep; return True if other rows hold any."""
    if not any(run.run(sql_apply.has_held(spec, *each)).scalar() for each in spec.unique()):
        return False
    run.run(sql_apply.create_held(spec))
    run.run(sql_apply.ANALYSE_HELD)
    if skip_taken:
        run.run(sql_apply.PREPARE_LEAVE_TAKEN)
        run.run(sql_apply.leave_taken(spec))
    else:
        run.run(sql_apply.name(sql_apply.taken(spec)))
    return True


def _summed(
    run: Statements, spec: Spec, counts: Any, *, is_clean: bool, is_held: bool, force: bool
) -> Made:
    left_out = problems = 0
    detours: dict[int, int] = {}
    now = counts
    if not is_clean or is_held:  # rows were left out, or have problems
        now = run.run(sql_plan.count(spec)).one()
        found = run.run(sql_plan.TOTAL_PROBLEMS).one()
        left_out, problems = found.left_out, found.problems
    if is_held:
        detours = {row.number: row.rows for row in run.run(sql_plan.DETOURS)}
    plan = Plan(
        rows=counts.total,
        to_change=now.to_change,
        already=now.already,
        left_out=left_out,
        detours=sum(detours.values()),
        problems=problems,
        forced=now.moved if force else 0,
        passed_on=0 if spec.key_number is None else detours.get(spec.key_number, 0),
        tally=Tally(now.created, now.deleted, now.touched) if spec.creates else None,
    )
    return Made(plan, now, detours)


def _links(run: Statements, spec: Spec) -> list[Link]:
    """Return the columns that refer to rows of the table, within the open transaction."""
    return [(row.table_name, row.column_name) for row in run.run(sql_create.links(spec))]
