"""The statements that write a plan without problems.

Each row is locked and compared with the plan by the statement that writes it. Unique constraints
are checked row by row and cannot be deferred, so rows whose value another row of the plan takes
give it up first (`park`), at no cost to the others.
"""

from __future__ import annotations

from collections.abc import Collection

from aspen.database.bulk.spec import Column, Side, Spec
from aspen.database.bulk.sql_plan import (
    HELD,
    PLAN,
    changes,
    changes_aside,
    changes_own,
    differs,
    given,
    in_scope,
    label,
    same_aside,
    stays,
    stays_in_scope,
)

# The first key of this program's advisory locks: the bytes of "aspe".
_OURS = 1634955365

# A value that no file can contain, because control characters are rejected there.
_PARKED = "chr(1) || 'aspencli ' || :token || ' ' || p.id"

# Rows are written in the order in which the table stores them, each found by its ID: every page is
# visited once, whatever the order of the file, and the server needs no memory for a hash table.
# (The planner expects such lookups to be scattered across the disk.)
IN_ORDER = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
IN_ANY_ORDER = "SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on"


def lock(spec: Spec) -> str:
    """Return a statement that locks a group for one run; others wait up to ``lock_timeout``.

    Without groups, it locks the table, with a negative key. Runs that waited see what changed.
    """
    table = f"(-abs(hashtext('{spec.table.name}')::bigint))::integer"
    return f"SELECT pg_advisory_xact_lock({_OURS}, {':scope' if spec.table.scope else table})"


def park(spec: Spec, number: int) -> str:
    """Return a statement that gives up the values of a column that other rows of the plan take."""
    column = spec.columns[number]
    return f"""
UPDATE {spec.table.name} s SET {column.stored} = {_PARKED}
  FROM {PLAN} p
 WHERE s.{spec.table.id} = p.id AND {in_scope(spec, "s")} AND s.{column.stored} = p.o{number}
   AND {differs(number, column)}
   AND p.id IN (SELECT holder_id FROM {HELD} WHERE number = {number})
"""


def lock_same(spec: Spec) -> str:
    """Return a statement that locks the rows that must not change in the table itself."""
    return f"""
SELECT count(*) FROM (
    SELECT FROM (SELECT * FROM {PLAN} p
                  WHERE {stays(spec)} AND NOT {changes_own(spec)} ORDER BY p.place) p
      JOIN {spec.table.name} s ON s.{spec.table.id} = p.id
     WHERE {_is_unmoved(spec, ())}
       FOR SHARE OF s
) same
"""


def update(spec: Spec, parked: Collection[int]) -> str:
    """Return a statement that writes the rows that change in the table itself.

    Args:
        spec: The specification.
        parked: The columns in which some rows have given up their value.
    """
    table = spec.table
    sets = []
    for number, column in spec.own():
        value = f"p.n{number}"
        if spec.partial:  # others may meanwhile change what a row does not give
            value = f"CASE WHEN p.g{number} THEN {value} ELSE s.{column.stored} END"
        sets.append(f"{column.stored} = {value}")
    return f"""
UPDATE {table.name} s SET {", ".join(sets)}
  FROM (SELECT * FROM {PLAN} p WHERE {changes_own(spec)} ORDER BY p.place) p
 WHERE s.{table.id} = p.id AND {_is_unmoved(spec, parked)}
"""


def _is_unmoved(spec: Spec, parked: Collection[int]) -> str:
    """Return the condition that a row is still as planned."""
    conditions = [stays_in_scope(spec, "s")]
    if not (spec.by_id or spec.changes_key):
        conditions.append(f"s.{spec.key.stored} = p.key")
    for number, column in spec.own():
        same = f"s.{column.stored} {column.equals} p.o{number}"
        if number in parked:  # only this transaction can have written that
            same = f"({same} OR s.{column.stored} = {_PARKED})"
        finds = column.stored == spec.key.stored
        if spec.partial and not finds:
            same = f"({same} OR NOT {given(spec, number)})"
        conditions.append(same)
    return " AND ".join(conditions)


# Columns in other tables


def lock_aside(spec: Spec, number: int, side: Side, column: Column) -> str:
    """Return a statement that locks the rows of another table that already have the value."""
    return f"""
SELECT count(*) FROM (
    SELECT FROM {side.table} t JOIN {PLAN} p ON {_is_aside(number, side, column)}
     WHERE {same_aside(spec, number, column)}
       FOR SHARE OF t
) same
"""


def update_aside(spec: Spec, number: int, side: Side, column: Column) -> str:
    """Return a statement that writes the values in another table."""
    return f"""
UPDATE {side.table} t SET {column.stored} = p.n{number}
  FROM {PLAN} p
 WHERE {_is_aside(number, side, column)} AND {changes_aside(spec, number, side, column)}
"""


def _is_aside(number: int, side: Side, column: Column) -> str:
    """Return the condition that a row of another table is still as planned."""
    return (
        f"t.{side.id} = p.x{number} AND {side.owner.format(t='t')} "
        f"AND t.{column.stored} {column.equals} p.o{number}"
    )


# Undo


def undo(spec: Spec) -> str:
    """Return a query for the rows of the undo file, as CSV.

    They contain the row's permanent ID, because any other key may change, and its label. A simple
    rename has the new and the old value. In other files, columns that a row does not change are
    blank. A row that is created or deleted changes every column.
    """
    number, name = (
        f"p.id AS {spec.table.id}",
        f"{_guarded(_label_then(spec))} AS {spec.table.label}",
    )
    if spec.is_plain:
        (column,) = spec.columns
        cells = [
            name,
            f"{_guarded('p.n0')} AS new_{column.name}",
            f"{_guarded('p.o0')} AS old_{column.name}",
            number,  # last, so that older versions can read it, too
        ]
    else:
        cells = [number, name]
        cells += [f"p.within AS {spec.within.name}"] if spec.within else []
        whole = " OR (p.leads AND (p.creates OR p.deletes))" if spec.creates else ""
        for place, column in spec.numbered():
            has_changed = differs(place, column) + ("" if column.side else whole)
            for what, side in (("n", "new"), ("o", "old")):
                value = _guarded(_escaped(f"p.{what}{place}::text"))
                cells.append(f"CASE WHEN {has_changed} THEN {value} END AS {side}_{column.name}")
    return f"SELECT {', '.join(cells)} FROM {PLAN} p WHERE {changes(spec)} ORDER BY p.line"


def _label_then(spec: Spec) -> str:
    """Return SQL for the label of a row once it is written."""
    for number, column in spec.numbered():
        if column.stored == spec.table.label:
            return f"coalesce(p.n{number}, {label(spec)})" if spec.creates else f"p.n{number}"
    return "p.key" if spec.key.stored == spec.table.label else "p.label"


def _escaped(text: str) -> str:
    # Blank means "not changed" and \N means NULL; a text that could be taken for either gets a
    # leading backslash.
    return (
        f"CASE WHEN {text} IS NULL THEN '\\N' "
        f"WHEN {text} = '' OR starts_with({text}, '\\') THEN '\\' || {text} ELSE {text} END"
    )


def _guarded(text: str) -> str:
    # A spreadsheet would take a value that starts like this for a formula. A leading apostrophe is
    # doubled, so that reading the file back can remove exactly one.
    begins = f"left({text}, 1) IN ('=', '+', '-', '@', '''')"
    return f"CASE WHEN {begins} THEN '''' || {text} ELSE {text} END"
