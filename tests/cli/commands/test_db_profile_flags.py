"""Unusual plans and row counts that ``db profile`` reports, and statements it never reruns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest

from aspen.database.engine import Database
from tests.cli.commands.ending import Ended
from tests.cli.commands.profile_lab import Profiling
from tests.conftest import CliRunner

ROWS = 30_000
# With this many rows and so little memory, sorts and hashes spill; joins have to use hashes.
LARGE = f"""
create table big as select i as id, i % 100 as a, i % 100 as b, i % 100 as c, i as other,
    'note ' || i as note from generate_series(1, {ROWS}) i;
alter table big add primary key (id);
create table written (at int);
create function writes() returns int language sql as 'insert into written values (1) returning at';
analyze big;
"""
SETTINGS = ("work_mem = '64kB'", "enable_mergejoin = off", "max_parallel_workers_per_gather = 0")
SCANS = "select id from big where note = 'note 7'"
SORTS = "select id from big order by note"
HASHES = "select max(one.note || two.note) from big one join big two on one.id = two.other"
CORRELATED = "select id from big where a = 1 and b = 1 and c = 1"
FINE = "select note from big where id = 7"


@contextmanager
def cursor_on(database: Database) -> Iterator[Any]:
    address = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(address, options="-c search_path=aspen")
    with connection, connection.cursor() as cursor:
        yield cursor
    connection.close()


@pytest.fixture(autouse=True)
def _large(seeded: Database) -> None:
    with cursor_on(seeded) as cursor:
        cursor.execute(LARGE)
        for setting in SETTINGS:
            cursor.execute(f'alter database "{seeded.url.database}" set {setting}')


@pytest.fixture
def on_production(seeded: Database, run_cli: CliRunner) -> Callable[..., Ended]:
    address = seeded.url.render_as_string(hide_password=False)

    def call(*words: str) -> Ended:
        line = ("--env", "prod", "-o", "json", "db", "profile", *words)
        done = run_cli(*line, env={"ASPEN_DATABASE_URL_PROD": address})
        return Ended(done.code, done.out, done.err)

    return call


def flags(one: Any) -> dict[str, str]:
    return {flag["name"]: flag["text"] for flag in one["flags"]}


def of(done: Ended, words: str = "") -> Any:
    assert done.code == 0, done.err
    (one,) = [one for one in done.json["statements"] if words in one["fingerprint"]]
    return one


def was_run(one: Any) -> bool:
    return "Actual Total Time" in one["plan"]["Plan"]


def test_scans_spills_and_misestimates_are_flagged_good_plan_is_not(
    profile: Profiling,
) -> None:
    done = profile("--explain", "--sql", "; ".join([SCANS, SORTS, HASHES, CORRELATED, FINE]))
    scan = f"reads all of big, about {ROWS:,} rows"
    assert flags(of(done, "where note = ?")) == {"seq-scan": scan}
    assert "a sort did not fit in memory" in flags(of(done, "order by note"))["spilled"]
    assert "a hash did not fit in memory" in flags(of(done, "max("))["spilled"]
    assert flags(of(done, "a = ? and b = ?")) == {
        "seq-scan": scan,
        "misestimated": "big: 1 rows expected, 300 found",
    }
    assert flags(of(done, "where id = ?")) == {}
    assert "Index Scan" in of(done, "where id = ?")["plan"]["Plan"]["Node Type"]


def test_seq_scan_flag_names_scan_that_an_index_would_help(profile: Profiling) -> None:
    asked = "select count(*) from big one join big two using (id) where two.note <> 'note 7'"
    (flag,) = [
        flag
        for flag in of(profile("--explain", "--sql", asked))["flags"]
        if flag["name"] == "seq-scan"
    ]
    assert flag["cure"] == "Add an index for (note <> 'note 7'::text), if it selects few rows."


def test_aggregate_spilled_to_disk_is_flagged(profile: Profiling, seeded: Database) -> None:
    with cursor_on(seeded) as cursor:
        cursor.execute(f'alter database "{seeded.url.database}" set enable_sort = off')
    one = of(profile("--explain", "--sql", "select note, count(*) from big group by note"))
    assert one["plan"]["Plan"]["Strategy"] == "Hashed"
    assert "an aggregate did not fit in memory" in flags(one)["spilled"]


def test_limited_scan_is_not_flagged_as_misestimated(profile: Profiling) -> None:
    asked = "select id from big limit 5; select exists (select from big where a < 90)"
    done = profile("--explain", "--sql", asked)
    assert flags(of(done, "limit ?")) == {}
    assert flags(of(done, "exists")) == {}


def test_unfetched_rows_are_flagged(profile: Profiling) -> None:
    code = (
        "session.connection().execute(sa.text('select id from big')).fetchmany(10)\n"
        "session.connection().execute(sa.text('select a from big limit 150')).fetchall()"
    )
    done = profile("-c", code)
    unused = f"{ROWS - 10:,} of {ROWS:,} rows were never fetched"
    assert flags(of(done, "select id")) == {"unused-rows": unused}
    assert flags(of(done, "select a")) == {}


def test_analyze_plans_but_never_reruns_writes(profile: Profiling, seeded: Database) -> None:
    statements = [
        "insert into written select 1 from big where id = 1",
        "update written set at = 2",
        "with more as (insert into written values (2) returning at) select at from more",
        "delete from written where at = 1",
    ]
    asked = ("--sql", "; ".join(statements))
    done = profile("--write", "--commit", "--yes", "--explain", "--analyze", *asked)
    assert done.code == 0, done.err
    assert [(one["calls"], was_run(one)) for one in done.json["statements"]] == [(1, False)] * 4
    with cursor_on(seeded) as cursor:
        cursor.execute("select at from written")
        assert cursor.fetchall() == [(2,), (2,)]


def test_analyze_does_not_rerun_select_that_writes(profile: Profiling, seeded: Database) -> None:
    asked = ("--sql", "select writes(); select 1 as one into more from big where id = 1")
    done = profile("--write", "--commit", "--yes", "--analyze", *asked)
    assert of(done, "writes()")["plan"] is None
    assert of(done, "into more")["plan"] is None
    assert "No plan for select writes(): cannot execute INSERT in a read-only" in done.err
    with cursor_on(seeded) as cursor:
        cursor.execute("select count(*) from written")
        assert cursor.fetchone() == (1,)


def test_explain_on_production_reruns_nothing_without_analyze(
    on_production: Callable[..., Ended],
) -> None:
    planned = of(on_production("--explain", "--sql", SCANS))
    assert not was_run(planned)
    assert flags(planned) == {"seq-scan": f"reads all of big, about {ROWS:,} rows"}
    assert was_run(of(on_production("--analyze", "--sql", SCANS)))
