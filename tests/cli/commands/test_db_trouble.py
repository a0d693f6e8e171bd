"""A database in four kinds of trouble: each is found, by its command and by the doctor."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg2 import errors as pg

from aspen.database.engine import Database
from aspencli.diagnostics.activity import find_sessions
from aspencli.diagnostics.session import looking
from aspencli.errors import NotFoundError
from tests import zygote
from tests.cli.commands.diagnostics_lab import Session, TroubledSite, troubled
from tests.cli.commands.ending import Ended
from tests.conftest import CliRunner

# A duplicate index, a foreign key without an index, and a table that lost nine of ten rows.
TROUBLE = """
CREATE TABLE bloated (id int PRIMARY KEY, name text NOT NULL) WITH (autovacuum_enabled = off);
INSERT INTO bloated SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, 45000) AS n;
DELETE FROM bloated WHERE id % 10 <> 0;
VACUUM ANALYZE bloated;
CREATE TABLE pairs (id serial PRIMARY KEY, bloated_id int REFERENCES bloated, n int);
INSERT INTO pairs (n) SELECT n FROM generate_series(1, 11000) AS n;
CREATE INDEX one ON pairs (n);
CREATE INDEX two ON pairs (n);
ANALYZE pairs
"""
THINGS = """
CREATE TABLE things (id int PRIMARY KEY, name text);
INSERT INTO things VALUES (1, 'a'), (2, 'b')
"""
COMMANDS = ("activity", "locks", "sizes", "indexes", "bloat", "settings", "outliers", "doctor")
READING = ("SELECT", "SHOW", "SET", "BEGIN", "COMMIT", "ROLLBACK", "WITH")
Run = Callable[..., Ended]


@pytest.fixture
def site(
    empty_db: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[TroubledSite]:
    with troubled(empty_db, monkeypatch, capsys) as site:
        yield site


@pytest.fixture
def process(site: TroubledSite, run_cli: CliRunner) -> Run:
    """Return a function that runs the command in a separate process, without a terminal."""

    def call(*words: str) -> Ended:
        done = run_cli("db", *words)  # the database's address is in the environment
        return Ended(done.code, done.out, done.err)

    return call


def make_trouble(site: TroubledSite) -> None:
    site.sql(TROUBLE)
    dead = "SELECT 1 FROM pg_stat_all_tables WHERE relname = 'bloated' AND n_dead_tup > 0"
    # Repeat, because the count of dead rows may arrive after the first VACUUM.
    site.wait_for(lambda: not site.sql("VACUUM bloated") and not site.sql(dead))


def make_chain(site: TroubledSite) -> list[Session]:
    """Return a busy session and two more, each blocked by the one before."""
    site.sql(THINGS)
    first = site.session("first", "UPDATE things SET name = 'b' WHERE id = 1")
    site.start(first, "SELECT pg_sleep(60)")
    second = site.session("second", "UPDATE things SET name = 'c' WHERE id = 2")
    site.start(second, "UPDATE things SET name = 'd' WHERE id = 1; COMMIT", until="waiting")
    third = site.session("third")
    site.start(third, "UPDATE things SET name = 'e' WHERE id = 2; COMMIT", until="waiting")
    return [first, second, third]


def test_each_problem_is_found_by_its_command_and_by_doctor(
    site: TroubledSite, process: Run
) -> None:
    make_trouble(site)
    chain = make_chain(site)
    first = chain[0].pid

    locks = process("locks", "-o", "json")
    assert [(row["pid"], row["depth"]) for row in locks.json] == [
        (session.pid, depth) for depth, session in enumerate(chain)
    ]
    assert f"PID {first} (" in locks.err
    assert "is blocking 2 sessions; active" in locks.err
    assert f"Cancel its statement: aspencli db cancel {first}" in locks.err

    indexes = process("indexes", "-o", "json")
    steps = {(row["finding"], row["index"]): row["step"] for row in indexes.json}
    assert steps["duplicate", "public.two"] == "DROP INDEX CONCURRENTLY public.two"
    missing = steps["missing", "pairs_bloated_id_fkey"]
    assert missing == "CREATE INDEX CONCURRENTLY ON public.pairs (bloated_id)"

    worst = process("bloat", "-o", "json").json[0]
    assert worst["name"] == "public.bloated"
    assert worst["share"] > 0.8
    assert worst["step"].startswith("VACUUM FULL public.bloated")

    ended = process("doctor", "-o", "json")
    assert ended.code == 1, ended.err  # fsync is off on the tests' server
    found = {row["check"]: row for row in ended.json}
    for check in ("locks", "indexes", "bloat"):
        assert found[check]["verdict"] == "warning"
        assert found[check]["step"] == f"aspencli db {check}"
    assert f"2 sessions are waiting for locks, blocked by PID {first}" in found["locks"]["message"]
    assert any("is blocking 2 sessions" in detail for detail in found["locks"]["details"])
    told = " ".join(found["indexes"]["details"] + found["bloat"]["details"])
    for what in ("duplicate: public.pairs public.two", "pairs_bloated_id_fkey", "public.bloated: "):
        assert what in told


def test_cancel_of_root_blocker_releases_whole_chain(site: TroubledSite, process: Run) -> None:
    first, second, third = make_chain(site)
    ended = process("cancel", str(first.pid), "--yes", "-o", "json")
    assert (ended.code, ended.json[0]["status"]) == (0, "done")
    assert "SELECT pg_sleep(60)" in ended.err  # the canceled statement and its owner
    assert f"Canceled the statement of PID {first.pid} ({site.url.username}, first" in ended.err
    site.wait_for(lambda: process("locks", "-o", "json").json == [])
    assert isinstance(first.error, pg.QueryCanceled)
    site.wait_for(lambda: site.sql("SELECT name FROM things ORDER BY id") == [("d",), ("e",)])
    assert (second.error, third.error) == (None, None)


@pytest.mark.parametrize("command", ["cancel", "terminate"])
def test_cancel_and_terminate_without_terminal_are_refused(
    site: TroubledSite, process: Run, command: str
) -> None:
    slow = site.session("the night shift")
    site.start(slow, "SELECT pg_sleep(60)")
    ended = process(command, str(slow.pid))
    assert (ended.code, ended.out) == (3, "")
    assert f"PID {slow.pid} ({site.url.username}, the night shift" in ended.err
    assert "pg_sleep(60)" in ended.err
    assert "--yes" in ended.err
    assert slow.error is None


@pytest.mark.parametrize("command", ["cancel", "terminate"])
def test_cancel_and_terminate_refuse_pids_outside_database(
    site: TroubledSite, command: str
) -> None:
    slow = site.session("slow")
    site.start(slow, "SELECT pg_sleep(60)")
    ((checkpointer,),) = site.sql(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
    )
    for pid in (1, 2**40, checkpointer):
        ended = site(command, str(slow.pid), str(pid), "--yes")
        assert (ended.code, ended.out) == (6, ""), ended.err
        assert f"No session in this database has PID {pid}. Nothing was done." in ended.err
    assert site(command, "--yes", "--", "-1").code == 2
    assert slow.error is None


def test_find_sessions_refuses_own_session(site: TroubledSite, empty_db: str) -> None:
    with looking(Database(empty_db)) as session:
        own = session.connection().exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with pytest.raises(NotFoundError, match=f"has PID {own}"):
            find_sessions(session, [own])


# Extensions and privileges


@pytest.fixture
def counted(site: TroubledSite) -> TroubledSite:
    if "pg_stat_statements" not in site.sql("SHOW shared_preload_libraries")[0][0]:
        pytest.skip("this server counts no statements")
    return site


@pytest.mark.parametrize("version", ["1.6", "1.7", "1.8", "1.10"])
def test_outliers_supports_every_pg_stat_statements_version(
    counted: TroubledSite, version: str
) -> None:
    counted.sql(f"CREATE EXTENSION pg_stat_statements VERSION '{version}'")
    ((old,),) = counted.sql(
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'pg_stat_statements'::regclass"
        " AND attname = 'total_time'"
    )
    assert old == (version in {"1.6", "1.7"})
    counted.sql("SELECT pg_sleep(0.05)")
    for order in ("total", "mean", "read"):
        ended = counted("outliers", "--by", order, "-o", "json")
        assert ended.code == 0, ended.err
    row = next(row for row in ended.json if row["query"] == "SELECT pg_sleep($1)")
    assert row["total_ms"] >= row["max_ms"] > 49
    assert "outliers" in counted("doctor", "-o", "json").out


def test_diagnostics_report_missing_rights_and_write_nothing(
    counted: TroubledSite,
) -> None:
    counted.sql("CREATE EXTENSION pg_stat_statements")
    counted.sql(TROUBLE)
    make_chain(counted)
    few = counted.role()
    counted.sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {few.username}")
    counted.log_in(few)
    for command in COMMANDS:
        ended = counted(command, "-o", "json")
        assert ended.code == (1 if command == "doctor" else 0), ended.err
        if command in {"activity", "locks", "outliers", "settings", "doctor"}:
            assert f"GRANT pg_monitor TO {few.username}" in ended.err + ended.out, command
        else:
            assert ended.json
    ran = counted.sql(
        "SELECT query FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid"
        f" WHERE r.rolname = '{few.username}'"
    )
    assert len(ran) > len(COMMANDS)
    assert [query for (query,) in ran if not query.strip().upper().startswith(READING)] == []


# Empty and large databases


def test_diagnostics_of_empty_database_report_it_as_empty(site: TroubledSite) -> None:
    for command in ("activity", "locks", "sizes", "indexes", "bloat"):
        ended = site(command, "-o", "json")
        assert (ended.code, ended.json) == (0, []), command
        assert ended.err
    found = {row["check"]: row for row in site("doctor", "-o", "json").json}
    assert found["schema"]["verdict"] == "problem"
    assert found["schema"]["step"] == "aspencli db setup"
    assert {found[check]["verdict"] for check in ("locks", "sizes", "indexes", "bloat")} == {"ok"}


def test_doctor_and_indexes_handle_500_tables(site: TroubledSite) -> None:
    site.sql(
        "SET synchronous_commit = off;\n"
        "DO $$ BEGIN FOR n IN 1..500 LOOP EXECUTE format('CREATE TABLE many_%s (id int PRIMARY KEY,"
        " next_id int REFERENCES many_%s, a int, b text)', n, greatest(n - 1, 1));"
        " EXECUTE format('INSERT INTO many_%s VALUES (1, NULL, 1, ''x'')', n); END LOOP; END $$"
    )
    site.sql("ANALYZE")
    found = {row["check"]: row for row in site("doctor", "-o", "json").json}
    assert "500 tables" in found["sizes"]["message"]
    # Their foreign keys have no index, which matters only for larger tables.
    assert "500 indexes" in found["indexes"]["message"]
    assert not [row for row in found.values() if "Check failed" in row["message"]]
    table = site("indexes", "--all", "-o", "table")
    assert "490 more statements not shown" in table.err


# On a terminal


def on_terminal(env: dict[str, str], columns: int, *words: str) -> tuple[int | None, str]:
    child = zygote.at_terminal(
        ["db", *words],
        env={name: value for name, value in env.items() if name not in {"COLUMNS", "LINES"}},
        encoding="utf-8",
        dimensions=(60, columns),
        timeout=120,
    )
    seen: Any = child.read()
    child.close()
    return child.exitstatus, seen


@pytest.mark.parametrize("command", COMMANDS)
def test_output_fits_60_columns_and_honors_no_color(
    site: TroubledSite, cli_env: Callable[[object], dict[str, str]], command: str
) -> None:
    site.sql(TROUBLE)
    make_chain(site)
    env = {**cli_env(site.url), "TERM": "xterm-256color", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    code, seen = on_terminal(env, 60, command)
    assert code == {"doctor": 1, "outliers": 6}.get(command, 0), seen
    # A progress bar writes over its line again and again.
    seen = re.sub(r"[^\n]*(\r(?!\n)|\x1b\[\d*[GK])", "", seen)
    text = re.sub(r"\x1b\[\?\d+[hl]|\x1b\[\d*A|\r", "", seen)
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines
    if command == "doctor":
        long = [line for line in lines if len(line) > 60 and not line.startswith("Warning")]
        assert long == []
        assert re.search(r"^warning +locks +2 sessions are waiting", text, re.MULTILINE)
