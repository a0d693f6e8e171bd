"""Conditions on a row ``p`` of a plan, from which statements are built; see `sql_plan`."""

from __future__ import annotations

from collections.abc import Sequence

from aspen.database.bulk.spec import Column, Side, Spec


def in_scope(spec: Spec, alias: str) -> str:
    """Return the condition that a row of the table is in the scope of the run."""
    scope = spec.table.scope
    return f"{alias}.{scope} = :scope" if scope else "true"


def stays_in_scope(spec: Spec, alias: str) -> str:
    """Return the same condition in a form that the planner expects half of the table to meet.

    Statistics are often older than the samples of a new group. The planner then assumes that the
    group has few rows, and compares each row of the plan with all of them instead of finding each
    row by its ID: 10,000 renames took 27 s.
    """
    scope = spec.table.scope
    return f"CASE WHEN {alias}.{scope} = :scope THEN true ELSE false END" if scope else "true"


def given(spec: Spec, number: int, alias: str = "p") -> str:
    """Return the condition that a row of the file gives a column."""
    return f"{alias}.g{number}" if spec.partial else "true"


def label(spec: Spec) -> str:
    """Return SQL for the label of a row of the plan."""
    if spec.key.stored == spec.table.label:
        return "p.key"
    return "p.label"


def is_there(spec: Spec) -> str:
    """Return the condition that the row exists, or will."""
    return "(p.id IS NOT NULL OR p.creates)" if spec.creates else "p.id IS NOT NULL"


def differs(number: int, column: Column, alias: str = "p") -> str:
    """Return the condition that a row of the plan changes a column."""
    return f"{alias}.n{number} {column.differs} {alias}.o{number}"


def changes(spec: Spec) -> str:
    """Return the condition that a row of the plan changes anything."""
    return _any_of(spec, [differs(number, column) for number, column in spec.numbered()])


def changes_own(spec: Spec) -> str:
    """Return the condition that it updates an existing row of the table itself."""
    condition = _any_of(spec, [differs(number, column) for number, column in spec.own()])
    return f"({stays(spec)} AND {condition})"


def stays(spec: Spec) -> str:
    """Return the condition that a row of the table exists and is not deleted."""
    going = " AND NOT p.creates AND NOT p.deletes" if spec.creates else ""
    return f"(p.id IS NOT NULL{going})"


def changes_aside(spec: Spec, number: int, side: Side, column: Column) -> str:
    """Return the condition that it updates an existing row of another table."""
    condition = _any_of(spec, [differs(number, column)])
    if side.inserts is None:
        return condition
    return f"({condition} AND p.x{number} IS NOT NULL AND p.n{number} IS NOT NULL)"


def puts_aside(spec: Spec, number: int, side: Side) -> str:
    """Return the condition that it inserts a row into another table."""
    if side.inserts is None:
        return "false"
    return f"({is_there(spec)} AND p.x{number} IS NULL AND p.n{number} IS NOT NULL)"


def drops_aside(number: int, side: Side) -> str:
    """Return the condition that it deletes a row of another table."""
    if side.inserts is None:
        return "false"
    return f"(p.x{number} IS NOT NULL AND p.n{number} IS NULL)"


def same_aside(spec: Spec, number: int, column: Column) -> str:
    """Return the condition that it gives a column of another table its current value."""
    return (
        f"({given(spec, number)} AND p.x{number} IS NOT NULL "
        f"AND p.n{number} {column.equals} p.o{number})"
    )


def lacks_side(spec: Spec, number: int, side: Side) -> str:
    """Return the condition that a value has no row in the other table that should store it."""
    if side.inserts is not None:
        return "false"
    return (
        f"(p.id IS NOT NULL AND {given(spec, number)} AND p.n{number} IS NOT NULL "
        f"AND p.x{number} IS NULL)"
    )


def moved(spec: Spec, number: int, column: Column) -> str:
    """Return the condition that a column does not hold the expected value.

    Undoing twice finds the old value in place, which does not count.
    """
    unexpected = f"p.o{number} {column.differs} p.e{number}"
    return (
        f"({given(spec, number)} AND {unexpected} AND {differs(number, column)} "
        "AND p.id IS NOT NULL)"
    )


def has_moved(spec: Spec) -> str:
    """Return the condition that any column of a row does not hold the expected value."""
    if not spec.expects:
        return "false"
    return _any_of(spec, [moved(spec, number, column) for number, column in spec.numbered()])


def is_unknown(spec: Spec) -> str:
    """Return the condition that a row of the file means one that is missing but must exist."""
    if not spec.creates:
        return "p.id IS NULL"
    # If an undo wants a row gone and it is, nothing is left to delete.
    wants = " OR ".join(
        f"({given(spec, number)} AND p.n{number} IS NOT NULL)" for number, _ in spec.numbered()
    )
    return f"(NOT {is_there(spec)} AND ({wants}))"


def _any_of(spec: Spec, conditions: Sequence[str]) -> str:
    # A missing row has no values: NULL must not count as a difference.
    return f"({is_there(spec)} AND ({' OR '.join(conditions) or 'false'}))"
