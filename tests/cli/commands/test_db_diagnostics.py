"""The costs of time and space in a database, found in one that is deliberately in trouble."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pexpect
import pytest

from aspen.local.postgres.server import SUPERUSER, Cluster
from tests.cli.commands.diagnostics_lab import TroubledSite, troubled

if TYPE_CHECKING:
    from tests.cli.commands.ending import Ended

# A table that lost nine of ten rows and was not vacuumed; the rest was analyzed.
BLOATED = """
CREATE TABLE bloated (id int PRIMARY KEY, name text NOT NULL) WITH (autovacuum_enabled = off);
INSERT INTO bloated SELECT n, repeat(md5(n::text), 8) FROM generate_series(1, 40000) AS n;
CREATE INDEX bloated_name ON bloated (name);
DELETE FROM bloated WHERE id % 10 <> 0;
VACUUM ANALYZE bloated
"""
INDEXED = """
CREATE TABLE parents (id int PRIMARY KEY, a int, b text, c text UNIQUE);
CREATE TABLE children (id int PRIMARY KEY, parent_id int REFERENCES parents, "Odd one" int,
    FOREIGN KEY ("Odd one") REFERENCES parents, other_id int REFERENCES parents);
CREATE INDEX served ON children (other_id, id);
CREATE INDEX one ON parents (a, b);
CREATE INDEX same ON parents (a, b);
CREATE INDEX beginning ON parents (a);
CREATE INDEX other_order ON parents (a DESC);
CREATE INDEX partly ON parents (a) WHERE b IS NULL;
CREATE INDEX computed ON parents (lower(b));
CREATE INDEX computed_too ON parents (lower(b));
CREATE INDEX like_the_unique_one ON parents (c);
CREATE TABLE big (id int PRIMARY KEY, n int);
INSERT INTO big SELECT n, n FROM generate_series(1, 5000) AS n;
CREATE INDEX nobody_asks ON big (n)
"""


@pytest.fixture
def site(
    empty_db: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[TroubledSite]:
    with troubled(empty_db, monkeypatch, capsys) as site:
        yield site


# Sizes


def test_sizes_lists_largest_table_first_and_parts_add_up(site: TroubledSite) -> None:
    site.sql(BLOATED)
    site.sql(
        "CREATE TABLE longish (text text);\nALTER TABLE longish ALTER text SET STORAGE external;\n"
        "INSERT INTO longish VALUES (repeat('x', 500000))"
    )
    ended = site("sizes", "-o", "json")
    first, second = ended.json
    assert (first["table"], first["rows"]) == ("public.bloated", 4000)
    for row in (first, second):
        assert row["total"] == row["heap"] + row["toast"] + row["indexes"]
        (total,) = site.sql(f"SELECT pg_total_relation_size('{row['table']}')")[0]
        assert row["total"] == total
    assert second["toast"] > 500_000 > second["heap"]
    assert second["rows"] is None  # never analyzed
    assert "2 of 2 tables" in ended.err
    assert len(site("sizes", "-o", "json", "--limit", "1").json) == 1


@pytest.mark.parametrize("command", ["sizes", "indexes", "bloat"])
def test_locked_tables_are_skipped_or_estimated(site: TroubledSite, command: str) -> None:
    site.sql(BLOATED + ";\n" + INDEXED)
    site.session("migration", "LOCK TABLE bloated", "REINDEX INDEX nobody_asks")
    ended = site(command, "-o", "json")
    assert ended.code == 0, ended.err
    how = "estimated" if command == "sizes" else "skipped"
    assert (
        f"2 tables are locked by another session, and {how}: public.big, public.bloated"
        in ended.err
    )
    assert "aspencli db activity" in ended.err
    if command == "sizes":
        row = next(row for row in ended.json if row["table"] == "public.bloated")
        assert (row["estimated"], row["heap"]) == (True, None)
        assert row["total"] > 1_000_000


# Indexes


def findings(ended: Ended) -> dict[tuple[str, str], Any]:
    assert ended.code == 0, ended.err
    return {(row["finding"], row["index"]): row for row in ended.json}


def test_indexes_reports_each_kind_of_finding(site: TroubledSite) -> None:
    site.sql(INDEXED)
    found = findings(site("indexes", "--all", "-o", "json"))
    assert set(found) == {
        ("duplicate", "public.same"),
        ("duplicate", "public.computed_too"),
        ("duplicate", "public.like_the_unique_one"),
        ("covered", "public.beginning"),
        ("missing", "children_parent_id_fkey"),
        ("missing", "children_Odd one_fkey"),
        ("unused", "public.nobody_asks"),
    }
    assert "public.one" in found["duplicate", "public.same"]["why"]
    assert found["missing", "children_parent_id_fkey"]["columns"] == ["parent_id"]
    assert found["unused", "public.nobody_asks"]["size"] > 40_000


def test_suggested_index_statements_fix_findings(site: TroubledSite) -> None:
    site.sql(INDEXED)
    for row in site("indexes", "--all", "-o", "json").json:
        site.sql(row["step"])
    again = site("indexes", "--all", "-o", "json")
    assert again.json == []
    assert "No findings" in again.err


def test_failed_concurrent_index_is_reported_invalid(site: TroubledSite) -> None:
    site.sql("CREATE TABLE twice (n int);\nINSERT INTO twice VALUES (1), (1)")
    with pytest.raises(Exception, match="could not create unique index"):
        site.sql("CREATE UNIQUE INDEX CONCURRENTLY failed ON twice (n)")
    found = findings(site("indexes", "-o", "json"))
    assert set(found) == {("invalid", "public.failed")}


def test_used_index_is_not_reported_unused(site: TroubledSite) -> None:
    site.sql(INDEXED)
    site.sql("SET enable_seqscan = off;\nSELECT count(*) FROM big WHERE n = 17")
    site.wait_for(lambda: not findings(site("indexes", "-o", "json", "--only", "unused")))


def test_weaker_of_duplicate_indexes_is_reported(site: TroubledSite) -> None:
    site.sql(
        "CREATE TABLE keyed (id int PRIMARY KEY, code text);\n"
        "ALTER TABLE keyed ADD CONSTRAINT again UNIQUE (id);\n"
        "ALTER TABLE keyed ADD CONSTRAINT late UNIQUE (id) DEFERRABLE;\n"
        "CREATE UNIQUE INDEX by_code ON keyed (code);\nCREATE INDEX by_code_too ON keyed (code)"
    )
    found = findings(site("indexes", "-o", "json"))
    assert {index for _kind, index in found} == {"public.again", "public.by_code_too"}
    step = found["duplicate", "public.again"]["step"]
    assert step == "ALTER TABLE public.keyed DROP CONSTRAINT again"


def test_only_option_limits_index_findings(site: TroubledSite) -> None:
    site.sql(INDEXED)
    ended = site("indexes", "--all", "--only", "missing", "--only", "unused", "-o", "jsonl")
    assert len(ended.out.splitlines()) == 3


def test_missing_index_is_shown_for_large_tables_only(site: TroubledSite) -> None:
    site.sql(
        "CREATE TABLE parents (id int PRIMARY KEY);\n"
        "CREATE TABLE few (parent_id int REFERENCES parents);\n"
        "CREATE TABLE many (parent_id int REFERENCES parents);\n"
        "CREATE TABLE never_analyzed (parent_id int REFERENCES parents)"
        " WITH (autovacuum_enabled = off);\n"
        "INSERT INTO few SELECT NULL FROM generate_series(1, 9000);\n"
        "INSERT INTO many SELECT NULL FROM generate_series(1, 11000);\n"
        "INSERT INTO never_analyzed SELECT NULL FROM generate_series(1, 50000);\n"
        "ANALYZE few, many"
    )
    ended = site("indexes", "-o", "json")
    tables = {row["table"] for row in ended.json}
    assert tables == {"public.many", "public.never_analyzed"}
    assert "1 missing on small tables not shown; use --all" in ended.err


# Bloat


def test_bloat_gives_no_advice_for_small_table(site: TroubledSite) -> None:
    site.sql(
        "CREATE TABLE small (n int, t text) WITH (autovacuum_enabled = off);\n"
        "INSERT INTO small SELECT n, repeat('x', 200) FROM generate_series(1, 5000) AS n;\n"
        "DELETE FROM small WHERE n % 10 <> 0;\nVACUUM ANALYZE small"
    )
    ended = site("bloat", "-o", "json")
    (row,) = ended.json
    assert row["share"] > 0.8
    assert row["size"] > 1_000_000
    assert row["step"] is None
    assert "VACUUM" not in ended.err


def test_bloat_estimate_matches_pgstattuple(site: TroubledSite) -> None:
    site.sql(BLOATED)
    site.sql("CREATE EXTENSION pgstattuple")
    dead = "SELECT 1 FROM pg_stat_all_tables WHERE relname = 'bloated' AND n_dead_tup > 0"
    # Repeat, because the count of dead rows may arrive after the first VACUUM.
    site.wait_for(lambda: not site.sql("VACUUM bloated") and not site.sql(dead))
    rows = {row["name"]: row for row in site("bloat", "-o", "json").json}
    table = rows["public.bloated"]
    (free,) = site.sql("SELECT free_percent FROM pgstattuple('bloated')")[0]
    assert table["share"] == pytest.approx(free / 100, abs=0.05)
    assert table["share"] > 0.8
    assert table["step"].startswith("VACUUM FULL public.bloated")
    index = rows["public.bloated_name"]
    (density,) = site.sql("SELECT avg_leaf_density FROM pgstatindex('bloated_name')")[0]
    assert index["share"] == pytest.approx(1 - density / 90, abs=0.15)
    site.sql(index["step"])
    site.sql(table["step"])
    site.sql("ANALYZE bloated")
    after = {row["name"]: row for row in site("bloat", "-o", "json").json}
    assert after["public.bloated"]["share"] < 0.1
    assert after["public.bloated_name"]["share"] < 0.1


def test_fresh_table_is_not_reported_as_bloated(site: TroubledSite) -> None:
    site.sql(
        "CREATE TABLE fresh (id bigint PRIMARY KEY, a int, b boolean, c timestamptz, d text,"
        " e numeric, f uuid) WITH (autovacuum_enabled = off);\n"
        "INSERT INTO fresh SELECT n, nullif(n % 3, 0), n % 2 = 0, now(), md5(n::text), n / 7.0,"
        " md5(n::text)::uuid FROM generate_series(1, 20000) AS n;\nVACUUM ANALYZE fresh"
    )
    for row in site("bloat", "-o", "json").json:
        assert row["share"] < 0.12, row


def test_bloat_without_statistics_is_not_estimated(site: TroubledSite) -> None:
    site.sql(
        "CREATE TABLE unseen (n int) WITH (autovacuum_enabled = off);\n"
        "INSERT INTO unseen VALUES (1)"
    )
    ended = site("bloat", "-o", "json")
    assert ended.json[0]["wasted"] is None
    assert "1 of 1 tables and indexes have no statistics" in ended.err


def test_bloat_reports_tables_hidden_from_unprivileged_user(site: TroubledSite) -> None:
    site.sql(BLOATED)
    few = site.role()
    site.log_in(few)
    ended = site("bloat", "-o", "json")
    assert ended.code == 0
    assert {row["wasted"] for row in ended.json} == {None}
    assert f"that user {few.username} can see" in ended.err
    assert site("sizes", "-o", "json").json[0]["table"] == "public.bloated"
    assert site("indexes", "-o", "json").code == 0


# Settings


@pytest.mark.unpooled("a session that was opened before keeps its settings")
def test_settings_show_server_values_not_session_values(site: TroubledSite) -> None:
    name = site.url.database
    site.sql(f"ALTER DATABASE {name} SET statement_timeout = '7min'")
    site.sql(f"ALTER DATABASE {name} SET work_mem = '1GB'")
    rows = {row["name"]: row for row in site("settings", "-o", "json").json}
    assert (rows["statement_timeout"]["value"], rows["statement_timeout"]["source"]) == (
        "7min",
        "database",
    )
    assert rows["default_transaction_read_only"]["value"] == "off"
    assert rows["work_mem"]["value"] == "1GB"
    assert "out of memory" in rows["work_mem"]["remark"]


def test_settings_are_found_by_part_of_name(site: TroubledSite) -> None:
    ended = site("settings", "vacuum_cost", "-o", "json")
    assert len(ended.json) > 3
    assert all("vacuum_cost" in row["name"] for row in ended.json)
    nothing = site("settings", "color")
    assert nothing.code == 6
    assert "--all" in nothing.err
    assert len(site("settings", "--all", "-o", "json").json) > 200


def test_hidden_settings_are_reported(site: TroubledSite) -> None:
    site.log_in(site.role())
    ended = site("settings", "-o", "json")
    assert ended.code == 0
    assert "shared_preload_libraries" not in ended.out
    assert "pg_monitor" in ended.err


# Outliers


@pytest.fixture
def counted(site: TroubledSite) -> TroubledSite:
    if "pg_stat_statements" not in site.sql("SHOW shared_preload_libraries")[0][0]:
        pytest.skip("this server counts no statements")
    site.sql('CREATE SCHEMA "Odd place"')
    site.sql('CREATE EXTENSION pg_stat_statements SCHEMA "Odd place"')
    return site


@pytest.fixture(scope="module")
def plain_server(server_folder: Path) -> Iterator[str]:
    """Yield the address of a server that preloads no library."""
    cluster = Cluster(
        server_folder / "plain", settings={"shared_preload_libraries": "", "fsync": "off"}
    )
    cluster.up()
    yield cluster.url("postgres", SUPERUSER)
    cluster.reset()


def test_outliers_lists_costliest_statement_first(counted: TroubledSite) -> None:
    counted.sql("SELECT pg_sleep(0.2);\nSELECT pg_sleep(0.1)")
    counted.sql(";\n".join(["SELECT 1 AS quick"] * 20))
    ended = counted("outliers", "-o", "json")
    assert ended.code == 0, ended.err
    first = ended.json[0]
    assert (first["query"], first["calls"]) == ("SELECT pg_sleep($1)", 2)
    assert 0.5 < first["share"] <= 1
    assert first["total_ms"] == pytest.approx(2 * first["mean_ms"], abs=0.01)
    assert first["max_ms"] > 199
    by_calls = counted("outliers", "--by", "calls", "--limit", "1", "-o", "json").json
    assert [row["query"] for row in by_calls] == ["SELECT $1 AS quick"]
    for order in ("mean", "read", "temp"):
        assert counted("outliers", "--by", order).code == 0


def test_outliers_reports_hidden_statements_of_other_users(counted: TroubledSite) -> None:
    counted.sql("SELECT pg_sleep(0)")
    few = counted.role()
    counted.sql(f'GRANT USAGE ON SCHEMA "Odd place" TO {few.username}')
    counted.log_in(few)
    ended = counted("outliers", "-o", "json")
    assert ended.code == 0, ended.err
    assert None in {row["query"] for row in ended.json}
    assert f"GRANT pg_monitor TO {few.username}" in ended.err


def test_outliers_without_extension_names_create_statement(site: TroubledSite) -> None:
    ended = site("outliers")
    assert ended.code == 6
    assert "CREATE EXTENSION pg_stat_statements" in ended.err


def test_outliers_without_preloaded_library_names_setting(
    plain_server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with troubled(plain_server, monkeypatch, capsys) as site:
        for made in ("SELECT 1", "CREATE EXTENSION pg_stat_statements"):
            site.sql(made)
            ended = site("outliers")
            assert ended.code == 6
            assert "shared_preload_libraries (on RDS in the parameter group)" in ended.err


# On a terminal


@pytest.mark.parametrize("command", ["sizes", "indexes", "bloat", "settings", "activity", "locks"])
def test_diagnostics_tables_fit_narrow_terminal(
    site: TroubledSite, cli_env: Callable[[object], dict[str, str]], command: str
) -> None:
    site.sql(INDEXED)
    site.session("somebody", "LOCK TABLE parents IN ROW SHARE MODE")
    site.start(site.session("else"), "LOCK TABLE parents", until="waiting")
    child = pexpect.spawn(
        "/bin/sh",
        ["-c", f"'{sys.executable}' -m aspencli db {command} 2>/dev/null"],
        env={**cli_env(site.url), "TERM": "dumb"},
        encoding="utf-8",
        dimensions=(40, 80),
        timeout=120,
    )
    seen = child.read()
    child.close()
    assert child.exitstatus == 0
    table = seen.splitlines()
    assert len(table) > 1
    assert max(map(len, table)) <= 80
    if command == "locks":
        pids = [row["pid"] for row in site("locks", "-o", "json").json]
        assert [line.split("  ")[0].strip("└ ") for line in table[1:]] == list(map(str, pids))
