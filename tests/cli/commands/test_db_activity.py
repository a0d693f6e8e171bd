"""Sessions in a database: who is active, who is blocked by whom, and how to end that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pexpect
import psycopg2
import pytest
from psycopg2 import errors as pg

from aspen.database.engine import Database
from tests import zygote
from tests.cli.commands.diagnostics_lab import TroubledSite, troubled

if TYPE_CHECKING:
    from tests.cli.commands.diagnostics_lab import Session

CliEnvironment = Callable[[str], dict[str, str]]
ACTIVITY_KEYS = [
    *("pid", "user", "application", "client", "kind", "state", "state_s", "transaction_s"),
    *("wait", "blocked_by", "query"),
]
LOCK_KEYS = [
    *("pid", "depth", "blocked_by", "blocks", "user", "application", "state", "transaction_s"),
    *("waited_s", "lock", "relation", "query"),
]
UPDATE = "UPDATE things SET name = 'b' WHERE id = 1"


@pytest.fixture
def site(
    empty_db: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[TroubledSite]:
    with troubled(empty_db, monkeypatch, capsys) as site:
        site.sql("CREATE TABLE things (id int PRIMARY KEY, name text);\n"
                 "INSERT INTO things VALUES (1, 'a'), (2, 'b')")  # fmt: skip
        yield site


@pytest.fixture
def chain(site: TroubledSite) -> list[Session]:
    """Return four sessions: each one after the first is blocked by the one before."""
    first = site.session("first", UPDATE)
    second = site.session("second", "UPDATE things SET name = 'c' WHERE id = 2")
    site.start(second, UPDATE, until="waiting")
    third = site.session("third", "CREATE TABLE others ()")
    site.start(third, "UPDATE things SET name = 'd' WHERE id = 2", until="waiting")
    fourth = site.session("fourth")
    site.start(fourth, "CREATE TABLE others ()", until="waiting")
    return [first, second, third, fourth]


# Activity


def test_activity_shows_idle_sessions_only_with_all(site: TroubledSite) -> None:
    busy = site.session("the night shift", UPDATE)
    resting = site.session("the day shift", "COMMIT")
    ended = site("activity", "-o", "json")
    (row,) = ended.json
    assert list(row) == ACTIVITY_KEYS
    assert (row["pid"], row["application"], row["query"]) == (busy.pid, "the night shift", UPDATE)
    assert (row["state"], row["user"]) == ("idle in transaction", site.url.username)
    assert row["transaction_s"] >= row["state_s"] >= 0
    assert "1 idle session not shown" in ended.err
    everybody = site("activity", "--all", "-o", "json")
    assert {row["pid"] for row in everybody.json} == {busy.pid, resting.pid}
    assert everybody.err == ""


def test_activity_without_active_sessions_is_empty(site: TroubledSite) -> None:
    ended = site("activity", "-o", "json")
    assert (ended.code, ended.json) == (0, [])
    assert ended.err == "No other sessions.\n"
    site.session("idle", "COMMIT")
    assert "No active sessions (1 idle)" in site("activity").err


def test_activity_hides_passwords_in_statements(site: TroubledSite) -> None:
    site.session("careless", "SELECT 'CREATE ROLE x PASSWORD ''hunter2''', 1 AS password")
    site.session("worse", "CREATE ROLE aspen_test_never LOGIN PASSWORD 'hunter''2' CREATEDB")
    ended = site("activity", "-o", "jsonl")
    assert "hunter" not in ended.out
    assert "PASSWORD '***' CREATEDB" in ended.out


@pytest.mark.unpooled("the pooler's own sessions are seen as well")
def test_activity_reports_details_hidden_from_unprivileged_user(
    site: TroubledSite, chain: list[Session]
) -> None:
    few = site.role()
    own = site.session("mine", "SELECT 1", url=few)
    site.log_in(few)
    ended = site("activity", "-o", "json")
    assert ended.code == 0
    rows = {row["pid"]: row for row in ended.json}
    assert rows[own.pid]["query"] == "SELECT 1"
    other = rows[chain[1].pid]
    assert (other["state"], other["query"]) == (None, None)
    assert (other["user"], other["blocked_by"]) == (site.url.username, [chain[0].pid])
    assert f"User {few.username} cannot see the activity of 4 sessions" in ended.err
    assert f"GRANT pg_monitor TO {few.username}" in ended.err
    locks = site("locks", "-o", "json")
    assert [row["pid"] for row in locks.json] == [session.pid for session in chain]
    assert "pg_monitor" in locks.err


@pytest.mark.unpooled("the pooler's own sessions are seen as well")
def test_activity_shows_everything_to_pg_monitor_member(site: TroubledSite) -> None:
    site.session("the night shift", UPDATE)
    site.log_in(site.role("IN ROLE pg_monitor"))
    ended = site("activity", "-o", "json")
    assert ended.json[0]["query"] == UPDATE
    assert ended.err == ""


# Locks


def test_locks_without_waiting_sessions_is_empty(site: TroubledSite) -> None:
    site.session("harmless", UPDATE)
    ended = site("locks", "-o", "json")
    assert (ended.code, ended.json, ended.err) == (0, [], "No sessions are waiting for locks.\n")


def test_locks_lists_chain_from_root_blocker(site: TroubledSite, chain: list[Session]) -> None:
    ended = site("locks", "-o", "json")
    rows = ended.json
    assert all(list(row) == LOCK_KEYS for row in rows)
    told = [(row["application"], row["depth"], row["blocks"]) for row in rows]
    assert told == [("first", 0, 3), ("second", 1, 2), ("third", 2, 1), ("fourth", 3, 0)]
    assert [row["blocked_by"] for row in rows] == [[]] + [[session.pid] for session in chain[:3]]
    assert rows[1]["relation"] == "public.things"
    assert rows[1]["lock"] == "ShareLock on transactionid"
    first = chain[0].pid
    assert f"PID {first} (" in ended.err
    assert "is blocking 3 sessions; idle in transaction" in ended.err
    assert f"aspencli db terminate {first}" in ended.err


def test_locks_table_draws_blocking_tree(site: TroubledSite, chain: list[Session]) -> None:
    lines = site("locks", "-o", "table").out.splitlines()[1:]
    starts = [line[: line.index(str(session.pid))] for line, session in zip(lines, chain)]  # noqa: B905 - asserted next
    assert starts == ["", "└ ", "  └ ", "    └ "]


def test_locks_names_relation_that_sessions_wait_for(site: TroubledSite) -> None:
    site.session("holder", "LOCK TABLE things IN ACCESS SHARE MODE")
    wanting = site.session("wanting")
    site.start(wanting, "LOCK TABLE things", until="waiting")
    behind = site.session("behind")
    site.start(behind, "SELECT * FROM things", until="waiting")
    rows = site("locks", "-o", "json").json
    assert [row["application"] for row in rows] == ["holder", "wanting", "behind"]
    assert rows[1]["lock"] == "AccessExclusiveLock on relation"
    assert {row["relation"] for row in rows[1:]} == {"public.things"}


def test_locks_lists_session_blocked_by_two_once(site: TroubledSite) -> None:
    readers = [site.session(f"reader {n}", "SELECT * FROM things") for n in (1, 2)]
    site.start(site.session("writer"), "LOCK TABLE things", until="waiting")
    rows = site("locks", "-o", "json").json
    writers = [row for row in rows if row["application"] == "writer"]
    assert len(writers) == 1
    assert writers[0]["blocked_by"] == sorted(reader.pid for reader in readers)
    assert len(rows) == 3


# Cancel and terminate


def test_cancel_ends_statement_and_keeps_session(site: TroubledSite) -> None:
    slow = site.session("slow")
    site.start(slow, "SELECT pg_sleep(60)")
    ended = site("cancel", str(slow.pid), "--yes", "-o", "json")
    assert ended.code == 0, ended.err
    assert (ended.json[0]["pid"], ended.json[0]["status"]) == (slow.pid, "done")
    site.wait_for(lambda: slow.error)
    assert isinstance(slow.error, pg.QueryCanceled)
    slow.run("ROLLBACK")
    slow.run("SELECT 1")


def test_terminate_ends_session_and_releases_blocked_ones(
    site: TroubledSite, chain: list[Session]
) -> None:
    first, second = chain[:2]
    ended = site("terminate", str(first.pid), "--yes", "-o", "json")
    assert (ended.code, ended.json[0]["status"]) == (0, "done")
    with pytest.raises(psycopg2.OperationalError):
        first.run("SELECT 1")
    site.wait_for(lambda: site("locks", "-o", "json").json[0]["pid"] == second.pid)
    again = site("terminate", str(first.pid), "--yes")
    assert again.code == 6
    assert "aspencli db activity --all" in again.err


def test_cancel_of_idle_session_reports_idle(site: TroubledSite) -> None:
    idle = site.session("idle", UPDATE)
    ended = site("cancel", str(idle.pid), "--yes", "-o", "json")
    assert (ended.code, ended.json[0]["status"]) == (0, "idle")
    assert f"aspencli db terminate {idle.pid}" in ended.err
    idle.run("COMMIT")


@pytest.mark.parametrize(
    "arguments", [(), ("--yes", "--env", "prod"), ("--confirm", "staging"), ("--dry-run", "--yes")]
)
@pytest.mark.parametrize("command", ["cancel", "terminate"])
def test_cancel_and_terminate_do_nothing_without_confirmation(
    site: TroubledSite, command: str, arguments: tuple[str, ...]
) -> None:
    slow = site.session("slow")
    site.start(slow, "SELECT pg_sleep(60)")
    ended = site(command, str(slow.pid), *arguments)
    assert ended.code == (0 if "--dry-run" in arguments else 3)
    assert "pg_sleep" in ended.err
    assert site.sql(f"SELECT state FROM pg_stat_activity WHERE pid = {slow.pid}") == [("active",)]


def test_cancel_on_production_is_confirmed_by_target_name(site: TroubledSite) -> None:
    slow = site.session("slow")
    site.start(slow, "SELECT pg_sleep(60)")
    assert site("cancel", str(slow.pid), "--env", "prod", "--confirm", "prod").code == 0


def test_terminate_refuses_session_of_another_database(site: TroubledSite) -> None:
    other = site.session("elsewhere", url=site.url.set(database="postgres"))
    assert site("terminate", str(other.pid), "--yes").code == 6
    other.run("SELECT 1")


def test_cancel_without_permission_is_refused(site: TroubledSite) -> None:
    slow = site.session("slow")
    site.start(slow, "SELECT pg_sleep(60)")
    site.log_in(site.role())
    ended = site("cancel", str(slow.pid), "--yes")
    assert ended.code == 4
    assert "permission denied" in ended.err or "must be" in ended.err
    assert slow.error is None


def test_cancel_at_terminal_asks_for_confirmation(
    site: TroubledSite, cli_env: Callable[[object], dict[str, str]]
) -> None:
    slow = site.session("slow")
    site.start(slow, "SELECT pg_sleep(60)")
    child = zygote.at_terminal(
        ["db", "cancel", str(slow.pid)],
        env={**cli_env(site.url), "TERM": "dumb"},
        encoding="utf-8",
        dimensions=(24, 60),
        timeout=120,
    )
    child.expect(r"\[y/N\]")
    assert "pg_slee" in child.before
    child.sendline("y")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    site.wait_for(lambda: slow.error)


def test_cancel_spares_later_statement_of_same_session(site: TroubledSite, empty_db: str) -> None:
    from aspencli.diagnostics.activity import Signal, SignalOutcome, find_sessions, send
    from aspencli.diagnostics.session import looking

    slow = site.session("slow")
    site.start(slow, "SELECT pg_sleep(0.3)")
    database = Database(empty_db)
    with looking(database) as session:
        (seen,) = find_sessions(session, [slow.pid])
    site.wait_for(lambda: site.sql(
        f"SELECT 1 FROM pg_stat_activity WHERE pid = {slow.pid} AND state <> 'active'"
    ))  # fmt: skip
    site.start(slow, "SELECT pg_sleep(60)")
    assert send(database, seen, Signal.CANCEL) is SignalOutcome.GONE
    assert slow.error is None
