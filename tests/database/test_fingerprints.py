"""Statements that differ only in values share one fingerprint, which contains no value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aspen.database.profiling.queries import fingerprint


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT  1 ;", "SELECT ?"),
        ("select a.b,\n  count( * )\nfrom x a", "select a.b, count(*) from x a"),
        ("SELECT 'it''s', E'a\\'b', U&'x', $$ b $$, $q$ $$ $q$", "SELECT ?, ?, ?, ?, ?"),
        ("SELECT 1.5e-3 + .5 - x1 -- why\n/* a /* nested */ */ , 2", "SELECT ? + ? - x1, ?"),
        ("x IN (%(id_1_1)s, %(id_1_2)s)", "x IN (...)"),
        ("x IN ($1::INTEGER, $2::INTEGER)", "x IN (...)"),
        ("x IN (1)", "x IN (...)"),
        ("x IN (SELECT y FROM z)", "x IN (SELECT y FROM z)"),
        ("VALUES ($1::VARCHAR, DEFAULT), ($2::VARCHAR(12), NULL)", "VALUES (...)"),
        ("VALUES (%s, %s) RETURNING id", "VALUES (...) RETURNING id"),
        ("x = ANY (ARRAY[1, 2, 3])", "x = ANY (ARRAY[...])"),
        ("SAVEPOINT sa_savepoint_17", "SAVEPOINT sa_savepoint_N"),
        ('SELECT "a ""b"" 1" FROM "T"', 'SELECT "a ""b"" 1" FROM "T"'),
        ("SELECT 'never ended", "SELECT ?"),
        ("SELECT /* never ended", "SELECT"),
        ("", ""),
    ],
)
def test_fingerprint_folds_values_lists_and_whitespace(statement: str, expected: str) -> None:
    assert fingerprint(statement) == expected


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_fingerprint_accepts_any_text(statement: str) -> None:
    once = fingerprint(statement)
    assert isinstance(once, str)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\\\0")))
def test_fingerprint_contains_no_part_of_literal(value: str) -> None:
    literal = value.replace("'", "''")
    assert fingerprint(f"SELECT * FROM t WHERE x = '{literal}'") == "SELECT * FROM t WHERE x = ?"


@given(st.integers(1, 400), st.integers(1, 5))
def test_fingerprint_does_not_depend_on_list_length(items: int, columns: int) -> None:
    row = "(" + ", ".join(["%s"] * columns) + ")"
    statement = f"INSERT INTO t VALUES {', '.join([row] * items)}"
    assert fingerprint(statement) == "INSERT INTO t VALUES (...)"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT * FROM t WHERE id=5", "SELECT * FROM t WHERE id = 5"),
        ("SELECT a||b,c/2 FROM t", "SELECT a || b, c / 2 FROM t"),
        ("UPDATE t SET n=n+1 WHERE m>=%s", "UPDATE t SET n = n + 1 WHERE m >= %s"),
        ("SELECT d->>'a' FROM t", "SELECT d ->> 'a' FROM t"),
        ("SELECT count(*)>0, t.*\nFROM t", "SELECT count(*) > 0, t.* FROM t"),
    ],
)
def test_fingerprint_does_not_depend_on_spaces_around_operators(one: str, other: str) -> None:
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(fingerprint(one)) == fingerprint(one)
