"""Changes on both sides that fail in between: one side never stays changed without being named."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database import engine
from aspencli.cli.main import run as run_program
from tests.cli.commands.both_lab import (
    BDPH,
    Both,
    Fault,
    ProviderRelay,
    after,
    broken,
    held,
    lost,
    refused,
    throttled,
    unanswered,
)
from tests.cli.commands.proxy import CommitProxy
from tests.cli.commands.test_groups_editing import lake

_PATIENCE_S = 120
EMAIL = "mo@new.example.org"
UPDATE = ("users", "update", "10", "--name", "Mo New", "--email", EMAIL)
ADD = ("users", "roles", "add", "11", "--group", "RCPHL", "--role", "viewer")
REPLACE = ("users", "roles", "add", "3", "--group", "RCPHL", "--role", "admin", "--replace")
REMOVE = ("users", "roles", "remove", "10", "--group", "RCPHL")
DELETE = ("users", "delete", "10")
ARCHIVE = ("groups", "archive", "BDPH")
RENAME = ("groups", "update", "BDPH", "--name", "Bayside", "--prefix", "BAY")
COMMANDS = {
    "update": (UPDATE, r"PATCH users/"),
    "add member": (ADD, r"POST organizations/\w+/members$"),
    "add role": (ADD, r"POST organizations/\w+/members/.+/roles$"),
    "replace": (REPLACE, r"DELETE organizations/\w+/members/.+/roles$"),
    "remove role": (REMOVE, r"DELETE organizations/\w+/members/.+/roles$"),
    "remove member": (REMOVE, r"DELETE organizations/\w+/members$"),
    "delete": (DELETE, r"DELETE organizations/org_0+2/members$"),
    "archive role": (ARCHIVE, r"DELETE organizations/\w+/members/auth0%7Cmulti/roles$"),
    "archive members": (ARCHIVE, r"DELETE organizations/\w+/members$"),
    "rename": (RENAME, r"PATCH organizations/"),
}
each_command = pytest.mark.parametrize("name", COMMANDS)


def unchanged(both: Both, before: object, outcome: str = "rolled back") -> None:
    """Check that the failed run left nothing behind."""
    assert both.state == before
    assert both.last_run()["outcome"] == outcome
    assert both.kept_files == []


@each_command
@pytest.mark.parametrize(("fault", "code"), [(refused, 4), (broken, 5), (lost, 5)])
def test_failing_provider_changes_neither_side(
    name: str, fault: Fault, code: int, both: Both, relay: ProviderRelay
) -> None:
    words, pattern = COMMANDS[name]
    before = both.state
    # A request is tried twice; then one like it may be needed to revert what was done before.
    relay.fail(pattern, fault, times=1 if fault is refused or pattern.startswith("POST") else 2)
    ended = both(*words, "--yes")
    assert (ended.code, ended.out) == (code, ""), ended.err
    assert "nothing was written" in ended.err
    unchanged(both, before)
    relay.heal()
    done = both(*words, "--yes")
    assert done.code == 0, done.err
    assert both.state != before


@each_command
def test_change_with_lost_answers_is_done_or_reverted(
    name: str, both: Both, relay: ProviderRelay
) -> None:
    words, pattern = COMMANDS[name]
    before = both.state
    relay.fail(pattern, unanswered)
    ended = both(*words, "--yes")
    if pattern.startswith("POST"):  # it is not repeated, because it could have two effects
        assert ended.code == 5, ended.err
        unchanged(both, before)
        ended = both(*words, "--yes")
    assert ended.code == 0, ended.err
    assert both.state != before
    again = both(*words, "--yes") if words != DELETE else ended
    assert again.code in {0, 6}, again.err
    run = both.last_run()["run"]
    undo = both(words[0], "undo", run, "--yes")
    assert undo.code == 0, undo.err
    assert both.state == before


def test_provider_that_is_down_is_noticed_before_the_question(both: Both) -> None:
    both.identity.stop()
    try:
        ended = both(*UPDATE, "--yes")
    finally:
        both.identity.start()
    assert ended.code == 5, ended.err
    assert "did not respond" in ended.err
    assert both("history", "list", "-o", "json").json == []


@each_command
def test_throttled_provider_is_waited_for(name: str, both: Both, relay: ProviderRelay) -> None:
    words, pattern = COMMANDS[name]
    before = both.state
    relay.fail(pattern, throttled)
    both.ok(*words)
    assert both.state != before


@pytest.mark.parametrize("comes_back", [True, False])
def test_what_cannot_be_reverted_is_named_and_completed(
    comes_back: bool, both: Both, relay: ProviderRelay
) -> None:
    """The first request takes effect; everything after it fails, and so does the revert."""
    before = both.state

    def go_down() -> None:
        relay.fail(r"", broken, times=1_000)

    relay.fail(r"PATCH users/", after(go_down))
    both.accounts.execute(
        "CREATE FUNCTION aspen.fail() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'no commit today'; END $$"
    )
    both.accounts.execute(
        "CREATE CONSTRAINT TRIGGER fail AFTER UPDATE ON aspen.users DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION aspen.fail()"
    )
    if comes_back:
        relay.heal()
    ended = both(*UPDATE, "--yes")
    both.accounts.execute("DROP TRIGGER fail ON aspen.users")
    both.accounts.execute("DROP FUNCTION aspen.fail()")
    if comes_back:
        assert ended.code == 1, ended.err
        assert "no commit today" in ended.err
        return unchanged(both, before)
    assert ended.code == 1, ended.err
    assert "The database was not changed, but the identity provider is, or may be" in ended.err
    assert "may be done: account auth0|multi: name from 'Multi Example' to 'Mo New'" in ended.err
    same = f"aspencli --env local users update 10 --name 'Mo New' --email {EMAIL}"
    assert f"Run the same command again to complete it: {same}" in " ".join(ended.err.split())
    assert both.sign_in_name("multi")[0] == "Mo New"
    run = both.last_run()
    assert run["outcome"] == "unfinished"
    assert both.kept_files == ["undo"]
    relay.heal()
    done = both.ok(*UPDATE)
    assert {row["side"] for row in done.json} == {"database"}
    assert both.accounts.user(EMAIL) == ("Mo New", "auth0|multi", False, None)
    return None


def test_unfinished_change_can_be_undone_instead(both: Both, relay: ProviderRelay) -> None:
    before = both.state
    relay.fail(r"PATCH users/", held)
    with both.begin(*UPDATE) as process:
        assert relay.arrived.wait(_PATIENCE_S)
        kill(process)
    relay.heal()
    checked_when_settled(both)
    undone = both("users", "undo", both.last_run()["run"], "--yes", "-o", "json")
    assert undone.code == 0, undone.err
    assert {row["side"] for row in undone.json} == {"identity provider"}
    assert both.state == before


# The database fails


def terminate_writers(both: Both) -> None:
    """End the sessions that are in the middle of a transaction."""
    both.accounts.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND state = 'idle in transaction' AND pid <> pg_backend_pid()"
    )


@each_command
def test_lost_database_reverts_the_provider(name: str, both: Both, relay: ProviderRelay) -> None:
    words, pattern = COMMANDS[name]
    before = both.state
    relay.fail(pattern, after(lambda: terminate_writers(both)))
    ended = both(*words, "--yes")
    assert (ended.code, ended.out) == (5, ""), ended.err
    assert "Connection to the database lost; nothing was written." in ended.err
    unchanged(both, before)


@pytest.mark.unpooled("a second pooler in between is not what it tests")
@pytest.mark.parametrize("deliver", [True, False])
def test_unknown_commit_is_settled_by_history_check(
    deliver: bool,
    both: Both,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(engine, "_LOOK_UP_S", (0.01,))  # the server stays unreachable
    address = both.accounts.database.url.render_as_string(hide_password=False)
    with CommitProxy(address, deliver=deliver) as wire:
        breaker = threading.Thread(target=_cut_when_asked, args=[wire])
        breaker.start()
        monkeypatch.setenv("ASPEN_DATABASE_URL_LOCAL", wire.address)
        capsys.readouterr()
        code = run_program([*UPDATE, "--yes"])
        breaker.join()
    err = capsys.readouterr().err
    assert code == 1, err
    assert "it is unknown whether the changes were written" in err
    assert "done at the identity provider: account auth0|multi: name" in err
    run = both.last_run()
    assert run["outcome"] == "unknown"
    assert f"history check {run['run']}" in err
    assert both.kept_files == ["undo"]
    verdict = checked_when_settled(both)
    if deliver:
        assert verdict["outcome"] == "written"
    else:
        assert verdict["outcome"] == "unfinished"
        assert "the identity provider may have been changed" in verdict["basis"]
    done = both.ok(*UPDATE)
    assert {row["side"] for row in done.json} == (set() if deliver else {"database"})
    assert both.sign_in_name("multi") == ("Mo New", EMAIL, False)
    assert both.accounts.user(EMAIL) == ("Mo New", "auth0|multi", False, None)


def _cut_when_asked(wire: CommitProxy) -> None:
    assert wire.asked.wait(_PATIENCE_S)
    wire.cut()


def test_commit_that_the_database_forgot_stays_unknown(both: Both, aspen_home: Path) -> None:
    """The steps show what is left to undo."""
    both.ok(*UPDATE)
    run = both.last_run()["run"]
    journal = aspen_home / "state" / "history" / "journal.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    kept = [event for event in events if event["event"] != "ended"]
    for event in kept:
        if "transaction" in event:
            event["transaction"] = 3  # older than any it knows
        if "pid" in event:
            event["pid"] = 1
    journal.write_text("".join(json.dumps(event) + "\n" for event in kept))
    ended = both("history", "check", run)
    assert ended.code == 7, ended.err
    assert "The database no longer has the outcome of transaction 3." in ended.err
    (undo,) = re.findall(r"See what is left to undo: aspencli (.+ --dry-run)$", ended.err, re.M)
    planned = both(*undo.split())
    assert planned.code == 0, planned.err
    assert "Would undo run" in planned.err


# Killed and interrupted


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=_PATIENCE_S)


def checked_when_settled(both: Both) -> dict[str, Any]:
    """Return the verdict on the last run, once the server has noticed that its client is gone."""
    run = both.last_run()["run"]
    deadline = time.monotonic() + _PATIENCE_S
    while (ended := both("history", "check", run, "-o", "json")).code == 7:
        assert time.monotonic() < deadline, ended.err
    assert ended.code == 0, ended.err
    (verdict,) = ended.json
    return dict(verdict)


def settled(both: Both, *words: str) -> None:
    """Run a command, once the server has noticed that the client before is gone."""
    deadline = time.monotonic() + _PATIENCE_S
    while (ended := both(*words, "--yes")).code == 7 and "holds a lock" in ended.err:
        assert time.monotonic() < deadline, ended.err
    assert ended.code == 0, ended.err


@each_command
def test_same_command_completes_a_killed_one(name: str, both: Both, relay: ProviderRelay) -> None:
    words, pattern = COMMANDS[name]
    before = both.state
    relay.fail(pattern, held)
    with both.begin(*words) as process:
        assert relay.arrived.wait(_PATIENCE_S)
        kill(process)
    relay.heal()
    run = both.last_run()
    assert (run["outcome"], run["command"]) == ("unknown", " ".join(_name(words)))
    shown = both("history", "show", run["run"])
    assert "died while it was changing the identity provider" in shown.out
    verdict = checked_when_settled(both)
    assert verdict["outcome"] == "unfinished"
    settled(both, *words)
    first = both.state
    undo = both(words[0], "undo", both.last_run()["run"], "--yes")
    assert undo.code in {0, 7}, undo.err
    assert first != before
    # What the killed run did at the provider is in its own undo file.
    both(words[0], "undo", run["run"], "--yes")
    assert both.state == before


def _name(words: tuple[str, ...]) -> tuple[str, ...]:
    return words[:3] if words[1] == "roles" else words[:2]


@pytest.mark.parametrize("key", ["LAKE", "Lake County", "organization"])
def test_same_command_deletes_what_is_left_after_the_commit(
    key: str, both: Both, relay: ProviderRelay
) -> None:
    before = both.state
    place = lake(both)

    def never(found: ProviderRelay, _seen: object) -> Callable[..., None]:
        found.arrived.set()
        return lambda wire: wire.wait(_PATIENCE_S)

    relay.fail(r"DELETE organizations/", never)
    with both.begin("groups", "delete", "LAKE") as process:
        assert relay.arrived.wait(_PATIENCE_S)
        kill(process)
    relay.heal()
    assert both.organization(place) is not None
    assert both.accounts.rows("SELECT FROM aspen.groups WHERE prefix = 'LAKE'") == []
    verdict = checked_when_settled(both)
    assert verdict["outcome"] == "unfinished"
    assert "may be left" in verdict["basis"]
    settled(both, "groups", "delete", place if key == "organization" else key)
    assert both.state == before


def test_deletion_that_fails_after_the_commit_names_what_is_left(
    both: Both, relay: ProviderRelay
) -> None:
    relay.fail(r"DELETE users/", broken, times=100)
    words = ("users", "delete", "nogroup@example.org", "--account")
    ended = both(*words, "--yes")
    assert ended.code == 1, ended.err
    assert "The database is changed, but this is left at the identity provider" in ended.err
    assert "aspencli --env local users delete 'auth0|nogroup' --account" in ended.err
    assert [row["outcome"] for row in ended.tsv] == ["deleted", "failed"]
    run = both.last_run()
    assert run["outcome"] == "unfinished"
    assert both.account("nogroup") is not None
    assert both.accounts.user("nogroup@example.org") is None
    relay.heal()
    both.ok(*words)  # by the address, which only the record knows
    assert both.account("nogroup") is None


@each_command
def test_interrupted_change_is_reverted(name: str, both: Both, relay: ProviderRelay) -> None:
    words, pattern = COMMANDS[name]
    before = both.state
    started: list[subprocess.Popen[str]] = []
    ready = threading.Event()

    def interrupt() -> None:
        assert ready.wait(_PATIENCE_S)
        started[0].send_signal(signal.SIGINT)
        _wait_for_pending(started[0].pid)

    relay.fail(pattern, after(interrupt))
    with both.begin(*words) as process:
        started.append(process)
        ready.set()
        out, err = process.communicate(timeout=_PATIENCE_S)
    assert (process.returncode, out) == (130, ""), err
    unchanged(both, before)


def _wait_for_pending(pid: int) -> None:
    """Wait until a process has taken its signal, so that it comes before the provider's answer."""
    pending = re.compile(r"^(?:SigPnd|ShdPnd):\s*(\w+)$", re.M)
    while any(int(mask, 16) for mask in pending.findall(Path(f"/proc/{pid}/status").read_text())):
        time.sleep(0.001)


# Two operators


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (UPDATE, ("users", "update", "10", "--name", "Mo Else")),
        (ADD, ("users", "roles", "add", "11", "--group", "1", "--role", "admin", "--replace")),
        (("users", "roles", "remove", "6", "--group", "2"), ("users", "delete", "6")),
        (ARCHIVE, ("users", "roles", "remove", "7", "--group", "2")),
        (RENAME, ("groups", "update", "BDPH", "--name", "Other")),
    ],
)
def test_second_operator_waits_and_reports_the_first(
    first: tuple[str, ...], second: tuple[str, ...], both: Both, relay: ProviderRelay
) -> None:
    """The second one makes its plan before the first one has written, and applies it afterwards."""
    began = threading.Event()

    def let_second_plan() -> None:
        began.set()
        _wait_for_lock(both)

    relay.fail(r"(PATCH|POST|DELETE) (users|organizations)/", after(let_second_plan))
    with both.begin(*first) as one:
        assert began.wait(_PATIENCE_S)
        other = both(*second, "--yes")
        _out, err = one.communicate(timeout=_PATIENCE_S)
    assert one.returncode == 0, err
    assert (other.code, other.out) == (7, ""), other.err
    assert "nothing was written" in other.err
    after_both = both.state
    assert both(*first, "--yes").code in {0, 6, 7}
    assert both.state == after_both


def _wait_for_lock(both: Both) -> None:
    query = (
        "SELECT FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    deadline = time.monotonic() + _PATIENCE_S
    while not both.accounts.rows(query):
        assert time.monotonic() < deadline, "no session waits for a lock"
        time.sleep(0.02)


def test_two_administrators_cannot_remove_each_other(both: Both) -> None:
    runs = [both.begin("users", "roles", "remove", user, "--group", "BDPH") for user in ("6", "10")]
    ended = [(run.communicate(timeout=_PATIENCE_S), run.returncode) for run in runs]
    assert sorted(code for _streams, code in ended) == [0, 3], ended
    admins = [name for name, roles in both.members(BDPH).items() if "admin" in roles]
    assert len(admins) == 1
    assert both.accounts.rows(
        "SELECT u.auth0_user_id FROM aspen.user_roles JOIN aspen.users u ON u.id = user_id"
        " WHERE group_id = 2 AND role_id = 1"
    ) == [(f"auth0|{admins[0]}",)]


def test_two_users_cannot_get_one_address(both: Both) -> None:
    """The constraint of the database compares letter case; these two differ in it."""
    runs = [
        both.begin("users", "update", user, "--email", email)
        for user, email in (("10", "new@example.org"), ("11", "New@Example.org"))
    ]
    ended = [(run.communicate(timeout=_PATIENCE_S), run.returncode) for run in runs]
    assert sorted(code for _streams, code in ended) == [0, 7], ended
    query = "SELECT auth0_user_id FROM aspen.users WHERE lower(email) = 'new@example.org'"
    ((account,),) = both.accounts.rows(query)
    name = account.removeprefix("auth0|")
    assert both.sign_in_name(name)[1] == "new@example.org"


def test_row_changed_since_the_plan_is_a_conflict(both: Both) -> None:
    before: list[object] = []
    with both.accounts.database.begin() as session:
        session.execute(sa.text("SELECT FROM aspen.users WHERE id = 10 FOR UPDATE"))
        with both.begin(*UPDATE) as process:
            _wait_for_lock(both)
            session.execute(sa.text("UPDATE aspen.users SET name = 'Else' WHERE id = 10"))
            session.commit()
            _out, err = process.communicate(timeout=_PATIENCE_S)
            before.append(both.state)
    assert process.returncode == 7, err
    assert "Another operator changed this after the plan was made; nothing was written." in err
    assert "now to do: user multi@example.org: name from 'Else' to 'Mo New'" in err
    unchanged(both, before[0])


def test_account_changed_since_the_plan_is_a_conflict(both: Both) -> None:
    with both.accounts.database.begin() as session:
        session.execute(sa.text("SELECT FROM aspen.users WHERE id = 10 FOR UPDATE"))
        with both.begin(*UPDATE) as process:
            _wait_for_lock(both)
            with both.identity.management() as provider:
                body = {"name": "Else"}
                provider.patch("users/auth0|multi", json=body).raise_for_status()
            session.rollback()
            _out, err = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 7, err
    assert "account auth0|multi: name from 'Else' to 'Mo New'" in err
    assert both.sign_in_name("multi") == ("Else", "multi@example.org", True)
