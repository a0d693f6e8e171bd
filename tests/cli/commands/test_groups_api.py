"""``aspencli groups`` through the API, with a real identity provider behind it."""

from __future__ import annotations

import datetime as dt
import signal
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from aspen.database.models import Group
from tests.cli.commands.api_lab import ApiLab, Relay
from tests.cli.commands.ending import Ended
from tests.local.auth0.lab import ORGANIZATIONS, Identity
from tests.remote.naughty import Naughty, Reply, Seen, stall

CREATE_KEYS = [
    *("status", "id", "name", "prefix", "default_tree_location"),
    *("address", "division", "location", "submitting_lab", "outcome"),
]
MEMBER_KEYS = [
    *("id", "name", "email", "role", "agreed_to_tos", "acknowledged_policy_version"),
]
INVITATION_KEYS = ["id", "email", "inviter", "created_at", "expires_at", "lapsed"]


def _address() -> str:
    return f"{uuid4().hex[:8]}@example.org"  # the tests of this module share the provider


def _groups(lab: ApiLab) -> list[str]:
    with lab.service.database.reading() as session:
        return list(session.scalars(sa.select(Group.name).order_by(Group.id)))


def _invited(identity: Identity, organization: str = ORGANIZATIONS[0]) -> list[str]:
    with identity.management() as management:
        found = management.get(f"organizations/{organization}/invitations").json()
    return [each["invitee"]["email"] for each in found]


# create


def _create(lab: ApiLab, *flags: str, who: str = "sysadmin", **changes: Any) -> Ended:
    unique = uuid4().hex[:8]
    options = {"name": f"Group {unique}", "prefix": unique, "default-tree-location": "1", **changes}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return lab("groups", "create", *words, *flags, who=who)


def test_group_create_also_creates_auth0_organization(
    people_lab: ApiLab, identity: Identity
) -> None:
    ended = _create(people_lab, "--yes", "-o", "json", "--address", "Here 1", division="California")
    assert ended.code == 0, ended.err
    (row,) = ended.json
    assert list(row) == CREATE_KEYS
    assert (row["status"], row["address"], row["division"]) == ("created", "Here 1", "California")
    assert "Created group" in ended.err
    with people_lab.service.database.reading() as session:
        made = session.get_one(Group, row["id"])
        assert (made.name, made.prefix) == (row["name"], row["prefix"])
        assert made.division == "California"
        organization = made.auth0_org_id
    with identity.management() as management:
        known = management.get(f"organizations/{organization}").json()
    assert known["display_name"] == row["name"]


def test_dry_run_creates_no_group(people_lab: ApiLab) -> None:
    before = _groups(people_lab)
    ended = _create(people_lab, "--dry-run", "-o", "json")
    assert (ended.code, ended.json[0]["status"], ended.json[0]["id"]) == (0, "create", None)
    assert _groups(people_lab) == before


def test_group_create_without_confirmation_creates_nothing(people_lab: ApiLab) -> None:
    before = _groups(people_lab)
    assert _create(people_lab).code == 3
    assert _groups(people_lab) == before


@pytest.mark.parametrize(
    ("who", "changes", "code", "words"),
    [
        ("gadmin", {}, 4, "Only a system administrator"),
        ("sysadmin", {"name": "X"}, 2, "name: "),
        ("sysadmin", {"name": "  "}, 2, "The name is blank"),
        ("sysadmin", {"prefix": "RCPHL"}, 7, "already exists"),
        ("sysadmin", {"default-tree-location": "999999"}, 6, "locations search"),
        ("sysadmin", {"default-tree-location": "Atlantis"}, 6, "No such location: 'Atlantis'"),
    ],
)
def test_refused_group_create_creates_nothing(
    people_lab: ApiLab, who: str, changes: dict[str, str], code: int, words: str
) -> None:
    before = _groups(people_lab)
    ended = _create(people_lab, "--yes", who=who, **changes)
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err
    assert _groups(people_lab) == before


# members


def test_group_members_has_documented_keys_on_both_backends(people_lab: ApiLab) -> None:
    for backend in ("db", "api"):
        ended = people_lab("groups", "members", "RCPHL", "--via", backend, "-o", "json")
        assert ended.code == 0, ended.err
        assert [list(row) for row in ended.json] == [MEMBER_KEYS] * 5
        assert ended.json[0]["email"] == "gadmin@example.org"
        assert {row["role"] for row in ended.json} == {"admin", "member", "viewer"}


def test_members_and_invitations_of_other_group_are_hidden(people_lab: ApiLab) -> None:
    for command in ("members", "show", "invites"):
        words = ("groups", command, "2", *(("--via", "api") if command != "invites" else ()))
        ended = people_lab(*words)
        assert (ended.code in {4, 6}, ended.out) == (True, "")


# invite and invites


def _invite(lab: ApiLab, *words: str, who: str = "gadmin", **options: Any) -> Ended:
    return lab("groups", "invite", *words, "-o", "json", "--yes", who=who, **options)


def _told(ended: Ended) -> list[tuple[str, str]]:
    return [(row["email"], row["status"]) for row in ended.json]


def test_invitation_is_sent_once_without_again_option(
    people_lab: ApiLab, identity: Identity
) -> None:
    one, two = _address(), _address()
    ended = _invite(people_lab, "--group", "1", "--role", "viewer", one, one.upper(), two)
    assert ended.code == 0, ended.err
    assert _told(ended) == [(one.upper(), "invited"), (two, "invited")]
    again = _invite(people_lab, "--group", "1", one, "member@example.org")
    assert (again.code, dict(_told(again))) == (0, {one: "pending", "member@example.org": "member"})
    assert [each.lower() for each in _invited(identity)].count(one) == 1
    assert _told(_invite(people_lab, "--org", "1", "--again", one)) == [(one, "invited")]
    assert [each.lower() for each in _invited(identity)].count(one) == 2


def test_invite_reads_addresses_from_file_and_stdin(people_lab: ApiLab, tmp_path: Any) -> None:
    one, two, file = _address(), _address(), tmp_path / "people.csv"
    file.write_text(f"name,email\nAda,{one}\n")
    ended = _invite(people_lab, "RCPHL", "--from", str(file), "-", stdin=f"{two}\n")
    assert ended.code == 0, ended.err
    assert set(_told(ended)) == {(one, "invited"), (two, "invited")}


@pytest.mark.parametrize("option", ["--group", "--group-id"])
def test_invite_accepts_group_as_argument_or_option(people_lab: ApiLab, option: str) -> None:
    for words in (("1", _address()), (option, "1", _address()), (_address(), "--org", "1")):
        ended = _invite(people_lab, *words)
        assert (ended.code, [status for _, status in _told(ended)]) == (0, ["invited"]), ended.err


def test_system_admin_invites_without_access_to_members(people_lab: ApiLab) -> None:
    one = _address()
    ended = _invite(people_lab, "--group", "2", one, who="sysadmin")
    assert (ended.code, _told(ended)) == (0, [(one, "invited")])
    assert "do not have permission to see members" in ended.err


def test_dry_run_sends_no_invitation(people_lab: ApiLab, identity: Identity) -> None:
    one = _address()
    ended = _invite(people_lab, "--group", "1", one, "viewer@example.org", "--dry-run")
    assert _told(ended) == [("viewer@example.org", "member"), (one, "create")]
    assert one not in _invited(identity)


@pytest.mark.parametrize(
    ("words", "who", "code", "said"),
    [
        (("--group", "1", "no-at.example.org@"), "gadmin", 2, "Invalid e-mail address"),
        (("--group", "1"), "gadmin", 2, "No identifiers given"),
        (("a@example.org",), "gadmin", 2, "No group was given"),
        (("1", "--group", "2", "a@example.org"), "gadmin", 2, "Two different groups were given"),
        (("--group", "1", "--role", "owner", "a@example.org"), "gadmin", 2, "owner"),
        (("--group", "1", "a@example.org"), "member", 4, "Only an administrator of group 1"),
        (("--group", "NOPE", "a@example.org"), "gadmin", 6, "You have no role in a group"),
    ],
)
def test_refused_invitation_is_reported_with_reason(
    people_lab: ApiLab, words: tuple[str, ...], who: str, code: int, said: str
) -> None:
    ended = _invite(people_lab, *words, who=who)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err


def test_failed_invitations_are_reported_with_reason(people_lab: ApiLab) -> None:
    with people_lab.service.database.begin() as session:
        session.get_one(Group, 1).auth0_org_id = "org_gone"
    one, two = _address(), _address()
    ended = _invite(people_lab, "--group", "1", one, two, who="sysadmin")
    assert ended.code == 1
    assert _told(ended) == [(one, "failed"), (two, "failed")]
    assert all(row["error"] for row in ended.json)
    assert "2 of 2 invitations failed" in ended.err


def test_invitations_are_listed_with_expiry(people_lab: ApiLab) -> None:
    one = _address()
    _invite(people_lab, "--group", "1", one)
    ended = people_lab("groups", "invites", "RCPHL", "-o", "json")
    assert ended.code == 0, ended.err
    assert all(list(row) == INVITATION_KEYS for row in ended.json)
    row = next(row for row in ended.json if row["email"] == one)
    assert row["lapsed"] is False
    assert dt.datetime.fromisoformat(row["expires_at"]) > dt.datetime.now(dt.UTC)
    assert row["inviter"] == "Gale Admin"


@pytest.mark.parametrize("delivered", [[True], [False], [False, True]], ids=str)
def test_invitation_with_lost_response_is_sent_once(
    people_lab: ApiLab, serving: Callable[..., Naughty], delivered: list[bool]
) -> None:
    one = _address()
    address = serving(route=Relay(people_lab.service.url, "POST", delivered)).url
    ended = _invite(people_lab, "1", one, env={"ASPEN_API": address})
    assert (ended.code, _told(ended)) == (0, [(one, "invited")])
    found = people_lab("groups", "invites", "1", "-o", "json").json
    assert [row["email"] for row in found].count(one) == 1


def test_lost_invite_response_without_list_access_is_unknown(
    people_lab: ApiLab, serving: Callable[..., Naughty]
) -> None:
    one, two = _address(), _address()
    address = serving(route=Relay(people_lab.service.url, "POST", [True])).url
    ended = _invite(people_lab, "2", one, two, who="sysadmin", env={"ASPEN_API": address})
    assert (ended.code, ended.out) == (5, "")
    assert "may have been" in ended.err


def test_interrupted_invite_reports_sent_ones_and_can_be_rerun(
    people_lab: ApiLab, serving: Callable[..., Naughty]
) -> None:
    one, two = _address(), _address()
    sent: list[str] = []
    pass_on = Relay(people_lab.service.url, "POST", [])

    def route(seen: Seen) -> Reply:
        sent.extend(seen.json["emails"] if seen.method == "POST" else ())
        return stall(30) if two in sent else pass_on(seen)

    words = ("groups", "invite", "1", one, two, "--yes", "--api", serving(route=route).url)
    process = people_lab.start(*words, "-o", "json", who="gadmin")
    deadline = time.monotonic() + 120
    while two not in sent:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert _told(Ended(130, out, err)) == [(one, "invited")]
    assert "1 of 2 addresses were processed before the error" in err
    assert people_lab("history", "list", "-o", "json").json[0]["outcome"] == "unfinished"
    assert dict(_told(_invite(people_lab, "1", one, two))) == {one: "pending", two: "invited"}


def test_rerun_after_lost_create_response_creates_no_second_group(
    people_lab: ApiLab, serving: Callable[..., Naughty]
) -> None:
    address = serving(route=Relay(people_lab.service.url, "POST", [True])).url
    words = ("groups", "create", "--name", "Lost County", "--prefix", f"L{uuid4().hex[:8]}")
    place = ("--default-tree-location", "north america/usa/california", "--yes")
    ended = people_lab(*words, *place, who="sysadmin", env={"ASPEN_API": address})
    assert (ended.code, ended.out) == (5, "")
    assert "Run the same command again" in ended.err
    assert people_lab(*words, *place, who="sysadmin").code == 7
    assert _groups(people_lab).count("Lost County") == 1
