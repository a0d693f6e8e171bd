"""Make a plan from the rows of a file: changed and unchanged rows, and problems.

All statements of a run are on one connection, and their results are in temporary tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from aspen.database.bulk import sql_create, sql_plan, sql_read
from aspen.database.bulk.spec import Plan, Spec, Tally
from aspen.database.bulk.sql_create import Link
from aspen.database.bulk.sql_plan import DURABLE, FLEETING_NOW, ONE_MOMENT, READ_WRITE, RESOURCES
from aspen.database.cancel import cancellable
from aspen.database.errors import TemporaryTablesDeniedError, sqlstate
from aspen.database.staging import Carrier

_FORBIDDEN = "42501"
_BATCH = 2_000  # rows per fetch

Values = dict[str, object]
_ASIDE = ("aside", "same", "put", "dropped")


class Aside(NamedTuple):
    """Row counts for a column in another table.

    Attributes:
        changed: Rows that update it.
        same: Rows that give its current value.
        put: Rows that insert a row there.
        dropped: Rows that delete one there.
    """

    changed: int
    same: int
    put: int
    dropped: int


@dataclass(frozen=True)
class Made:
    """A plan, and the details that are needed only to write it.

    Attributes:
        plan: The plan.
        own: The number of rows that change in the table itself.
        kept: The number of rows of the table that do not change.
        aside: The row counts for each column in another table.
        detours: The number of rows that give up their value first, for each column with any.
    """

    plan: Plan
    own: int
    kept: int
    aside: Mapping[int, Aside]
    detours: Mapping[int, int]


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
    """A connection, and the values that its statements are bound to.

    Args:
        connection: The connection to run them on.
        values: The values that they may refer to, such as the scope.
    """

    def __init__(self, connection: Connection, values: Mapping[str, object]):
        self.connection = connection
        self._values = values
        self._carrier = Carrier(connection)

    @property
    def is_pooled(self) -> bool:
        """Return True if a pooler is in between."""
        return self._carrier.is_needed

    def close(self) -> None:
        """Discard the tables that are kept between transactions."""
        self._carrier.close()

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
            self.run(ONE_MOMENT if of_one_moment else READ_WRITE)
            self.run(f"{DURABLE if durable else FLEETING_NOW}; {RESOURCES}")
            self._carrier.unpack()
            yield
            if keep:
                self._carrier.pack()

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
            if self._carrier.is_needed:
                self.run(READ_WRITE)
                self.run(FLEETING_NOW)
                self._carrier.unpack()
            yield from self.connection.execute(clause.execution_options(yield_per=_BATCH), bound)

    def _bind(self, statement: str, values: Values) -> tuple[sa.TextClause, Values]:
        clause = sa.text(self._carrier.suited(statement))
        known = {**self._values, **values}
        return clause, {name: known[name] for name in clause.compile().params}


def make_plan(run: Statements, spec: Spec, *, skip_moved: bool, force: bool) -> Made:
    """Compare the rows of the file with the table, within the open transaction.

    Args:
        run: The statements of the run.
        spec: The specification of what changes.
        skip_moved: Leave out the rows that do not hold the expected values, or are gone.
        force: Plan rows that do not hold the expected values anyway.
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
    tell = sql_read.leave if skip_moved else sql_read.name
    for found in _problems(run, spec, counts, skip_moved=skip_moved, force=force):
        is_clean &= not run.run(tell(found)).rowcount
    is_held = _find_holders(run, spec, skip_taken=skip_moved)
    if spec.creates and skip_moved and not (is_clean and not is_held):
        run.run(sql_read.leave(sql_create.of_incomplete_rows(spec)))
    if not at_once:
        is_clean &= _find_repeated_values(run, spec, None if is_held else counts)
    return _summed(run, spec, counts, is_clean=is_clean, is_held=is_held, force=force)


def _gather(run: Statements, spec: Spec) -> bool:
    """Merge the lines that mean the same row of the table; return True if there are no problems."""
    is_clean = True
    if run.run(sql_create.DOUBLED).scalar():
        run.run(sql_read.name(sql_create.doubled(spec)))
        run.run(sql_create.TAKE_DOUBLED)
        is_clean = False
    if run.run(sql_create.has_repeated(spec)).scalar():
        run.run(sql_read.name(sql_create.repeated(spec)))
        is_clean = False
    if spec.within and not spec.expects and run.run(sql_create.HAS_COMPANY).scalar():
        found = run.run(sql_read.name(sql_create.contradicting(spec)))
        is_clean &= not found.rowcount
        run.run(sql_create.gather(spec))
    return is_clean


def _problems(
    run: Statements, spec: Spec, counts: Any, *, skip_moved: bool, force: bool
) -> Iterator[str]:
    """Yield queries for the rows that cannot be applied, whatever the other rows are."""
    if counts.moved and not force:
        yield sql_read.moved_values(spec)
    if counts.unknown:
        yield sql_read.unknown(spec, any_more=skip_moved)
    for number, reference, column in spec.looked_up():
        if run.run(sql_plan.has_unresolved(number)).scalar():
            if run.run(sql_plan.HAS_DISTANCES).scalar():
                run.run(sql_plan.find_near(number, reference))
            yield sql_plan.unresolved(number, reference, column)
    for number, side, column in spec.aside():
        if getattr(counts, f"lacking{number}"):
            yield sql_read.without_target(spec, number, side, column)
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
        found = links(run, spec)
        if found:
            yield sql_create.in_use(spec, found)


def _find_repeated_keys(run: Statements, spec: Spec, counts: Any) -> bool:
    """Report rows of the file that name the same row of the table; return True if none do."""
    is_repeated = counts.repeated_ids
    if counts.unknown:
        is_repeated = run.run(sql_read.HAS_REPEATED_KEY).scalar()
    if is_repeated:
        run.run(sql_read.repeated_key(spec))
    return not is_repeated


def _find_repeated_values(run: Statements, spec: Spec, counts: Any) -> bool:
    """Report rows of the file that want the same unique value; return True if there are none.

    Args:
        run: The statements of the run.
        spec: The specification of what changes.
        counts: The totals of the plan; None to include rows that do not change.
    """
    is_clean = True
    for number, column in spec.unique():
        if counts is None:
            is_repeated = run.run(sql_read.has_repeated_value(spec, number)).scalar()
        else:
            is_repeated = getattr(counts, f"repeated_{number}")
        if is_repeated:
            run.run(sql_read.repeated_value(spec, number, column))
            is_clean = False
    return is_clean


def _find_holders(run: Statements, spec: Spec, *, skip_taken: bool) -> bool:
    """Report wanted values that other rows keep; return True if other rows hold any."""
    if not any(run.run(sql_read.has_held(spec, *each)).scalar() for each in spec.unique()):
        return False
    run.run(sql_read.create_held(spec))
    run.run(sql_read.ANALYSE_HELD)
    if skip_taken:
        run.run(sql_read.PREPARE_LEAVE_TAKEN)
        run.run(sql_read.leave_taken(spec))
    else:
        run.run(sql_read.name(sql_read.taken(spec)))
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
    aside = {
        number: Aside(*(getattr(now, f"{what}{number}") for what in _ASIDE))
        for number, _side, _column in spec.aside()
    }
    return Made(plan, now.own, now.kept, aside, detours)


def links(run: Statements, spec: Spec) -> list[Link]:
    """Return the columns that refer to rows of the table, within the open transaction."""
    return [Link(row.table_name, row.column_name) for row in run.run(sql_create.links(spec))]
