"""The statements that write a plan, once `check_sql` has nothing against it.

Each row is locked and compared with the plan by the statement that writes it. Unique constraints
are checked row by row and cannot be deferred, so rows whose value another row of the plan takes
give it up first (`park`); the others do not pay for that.
"""

from __future__ import annotations

from collections.abc import Collection

from db.bulk.plan_sql import HELD, PLAN, changes, given, in_scope
from db.bulk.spec import Spec

# One run on a group at a time: the second waits (lock_timeout) and then sees that rows moved. The
# first key is this program's own: the bytes of "aspe".
LOCK_SCOPE = "SELECT pg_advisory_xact_lock(1634955365, :scope)"

# A value that no file gives: control characters are refused there.
_PARKED = "chr(1) || 'aspencli ' || :token || ' ' || p.id"


def _is_held(number: int) -> str:
    return f"p.id IN (SELECT holder_id FROM {HELD} WHERE number = {number})"


def park(spec: Spec, number: int) -> str:
    """Give up what another row of the plan takes in a column."""
    column = spec.columns[number]
    return f"""
UPDATE {spec.table.name} s SET {column.stored} = {_PARKED}
  FROM {PLAN} p
 WHERE s.{spec.table.id} = p.id AND {in_scope(spec, "s")} AND s.{column.stored} = p.o{number}
   AND p.n{number} {column.differs} p.o{number} AND {_is_held(number)}
"""


def lock_same(spec: Spec) -> str:
    """Lock the rows that are so already: they have to stay so until the commit."""
    return f"""
SELECT count(*) FROM (
    SELECT FROM {spec.table.name} s JOIN {PLAN} p ON s.{spec.table.id} = p.id
     WHERE {_is_unmoved(spec, ())} AND NOT {changes(spec)}
       FOR SHARE OF s
) same
"""


def update(spec: Spec, parked: Collection[int]) -> str:
    """Write the rows that change.

    Args:
        spec: The specification.
        parked: The columns in which some rows have given up their value.
    """
    table = spec.table
    sets = []
    for number, column in spec.numbered():
        value = f"p.n{number}"
        if spec.partial:  # somebody may change meanwhile what a row does not name
            value = f"CASE WHEN p.g{number} THEN {value} ELSE s.{column.stored} END"
        sets.append(f"{column.stored} = {value}")
    joins = "".join(
        f"\n  LEFT JOIN (SELECT DISTINCT holder_id FROM {HELD} WHERE number = {number}) k{number}"
        f" ON k{number}.holder_id = p.id"
        for number in parked
    )
    return f"""
UPDATE {table.name} s SET {", ".join(sets)}
  FROM {PLAN} p{joins}
 WHERE s.{table.id} = p.id AND {_is_unmoved(spec, parked)} AND {changes(spec)}
"""


def _is_unmoved(spec: Spec, parked: Collection[int]) -> str:
    """The condition that a row is as it was planned."""
    conditions = [in_scope(spec, "s")]
    if not (spec.by_id or spec.changes_key):
        conditions.append(f"s.{spec.key.stored} = p.key")
    for number, column in spec.numbered():
        before = f"p.o{number}"
        if number in parked:
            before = f"CASE WHEN k{number}.holder_id IS NULL THEN {before} ELSE {_PARKED} END"
        same = f"s.{column.stored} {column.equals} {before}"
        finds = column.stored == spec.key.stored
        if spec.partial and not finds:
            same = f"({same} OR NOT {given(spec, number)})"
        conditions.append(same)
    return " AND ".join(conditions)


def undo(spec: Spec) -> str:
    """What takes the plan back, as rows of CSV.

    A simple rename has the key, what is new, and what was before. Others have the number that
    identifies the row for good, since its key may change, and what messages call it; a column that
    the row does not change is blank.
    """
    if spec.is_plain:
        (column,) = spec.columns
        cells = [
            f"{_guarded('p.key')} AS {spec.key.name}",
            f"{_guarded('p.n0')} AS new_{column.name}",
            f"{_guarded('p.o0')} AS old_{column.name}",
        ]
    else:
        cells = [f"p.id AS {spec.table.id}", f"{_guarded(_label_then(spec))} AS {spec.table.label}"]
        for number, column in spec.numbered():
            differs = f"p.n{number} {column.differs} p.o{number}"
            for what, side in (("n", "new"), ("o", "old")):
                value = _guarded(_escaped(f"p.{what}{number}::text"))
                cells.append(f"CASE WHEN {differs} THEN {value} END AS {side}_{column.name}")
    return f"SELECT {', '.join(cells)} FROM {PLAN} p WHERE {changes(spec)} ORDER BY p.line"


def _label_then(spec: Spec) -> str:
    """What messages call a row once it is written."""
    for number, column in spec.numbered():
        if column.stored == spec.table.label:
            return f"p.n{number}"
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
    return f"CASE WHEN {text} ~ '^[=+\\-@'']' THEN '''' || {text} ELSE {text} END"
