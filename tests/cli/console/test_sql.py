"""SQL at the prompt: several statements, results to keep, formats, repeats, saved queries."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from IPython.core.error import UsageError

from aspen.database.profiling.queries import split_statements
from aspencli.cli.console.completion import NameCache, Names, completions, sql_start
from aspencli.cli.console.queries import NamedQueries
from aspencli.cli.console.statements import read_line
from aspencli.errors import BadInputError, ConflictError, NotFoundError
from tests.cli.console.terminal import Terminal

NAMES = Names(
    {
        "samples": ("id", "public_identifier", "private_identifier", "submitting_group_id"),
        "groups": ("id", "name", "prefix"),
        "Odd Name": ("id",),
    },
    ("count", "coalesce", "now"),
)


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("ASPEN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PAGER", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1; SELECT 2;", ["SELECT 1", "SELECT 2"]),
        ("SELECT ';' ; SELECT \";\" FROM t", ["SELECT ';'", 'SELECT ";" FROM t']),
        ("SELECT $a$;$a$; TABLE t", ["SELECT $a$;$a$", "TABLE t"]),
        ("SELECT E'\\';' -- a; b\n; SELECT 2", ["SELECT E'\\';' -- a; b", "SELECT 2"]),
        ("SELECT /* ; /* ; */ ; */ 1; ; -- the end", ["SELECT /* ; /* ; */ ; */ 1"]),
        ("CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3",
         ["CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)", "SELECT 3"]),
    ],
)  # fmt: skip
def test_statements_are_split_at_semicolons_between_them(text: str, statements: list[str]) -> None:
    assert [part.statement for part in split_statements(text)] == statements


def test_options_come_before_statement() -> None:
    line = read_line("--expanded --all --csv 'my file.csv' SELECT --1\n 2")
    assert (line.expanded, line.whole, str(line.csv)) == (True, True, "my file.csv")
    assert line.text == "SELECT --1\n 2"
    assert read_line("-- a comment\nSELECT 1").text == "-- a comment\nSELECT 1"
    with pytest.raises(UsageError, match="Unknown option --exapnded"):
        read_line("--exapnded SELECT 1")
    with pytest.raises(UsageError, match="Name the file"):
        read_line("--csv")


def test_all_statements_of_line_run_and_count_their_rows(migrated_db: str) -> None:
    with Terminal(migrated_db) as console:
        output = console.run("%sql SELECT 1 AS one; SELECT g AS two FROM generate_series(1, 2) g")
        assert "one\n1\n1 row\ntwo\n1\n2\n2 rows\n" in output.replace("\n\n", "\n")
        failed = console.run("%sql SELECT 1 AS first; SELECT nothing; SELECT 'la' || 'st'")
        assert "first" in failed
        assert 'column "nothing" does not exist' in failed
        assert "last" not in failed
        assert "session.commit()" in console.run("%sql SELECT 1 AS one; COMMIT")


def test_assigned_result_has_all_rows_and_is_not_shown(migrated_db: str) -> None:
    with Terminal(migrated_db) as console:
        series = "SELECT g AS b FROM generate_series(1, 150) g"
        output = console.run(f"found = %sql SELECT 7 AS a; {series}")
        assert "row" not in output
        kind = "DataFrame" if find_spec("pandas") else "list"
        assert f"'{kind}', 150" in console.run("type(found).__name__, len(found)")
        assert "Options choose how rows are shown" in console.run("x = %sql --json SELECT 1")


def test_rows_are_shown_expanded_as_json_and_written_to_new_csv_file(
    migrated_db: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    query = "SELECT g AS number, 'a,b' AS text FROM generate_series(1, 300) g"
    with Terminal(migrated_db) as console:
        output = console.run("%sql --expanded SELECT 1 AS one, NULL AS two")
        assert "one  1\n" in output
        shown = console.run("%sql --json SELECT 1 AS one, '{2}'::int[] AS two, 3 AS one")
        assert json.loads(shown[shown.index("[\n") : shown.rindex("\n]") + 2]) == [
            {"one": 1, "two": [2], "one_2": 3}
        ]
        assert f"300 rows written to {path}" in console.run(f"%sql --csv {path} {query}")
        lines = path.read_text().splitlines()
        assert (lines[0], lines[300], len(lines)) == ("number,text", '300,"a,b"', 301)
        assert "already exists; nothing was written." in console.run(f"%sql --csv {path} SELECT 1")
        assert "give one statement" in console.run("%sql --csv x SELECT 1; SELECT 2")
        assert "\n101\n" in console.run("%sql --all SELECT g FROM generate_series(1, 101) g")


def test_values_are_never_cut_and_wide_result_is_expanded(migrated_db: str) -> None:
    text, number = "ab" * 115, "1234567890" * 3
    with Terminal(migrated_db) as console:
        output = console.run(f"%sql SELECT repeat('ab', 115) AS text, {number} AS n")
        assert f"text  {text}" in "".join(output.splitlines())
        assert f"n     {number}" in output
        alone = console.run("%sql SELECT repeat('ab', 115) AS text")
        assert text in "".join(alone.splitlines())
        assert "text  ab" not in alone
        narrow = console.run("%sql SELECT 'ab' AS text, 1 AS n")
        assert "text  n\nab    1\n" in narrow.replace("\r", "")


def test_first_completion_finds_its_modules_loaded(migrated_db: str) -> None:
    with Terminal(migrated_db) as console:
        console.run("import sys, threading")
        console.run("[each.join() for each in threading.enumerate() if each.name == 'loading']")
        output = console.run("{'loaded': 'pygments.lexers._postgres_builtins' in sys.modules}")
        assert "{'loaded': True}" in output


def test_introduction_fits_eighty_columns() -> None:
    from aspencli.cli.console.shell import _GUIDE

    assert max(map(len, _GUIDE)) < 80


def test_long_result_goes_through_chosen_pager(
    migrated_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGER", "sed s/^/paged:/")
    with Terminal(migrated_db) as console:
        assert "paged:90\n" in console.run("%sql SELECT g FROM generate_series(1, 90) g")
        assert "paged" not in console.run("%sql SELECT 1")


def test_watch_repeats_statement_until_interrupt(migrated_db: str) -> None:
    with Terminal(migrated_db) as console:
        console.enter("%watch 0.2 SELECT 'tick' AS tick, clock_timestamp()")
        for _ in range(3):
            console.until("Every 0.2 s, at .*1 row")
        console.interrupt()
        assert "Stopped." in console.next_prompt()
        assert "Use %watch SECONDS" in console.run("%watch SELECT 1")


def test_watch_never_commits(migrated_db: str) -> None:
    with Terminal(migrated_db) as console:
        console.run("%write")
        console.enter("%watch 0.2 CREATE TABLE aspen.watched ()")
        for _ in range(2):  # it would exist the second time
            console.until("Every 0.2 s")
            time.sleep(0.1)
        console.interrupt()
        assert "already exists" not in console.next_prompt()
        assert "does not exist" in console.run("%sql TABLE aspen.watched")


def test_saved_query_runs_by_name_in_later_session(migrated_db: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print(6 * 7)")
    with Terminal(migrated_db) as console:
        output = console.run("%save small SELECT 'it''s \"é\"' AS small; SELECT 2 AS two")
        assert "Saved the query small. Run it with: %run small" in output
        assert "Replaced" not in output
    with Terminal(migrated_db) as console:
        assert 'it\'s "é"' in console.run("%run small")
        assert "Saved: small." in console.run("%run smal")
        assert "42" in console.run(f"%run {script}")  # as IPython does
        assert "small" in console.run("%run")


def test_names_of_shared_queries_cannot_be_taken(tmp_path: Path) -> None:
    queries = NamedQueries({"late": "SELECT 1"}, tmp_path / "queries.toml")
    with pytest.raises(ConflictError, match="already has a query named late"):
        queries.save("late", "SELECT 2")
    with pytest.raises(BadInputError, match="not a name"):
        queries.save("1st", "SELECT 2")
    text = "SELECT \"a\\b\", '\x7f\U0001f9ec'\n-- two lines"
    assert queries.save("mine", text) is False
    assert queries.save("mine", text) is False
    assert queries.all() == {"late": "SELECT 1", "mine": text}
    assert queries.save("mine", "SELECT 3") is True
    with pytest.raises(NotFoundError, match="no query named nothing"):
        queries.get("nothing")
    (tmp_path / "queries.toml").write_text("[queries\n")
    with pytest.raises(BadInputError, match="Cannot read the saved queries"):
        queries.all()


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("%sql SELECT", "SELECT"),
        ("rows = %sql SELECT", "SELECT"),
        ("%sql --expanded SELECT", "SELECT"),
        ("x = 1\n%watch 2 SELECT", "SELECT"),
        ("%explain analyze SELECT", "SELECT"),
        ("%%sql\nSELECT\n1", "SELECT\n1"),
        ("%sqlx SELECT", None),
        ("print('%sql')", None),
    ],
)
def test_sql_is_recognized_after_its_magics(text: str, sql: str | None) -> None:
    start = sql_start(text)
    assert (None if start is None else text[start:]) == sql


@pytest.mark.parametrize(
    ("before", "first"),
    [
        ("SELECT * FROM sa", ["samples"]),
        ("SELECT * FROM groups, sa", ["samples"]),
        ("SELECT * FROM samples JOIN gr", ["groups"]),
        ("SELECT s.pub| FROM samples s", ["public_identifier"]),
        ("SELECT p| FROM samples", ["public_identifier", "private_identifier"]),
        ("SELECT co| FROM samples", ["count(", "coalesce("]),
        ("SELECT * FROM samples s JOIN groups AS g ON g.pre", ["prefix"]),
        ("SELECT aspen.gr", ["groups"]),
        ("UPDATE samples SET subm", ["submitting_group_id"]),
        ("sel", ["select"]),
        ("SEL", ["SELECT"]),
        ("SELECT 'sa", []),
        ("SELECT * FROM Odd", ['"Odd Name"']),
    ],
)
def test_completions_depend_on_place_in_statement(before: str, first: list[str]) -> None:
    before, _, after = before.partition("|")
    found = [one.text for one in completions(before, after, NAMES)]
    assert found[: len(first)] == first
    assert first or not found


def test_names_of_unreachable_database_do_not_block_prompt() -> None:
    def fail() -> Names:
        raise OSError

    cache = NameCache(fail)
    assert cache.get() == Names({}, ())
    good = NameCache(lambda: NAMES)
    assert good.get() is NAMES


def test_tab_completes_names_of_database_after_sql_magic(migrated_db: str) -> None:
    with Terminal(migrated_db) as console:
        console.type("%sql SELECT count(*) FROM phylo_tree_s\t")
        console.until("amples")
        output = console.run(" ")
        assert "1 row" in output
