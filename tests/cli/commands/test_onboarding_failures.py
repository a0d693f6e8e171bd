"""Onboarding while things go wrong: every step fails, the process is killed, others interfere."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
import pytest
from sqlalchemy.engine import make_url

from aspen.identity.management import Patience
from aspencli.changes.step_log import StepState
from aspencli.identity import placement
from aspencli.remote import identity as remote_identity
from tests.cli.commands.ending import Ended
from tests.cli.commands.people_lab import PeopleLab, User
from tests.cli.commands.proxy import CommitProxy
from tests.local.auth0.detour import Detour, Forward
from tests.local.auth0.lab import ORGANIZATIONS
from tests.remote.naughty import Reply, Seen, hang_up, reply_json

ORG = ORGANIZATIONS[0]
STEPS = {
    "account": "^users$",
    "member": "/members$",
    "role": "/members/[^/]+/roles$",
    "invitation": "/invitations$",
}
"""The request of each step at the provider; all of them are POSTs."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = Patience(seconds=4, tries=3, persists=True)
    monkeypatch.setattr(remote_identity, "PATIENCE", patience)
    monkeypatch.setattr(placement, "LOOKS_S", (0.0, 0.05))


def _nothing_is_left(people: PeopleLab, email: str) -> None:
    assert people.account(email) is None
    assert people.user(email) is None
    assert people.invited(ORG).count(email) == 0


def _completes(people: PeopleLab, detour: Detour, email: str) -> None:
    """Check that the same command, once nothing fails, ends with both sides equal."""
    detour.rules.clear()
    done = people.onboard(email)
    assert done.code == 0, done.err
    _is_complete(people, email)


def _is_complete(people: PeopleLab, email: str) -> None:
    account, user = people.account(email), people.user(email)
    assert account is not None
    assert account.roles == {ORG: ["member"]}
    assert user == User(account.name, account.id, False, {ORG: "member"})
    assert people.invited(ORG).count(email) == 1


# Every step fails


@pytest.mark.parametrize("status", [409, 403, 500, 429, None])
@pytest.mark.parametrize("step", STEPS)
def test_failed_step_leaves_nothing_and_rerun_completes(
    people: PeopleLab, detour: Detour, step: str, status: int | None
) -> None:
    email = people.address_of()
    detour.fail("POST", STEPS[step], status=status)
    ended = people.onboard(email)
    assert ended.code == {409: 7, 403: 4}.get(status or 0, 5), ended.err
    _nothing_is_left(people, email)
    assert "nothing was written" in ended.err or "unknown if an invitation" in ended.err
    assert people.last_run()["outcome"] in {"rolled back", "unfinished"}
    _completes(people, detour, email)


@pytest.mark.parametrize("status", [500, None])
@pytest.mark.parametrize("step", STEPS)
def test_lost_response_is_settled_by_reading(
    people: PeopleLab, detour: Detour, step: str, status: int | None
) -> None:
    email = people.address_of()
    detour.fail("POST", STEPS[step], status=status, delivered=True, times=1)
    ended = people.onboard(email)
    assert ended.code == 0, ended.err
    assert ended.json[0]["outcome"] == "created"
    _is_complete(people, email)


def test_invitation_that_was_sent_before_a_failure_is_named(
    people: PeopleLab, detour: Detour
) -> None:
    email = people.address_of()
    with _database_that_refuses(people, detour, "/invitations$"):
        ended = people.onboard(email)
    assert ended.code != 0
    assert "remains" in ended.err or "its link no longer works" in ended.err.lower()
    people.identity.reset()
    _completes(people, detour, email)


@pytest.mark.parametrize("step", STEPS)
def test_database_that_goes_down_leaves_nothing_unnamed(
    people: PeopleLab, detour: Detour, step: str
) -> None:
    email = people.address_of()
    with _database_that_refuses(people, detour, STEPS[step]):
        ended = people.onboard(email)
    assert ended.code == 5, ended.err
    account = people.account(email)
    if account is not None:
        assert account.id in ended.err
        assert f"users onboard {email}" in ended.err
        for one in people.steps():
            assert one.state is not StepState.BEGIN
    assert people.user(email) is None
    _completes(people, detour, email)


@contextmanager
def _database_that_refuses(people: PeopleLab, detour: Detour, path: str) -> Iterator[None]:
    """Take the database down once a request has reached the provider, until the block ends."""
    url = make_url(people.database.url)
    people.database.dispose()

    def connect() -> psycopg2.extensions.connection:
        server = psycopg2.connect(
            host=url.host,
            port=url.port,
            user=url.username,
            password=url.password,
            dbname="postgres",
        )
        server.autocommit = True
        return server

    def go_down(seen: Seen, forward: Forward) -> Reply | None:
        if seen.method != "POST" or not _matches(path, seen):
            return None
        answer = forward()
        with connect().cursor() as cursor:
            cursor.execute(f'ALTER DATABASE "{url.database}" ALLOW_CONNECTIONS false')
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                (url.database,),
            )
        return answer

    detour.rules.append(go_down)
    try:
        yield
    finally:
        with connect().cursor() as cursor:
            cursor.execute(f'ALTER DATABASE "{url.database}" ALLOW_CONNECTIONS true')


def _matches(path: str, seen: Seen) -> bool:
    return bool(re.search(path, seen.target.partition("?")[0].removeprefix("/api/v2/")))


def test_database_that_is_down_from_the_start_is_told(people: PeopleLab, detour: Detour) -> None:
    people.extra["ASPEN_DATABASE_URL_LOCAL"] = "postgresql://nobody@127.0.0.1:1/aspen_db"
    ended = people.onboard(people.address_of())
    assert ended.code == 5
    assert not [call for call in detour.calls if call[0] != "GET"]


# What cannot be reverted


def test_what_cannot_be_reverted_is_named_with_the_command_that_finishes(
    people: PeopleLab, detour: Detour
) -> None:
    email = people.address_of()
    detour.fail("POST", STEPS["invitation"], status=500)
    detour.fail("DELETE", "", status=500)
    ended = people.onboard(email)
    assert ended.code == 5
    account = people.account(email)
    assert account is not None
    assert f"account {account.id} at the identity provider remains" in ended.err.lower()
    assert f"Membership of account {account.id}" in ended.err
    (hint,) = [line for line in ended.err.splitlines() if "To finish:" in line]
    assert hint.endswith(
        f"users onboard {email} --name 'Nadia New' "
        "--group 'Redwood County Public Health Laboratory' --role member"
    )
    assert people.last_run()["outcome"] == "unfinished"
    kept = [one.step for one in people.steps() if one.state is StepState.KEPT]
    assert "create account" in kept
    _completes(people, detour, email)


def test_account_that_was_used_meanwhile_is_not_deleted(people: PeopleLab, detour: Detour) -> None:
    email = people.address_of()

    def sign_in(seen: Seen, _forward: Forward) -> Reply | None:
        if seen.method != "POST" or not _matches(STEPS["invitation"], seen):
            return None
        people.identity.tokens(email)
        return hang_up

    detour.rules.append(sign_in)
    ended = people.onboard(email)
    assert ended.code == 5
    account = people.account(email)
    assert account is not None
    assert account.roles == {}
    assert (
        f"Account {account.id} at the identity provider remains: someone has used it" in ended.err
    )


def test_membership_that_existed_before_is_not_reverted(people: PeopleLab, detour: Detour) -> None:
    email = people.address_of()
    account = people.create_account(email)
    people.join(account, ORG, "member")
    detour.fail("POST", STEPS["invitation"], status=409)
    assert people.onboard(email).code == 7
    found = people.account(email)
    assert found is not None
    assert (found.id, found.roles) == (account, {ORG: ["member"]})
    assert people.user(email) is None


def test_one_failure_in_a_file_does_not_stop_the_others(people: PeopleLab, detour: Detour) -> None:
    emails = [people.address_of(f"p{number}") for number in range(5)]

    def refuse(seen: Seen, _forward: Forward) -> Reply | None:
        is_bad = seen.method == "POST" and emails[2].encode() in seen.body
        return reply_json({"message": "no such luck"}, 400) if is_bad else None

    detour.rules.append(refuse)
    file = people.write(*(f"{email},P,1,member" for email in emails))
    ended = people("users", "onboard", "--file", file, "--yes", "-o", "json")
    assert ended.code == 1, ended.err
    outcomes = {row["email"]: row["outcome"] for row in ended.json}
    assert outcomes.pop(emails[2]) == "failed"
    assert set(outcomes.values()) == {"created"}
    assert "no such luck" in ended.json[2]["reason"]
    assert "1 of 5 people failed" in ended.err
    assert people.last_run()["outcome"] == "unfinished"
    _nothing_is_left(people, emails[2])
    detour.rules.clear()
    again = people("users", "onboard", "--file", file, "--yes", "-o", "json")
    assert again.code == 0, again.err
    assert [row["outcome"] for row in again.json].count("created") == 1
    for email in emails:
        _is_complete(people, email)


def test_provider_that_is_down_stops_the_run(people: PeopleLab, detour: Detour) -> None:
    emails = [people.address_of(f"p{number:02}") for number in range(20)]
    detour.fail("POST", "^users$|^organizations/")
    file = people.write(*(f"{email},P,1,member" for email in emails))
    ended = people("users", "onboard", "--file", file, "--yes", "-o", "json")
    assert ended.code == 5
    outcomes = [row["outcome"] for row in ended.json]
    assert outcomes.count("failed") <= 6
    assert outcomes.count("skipped") == 20 - outcomes.count("failed")
    assert people.last_run()["outcome"] == "rolled back"


# The process is killed


class _Killer:
    """A rule that kills a process when a step's request arrives, or once it took effect."""

    def __init__(self, path: str, *, after: bool):
        self._path, self._after = path, after
        self.process: subprocess.Popen[str] | None = None
        self.started = threading.Event()

    def __call__(self, seen: Seen, forward: Forward) -> Reply | None:
        if seen.method != "POST" or not _matches(self._path, seen):
            return None
        self.started.wait(60)
        assert self.process is not None
        if self._after:
            forward()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)
        return hang_up


def _words(email: str) -> tuple[str, ...]:
    return ("users", "onboard", email, "--name", "Nadia New", "--group", "1", "--yes")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_rerun_completes_a_killed_run(
    people: PeopleLab, detour: Detour, step: str, after: bool
) -> None:
    email = people.address_of()
    killer = _Killer(STEPS[step], after=after)
    detour.rules.append(killer)
    killer.process = people.start(*_words(email))
    killer.started.set()
    killer.process.communicate(timeout=120)
    assert killer.process.returncode == -signal.SIGKILL
    assert people.user(email) is None
    run = people.last_run()
    assert run["outcome"] == "unfinished"
    shown = people("history", "show", run["run"])
    assert "Step not done: " in shown.err
    assert "run the same command again" in shown.err
    assert people.steps()[-1].state is StepState.BEGIN
    _completes(people, detour, email)


@pytest.mark.parametrize("deliver", [False, True])
def test_rerun_completes_a_run_killed_at_the_commit(people: PeopleLab, deliver: bool) -> None:
    email = people.address_of()
    address = people.environment["ASPEN_DATABASE_URL_LOCAL"]
    with CommitProxy(address, deliver=deliver, write=b"INSERT INTO aspen.users") as proxy:
        people.extra["ASPEN_DATABASE_URL_LOCAL"] = proxy.address
        process = people.start(*_words(email))
        assert proxy.asked.wait(120)
        process.kill()
        process.communicate(timeout=120)
    people.extra.clear()
    assert people.invited(ORG).count(email) == 1
    done = people.onboard(email)
    assert done.code == 0, done.err
    _is_complete(people, email)


@pytest.mark.parametrize("deliver", [False, True])
def test_connection_lost_at_the_commit_is_settled(people: PeopleLab, deliver: bool) -> None:
    email = people.address_of()
    address = people.environment["ASPEN_DATABASE_URL_LOCAL"]
    with CommitProxy(address, deliver=deliver, write=b"INSERT INTO aspen.users") as proxy:
        people.extra["ASPEN_DATABASE_URL_LOCAL"] = proxy.address
        process = people.start(*_words(email))
        assert proxy.asked.wait(120)
        proxy.drop()
        out, err = process.communicate(timeout=120)
    people.extra.clear()
    ended = Ended(process.returncode, out, err)
    if ended.code == 0:
        _is_complete(people, email)
    else:
        _nothing_is_left(people, email)
        assert "its link no longer works" in ended.err.lower()
    assert people.onboard(email).code == 0
    _is_complete(people, email)


def test_interrupt_lets_people_in_progress_finish(people: PeopleLab, detour: Detour) -> None:
    emails = [people.address_of(f"p{number:02}") for number in range(40)]
    file = people.write(*(f"{email},P,1,member" for email in emails))
    begun = threading.Event()

    def hold(seen: Seen, _forward: Forward) -> Reply | None:
        if seen.method == "POST":
            begun.set()
        return None

    detour.rules.append(hold)
    process = people.start("users", "onboard", "--file", file, "--yes", "-o", "json")
    assert begun.wait(60)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    ended = Ended(process.returncode, out, err)
    assert ended.code in {130, 0}, err
    for email in emails:
        account, user = people.account(email), people.user(email)
        assert (account is None) == (user is None)
        if account is not None:
            _is_complete(people, email)
    done = people("users", "onboard", "--file", file, "--yes", "-o", "json")
    assert done.code == 0, done.err
    for email in emails:
        _is_complete(people, email)


# Two operators


def test_second_operator_is_told_and_changes_nothing(people: PeopleLab, detour: Detour) -> None:
    email = people.address_of()
    held, free = threading.Event(), threading.Event()

    def hold(seen: Seen, _forward: Forward) -> Reply | None:
        if seen.method == "POST" and _matches(STEPS["account"], seen) and not held.is_set():
            held.set()
            free.wait(60)
        return None

    detour.rules.append(hold)
    first = people.start(*_words(email), home=people.folder / "first")
    assert held.wait(60)
    second = people.run(*_words(email), home=people.folder / "second")
    free.set()
    _, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    assert second.code == 7, second.err
    assert f"Another run is onboarding or offboarding {email} at this moment" in second.err
    assert detour.count("POST", STEPS["account"]) == 1
    _is_complete(people, email)
