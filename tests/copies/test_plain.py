"""Plain SQL of the old service: what is restored, skipped, refused, and reported with its line."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from aspen.migrations import baseline
from aspencli.copies.plain import _Splitter
from tests.copies.lab import Lab, ask, built, content

pytestmark = pytest.mark.unpooled("restores need a direct connection")

HEAD = """--
-- PostgreSQL database dump
--

\\restrict abcDEF

SET statement_timeout = 0;
SET transaction_timeout = 0;
SELECT pg_catalog.set_config('search_path', '', false);

CREATE SCHEMA aspen;
ALTER SCHEMA aspen OWNER TO missing_role;

CREATE EXTENSION IF NOT EXISTS cube WITH SCHEMA public;
COMMENT ON EXTENSION cube IS 'cubes';
CREATE EXTENSION IF NOT EXISTS earthdistance WITH SCHEMA public;
CREATE EXTENSION IF NOT EXISTS fuzzystrmatch WITH SCHEMA public;

CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO public.alembic_version VALUES ('20230321_232555');
"""
ROWS = (
    "COPY aspen.locations (id, region, country, division, location) FROM stdin;\n"
    "9001\tNorth America\tUSA\tCalifornia\tHumboldt; 'County'\n"
    "9002\tNorth America\tUSA\t\\N\t\\N\n"
    "\\.\n\n"
)
TAIL = """SELECT pg_catalog.setval('aspen.locations_id_seq', 9002, true);
GRANT SELECT ON TABLE aspen.samples TO missing_role;

\\unrestrict abcDEF
"""


def sql(rows: str = ROWS, more: str = "") -> str:
    """Return a dump as the old service's, with these rows."""
    schema = ";\n".join(baseline.statements()) + ";\n"
    return HEAD + schema + more + rows + TAIL


def write(lab: Lab, text: str, name: str = "old.sql") -> Path:
    path = lab.folder / name
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("name", ["old.sql", "old.sql.gz"])
def test_plain_sql_replaces_the_database(lab: Lab, name: str) -> None:
    done = lab.restore(write(lab, sql(), name))
    assert done.code == 0, done.err
    found = ask(lab.target, "SELECT location FROM aspen.locations WHERE id = 9001")
    assert found == "Humboldt; 'County'"
    assert ask(lab.target, "SELECT nextval('aspen.locations_id_seq')") == 9003
    assert ask(lab.target, "SELECT count(*) FROM aspen.samples") == 0
    assert "match" in lab.ok("--env", "staging", "db", "check").err


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def test_every_error_is_reported_with_its_line_and_nothing_changes(lab: Lab) -> None:
    rows = ROWS.replace("9002\t", "not a number\t")
    text = sql(rows, "SELECT 1\n  FROM aspen.unheard_of;\nSELECT no_such_function();\n")
    before = content(lab.target)
    refused = lab.restore(write(lab, text))
    assert refused.code == 2
    assert "has 3 errors; nothing was written" in refused.err
    assert f"line {line_of(text, 'SELECT 1')}: relation" in refused.err
    assert f"line {line_of(text, 'SELECT no_such')}: function no_such_function()" in refused.err
    assert f"line {line_of(text, 'not a number')}: invalid input syntax" in refused.err
    assert (content(lab.target), built(lab.target)) == (before, [])


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("\\connect postgres", r"psql's command \connect is not allowed"),
        ("\\! rm -rf /", r"psql's command \! is not allowed"),
        ("DROP DATABASE aspen_db;", "DROP DATABASE aspen_db; is not allowed"),
        ("CREATE ROLE me SUPERUSER;", "CREATE ROLE me is not allowed"),
        ("COPY aspen.roles FROM PROGRAM 'id';", "COPY aspen.roles FROM is not allowed"),
        ("ALTER SYSTEM SET fsync = off;", "ALTER SYSTEM SET is not allowed"),
    ],
)
def test_statements_about_anything_else_are_refused(lab: Lab, statement: str, says: str) -> None:
    text = sql(more=f"{statement}\n")
    before = content(lab.target)
    refused = lab.restore(write(lab, text))
    assert refused.code == 2
    error = json.loads(refused.err.splitlines()[-1])["error"]
    assert f"line {line_of(text, statement)}: {says}" in "\n".join(error["details"])
    assert content(lab.target) == before


def test_truncated_file_is_refused(lab: Lab) -> None:
    text = sql()
    before = content(lab.target)
    refused = lab.restore(write(lab, text[: text.index("\n9002")]))
    assert refused.code == 2
    assert "the file ends within these rows" in refused.err
    assert content(lab.target) == before
    whole = gzip.compress(text.encode())
    (lab.folder / "cut.sql.gz").write_bytes(whole[: len(whole) // 2])
    refused = lab.restore(lab.folder / "cut.sql.gz")
    assert refused.code == 2
    assert "The file is damaged" in refused.err
    assert content(lab.target) == before


def test_archive_of_pg_dump_is_refused_with_how_to_convert_it(lab: Lab) -> None:
    path = lab.folder / "old.sql"
    path.write_bytes(b"PGDMP\x01\x0e\x00")
    refused = lab.restore(path)
    assert refused.code == 2
    assert "pg_restore --no-owner" in refused.err


def test_file_that_is_something_else_is_refused(lab: Lab) -> None:
    before = content(lab.target)
    refused = lab.restore(write(lab, "CREATE TABLE public.others (id int);\n"))
    assert refused.code == 2
    assert "creates no tables in the schema aspen" in refused.err
    assert content(lab.target) == before


def statements(text: str) -> Iterator[str]:
    """Yield the statements of a text."""
    lines, splitter = [], _Splitter()
    for line in io.StringIO(text):
        lines.append(line)
        if splitter.ends(line):
            yield "".join(lines)
            lines, splitter = [], _Splitter()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1;\n",
        "SELECT 'a;\nb';\n",
        "SELECT 'it''s;\n';\n",
        "SELECT E'a\\';\nb';\n",
        "SELECT 'a\\';\n",
        'SELECT ";\n" FROM t;\n',
        "SELECT $$ ;\n $$;\n",
        "SELECT $x$ ;\n $$ ;\n $x$;\n",
        "SELECT /* ;\n /* ; */ ;\n */ 1;\n",
        "SELECT 1 -- ;\n , 2;\n",
        "SELECT 1; -- the end\n",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1;\n SELECT 2;\n $$;\n",
    ],
)
def test_statements_are_split_where_postgresql_ends_them(statement: str) -> None:
    assert list(statements(statement + "SELECT 2;\n")) == [statement, "SELECT 2;\n"]
