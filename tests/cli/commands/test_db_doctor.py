"""The doctor: it finds problems, and does not complain about what is fine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.database.sessions import ReadSession
from aspencli.diagnostics import Examined, diagnostics
from tests.cli.commands.diagnostics_lab import TroubledSite, troubled
from tests.cli.commands.ending import Ended
from tests.pooler import SWITCH

CHECKS = {
    *("schema", "connections", "activity", "locks", "outliers", "sizes", "indexes", "bloat"),
    *("vacuum", "transaction ids", "sequences", "replication", "settings"),
    *(("pooler",) if os.environ.get(SWITCH) else ()),
}
TROUBLE = """
CREATE TABLE bloated (id int PRIMARY KEY, name text NOT NULL) WITH (autovacuum_enabled = off);
INSERT INTO bloated SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, 45000) AS n;
DELETE FROM bloated WHERE id % 10 <> 0;
VACUUM ANALYZE bloated;
CREATE TABLE pairs (id smallserial PRIMARY KEY, bloated_id int REFERENCES bloated, n int);
INSERT INTO pairs (id, n) SELECT n, n FROM generate_series(1, 11000) AS n;
SELECT setval('pairs_id_seq', 32000);
CREATE INDEX one ON pairs (n);
CREATE INDEX two ON pairs (n);
ANALYZE pairs
"""


@pytest.fixture
def site(
    migrated_db: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[TroubledSite]:
    with troubled(migrated_db, monkeypatch, capsys) as site:
        yield site


def checks(ended: Ended) -> dict[str, Any]:
    return {row["check"]: row for row in ended.json}


def test_doctor_finds_problems_and_gives_next_steps(site: TroubledSite) -> None:
    site.sql(TROUBLE)
    ended = site("doctor", "-o", "json")
    assert ended.code == 1, ended.err  # the tests' server has fsync off, which endangers data
    found = checks(ended)
    assert set(found) == CHECKS
    assert {name for name, row in found.items() if row["verdict"] == "ok"} >= {
        *("schema", "connections", "activity", "locks", "sizes", "transaction ids"),
    }
    assert found["bloat"]["verdict"] == found["indexes"]["verdict"] == "warning"
    assert found["sequences"]["verdict"] == found["settings"]["verdict"] == "problem"
    assert "public.bloated: " in found["bloat"]["details"][0]
    details = " ".join(found["indexes"]["details"])
    assert "duplicate: public.pairs public.two" in details
    assert "missing: public.pairs pairs_bloated_id_fkey" in details
    assert "public.pairs.id" in found["sequences"]["step"]
    assert all(row["step"] for row in found.values() if row["verdict"] != "ok")


def test_doctor_reports_blocking_session_while_table_is_locked(site: TroubledSite) -> None:
    site.sql(TROUBLE)
    holder = site.session("holder", "LOCK TABLE pairs")
    for number in range(3):
        site.start(site.session(f"waiter {number}"), "LOCK TABLE pairs", until="waiting")
    found = checks(site("doctor", "-o", "json"))
    assert found["locks"]["verdict"] == "warning"
    assert (
        f"3 sessions are waiting for locks, blocked by PID {holder.pid}"
        in found["locks"]["message"]
    )
    assert found["locks"]["step"] == "aspencli db locks"


def test_doctor_lists_worst_first_and_repeats_it_on_stderr(site: TroubledSite) -> None:
    ended = site("doctor", "-o", "table")
    first = ended.out.splitlines()[0]
    assert first.startswith("problem   settings         fsync = off")
    assert "fsync = off" in ended.err
    assert "aspencli db settings" in ended.err
    assert ended.out.splitlines()[-1].startswith("ok ")


def test_doctor_warnings_fail_only_with_strict(
    site: TroubledSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aspencli.diagnostics import settings

    # The tests' server is fast, and deliberately unsafe.
    for careless in ("fsync", "full_page_writes"):
        monkeypatch.delitem(settings._CHECKS, careless)
    site.sql("UPDATE public.alembic_version SET version_num = '29990101_000000'")
    assert site("doctor").code == 0
    assert site("doctor", "--strict").code == 1


def test_doctor_reports_unknown_checks_to_unprivileged_user(site: TroubledSite) -> None:
    site.sql(TROUBLE)
    site.session("of somebody else", "SELECT 1")
    few = site.role()
    site.log_in(few)
    ended = site("doctor", "-o", "json")
    assert ended.code == 1, ended.err
    found = checks(ended)
    assert set(found) == CHECKS
    assert (found["activity"]["verdict"], found["activity"]["step"]) == (
        "unknown",
        f"GRANT pg_monitor TO {few.username}",
    )
    assert found["schema"]["verdict"] == "unknown"
    assert found["bloat"]["verdict"] == "unknown"
    assert f"GRANT pg_read_all_data TO {few.username}" in found["bloat"]["step"]
    assert found["sequences"]["verdict"] == "unknown"
    assert "GRANT SELECT ON ALL SEQUENCES" in found["sequences"]["step"]
    assert found["indexes"]["verdict"] == "warning"


def test_doctor_check_timeout_does_not_stop_other_checks(
    site: TroubledSite, migrated_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aspencli.diagnostics import session as looking
    from aspencli.diagnostics.doctor import examine

    monkeypatch.setattr(looking, "_LOCK_MS", 100)
    site.session("a rare lock", "LOCK TABLE pg_sequence")
    database = Database(migrated_db)
    found = {one.check: one for one in examine(database)}
    assert set(found) == CHECKS
    assert found["sequences"].verdict.value == "unknown"
    assert found["sequences"].message == "Check failed: timed out waiting for a lock"
    assert found["replication"].verdict.value == "ok"


def test_doctor_check_failure_does_not_stop_other_checks(
    migrated_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aspencli.diagnostics import doctor

    def wrong(session: ReadSession) -> Examined:
        session.execute(sa.text("SELECT 1 / 0"))
        raise AssertionError

    def faulty(_session: ReadSession) -> Examined:
        raise KeyError("no such column")

    found = diagnostics()
    monkeypatch.setitem(found, "locks", found["locks"]._replace(check=wrong))
    monkeypatch.setitem(found, "sizes", found["sizes"]._replace(check=faulty))
    database = Database(migrated_db)
    told = {one.check: one for one in doctor.examine(database)}
    assert set(told) == CHECKS
    unknown = {name: one.message for name, one in told.items() if one.verdict.value == "unknown"}
    assert unknown == {
        "locks": "Check failed: the server rejected the query",
        "sizes": "Check failed: KeyError: 'no such column'",
    }


def test_doctor_finds_no_missing_index_in_fresh_schema(site: TroubledSite) -> None:
    found = checks(site("doctor", "-o", "json"))
    assert "missing" not in found["indexes"]["message"]


def test_status_without_revision_access_is_unknown(site: TroubledSite) -> None:
    few = site.role()
    site.log_in(few)
    ended = site("status", "-o", "json")
    assert ended.code == 0, ended.err
    assert (ended.json[0]["verdict"], ended.json[0]["schema"]) == ("unknown", "unknown")
    assert f"GRANT SELECT ON public.alembic_version TO {few.username}" in ended.err


def test_doctor_with_unreachable_server_exits_5(site: TroubledSite) -> None:
    site.log_in(site.url.set(port=1))
    assert site("doctor").code == 5
