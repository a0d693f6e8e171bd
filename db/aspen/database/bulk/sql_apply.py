"""The statements that use a plan: its problems, its rows, what writes it, and conflicts since.

Each row is locked and compared with the plan by the statement that writes it. Unique constraints
are checked row by row and cannot be deferred, so rows whose value another row of the plan takes
give it up first (`park`), at no cost to the others.
"""

from __future__ import annotations

from collections.abc import Collection

from aspen.database.bulk.spec import BulkColumn, Side, Spec
from aspen.database.bulk.sql_plan import (
    HELD,
    KEPT,
    LEFT,
    PLAN,
    PROBLEM,
    ROWS,
    aside,
    changes,
    changes_own,
    current,
    differs,
    given,
    in_scope,
    is_there,
    is_unknown,
    label,
    moved,
    quoted,
    quoted_cell,
    shown,
    sides,
    stays,
    stays_in_scope,
)

_PROBLEM = f"INSERT INTO {PROBLEM} (line, column_name, reason)"
_LEFT_OUT = f"INSERT INTO {PROBLEM} (line, column_name, reason, left_out)"
# Checks whether two rows of the file name the same row of the table, which need not exist.
HAS_REPEATED_KEY = f"SELECT EXISTS (SELECT FROM {PLAN} p GROUP BY p.key HAVING count(*) > 1)"
ANALYSE_HELD = f"ANALYZE {HELD}"
# A row that is left out keeps its value, which another row may want, and so on: a chain can be as
# long as the file. Without the index and the statistics, each step would read everything.
PREPARE_LEAVE_TAKEN = f"""
CREATE INDEX ON {HELD} (holder_id);
ANALYZE {PLAN}, {HELD}
"""
PROBLEMS = f"""
SELECT line, column_name, reason FROM {PROBLEM}
 WHERE left_out = :left_out ORDER BY line, column_name
"""
_OURS = 1634955365  # the first key of this program's advisory locks: the bytes of "aspe"
# A value that no file can contain, because control characters are rejected there.
_PARKED = "chr(1) || 'aspencli ' || :token || ' ' || p.id"
# Rows are written in the order in which the table stores them, each found by its ID: every page is
# visited once, whatever the order of the file, and the server needs no memory for a hash table.
# (The planner expects such lookups to be scattered across the disk.)
IN_ORDER = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
IN_ANY_ORDER = "SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on"


def name(found: str) -> str:
    """Return a statement that records what a query finds (line, column, reason) as problems."""
    return f"{_PROBLEM}\n{found}"


def leave(found: str) -> str:
    """Return a statement that leaves the rows found by such a query out of the plan."""
    return f"""
WITH found (line, column_name, reason) AS MATERIALIZED ({found}), gone AS (
    DELETE FROM {PLAN} p WHERE p.line IN (SELECT line FROM found) RETURNING p.*
), put AS (
    INSERT INTO {LEFT} SELECT * FROM gone
)
{_LEFT_OUT}
SELECT line, column_name, reason, true FROM found
"""


def unknown(spec: Spec, *, any_more: bool) -> str:
    """Return a query for the rows of the file that the table lacks, or has lost (`any_more`)."""
    reason = f"{spec.table.noun} %s no longer exists" if any_more else f"{spec.table.lacks} %s"
    column, called = spec.key.name, "p.key"
    if spec.tells_label:
        column, called = spec.table.label, label(spec)
    return f"""
SELECT p.line, '{column}', format('{reason}', {quoted(called)})
  FROM {PLAN} p WHERE {is_unknown(spec)}
"""


def explain(spec: Spec) -> str:
    """Return a statement that adds to problems why a key names no row, and what may be meant."""
    meant = f"'; did you mean ' || {quoted(f'h.{spec.key.stored}')} || '?'"
    return f"""
UPDATE {PROBLEM} b SET reason = b.reason || '; ' || v.words || coalesce(
           (SELECT min({meant}) FROM {spec.table.name} h
             WHERE {in_scope(spec, "h")} AND CAST(h.{spec.key.stored} AS text) = v.near), '')
  FROM unnest(CAST(:lines AS bigint[]), CAST(:words AS text[]), CAST(:near AS text[]))
       AS v (line, words, near)
 WHERE b.line = v.line AND b.column_name = '{spec.key.name}'
"""


def moved_values(spec: Spec) -> str:
    """Return a query for the columns that do not hold the expected value."""
    return " UNION ALL ".join(
        f"""
SELECT p.line, '{column.name}', {_moved_reason(spec, number, column)}
  FROM {PLAN} p WHERE {moved(spec, number, column)}
"""
        for number, column in spec.numbered()
    )


def _moved_reason(spec: Spec, number: int, column: BulkColumn) -> str:
    return (
        f"format('%s {column.holds} %s, expected %s', {_quoted_place(spec, column)}, "
        f"{quoted_cell(column, f'p.o{number}')}, {quoted_cell(column, f'p.e{number}')})"
    )


def _quoted_place(spec: Spec, column: BulkColumn) -> str:
    """Return SQL for a row's label, and for where the column belongs if that is ambiguous."""
    if not (spec.within and column.side):
        return quoted(label(spec))
    where = quoted_cell(spec.within, "p.within")
    return f"{quoted(label(spec))} || coalesce(' in {spec.within.name} ' || {where}, '')"


def without_target(spec: Spec, number: int, side: Side, column: BulkColumn) -> str:
    """Return a query for the values without a row in the other table that should store them."""
    return f"""
SELECT p.line, '{column.name}', format('{spec.table.noun} %s {side.lacks}', {quoted(label(spec))})
  FROM {PLAN} p WHERE {aside(spec, number, side, column)["lacking"]}
"""


# Duplicates among the rows of the file


def has_repeated_value(spec: Spec, number: int) -> str:
    """Return a query that checks whether two rows of the file want the same unique value."""
    where = _wanted(spec, number)
    value = spec.columns[number].compared(f"p.n{number}")
    return f"""
SELECT EXISTS (SELECT FROM {PLAN} p WHERE {where} GROUP BY {value} HAVING count(*) > 1)
"""


def repeated_key(spec: Spec) -> str:
    """Return a statement that reports the rows that repeat a key."""
    return _repeated("p.key", spec.key, "true")


def repeated_value(spec: Spec, number: int, column: BulkColumn) -> str:
    """Return a statement that reports the rows that repeat a unique value."""
    return _repeated(f"p.n{number}", column, _wanted(spec, number))


def _wanted(spec: Spec, number: int) -> str:
    """Return the condition that a row of the file wants a value in a column."""
    leads = " AND p.leads" if spec.creates else ""  # the other lines want the same
    return f"p.n{number} IS NOT NULL AND {given(spec, number)}{leads}"


def _repeated(value: str, column: BulkColumn, where: str) -> str:
    return f"""
{_PROBLEM}
SELECT line, '{column.name}', format('duplicate of line %s', first_line)
  FROM (SELECT p.line, {value} AS value, first_value(p.line)
               OVER (PARTITION BY {column.compared(value)} ORDER BY p.line) AS first_line
          FROM {PLAN} p WHERE {where}) repeated
 WHERE line <> first_line
"""


# Rows of the table that hold a value wanted by a row of the file


def has_held(spec: Spec, number: int, column: BulkColumn) -> str:
    """Return a query that checks whether any row of the table holds a unique value of the plan.

    A row that changes does not hold its new value itself, so any holder is another row. The index
    alone answers this; if there are no holders, the table itself is not read.
    """
    return f"""
SELECT EXISTS (
    SELECT FROM {PLAN} p
      JOIN {spec.table.name} h ON {in_scope(spec, "h")}
           AND {column.compared(f"h.{column.stored}")} = {column.compared(f"p.n{number}")}
     WHERE {_takes(spec, number)}
)
"""


def _takes(spec: Spec, number: int) -> str:
    """Return the condition that a row of the plan takes a value that it does not hold yet."""
    # The NOT NULL test is for the planner, which has no statistics on lowercased values.
    is_one = f" AND p.n{number} IS NOT NULL" if spec.creates else ""
    return f"p.n{number} IS DISTINCT FROM p.o{number}{is_one}"


def create_held(spec: Spec) -> str:
    """Return a statement that lists the rows that hold a unique value wanted by the plan."""
    goes = f"SELECT FROM {PLAN} q WHERE q.id = h.id AND q.deletes"
    going = f" AND NOT EXISTS ({goes})" if spec.creates else ""
    held = " UNION ALL ".join(
        f"""
SELECT {number}::smallint AS number, p.line, p.id, h.id AS holder_id
  FROM {PLAN} p
  JOIN {spec.table.name} h ON {in_scope(spec, "h")}
       AND {column.compared(f"h.{column.stored}")} = {column.compared(f"p.n{number}")}
 WHERE h.id IS DISTINCT FROM p.id AND {_takes(spec, number)}{going}
"""
        for number, column in spec.unique()
    )
    return f"CREATE TEMPORARY TABLE aspencli_held {KEPT} AS {held}"


def _not_freed(spec: Spec) -> str:
    freed = " OR ".join(
        f"(k.number = {number} AND {differs(number, column, 'q')})"
        for number, column in spec.unique()
    )
    return f"NOT EXISTS (SELECT FROM {PLAN} q WHERE q.id = k.holder_id AND ({freed}))"


def _by_number(spec: Spec, values: str) -> str:
    """Return an expression that depends on the column's number."""
    cases = " ".join(
        f"WHEN {number} THEN {values.format(n=f'n{number}', name=column.name)}"
        for number, column in spec.unique()
    )
    return f"CASE k.number {cases} END"


def _taken_reason(spec: Spec, wanted: str) -> str:
    return (
        f"format('%s is already used by {spec.table.noun} %s', {quoted(wanted)}, "
        f"{quoted(f'h.{spec.table.label}')})"
    )


def taken(spec: Spec) -> str:
    """Return a query for the rows that want a value that another row of the table keeps."""
    return f"""
SELECT p.line, {_by_number(spec, "'{name}'")}, {_taken_reason(spec, _by_number(spec, "p.{n}"))}
  FROM {HELD} k
  JOIN {PLAN} p ON p.line = k.line
  JOIN {spec.table.name} h ON h.id = k.holder_id
 WHERE {_not_freed(spec)}
"""


def leave_taken(spec: Spec) -> str:
    """Return a statement that leaves them out of the plan, with all rows that depend on them."""
    return f"""
WITH RECURSIVE blocked AS (
    SELECT k.number, k.line, k.id, k.holder_id FROM {HELD} k WHERE {_not_freed(spec)}
    UNION
    SELECT k.number, k.line, k.id, k.holder_id
      FROM blocked b JOIN {HELD} k ON k.holder_id = b.id
), gone AS (
    DELETE FROM {PLAN} p WHERE p.line IN (SELECT line FROM blocked)
    RETURNING p.*
), put AS (
    INSERT INTO {LEFT} SELECT * FROM gone
), unheld AS (
    DELETE FROM {HELD} k WHERE k.line IN (SELECT line FROM blocked)
)
{_LEFT_OUT}
SELECT p.line, {_by_number(spec, "'{name}'")}, {_taken_reason(spec, _by_number(spec, "p.{n}"))},
       true
  FROM blocked k
  JOIN gone p ON p.line = k.line
  JOIN {spec.table.name} h ON h.id = k.holder_id
"""


# Rows of the file


def rows(spec: Spec, *, changed_only: bool) -> str:
    """Return a query for the plan, by line."""
    where = changes(spec) if changed_only else is_there(spec)
    cells = []
    for number, column in spec.numbered():
        cells += [f"p.g{number}"] if spec.partial else []
        cells += _cells(number, column, f"p.n{number}")
    return f"""
SELECT p.line, {_named(spec, "p.key", "p.label")}{_beside(spec)}, {", ".join(cells)}
  FROM {PLAN} p WHERE {where} ORDER BY p.line LIMIT :limit
"""


def digest(spec: Spec) -> str:
    """Return a query for the SHA-256 of the rows that change, each with its old and new values.

    Every 1,000 lines are hashed on their own, because a text can be no longer than 1 GB. Quotes
    around the values keep them apart; this takes half the time of PostgreSQL's format for rows.
    """
    cells = ["p.id", "p.key"]
    cells += ["p.within"] if spec.within else []
    cells += ["p.creates", "p.deletes"] if spec.creates else []
    cells += [f"p.{side}{number}" for number, _column in spec.numbered() for side in "on"]
    row = ", ".join(f"quote_nullable({cell})" for cell in cells)
    return f"""
SELECT encode(sha256(coalesce(string_agg(r.hash, ''::bytea ORDER BY r.part), ''::bytea)), 'hex')
  FROM (SELECT p.line / 1000 AS part,
               sha256(convert_to(string_agg(concat_ws(',', {row}), ';' ORDER BY p.line), 'UTF8'))
                   AS hash
          FROM {PLAN} p WHERE {changes(spec)} GROUP BY 1) r
"""


def outcomes(spec: Spec, *, with_left: bool = False) -> str:
    """Return a query for every row of the file, by line, with its problems.

    The values of rows left out of the plan are included with `with_left`.
    """
    planned = f"(SELECT * FROM {PLAN} UNION ALL SELECT * FROM {LEFT})" if with_left else PLAN
    cells = []
    for number, column in spec.numbered():
        cells += [f"m.g{number}"] if spec.partial else []
        cells += _cells(number, column, f"m.v{number}")
    named = _named(spec, "m.key", "coalesce(p.label, m.label)")
    return f"""
SELECT m.line, {named}, f.reason, f.left_out{_beside(spec, "m.vw")},
       {", ".join(cells)}
  FROM {ROWS} m
  LEFT JOIN {planned} p ON p.line = m.line
  LEFT JOIN (SELECT line, bool_or(left_out) AS left_out,
                    string_agg(column_name || ': ' || reason, '; ' ORDER BY column_name) AS reason
               FROM {PROBLEM} GROUP BY line) f ON f.line = m.line
 ORDER BY m.line
"""


def _named(spec: Spec, key: str, label: str) -> str:
    """Return SQL for a row's name: its label if the file has labels besides keys, else its key."""
    return f"coalesce({label}, {key}::text)" if spec.tells_label else f"{key}::text"


def _beside(spec: Spec, given: str = "NULL") -> str:
    """Return SQL for a row's action, what it is within, whether it leads, and its key.

    If what it is within was not found, that is what the file says (SQL `given`).
    """
    if not spec.creates:
        return ""
    where = f"coalesce({shown(spec.within, 'p.within')}, {given})" if spec.within else "NULL"
    return f""",
       CASE WHEN p.creates THEN 'create' WHEN p.deletes THEN 'delete' END, {where}, p.leads,
       p.key::text"""


def _cells(number: int, column: BulkColumn, after: str) -> list[str]:
    """Return SQL for a column's old and new value.

    For a reference, also whether they are the same, because two rows may have the same name.
    """
    before = shown(column, f"p.o{number}")
    if not column.reference:
        return [before, f"{after}::text"]
    same = f"p.n{number} {column.equals} p.o{number}"
    return [before, f"coalesce({shown(column, f'p.n{number}')}, {after}::text)", same]


def moved_cells(spec: Spec) -> str:
    """Return a query for the columns that do not hold the expected value, by line."""
    found = " UNION ALL ".join(
        f"""
SELECT p.line, p.key::text AS key, {_place(spec, column)} AS label, '{column.name}' AS column_name,
       {shown(column, f"p.e{number}")} AS expected, {shown(column, f"p.o{number}")} AS found
  FROM {PLAN} p WHERE {moved(spec, number, column)}
"""
        for number, column in spec.numbered()
    )
    return f"SELECT * FROM ({found}) moved ORDER BY line, column_name"


def _place(spec: Spec, column: BulkColumn) -> str:
    if not (spec.within and column.side):
        return f"{label(spec)}::text"
    where = f"coalesce(' in ' || {shown(spec.within, 'p.within')}, '')"
    return f"{label(spec)}::text || {where}"


# Writing


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
 WHERE s.id = p.id AND {in_scope(spec, "s")} AND s.{column.stored} = p.o{number}
   AND {differs(number, column)}
   AND p.id IN (SELECT holder_id FROM {HELD} WHERE number = {number})
"""


def lock_same(spec: Spec) -> str:
    """Return a statement that locks the rows that must not change in the table itself."""
    return f"""
SELECT count(*) FROM (
    SELECT FROM (SELECT * FROM {PLAN} p
                  WHERE {stays(spec)} AND NOT {changes_own(spec)} ORDER BY p.place) p
      JOIN {spec.table.name} s ON s.id = p.id
     WHERE {_is_unmoved(spec, ())}
       FOR SHARE OF s
) same
"""


def update(spec: Spec, parked: Collection[int]) -> str:
    """Return a statement that writes the rows that change in the table itself.

    In the `parked` columns, some rows have given up their value.
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
 WHERE s.id = p.id AND {_is_unmoved(spec, parked)}
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


def lock_aside(spec: Spec, number: int, side: Side, column: BulkColumn) -> str:
    """Return a statement that locks the rows of another table that already have the value."""
    return f"""
SELECT count(*) FROM (
    SELECT FROM {side.table} t JOIN {PLAN} p ON {_is_aside(number, side, column)}
     WHERE {aside(spec, number, side, column)["same"]}
       FOR SHARE OF t
) same
"""


def update_aside(spec: Spec, number: int, side: Side, column: BulkColumn) -> str:
    """Return a statement that writes the values in another table."""
    return f"""
UPDATE {side.table} t SET {column.stored} = p.n{number}
  FROM {PLAN} p
 WHERE {_is_aside(number, side, column)} AND {aside(spec, number, side, column)["aside"]}
"""


def _is_aside(number: int, side: Side, column: BulkColumn) -> str:
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
    number = "p.id AS id"
    name = f"{_guarded(_label_then(spec))} AS {spec.table.label}"
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
    return label(spec)


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


# Changes by others since the plan was made


def changed_since(spec: Spec) -> str:
    """Return a query for rows changed by someone else since the plan was made; line and text."""
    table, key = spec.table, spec.key
    cases = [("s.id IS NULL", "'was deleted'")]
    if table.scope:
        cases.append((f"s.{table.scope} <> :scope", "'was moved to another group'"))
    if not (spec.by_id or spec.changes_key):
        now = quoted(f"s.{key.stored}")
        cases.append((f"s.{key.stored} <> p.key", f"format('was renamed to %s', {now})"))
    for number, column in spec.numbered():
        now, then = current(number, column), f"p.o{number}"
        values = f"{quoted_cell(column, now)}, {quoted_cell(column, then)}"
        named = "true" if number == spec.key_number else given(spec, number)
        cases.append(
            (
                f"({named} AND {now} IS DISTINCT FROM {then})",
                f"format('{column.holds} %s, expected %s', {values})",
            )
        )
    for number, side, column in spec.aside():
        elsewhere = f"({given(spec, number)} AND t{number}.{side.id} IS DISTINCT FROM p.x{number})"
        cases.append((elsewhere, f"'has its {column.name} in a different record now'"))
    known = " AND p.id IS NOT NULL" if spec.creates else ""
    return f"""
SELECT p.line, format('line %s: {table.noun} %s %s', p.line, {quoted(label(spec))},
              CASE {" ".join(f"WHEN {condition} THEN {words}" for condition, words in cases)} END)
       AS text
  FROM {PLAN} p
  LEFT JOIN {table.name} s ON s.id = p.id{sides(spec)}
 WHERE ({" OR ".join(condition for condition, _words in cases)}){known}
"""


def deleted_since(spec: Spec) -> str:
    """Return a query for references of the plan to rows deleted since; line and text."""
    return " UNION ALL ".join(
        f"""
SELECT p.line, format('line %s: {reference.noun} %s was deleted', p.line, p.n{number}) AS text
  FROM {PLAN} p
 WHERE {differs(number, column)} AND p.n{number} IS NOT NULL
   AND NOT EXISTS (SELECT FROM {reference.table} r WHERE r.id = p.n{number})
"""
        for number, reference, column in spec.references()
    )


def taken_since(spec: Spec) -> str:
    """Return a query for values of the plan that another row has taken since; line and text."""
    table = spec.table
    return " UNION ALL ".join(
        f"""
SELECT p.line, format('line %s: %s is now used by {table.noun} %s', p.line,
                      {quoted(f"p.n{number}")}, {quoted(f"h.{table.label}")}) AS text
  FROM {PLAN} p
  JOIN {table.name} h ON {in_scope(spec, "h")}
       AND {column.compared(f"h.{column.stored}")} = {column.compared(f"p.n{number}")}
 WHERE h.id IS DISTINCT FROM p.id AND p.n{number} IS DISTINCT FROM p.o{number}
   AND NOT EXISTS (SELECT FROM {PLAN} q WHERE q.id = h.id
                      AND {differs(number, column, "q")})
"""
        for number, column in spec.unique()
    )


def first(found: str) -> str:
    """Return a query for the first of such rows, and their total number."""
    return f"SELECT text, count(*) OVER () AS total FROM ({found}) found ORDER BY line LIMIT 200"
