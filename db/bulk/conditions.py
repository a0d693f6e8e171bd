"""The conditions on a row ``p`` of a plan of which statements are made; see `plan_sql`."""

from __future__ import annotations

from collections.abc import Sequence

from db.bulk.spec import Column, Side, Spec


def in_scope(spec: Spec, alias: str) -> str:
    """The condition that a row of the table is one that the run may touch."""
    scope = spec.table.scope
    return f"{alias}.{scope} = :scope" if scope else "true"


def stays_in_scope(spec: Spec, alias: str) -> str:
    """Return the same condition in words that the planner expects half of the table to meet.

    Statistics are often older than the samples of a new group. The planner then takes the group to
    have a few rows, and compares each row of the plan with all of them instead of finding each row
    by its number: 10,000 renames took 27 s.
    """
    scope = spec.table.scope
    return f"CASE WHEN {alias}.{scope} = :scope THEN true ELSE false END" if scope else "true"


def given(spec: Spec, number: int, alias: str = "p") -> str:
    """The condition that a row of the file names a column."""
    return f"{alias}.g{number}" if spec.partial else "true"


def label(spec: Spec) -> str:
    """What messages call a row of the plan."""
    if spec.key.stored == spec.table.label:
        return "p.key"
    return "p.label"


def is_there(spec: Spec) -> str:
    """The condition that there is such a row, or will be."""
    return "(p.id IS NOT NULL OR p.creates)" if spec.creates else "p.id IS NOT NULL"


def differs(number: int, column: Column, alias: str = "p") -> str:
    """The condition that a row of the plan changes a column."""
    return f"{alias}.n{number} {column.differs} {alias}.o{number}"


def changes(spec: Spec) -> str:
    """The condition that a row of the plan changes anything."""
    return _any_of(spec, [differs(number, column) for number, column in spec.numbered()])


def changes_own(spec: Spec) -> str:
    """The condition that it changes a row of the table itself that is there and stays."""
    condition = _any_of(spec, [differs(number, column) for number, column in spec.own()])
    return f"({stays(spec)} AND {condition})"


def stays(spec: Spec) -> str:
    """The condition that a row of the table is there and stays."""
    going = " AND NOT p.creates AND NOT p.deletes" if spec.creates else ""
    return f"(p.id IS NOT NULL{going})"


def changes_aside(spec: Spec, number: int, side: Side, column: Column) -> str:
    """The condition that it changes a row of another table that is there and stays."""
    condition = _any_of(spec, [differs(number, column)])
    if side.inserts is None:
        return condition
    return f"({condition} AND p.x{number} IS NOT NULL AND p.n{number} IS NOT NULL)"


def puts_aside(spec: Spec, number: int, side: Side) -> str:
    """The condition that it makes a row in another table."""
    if side.inserts is None:
        return "false"
    return f"({is_there(spec)} AND p.x{number} IS NULL AND p.n{number} IS NOT NULL)"


def drops_aside(number: int, side: Side) -> str:
    """The condition that it takes a row of another table away."""
    if side.inserts is None:
        return "false"
    return f"(p.x{number} IS NOT NULL AND p.n{number} IS NULL)"


def same_aside(spec: Spec, number: int, column: Column) -> str:
    """The condition that it names such a column, which has that already."""
    return (
        f"({given(spec, number)} AND p.x{number} IS NOT NULL "
        f"AND p.n{number} {column.equals} p.o{number})"
    )


def lacks_side(spec: Spec, number: int, side: Side) -> str:
    """The condition that a row has no place for a value, because it lies in another table."""
    if side.inserts is not None:
        return "false"
    return (
        f"(p.id IS NOT NULL AND {given(spec, number)} AND p.n{number} IS NOT NULL "
        f"AND p.x{number} IS NULL)"
    )


def moved(spec: Spec, number: int, column: Column) -> str:
    """The condition that a column does not hold what was expected of it.

    Undoing twice finds the old value in place: that is no move.
    """
    unexpected = f"p.o{number} {column.differs} p.e{number}"
    return (
        f"({given(spec, number)} AND {unexpected} AND {differs(number, column)} "
        "AND p.id IS NOT NULL)"
    )


def has_moved(spec: Spec) -> str:
    """The condition that any column of a row does not."""
    if not spec.expects:
        return "false"
    return _any_of(spec, [moved(spec, number, column) for number, column in spec.numbered()])


def is_unknown(spec: Spec) -> str:
    """The condition that a row of the file means one that is not there, and has to be."""
    if not spec.creates:
        return "p.id IS NULL"
    # Of a row that is gone, as an undo wants it, nothing more can be taken away.
    wants = " OR ".join(
        f"({given(spec, number)} AND p.n{number} IS NOT NULL)" for number, _ in spec.numbered()
    )
    return f"(NOT {is_there(spec)} AND ({wants}))"


def _any_of(spec: Spec, conditions: Sequence[str]) -> str:
    # Of a row that is not there nothing is known: NULL must not count as a difference.
    return f"({is_there(spec)} AND ({' OR '.join(conditions) or 'false'}))"
