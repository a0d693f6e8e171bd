"""The statements that find what the rows of a file refer to, by ID or by name.

Exact matches come first; if there are none, letter case is ignored. A text that means several rows
(perhaps one by its ID and another by its name), or none, gets no ID; it is reported with a similar
name if there is one.
"""

from __future__ import annotations

from aspen.database.bulk.spec import Column, Reference
from aspen.database.bulk.temporary import KEPT

_NEAR_TEXTS = 20  # texts for which similar names are looked up
_IS_NUMBER = r"^(0|[1-9]\d{0,8})$"
_LAST = "regexp_replace(lower(text), '^.* / ', '')"


def found(number: int | str) -> str:
    """Return the name of the table of what was found for a column."""
    return f"pg_temp.aspencli_found{number}"


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
        for text in reference.texts
    )


def create_found(number: int | str, reference: Reference, rows: str) -> str:
    """Return a statement that finds what each text of a column means: an ID, or all candidates.

    Args:
        number: The number of the column.
        reference: The table that it refers to.
        rows: The table of the file's rows.
    """
    table, key = reference.table, reference.id
    known = _known(reference, f"r.{key} AS id, ")
    return rf"""
CREATE TEMPORARY TABLE aspencli_found{number} {KEPT} AS
WITH wanted AS (
    SELECT DISTINCT v{number} AS given, {_plain(reference, f"v{number}")} AS text
      FROM {rows} WHERE v{number} IS NOT NULL
), known AS MATERIALIZED (
    {known}
), numbered AS (
    SELECT w.given, array[r.{key}] AS ids FROM wanted w JOIN {table} r
        ON r.{key} = CASE WHEN w.given ~ '{_IS_NUMBER}' THEN w.given::integer END
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


def has_unresolved(number: int | str) -> str:
    """Return a query that checks whether any text means no row, or several rows."""
    return f"SELECT EXISTS (SELECT FROM {found(number)} WHERE id IS NULL)"


HAS_DISTANCES = "SELECT EXISTS (SELECT FROM pg_proc WHERE proname = 'levenshtein_less_equal')"


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


def unresolved(
    number: int | str, reference: Reference, column: Column, rows: str, plan: str
) -> str:
    """Return a query for rows whose text means no row, or several rows: line, column, reason.

    Args:
        number: The number of the column.
        reference: The table that it refers to.
        column: The column itself, for its name.
        rows: The table of the file's rows.
        plan: The table of the plan's rows.
    """
    return f"""
SELECT p.line, '{column.name}', CASE
           WHEN f.ids IS NOT NULL
           THEN format('%s matches several {reference.noun}s: %s', to_json(f.given)::text,
                       array_to_string(f.ids, ', '))
           ELSE format('there is no {reference.noun} %s', to_json(f.given)::text)
                || coalesce('; did you mean ' || to_json(f.near)::text || '?', '') END
  FROM {found(number)} f
  JOIN {rows} m ON m.v{number} = f.given
  JOIN {plan} p ON p.line = m.line
 WHERE f.id IS NULL
"""


def shown(column: Column, value: str) -> str:
    """Return SQL for a value as people read it."""
    reference = column.reference
    if not reference:
        return f"{value}::text"
    text = f"SELECT {reference.text} FROM {reference.table} r WHERE r.{reference.id} = {value}"
    return f"coalesce(nullif(({text}), ''), {value}::text)"
