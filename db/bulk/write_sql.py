"""The statements that write a plan, once `check_sql` has nothing against it.

Each row is locked and compared with the plan by the statement that writes it. Unique constraints
are checked row by row and cannot be deferred, so rows whose value another row of the plan takes
give it up first (`park`); the others do not pay for that.
"""

from __future__ import annotations

from collections.abc import Collection

from db.bulk.conditions import (
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
from db.bulk.plan_sql import HELD, PLAN
from db.bulk.spec import Column, Side, Spec

# The first key of the locks is this program's own: the bytes of "aspe".
_OURS = 1634955365

# A value that no file gives: control characters are refused there.
_PARKED = "chr(1) || 'aspencli ' || :token || ' ' || p.id"

# Rows are written in the order in which they lie in the table, each found by its number: every page
# is visited once, whatever order the file has, and the server needs no memory for a hash table.
# (The planner expects such visits to be all over the disk.)
IN_ORDER = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
IN_ANY_ORDER = "SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on"


def lock(spec: Spec) -> str:
    """Let one run on a group at a time: the second waits (lock_timeout), and sees that rows moved.

    Where the table has no groups, it is one run on the table; its number is then below zero.
    """
    table = f"(-abs(hashtext('{spec.table.name}')::bigint))::integer"
    return f"SELECT pg_advisory_xact_lock({_OURS}, {':scope' if spec.table.scope else table})"


def park(spec: Spec, number: int) -> str:
    """Give up what another row of the plan takes in a column."""
    column = spec.columns[number]
    return f"""
UPDATE {spec.table.name} s SET {column.stored} = {_PARKED}
  FROM {PLAN} p
 WHERE s.{spec.table.id} = p.id AND {in_scope(spec, "s")} AND s.{column.stored} = p.o{number}
   AND {differs(number, column)}
   AND p.id IN (SELECT holder_id FROM {HELD} WHERE number = {number})
"""


def lock_same(spec: Spec) -> str:
    """Lock the rows of which nothing changes in the table itself: that has to stay so."""
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
    """Write the rows of which something changes in the table itself.

    Args:
        spec: The specification.
        parked: The columns in which some rows have given up their value.
    """
    table = spec.table
    sets = []
    for number, column in spec.own():
        value = f"p.n{number}"
        if spec.partial:  # somebody may change meanwhile what a row does not name
            value = f"CASE WHEN p.g{number} THEN {value} ELSE s.{column.stored} END"
        sets.append(f"{column.stored} = {value}")
    return f"""
UPDATE {table.name} s SET {", ".join(sets)}
  FROM (SELECT * FROM {PLAN} p WHERE {changes_own(spec)} ORDER BY p.place) p
 WHERE s.{table.id} = p.id AND {_is_unmoved(spec, parked)}
"""


def _is_unmoved(spec: Spec, parked: Collection[int]) -> str:
    """The condition that a row is as it was planned."""
    conditions = [stays_in_scope(spec, "s")]
    if not (spec.by_id or spec.changes_key):
        conditions.append(f"s.{spec.key.stored} = p.key")
    for number, column in spec.own():
        same = f"s.{column.stored} {column.equals} p.o{number}"
        if number in parked:  # what this very transaction has put there, and nobody else can
            same = f"({same} OR s.{column.stored} = {_PARKED})"
        finds = column.stored == spec.key.stored
        if spec.partial and not finds:
            same = f"({same} OR NOT {given(spec, number)})"
        conditions.append(same)
    return " AND ".join(conditions)


# Columns that lie in other tables


def lock_aside(spec: Spec, number: int, side: Side, column: Column) -> str:
    """Lock the rows of another table that have a value already."""
    return f"""
SELECT count(*) FROM (
    SELECT FROM {side.table} t JOIN {PLAN} p ON {_is_aside(number, side, column)}
     WHERE {same_aside(spec, number, column)}
       FOR SHARE OF t
) same
"""


def update_aside(spec: Spec, number: int, side: Side, column: Column) -> str:
    """Write the values that lie in another table."""
    return f"""
UPDATE {side.table} t SET {column.stored} = p.n{number}
  FROM {PLAN} p
 WHERE {_is_aside(number, side, column)} AND {changes_aside(spec, number, side, column)}
"""


def _is_aside(number: int, side: Side, column: Column) -> str:
    """The condition that a row of another table is as it was planned."""
    return (
        f"t.{side.id} = p.x{number} AND {side.owner.format(t='t')} "
        f"AND t.{column.stored} {column.equals} p.o{number}"
    )


# What takes it back


def undo(spec: Spec) -> str:
    """What takes the plan back, as rows of CSV.

    They have the number that identifies the row for good, since whatever else finds it may change,
    and what messages call it. A simple rename has what is new, and what was before. Of others, a
    column that the row does not change is blank. A row that comes into being, or goes, changes
    every column.
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
            is_told = differs(place, column) + ("" if column.side else whole)
            for what, side in (("n", "new"), ("o", "old")):
                value = _guarded(_escaped(f"p.{what}{place}::text"))
                cells.append(f"CASE WHEN {is_told} THEN {value} END AS {side}_{column.name}")
    return f"SELECT {', '.join(cells)} FROM {PLAN} p WHERE {changes(spec)} ORDER BY p.line"


def _label_then(spec: Spec) -> str:
    """What messages call a row once it is written."""
    for number, column in spec.numbered():
        if column.stored == spec.table.label:
            return f"coalesce(p.n{number}, {label(spec)})" if spec.creates else f"p.n{number}"
    return "p.key" if spec.key.stored == spec.table.label else "p.label"


def _escaped(text: str) -> str:
    # Blank means "not changed" and \N means nothing; a text that could be taken for either has a
    # backslash in front.
    return (
        f"CASE WHEN {text} IS NULL THEN '\\N' "
        f"WHEN {text} = '' OR starts_with({text}, '\\') THEN '\\' || {text} ELSE {text} END"
    )


def _guarded(text: str) -> str:
    # A spreadsheet would compute what starts like this. An apostrophe in front is doubled, so that
    # reading the file back can take exactly one away.
    begins = f"left({text}, 1) IN ('=', '+', '-', '@', '''')"
    return f"CASE WHEN {begins} THEN '''' || {text} ELSE {text} END"
