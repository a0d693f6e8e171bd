"""From the rows of a file to a plan: what changes, what is so already, what cannot be and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.bulk import check_sql, plan_sql
from db.bulk.rows import Plan
from db.bulk.spec import Spec
from db.bulk.statements import Statements


@dataclass(frozen=True)
class Made:
    """A plan, and what only its writing needs to know.

    Attributes:
        plan: The plan.
        detours: How many rows give up their value first, for each column where some do.
    """

    plan: Plan
    detours: Mapping[int, int]


def make_plan(run: Statements, spec: Spec, *, skip_moved: bool, force: bool) -> Made:
    """Compare the rows of the file with the table, within a transaction that is open.

    Args:
        run: Where the rows are.
        spec: What is changed.
        skip_moved: Leave out the rows that do not hold what was expected of them, or are gone.
        force: Plan those that do not hold it all the same.
    """
    run.run(plan_sql.create_plan(spec))
    run.run(plan_sql.CREATE_PROBLEM)
    counts = run.run(plan_sql.count(spec)).one()
    is_clean = _find_repeated_keys(run, spec, by_id=not counts.unknown)
    # A value that two rows want is looked for among the rows that change: one that stays holds its
    # own, and is found as its holder. That is so only where every row is known, and known once.
    is_clean &= _find_repeated_values(
        run, spec, changed_only=is_clean and not (counts.unknown or spec.expects)
    )
    is_clean &= _find_moved(run, spec, counts, skip_moved=skip_moved, force=force)
    is_held = _find_holders(run, spec, skip_taken=skip_moved)
    if is_held and is_clean:
        _find_repeated_values(run, spec, changed_only=False)
    return _summed(run, spec, counts, is_clean=is_clean, is_held=is_held, force=force)


def _find_repeated_keys(run: Statements, spec: Spec, *, by_id: bool) -> bool:
    """Whether no two rows of the file name the same row of the table."""
    if not run.run(check_sql.has_repeated_key(by_id=by_id)).scalar():
        return True
    run.run(check_sql.repeated_key(spec))
    return False


def _find_repeated_values(run: Statements, spec: Spec, *, changed_only: bool) -> bool:
    """Whether no two rows of the file want the same value of a unique column."""
    is_clean = True
    for number, column in spec.unique():
        has_repeated = check_sql.has_repeated_value(spec, number, changed_only=changed_only)
        if run.run(has_repeated).scalar():
            run.run(check_sql.repeated_value(spec, number, column))
            is_clean = False
    return is_clean


def _find_moved(run: Statements, spec: Spec, counts: Any, *, skip_moved: bool, force: bool) -> bool:
    """Whether every row is there, and holds what was expected of it."""
    if counts.moved and not force:
        run.run((check_sql.leave_moved if skip_moved else check_sql.name_moved)(spec))
    if counts.unknown:
        run.run((check_sql.leave_unknown if skip_moved else check_sql.name_unknown)(spec))
    return not ((counts.moved and not force) or counts.unknown)


def _find_holders(run: Statements, spec: Spec, *, skip_taken: bool) -> bool:
    """Whether other rows of the table hold what a row of the file wants."""
    if not spec.unique():
        return False
    run.run(check_sql.create_held(spec))
    if not run.run(check_sql.HAS_HELD).scalar():
        return False
    if skip_taken:
        run.run(check_sql.PREPARE_LEAVE_TAKEN)
        run.run(check_sql.leave_taken(spec))
    else:
        run.run(check_sql.name_taken(spec))
    return True


def _summed(
    run: Statements, spec: Spec, counts: Any, *, is_clean: bool, is_held: bool, force: bool
) -> Made:
    if is_clean and not is_held:  # nothing was left out, and nothing stands in the way
        moved = counts.moved if force else 0
        return Made(Plan(counts.total, counts.to_change, counts.already, 0, 0, 0, moved), {})
    now = run.run(plan_sql.count(spec)).one()
    found = run.run(plan_sql.TOTAL_PROBLEMS).one()
    detours = {}
    if is_held:
        detours = {row.number: row.rows for row in run.run(plan_sql.DETOURS)}
    plan = Plan(
        rows=counts.total,
        to_change=now.to_change,
        already=now.already,
        left_out=found.left_out,
        detours=sum(detours.values()),
        problems=found.problems,
        forced=now.moved if force else 0,
    )
    return Made(plan, detours)
