"""Several processes that sign in, switch, and renew at the same time."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.auth.conftest import Lab
from tests.auth.test_accounts import ADMIN, MEMBER, OTHER, _active, _expire, _listed, _user
from tests.local.auth0.lab import claims_of


@pytest.fixture
def two(lab: Lab) -> Lab:
    """Return a lab that is signed in as a member, and as an administrator, which is active."""
    lab.keep(MEMBER)
    lab.keep(ADMIN, "admin")
    return lab


def _ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    ends = [process.communicate(timeout=180) for process in processes]
    return [(process.returncode, *end) for process, end in zip(processes, ends, strict=True)]


def _waiting(lab: Lab, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """Start a login, and return it with the code that it waits for."""
    process = lab.start("auth", "login", *arguments)
    return process, lab.until(process, "shows the code")[-1].split()[-1]


@pytest.mark.parametrize("store", ["file", "keyring"])
def test_simultaneous_logins_keep_every_account(lab: Lab, store: str) -> None:
    users = {"one": MEMBER, "two": ADMIN, "three": OTHER}
    started = {name: _waiting(lab, "--as", name, "--store", store) for name in users}
    for name, (_process, code) in started.items():
        lab.identity.decide(code, users[name])
    for ended, _out, err in _ends([process for process, _code in started.values()]):
        assert ended == 0, err
    assert {name: row["email"] for name, row in _listed(lab).items()} == users
    assert _active(lab) in users
    for name, email in users.items():
        assert _user(lab, "--account", name) == email


def test_simultaneous_first_logins_of_two_users_keep_both(lab: Lab) -> None:
    first, second = _waiting(lab), _waiting(lab)
    lab.identity.decide(first[1], MEMBER)
    lab.identity.decide(second[1], OTHER)
    assert [code for code, _, _ in _ends([first[0], second[0]])] == [0, 0]
    assert sorted(_listed(lab)) == sorted([MEMBER, OTHER])


def test_second_user_is_refused_for_name_taken_during_login(lab: Lab) -> None:
    first, second = _waiting(lab, "--as", "shared"), _waiting(lab, "--as", "shared")
    lab.identity.decide(first[1], MEMBER)
    assert _ends([first[0]])[0][0] == 0
    lab.identity.decide(second[1], OTHER)
    ((code, _out, err),) = _ends([second[0]])
    assert code == 4
    assert f"Account shared on mylab is for {MEMBER}, but Viewer Example" in err
    assert {name: row["email"] for name, row in _listed(lab).items()} == {"shared": MEMBER}
    assert lab.events("token.revoked") == 1


def test_simultaneous_logins_of_one_account_leave_one_valid_sign_in(lab: Lab) -> None:
    first, second = _waiting(lab, "--as", "me"), _waiting(lab, "--as", "me")
    for _process, code in (first, second):
        lab.identity.decide(code, MEMBER)
    assert [code for code, _, _ in _ends([first[0], second[0]])] == [0, 0]
    assert len(lab.kept()) == 1
    assert lab.events("token.revoked") == 1
    _expire(lab, MEMBER)
    assert _user(lab) == MEMBER  # renewed, so it is the one that was not revoked


def test_simultaneous_commands_renew_each_account_once(two: Lab) -> None:
    for email in (MEMBER, ADMIN):
        _expire(two, email)
    issued = two.events("token.issued")
    names = [MEMBER, "admin"] * 3
    ends = _ends([two.start("--account", name, "auth", "token") for name in names])
    assert [code for code, _, _ in ends] == [0] * 6, ends
    users = {
        name: {claims_of(out)["email"] for _, out, _ in ends[number::2]}
        for number, name in enumerate(names[:2])
    }
    assert users == {MEMBER: {MEMBER}, "admin": {ADMIN}}
    assert two.events("token.issued") == issued + 2
    assert two.events("refresh.reused") == 0


def test_simultaneous_switches_and_renewals_mix_no_accounts(two: Lab) -> None:
    for email in (MEMBER, ADMIN):
        _expire(two, email)
    names = {MEMBER: MEMBER, "admin": ADMIN}
    switches = [two.start("auth", "switch", *words) for words in ((), ("admin",), (MEMBER,), ())]
    tokens = {name: two.start("--account", name, "auth", "token") for name in names}
    plain = two.start("auth", "token")
    assert [code for code, _, _ in _ends(switches)] == [0] * 4
    for name, process in tokens.items():
        ((code, out, err),) = _ends([process])
        assert code == 0, err
        assert claims_of(out)["email"] == names[name]
    ((code, out, err),) = _ends([plain])
    assert code == 0, err
    assert claims_of(out)["email"] in names.values()
    assert {name: row["email"] for name, row in _listed(two).items()} == names
    assert _active(two) in names
    assert len(two.kept()) == 2
    assert two.events("refresh.reused") == 0


def _renewing(lab: Lab, email: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a command that has begun to renew its sign-in, and waits for the provider."""
    _expire(lab, email)
    lab.identity.turn(throttled=1, retry_after=5)
    process = lab.start(*arguments)
    lab.until(process, "retrying in 5 s")
    return process


def test_running_command_keeps_its_account_during_switch(two: Lab) -> None:
    process = _renewing(two, ADMIN, "auth", "status", "-o", "json")
    assert two.run("auth", "switch", MEMBER).code == 0
    ((code, out, err),) = _ends([process])
    assert code == 0, err
    row: dict[str, Any] = json.loads(out)[0]
    assert (row["account"], row["subject"], row["active"]) == ("admin", "auth0|gadmin", False)
    assert row["name"] == "Gale Admin"
    assert _user(two) == MEMBER
    assert sorted(_listed(two)) == ["admin", MEMBER]


def test_login_waits_for_renewal_of_same_account(two: Lab) -> None:
    process = _renewing(two, ADMIN, "auth", "token")
    waiting, code = _waiting(two, "--as", "admin", "--force")
    two.identity.decide(code, ADMIN)
    ends = _ends([process, waiting])
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert claims_of(ends[0][1])["email"] == ADMIN
    assert len(two.kept()) == 2
    _expire(two, ADMIN)
    assert _user(two) == ADMIN
    assert two.events("refresh.reused") == 0


def test_logout_during_renewal_signs_out(two: Lab) -> None:
    process = _renewing(two, ADMIN, "auth", "token")
    logout = two.run("auth", "logout")
    assert logout.code == 0, logout.err
    ((code, out, err),) = _ends([process])
    assert code == 0, err
    assert claims_of(out)["email"] == ADMIN
    assert list(_listed(two)) == [MEMBER]
    assert len(two.kept()) == 1
