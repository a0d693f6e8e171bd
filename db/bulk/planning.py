"""Making a plan from the rows of a file: changed and unchanged rows, and problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from db.bulk import check_sql, creating, creating_sql, gathering_sql, plan_sql, reference_sql
from db.bulk.rows import Plan, Tally
from db.bulk.spec import Spec
from db.bulk.statements import Statements

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


def look_up(run: Statements, spec: Spec) -> None:
    """Look up what the rows of the file refer to, within the open transaction."""
    for number, reference, _column in spec.looked_up():
        run.run(reference_sql.create_found(number, reference, plan_sql.ROWS))


def make_plan(run: Statements, spec: Spec, *, skip_moved: bool, force: bool) -> Made:
    """Compare the rows of the file with the table, within the open transaction.

    Args:
        run: The statements of the run.
        spec: The specification of what changes.
        skip_moved: Leave out the rows that do not hold the expected values, or are gone.
        force: Plan rows that do not hold the expected values anyway.
    """
    look_up(run, spec)
    run.run(gathering_sql.create_plan(spec) if spec.creates else plan_sql.create_plan(spec))
    run.run(plan_sql.analyse_plan(spec))
    run.run(plan_sql.CREATE_PROBLEM)
    if skip_moved:
        run.run(plan_sql.CREATE_LEFT)
    if spec.creates:
        is_clean = creating.gather(run, spec)
        counts = run.run(plan_sql.count(spec)).one()
    else:
        counts = run.run(plan_sql.count_all(spec)).one()
        if counts.unknown and spec.key_number is not None:
            run.run(plan_sql.find_renamed(spec, spec.key_number))
            counts = run.run(plan_sql.count_all(spec)).one()
        is_clean = _find_repeated_keys(run, spec, counts)
    # Duplicate values are looked for among changing rows only, because an unchanged row is found as
    # the holder of its own value. This works only if every row is found, and only once.
    at_once = not is_clean or counts.unknown or spec.expects or spec.creates
    if at_once:
        is_clean &= _find_repeated_values(run, spec, None)
    tell = check_sql.leave if skip_moved else check_sql.name
    for found in _unusable(run, spec, counts, skip_moved=skip_moved, force=force):
        is_clean &= not run.run(tell(found)).rowcount
    is_held = _find_holders(run, spec, skip_taken=skip_moved)
    if spec.creates and skip_moved and not (is_clean and not is_held):
        run.run(check_sql.leave(creating_sql.forsaken(spec)))
    if not at_once:
        is_clean &= _find_repeated_values(run, spec, None if is_held else counts)
    return _summed(run, spec, counts, is_clean=is_clean, is_held=is_held, force=force)


def _unusable(
    run: Statements, spec: Spec, counts: Any, *, skip_moved: bool, force: bool
) -> Iterator[str]:
    """Yield queries for the rows that cannot be applied, whatever the other rows are."""
    if counts.moved and not force:
        yield check_sql.moved_cells(spec)
    if counts.unknown:
        yield check_sql.unknown(spec, any_more=skip_moved)
    for number, reference, column in spec.looked_up():
        if run.run(reference_sql.has_unresolved(number)).scalar():
            if run.run(reference_sql.HAS_DISTANCES).scalar():
                run.run(reference_sql.find_near(number, reference))
            yield reference_sql.unresolved(number, reference, column, plan_sql.ROWS, plan_sql.PLAN)
    for number, side, column in spec.aside():
        if getattr(counts, f"lacking{number}"):
            yield check_sql.lacking(spec, number, side, column)
    if spec.creates:
        yield from creating.unusable(run, spec, counts)
        if skip_moved:
            yield creating_sql.forsaken(spec)


def _find_repeated_keys(run: Statements, spec: Spec, counts: Any) -> bool:
    """Report rows of the file that name the same row of the table; return True if none do."""
    is_repeated = counts.repeated_ids
    if counts.unknown:
        is_repeated = run.run(check_sql.HAS_REPEATED_KEY).scalar()
    if is_repeated:
        run.run(check_sql.repeated_key(spec))
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
            is_repeated = run.run(check_sql.has_repeated_value(spec, number)).scalar()
        else:
            is_repeated = getattr(counts, f"repeated_{number}")
        if is_repeated:
            run.run(check_sql.repeated_value(spec, number, column))
            is_clean = False
    return is_clean


def _find_holders(run: Statements, spec: Spec, *, skip_taken: bool) -> bool:
    """Report wanted values that other rows keep; return True if other rows hold any."""
    if not any(run.run(check_sql.has_held(spec, *each)).scalar() for each in spec.unique()):
        return False
    run.run(check_sql.create_held(spec))
    run.run(check_sql.ANALYSE_HELD)
    if skip_taken:
        run.run(check_sql.PREPARE_LEAVE_TAKEN)
        run.run(check_sql.leave_taken(spec))
    else:
        run.run(check_sql.name(check_sql.taken(spec)))
    return True


def _summed(
    run: Statements, spec: Spec, counts: Any, *, is_clean: bool, is_held: bool, force: bool
) -> Made:
    left_out = problems = 0
    detours: dict[int, int] = {}
    now = counts
    if not is_clean or is_held:  # rows were left out, or have problems
        now = run.run(plan_sql.count(spec)).one()
        found = run.run(plan_sql.TOTAL_PROBLEMS).one()
        left_out, problems = found.left_out, found.problems
    if is_held:
        detours = {row.number: row.rows for row in run.run(plan_sql.DETOURS)}
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
