"""The statements that find what the rows of a file refer to: by number, or as people call it.

A text that is exactly right comes first; where none is, letter case does not matter. What means
several rows (one by its number, perhaps, and another by its name), or none, is left without a
number, and told with what is near.
"""

from __future__ import annotations

from db.bulk.carrying import KEPT
from db.bulk.spec import Column, Reference

_NEAR_TEXTS = 20  # texts for which something near is looked for
_IS_NUMBER = r"^(0|[1-9]\d{0,8})$"
_LAST = "regexp_replace(lower(text), '^.* / ', '')"


def found(number: int | str) -> str:
    """The table of what was found for a column."""
    return f"pg_temp.aspencli_found{number}"


def _plain(reference: Reference, text: str) -> str:
    """A text as it is compared."""
    if not reference.is_path:
        return f"btrim({text})"
    # Blank parts at the end, as an export of all levels has them, say nothing.
    spaced = rf"regexp_replace(btrim({text}), '\s*/[\s/]*', ' / ', 'g')"
    return f"regexp_replace({spaced}, ' / $', '')"


def _known(reference: Reference, cells: str) -> str:
    """All that rows of the table are called, as it is compared: ``text``, and further cells."""
    return " UNION ALL ".join(
        f"SELECT {cells}{_plain(reference, text)} AS text FROM {reference.table} r"
        for text in reference.texts
    )


def create_found(number: int | str, reference: Reference, rows: str) -> str:
    """What each text of a column means: its number, or all that it might mean.

    Args:
        number: The column.
        reference: What it refers to.
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
    """Whether a text means nothing, or several rows."""
    return f"SELECT EXISTS (SELECT FROM {found(number)} WHERE id IS NULL)"


HAS_DISTANCES = "SELECT EXISTS (SELECT FROM pg_proc WHERE proname = 'levenshtein_less_equal')"


def find_near(number: int | str, reference: Reference) -> str:
    """Find what is near those that mean nothing.

    That is one that ends with all of it, has the same last part of a path, or differs by a few
    letters, in this order.
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
    """Each row of a plan whose text means nothing, or several rows: line, column, reason.

    Args:
        number: The column.
        reference: What it refers to.
        column: The same, for its name.
        rows: The table of the file's rows.
        plan: The table of the plan's rows.
    """
    return f"""
SELECT p.line, '{column.name}', CASE
           WHEN f.ids IS NOT NULL
           THEN format('%s means several {reference.noun}s: %s', to_json(f.given)::text,
                       array_to_string(f.ids, ', '))
           ELSE format('there is no {reference.noun} %s', to_json(f.given)::text)
                || coalesce('; perhaps ' || to_json(f.near)::text, '') END
  FROM {found(number)} f
  JOIN {rows} m ON m.v{number} = f.given
  JOIN {plan} p ON p.line = m.line
 WHERE f.id IS NULL
"""


def shown(column: Column, value: str) -> str:
    """A value as people read it."""
    reference = column.reference
    if not reference:
        return f"{value}::text"
    text = f"SELECT {reference.text} FROM {reference.table} r WHERE r.{reference.id} = {value}"
    return f"coalesce(nullif(({text}), ''), {value}::text)"
