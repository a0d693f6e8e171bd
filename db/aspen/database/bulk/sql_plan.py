"""The statements that stage the rows of a file and plan them, and the conditions on planned rows.

Each stage is one statement over all rows: the rows are copied in (`ROWS`), their references are
looked up (`create_found`), they are joined to the table (`create_plan`), and counted (`count_all`).
`sql_apply` queries the details of a problem only if its count is not zero.

Column number 0 of a specification is ``v0`` among the rows; in the plan it is ``n0`` (the new
value) and ``o0`` (the old value). ``g0`` is whether a row gives the column at all, ``e0`` is its
expected value, and ``x0`` identifies the row of another table that stores it. ``place`` is where
the row was stored in the table; it may have moved since, so it only suggests a good order for
visiting rows. `sql_create` describes further columns of the plan, for rows that may be created or
have several lines. Conditions are about a row ``p`` of the plan.

References are found by ID or by name. Exact matches come first; if there are none, letter case is
ignored. A text that means several rows (perhaps one by its ID and another by its name), or none,
gets no ID; it is reported with a similar name if there is one.
"""

from __future__ import annotations

from collections.abc import Sequence

from aspen.database.bulk.spec import BulkColumn, Reference, Side, Spec

KEPT = "ON COMMIT PRESERVE ROWS"
"""The clause by which our statements keep a temporary table; behind a pooler, it is replaced."""
DROPPED = "ON COMMIT DROP"

ROWS = "pg_temp.aspencli_rows"
PLAN = "pg_temp.aspencli_plan"
HELD = "pg_temp.aspencli_held"
PROBLEM = "pg_temp.aspencli_problem"
LEFT = "pg_temp.aspencli_left"

# A read-only session defaults to read-only transactions, which cannot create temporary tables.
READ_WRITE = "SET TRANSACTION READ WRITE"
# Otherwise, what another run commits between two statements would be visible to only one of them.
ONE_MOMENT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE"
# work_mem is for the hash tables of these statements only; a million identifiers need about this
# much. Staged tables are analyzed with a tenth of the usual sample, enough to show that they are
# large and have few duplicates. A server that waits for a lock would not notice that its client is
# gone (client_connection_check_interval, since PostgreSQL 14).
RESOURCES = """
SET LOCAL work_mem = '64MB'; SET LOCAL default_statistics_target = 10;
SELECT set_config(name, '1s', true) FROM pg_settings
 WHERE name = 'client_connection_check_interval'
"""
# Temporary tables need neither the disk nor a standby. If the standby were down, the commits of a
# plan would wait for it, and so would the server when it drops the tables of an ended session.
FLEETING = "SET synchronous_commit = off"
FLEETING_NOW = "SET LOCAL synchronous_commit = off"
DURABLE = "SET LOCAL synchronous_commit TO DEFAULT"

# Autovacuum does not analyze temporary tables. Without statistics, the planner would assume that
# they are small, and build its hash tables from the large table instead.
ANALYSE_ROWS = f"ANALYZE {ROWS} (key)"
CREATE_PROBLEM = f"""
CREATE TEMPORARY TABLE aspencli_problem (
    line bigint NOT NULL, column_name varchar NOT NULL, reason varchar NOT NULL,
    left_out boolean NOT NULL DEFAULT false
) {KEPT}
"""
CREATE_LEFT = f"CREATE TEMPORARY TABLE aspencli_left (LIKE {PLAN}) {KEPT}"
"""The rows left out of the plan, as they were planned, so that reports can show them."""
DETOURS = f"SELECT number, count(DISTINCT holder_id) AS rows FROM {HELD} GROUP BY number"
TOTAL_PROBLEMS = f"""
SELECT count(DISTINCT line) FILTER (WHERE left_out) AS left_out,
       count(*) FILTER (WHERE NOT left_out) AS problems
  FROM {PROBLEM}
"""

GROUP_NAME = "SELECT name FROM aspen.groups WHERE id = :scope"
HAS_DISTANCES = "SELECT EXISTS (SELECT FROM pg_proc WHERE proname = 'levenshtein_less_equal')"
_NEAR_TEXTS = 20  # texts for which similar names are looked up
_IS_NUMBER = r"^(0|[1-9]\d{0,8})$"
_LAST = "regexp_replace(lower(text), '^.* / ', '')"


def create_rows(spec: Spec) -> str:
    """Return a statement that creates the table that the rows of a file are copied to."""
    columns = ["line bigint NOT NULL", f"key {spec.key.type} NOT NULL"]
    columns += ["label varchar"] if spec.tells_label else []
    columns += ["vw varchar"] if spec.within else []
    for number, column in spec.numbered():
        columns.append(f"v{number} {'varchar' if column.reference else column.type}")
        columns += [f"g{number} boolean NOT NULL"] if spec.partial else []
        columns += [f"e{number} {column.type}"] if spec.expects else []
    return f"CREATE TEMPORARY TABLE aspencli_rows ({', '.join(columns)}) {KEPT}"


def create_found(number: int | str, reference: Reference) -> str:
    """Return a statement that finds what each text of a column means: an ID, or all candidates."""
    return rf"""
CREATE TEMPORARY TABLE aspencli_found{number} {KEPT} AS
WITH wanted AS (
    SELECT DISTINCT v{number} AS given, {_plain(reference, f"v{number}")} AS text
      FROM {ROWS} WHERE v{number} IS NOT NULL
), known AS MATERIALIZED (
    {_known(reference, "r.id AS id, ")}
), numbered AS (
    SELECT w.given, array[r.id] AS ids FROM wanted w JOIN {reference.table} r
        ON r.id = CASE WHEN w.given ~ '{_IS_NUMBER}' THEN w.given::integer END
), exact AS (
    SELECT w.given, array_agg(DISTINCT k.id) AS ids FROM wanted w JOIN known k USING (text)
     GROUP BY w.given
), folded AS (
    SELECT w.given, array_agg(DISTINCT k.id) AS ids
      FROM wanted w JOIN known k ON lower(k.text) = lower(w.text) GROUP BY w.given
)
SELECT w.given, w.text, m.ids, CASE WHEN cardinality(m.ids) = 1 THEN m.ids[1] END AS id,
       NULL::varchar AS near
  FROM wanted w
  LEFT JOIN numbered n ON n.given = w.given
  LEFT JOIN exact e ON e.given = w.given
  LEFT JOIN folded f ON f.given = w.given
 CROSS JOIN LATERAL (SELECT CASE WHEN n.ids <> e.ids THEN n.ids || e.ids
                                 ELSE coalesce(n.ids, e.ids, f.ids) END AS ids) m
"""


def create_plan(spec: Spec) -> str:
    """Return a statement that creates the plan: the rows, each with its current values."""
    table = spec.table
    columns = ["m.line", "m.key", "s.id AS id", "s.ctid AS place"]
    columns += [] if spec.key.stored == table.label else [f"{stored_label(spec)} AS label"]
    for number, column in spec.numbered():
        now, new = current(number, column), wanted(number, column)
        if spec.partial:
            columns.append(f"m.g{number}")
            new = f"CASE WHEN m.g{number} THEN {new} ELSE {now} END"
        columns += [f"{new} AS n{number}", f"{now} AS o{number}"]
        columns += [f"m.e{number}"] if spec.expects else []
        columns += [f"t{number}.{column.side.id} AS x{number}"] if column.side else []
    return f"""
CREATE TEMPORARY TABLE aspencli_plan {KEPT} AS
SELECT {", ".join(columns)}
  FROM {ROWS} m
  LEFT JOIN {table.name} s ON {in_scope(spec, "s")} AND s.{spec.key.stored} = m.key\
{sides(spec)}{lookups(spec)}
"""


def find_renamed(spec: Spec, number: int) -> str:
    """Return a statement that finds rows that already are exactly as the file renames them.

    Their old key no longer exists, and no other row of the file means them. Rows found this way
    are never written to. The number is that of the changing column by which rows are found.
    """
    table = spec.table
    key = spec.columns[number].stored
    sets, same = ["id = s.id"], []
    for other, column in spec.numbered():
        now = current(other, column)
        sets += [f"o{other} = {now}", f"n{other} = {now}"]
        sets += [f"x{other} = t{other}.{column.side.id}"] if column.side else []
        same.append(f"({now} {column.equals} p.n{other} OR NOT {given(spec, other)})")
    return f"""
UPDATE {PLAN} p SET {", ".join(sets)}
  FROM {table.name} s{sides(spec)}
 WHERE p.id IS NULL AND {given(spec, number)} AND {in_scope(spec, "s")}
   AND s.{key} = p.n{number} AND {" AND ".join(same)}
   AND NOT EXISTS (SELECT FROM {PLAN} q WHERE q.key = p.n{number})
"""


def analyse_plan(spec: Spec) -> str:
    """Return a statement that analyzes the plan; see `ANALYSE_ROWS`."""
    columns = ["id", *(f"n{number}" for number, _column in spec.unique())]
    return f"ANALYZE {PLAN} ({', '.join(columns)})"


def count(spec: Spec) -> str:
    """Return a query for the totals of the plan.

    ``own`` rows change in the table itself, and ``kept`` rows of it do not. For a column in another
    table, see `aside`. If rows may be created or deleted: ``created``, ``deleted`` and ``touched``
    rows of the table, however many lines they have.
    """
    return f"SELECT {_counts(spec)} FROM {PLAN} p"


def count_all(spec: Spec) -> str:
    """Return a query for the same totals and the number of duplicates.

    ``repeated_ids`` is how often a row of the table is named again. ``repeated_0`` is how often a
    value of column 0 is wanted again, among the rows that change it. It compares hashes, at half
    the cost of texts, so it may (very rarely) be too high.
    """
    repeated = ["count(p.id) - count(DISTINCT p.id) AS repeated_ids"]
    for number, _column in spec.unique():
        value, changed = f"p.n{number}", f"p.n{number} IS DISTINCT FROM p.o{number}"
        changing = f"FILTER (WHERE {changed} AND {given(spec, number)})"
        values = f"count({value}) {changing}"
        distinct = f"count(DISTINCT hashtextextended({value}, 0)) {changing}"
        repeated.append(f"{values} - {distinct} AS repeated_{number}")
    return f"SELECT {_counts(spec)}, {', '.join(repeated)} FROM {PLAN} p"


def _counts(spec: Spec) -> str:
    counts_aside = "".join(
        f",\n       count(*) FILTER (WHERE {condition}) AS {what}{number}"
        for number, side, column in spec.aside()
        for what, condition in aside(spec, number, side, column).items()
    )
    created = f""",
       count(*) FILTER (WHERE p.creates AND p.leads) AS created,
       count(*) FILTER (WHERE p.deletes AND p.leads) AS deleted,
       count(DISTINCT p.id) FILTER (WHERE {stays(spec)} AND {changes(spec)}) AS touched"""
    return f"""
       count(*) AS total,
       count(*) FILTER (WHERE {is_unknown(spec)}) AS unknown,
       count(*) FILTER (WHERE {has_moved(spec)}) AS moved,
       count(*) FILTER (WHERE {changes(spec)}) AS to_change,
       count(*) FILTER (WHERE NOT {is_unknown(spec)} AND NOT {changes(spec)}) AS already,
       count(*) FILTER (WHERE {changes_own(spec)}) AS own,
       count(*) FILTER (WHERE {stays(spec)} AND NOT {changes_own(spec)}) AS kept\
{counts_aside}{created if spec.creates else ""}
"""


def has_unresolved(number: int | str) -> str:
    """Return a query that checks whether any text means no row, or several rows."""
    return f"SELECT EXISTS (SELECT FROM {found(number)} WHERE id IS NULL)"


def find_near(number: int | str, reference: Reference) -> str:
    """Return a statement that finds a similar name for each text that means no row.

    That is a name that ends with the whole text, has the same last part of a path, or differs by a
    few letters, in this order.
    """
    bound = "greatest(2, length(w.text) / 4)"
    return f"""
WITH known AS MATERIALIZED (
    SELECT text, lower(left(text, 255)) AS folded, {_LAST} AS last
      FROM ({_known(reference, "")}) r
), wanted AS (
    SELECT given, text, lower(left(text, 255)) AS folded, {_LAST} AS last
      FROM {found(number)} WHERE ids IS NULL AND text <> '' ORDER BY given LIMIT {_NEAR_TEXTS}
), near AS (
    SELECT w.given, (
        SELECT k.text FROM known k, LATERAL (
               SELECT public.levenshtein_less_equal(k.folded, w.folded, {bound}) AS steps) d
         WHERE k.last = w.last OR d.steps <= {bound}
         ORDER BY right(k.folded, length(w.folded)) = w.folded DESC, k.last = w.last DESC,
               d.steps, length(k.text), k.text LIMIT 1) AS text
      FROM wanted w
)
UPDATE {found(number)} f SET near = n.text FROM near n WHERE n.given = f.given
"""


def unresolved(number: int | str, reference: Reference, column: BulkColumn) -> str:
    """Return a query for rows whose text means no row, or several rows: line, column, reason."""
    return f"""
SELECT p.line, '{column.name}', CASE
           WHEN f.ids IS NOT NULL
           THEN format('%s matches several {reference.noun}s: %s', to_json(f.given)::text,
                       array_to_string(f.ids, ', '))
           ELSE format('there is no {reference.noun} %s', to_json(f.given)::text)
                || coalesce('; did you mean ' || to_json(f.near)::text || '?', '') END
  FROM {found(number)} f
  JOIN {ROWS} m ON m.v{number} = f.given
  JOIN {PLAN} p ON p.line = m.line
 WHERE f.id IS NULL
"""


# Parts of statements


def found(number: int | str) -> str:
    """Return the name of the table of what was found for a column."""
    return f"pg_temp.aspencli_found{number}"


def lookups(spec: Spec) -> str:
    """Return the joins of what the rows of the file refer to."""
    return "".join(
        f"\n  LEFT JOIN {found(number)} f{number} ON f{number}.given = m.v{number}"
        for number, _reference, _column in spec.looked_up()
    )


def wanted(number: int, column: BulkColumn) -> str:
    """Return SQL for the value that a row of the file gives for a column."""
    return f"f{number}.id" if column.reference else f"m.v{number}"


def _plain(reference: Reference, text: str) -> str:
    """Return SQL for a text as it is compared."""
    if not reference.is_path:
        return f"btrim({text})"
    # Blank parts at the end, as in an export of all levels, are ignored.
    spaced = rf"regexp_replace(btrim({text}), '\s*/[\s/]*', ' / ', 'g')"
    return f"regexp_replace({spaced}, ' / $', '')"


def _known(reference: Reference, cells: str) -> str:
    """Return a query for all names of the table's rows, as compared: other cells, then ``text``."""
    return " UNION ALL ".join(
        f"SELECT {cells}{_plain(reference, text)} AS text FROM {reference.table} r"
        for text in (reference.text, reference.also)
        if text
    )


def current(number: int, column: BulkColumn) -> str:
    """Return SQL for the current value of a column in a row ``s`` of the table."""
    return f"t{number}.{column.stored}" if column.side else f"s.{column.stored}"


def stored_label(spec: Spec) -> str:
    """Return SQL for the label of a row ``s``, which may be gone."""
    label = f"s.{spec.table.label}"
    return f"coalesce({label}, m.label)" if spec.tells_label else label


def sides(spec: Spec, within: str = "p.within") -> str:
    """Return the joins of the other tables that store columns of a row ``s``.

    `within` is SQL for the ID of what the row of the file is within.
    """
    return "".join(
        f"\n  {side.joins.format(t=f't{number}', s='s', within=within)}"
        for number, side, _ in spec.aside()
    )


def shown(column: BulkColumn, value: str) -> str:
    """Return SQL for a value as people read it."""
    reference = column.reference
    if not reference:
        return f"{value}::text"
    text = f"SELECT {reference.text} FROM {reference.table} r WHERE r.id = {value}"
    return f"coalesce(nullif(({text}), ''), {value}::text)"


def quoted(value: str) -> str:
    """Return SQL for a value as messages quote it: as JSON, so it cannot break out."""
    return f"coalesce(to_json({value})::text, 'nothing')"


def quoted_cell(column: BulkColumn, value: str) -> str:
    """Return SQL for a value of a column as messages quote it."""
    return quoted(shown(column, value) if column.reference else value)


# Conditions on a row ``p`` of the plan


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
    return "p.key" if spec.key.stored == spec.table.label else "p.label"


def is_there(spec: Spec) -> str:
    """Return the condition that the row exists, or will."""
    return "(p.id IS NOT NULL OR p.creates)" if spec.creates else "p.id IS NOT NULL"


def differs(number: int, column: BulkColumn, alias: str = "p") -> str:
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


def aside(spec: Spec, number: int, side: Side, column: BulkColumn) -> dict[str, str]:
    """Return the conditions on what happens to a column in another table.

    ``aside`` rows update it, ``same`` rows give its current value, ``put`` rows insert a row there,
    ``dropped`` rows delete one, and ``lacking`` rows have none there that could store the value.
    """
    new, is_stored = f"p.n{number}", f"p.x{number} IS NOT NULL"
    changed = _any_of(spec, [differs(number, column)])
    same = f"({given(spec, number)} AND {is_stored} AND {new} {column.equals} p.o{number})"
    if side.inserts is None:
        needed = f"(p.id IS NOT NULL AND {given(spec, number)} AND {new} IS NOT NULL"
        lacking = f"{needed} AND p.x{number} IS NULL)"
        never = {"put": "false", "dropped": "false"}
        return {"aside": changed, "same": same, **never, "lacking": lacking}
    return {
        "aside": f"({changed} AND {is_stored} AND {new} IS NOT NULL)",
        "same": same,
        "put": f"({is_there(spec)} AND p.x{number} IS NULL AND {new} IS NOT NULL)",
        "dropped": f"({is_stored} AND {new} IS NULL)",
        "lacking": "false",
    }


def moved(spec: Spec, number: int, column: BulkColumn) -> str:
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
