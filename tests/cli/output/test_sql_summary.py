"""Statements on one line of a table: what is left out, and what remains."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aspencli.cli.output.sql_summary import shorten_sql

COLUMNS = ", ".join(f"s.column_{number}" for number in range(30))


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("SELECT 1", "SELECT 1"),
        ("SELECT a,\n\t b\nFROM  t", "SELECT a, b FROM t"),
        (
            "select a -- the key\nfrom t /* a /* nested */ comment */ where b",
            "select a from t where b",
        ),
        ("SELECT a/**/FROM t", "SELECT a FROM t"),
        ("SELECT '--', '/*', 'it''s', $$ -- $$, $x$ /* $x$ FROM t", None),
        ("SELECT E'it\\'s -- one' FROM t", None),
        ('SELECT "a -- b", "from" FROM "where"', None),
        ("SELECT 'two  spaces' FROM t", None),
        ("SELECT count(*), f( a ,b ) FROM t", "SELECT count(*), f(a, b) FROM t"),
        ("UPDATE t SET a = 1,b = 2 WHERE id = $1", "UPDATE t SET a = 1, b = 2 WHERE id = $1"),
        ("SELECT a::text, t.b[1], -1 FROM t WHERE x = %(x_1)s", None),
        ("BEGIN; SET LOCAL a = 'b';", None),
        ("SELECT ')' , (1", "SELECT ')', (1"),
        ("", ""),
    ],
)
def test_short_statement_is_shown_on_one_line_without_comments(sql: str, shown: str | None) -> None:
    assert shorten_sql(sql, 200) == (sql if shown is None else shown)


@pytest.mark.parametrize(
    ("sql", "width", "shown"),
    [
        (
            "SELECT aaa, bbb, ccc, ddd FROM t WHERE x = 1",
            40,
            "SELECT aaa, bbb, ... FROM t WHERE x = 1",
        ),
        ("SELECT aaa, bbb, ccc, ddd FROM t WHERE x = 1", 31, "SELECT ... FROM t WHERE x = 1"),
        (
            f"SELECT {COLUMNS} FROM aspen.samples AS s WHERE s.group_id = $1",
            70,
            "SELECT s.column_0, ... FROM aspen.samples AS s WHERE s.group_id = $1",
        ),
        (
            f"SELECT DISTINCT ON (s.id) {COLUMNS} FROM samples s WHERE s.id = 1",
            75,
            "SELECT DISTINCT ON (s.id) s.column_0, ... FROM samples s WHERE s.id = 1",
        ),
        # Subqueries
        (
            f"SELECT a FROM (SELECT {COLUMNS} FROM samples WHERE private) AS q WHERE q.a = 1",
            75,
            "SELECT a FROM (SELECT ... FROM samples WHERE private) AS q WHERE q.a = 1",
        ),
        (
            f"SELECT (SELECT max({COLUMNS}) FROM u WHERE u.id = t.id), b FROM t WHERE c",
            40,
            "SELECT ... FROM t WHERE c",
        ),
        (
            "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM much_longer_name WHERE x = t.x) AND b",
            50,
            "SELECT a FROM t WHERE EXISTS (...) AND b",
        ),
        # Common table expressions
        (
            (
                f"WITH recent AS (SELECT {COLUMNS} FROM samples WHERE day > $1) "
                "SELECT a, b FROM recent WHERE a = $2"
            ),
            100,
            (
                "WITH recent AS (SELECT ... FROM samples WHERE day > $1) SELECT a, b FROM recent "
                "WHERE a = $2"
            ),
        ),
        (
            (
                f"WITH recent AS (SELECT {COLUMNS} FROM samples WHERE day > $1) "
                "SELECT a, b FROM recent WHERE a = $2"
            ),
            60,
            "WITH recent AS (...) SELECT a, b FROM recent WHERE a = $2",
        ),
        (
            (
                "WITH RECURSIVE x AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM x WHERE n < 9) "
                "SELECT n FROM x"
            ),
            45,
            "WITH RECURSIVE x AS (...) SELECT n FROM x",
        ),
        # Strings and names that look like keywords
        (
            "SELECT 'a FROM b', \"x, y\", ccc FROM t WHERE d = 'WHERE, e'",
            50,
            "SELECT 'a FROM b', ... FROM t WHERE d = 'WHERE, e'",
        ),
        (
            "SELECT x.from, aaaaaaaa, bbbbbbbb FROM x WHERE x.select = 1",
            46,
            "SELECT x.from, ... FROM x WHERE x.select = 1",
        ),
        (
            "SELECT a IS DISTINCT FROM b, extract(epoch FROM c), dddddddd FROM t WHERE e",
            56,
            "SELECT a IS DISTINCT FROM b, ... FROM t WHERE e",
        ),
        # Other statements
        (
            "UPDATE samples SET aaa = 1, bbb = 2, ccc = 3 WHERE id = $4",
            46,
            "UPDATE samples SET aaa = 1, ... WHERE id = $4",
        ),
        (
            "INSERT INTO samples (aaa, bbb, ccc) VALUES ($1, $2, $3) RETURNING id",
            60,
            "INSERT INTO samples (aaa, ...) VALUES ($1, ...) RETURNING id",
        ),
        (
            "DELETE FROM samples WHERE id IN ($1, $2, $3, $4, $5, $6)",
            45,
            "DELETE FROM samples WHERE id IN ($1, $2, ...)",
        ),
        # Joined tables, and the end of the statement, are left out last
        (
            "SELECT a FROM samples s LEFT OUTER JOIN users u ON u.id = s.user_id, groups g WHERE c",
            40,
            "SELECT a FROM samples s ... WHERE c",
        ),
        (
            "SELECT a FROM samples WHERE first_condition = 1 AND second_condition = 2",
            50,
            "SELECT a FROM samples WHERE first_condition = 1...",
        ),
        # Incomplete statements, as pg_stat_activity has them
        (f"SELECT a, b, ({COLUMNS}", 20, "SELECT a, b, (..."),
        ("SELECT 'unfinished string that never ends", 20, "SELECT 'unfinishe..."),
        # Without tables there is no middle to leave out
        ("SELECT pg_sleep(60)", 15, "SELECT pg_sl..."),
    ],
)
def test_shortened_statement_keeps_tables_and_conditions(sql: str, width: int, shown: str) -> None:
    found = shorten_sql(sql, width)
    assert found == shown
    assert len(found) <= width


@settings(deadline=None)  # a busy machine must not fail the test
@given(
    st.lists(
        st.sampled_from(
            [
                *("SELECT", "FROM", "WHERE", "SET", "UPDATE", "JOIN", "DISTINCT", "ON", "WITH"),
                *("RETURNING", "(", ")", ",", "'", '"', "a", "--", "/*", "*/", "$$", ".", "\n"),
                *("é", ";"),
            ]
        ),
        max_size=40,
    ).map(" ".join),
    st.integers(0, 80),
)
def test_shortened_statement_fits_width_for_any_text(sql: str, width: int) -> None:
    assert len(shorten_sql(sql, width)) <= width


def test_work_to_shorten_statement_is_proportional_to_its_length() -> None:
    def calls(columns: int) -> int:
        sql = f"SELECT {', '.join(f'column_{n}' for n in range(columns))} FROM t WHERE a = 1"
        counted = 0

        def count(_frame: object, event: str, _argument: object) -> None:
            nonlocal counted
            counted += event in {"call", "c_call"}

        sys.setprofile(count)
        try:
            shortened = shorten_sql(sql, 60)
        finally:
            sys.setprofile(None)
        assert shortened.endswith("... FROM t WHERE a = 1")
        return counted

    assert calls(5_000) < 12 * calls(500)
