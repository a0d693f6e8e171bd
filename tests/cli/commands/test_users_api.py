"""``aspencli users`` through the API."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from aspen.database.models import User
from tests.cli.commands.api_lab import ApiLab, Relay
from tests.cli.commands.ending import Ended
from tests.local.auth0.lab import Identity
from tests.remote.naughty import Naughty, Reply, Seen, reply

Serving = Callable[..., Naughty]
ME_KEYS = [
    *("id", "name", "groups", "agreed_to_tos", "acknowledged_policy_version"),
    "gisaid_submitter_id",
]
ADA = (
    *("--name", "Ada Love", "--email", "ada@lab.example.org"),
    *("--auth0-user-id", "auth0|ada", "--group-id", "1", "--via", "api", "--yes"),
)


# me


def test_me_keys_are_stable(shared_lab: ApiLab) -> None:
    (row,) = shared_lab("users", "me", "-o", "json", who="multi").json
    assert list(row) == ME_KEYS
    assert row["groups"] == [
        {"id": 1, "name": "Redwood County Public Health Laboratory", "roles": ["member"]},
        {"id": 2, "name": "Bayside Department of Public Health", "roles": ["admin"]},
    ]


def test_me_table_shows_groups_with_roles(shared_lab: ApiLab) -> None:
    out = shared_lab("user", "me", "-o", "table").out
    assert "Redwood County Public Health Laboratory (member)" in " ".join(out.split())


def test_me_with_invalid_token_exits_with_4(shared_lab: ApiLab) -> None:
    ended = shared_lab("users", "me", env={"ASPEN_TOKEN": "nonsense"})
    assert (ended.code, ended.out) == (4, "")


# update-me


def _me(lab: ApiLab, who: str = "member") -> User:
    with lab.service.database.reading() as session:
        return session.query(User).filter_by(auth0_user_id=f"auth0|{who}").one()


def test_update_me_changes_only_given_fields(people_lab: ApiLab, identity: Identity) -> None:
    before = _me(people_lab)
    words = ("--name", "Ada Love", "--gisaid-submitter-id", "ada7", "-o", "json", "--yes")
    ended = people_lab("users", "update-me", *words)
    assert ended.code == 0, ended.err
    assert (ended.json[0]["name"], ended.json[0]["gisaid_submitter_id"]) == ("Ada Love", "ada7")
    after = _me(people_lab)
    assert (after.name, after.gisaid_submitter_id) == ("Ada Love", "ada7")
    assert after.agreed_to_tos == before.agreed_to_tos
    assert after.acknowledged_policy_version == before.acknowledged_policy_version
    with identity.management() as management:
        assert management.get("users/auth0|member").json()["name"] == "Ada Love"
    again = people_lab("users", "update-me", *words)
    assert (again.code, again.out) == (0, ended.out.replace('"updated"', '"unchanged"'))
    assert "Nothing to change" in again.err


def test_update_me_records_terms_and_policy_version(people_lab: ApiLab) -> None:
    flags = ("--agreed-to-tos", "--acknowledged-policy-version", "2022-06-22", "--yes")
    assert people_lab("user", "update_me", *flags).code == 0
    me = _me(people_lab)
    assert (me.agreed_to_tos, str(me.acknowledged_policy_version)) == (True, "2022-06-22")
    assert people_lab("users", "update-me", "--not-agreed-to-tos", "--yes").code == 0
    assert not _me(people_lab).agreed_to_tos


def _undo(lab: ApiLab, *words: str, who: str = "member") -> Ended:
    (run, *_) = lab("history", "list", "-o", "json").json
    return lab("users", "undo", run["run"], *words, who=who)


def test_update_me_is_undone_through_api(people_lab: ApiLab, identity: Identity) -> None:
    before = _me(people_lab)
    with identity.management() as management:
        management.patch("users/auth0|member", json={"name": before.name}).raise_for_status()
    ended = people_lab("users", "update-me", "--name", "Ada Love", "--not-agreed-to-tos", "--yes")
    assert ended.code == 0, ended.err
    (undo,) = re.findall(r"Undo it: aspencli (.+)$", ended.err, re.M)
    assert people_lab(*undo.split(), "--dry-run").code == 0
    undone = people_lab(*undo.split(), "--yes", "-o", "json")
    assert [row["outcome"] for row in undone.json] == ["updated", "updated"], undone.err
    after = _me(people_lab)
    assert (after.name, after.agreed_to_tos) == (before.name, before.agreed_to_tos)
    with identity.management() as management:
        assert management.get("users/auth0|member").json()["name"] == before.name
    (run, *_) = people_lab("history", "list", "-o", "json").json
    assert (run["command"], run["outcome"]) == ("users undo", "written")
    again = people_lab(*undo.split(), "--yes")
    assert (again.code, "the old values are in place" in again.err) == (0, True), again.err
    assert _undo(people_lab, "--yes").code == 0  # of the undo
    assert _me(people_lab).name == "Ada Love"


def test_undo_of_update_me_skips_what_it_cannot_restore(people_lab: ApiLab) -> None:
    words = ("--name", "Ada Love", "--gisaid-submitter-id", "ada7", "--not-agreed-to-tos", "--yes")
    assert people_lab("users", "update-me", *words).code == 0
    with people_lab.service.database.begin() as session:
        session.get_one(User, 3).name = "Else"
    ended = _undo(people_lab, "--yes", "-o", "json")
    assert ended.code == 7, ended.err
    assert {row["field"]: row["outcome"] for row in ended.json} == {
        "agreed_to_tos": "updated",
        "gisaid_submitter_id": "skipped",
        "name": "skipped",
    }
    assert "the API cannot clear it" in ended.err
    assert "changed since" in ended.err
    me = _me(people_lab)
    assert (me.name, me.gisaid_submitter_id, me.agreed_to_tos) == ("Else", "ada7", True)


def test_undo_of_update_me_is_refused_to_someone_else(people_lab: ApiLab) -> None:
    assert people_lab("users", "update-me", "--not-agreed-to-tos", "--yes").code == 0
    ended = _undo(people_lab, "--yes", who="viewer")
    assert ended.code == 3, ended.err
    assert "changed the account of user 3, but you are signed in as user 4" in ended.err


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ((), 2, "Nothing to update"),
        (("--name", " "), 2, "The name is blank"),
        (("--acknowledged-policy-version", "soon"), 2, "is not a valid date"),
        (("--name", "Ada"), 3, "nothing was written"),
        (("--name", "Ada", "--dry-run"), 0, "Dry run: nothing was written."),
    ],
)
def test_invalid_unconfirmed_or_dry_run_update_me_changes_nothing(
    people_lab: ApiLab, flags: tuple[str, ...], code: int, words: str
) -> None:
    before = _me(people_lab).name
    ended = people_lab("users", "update-me", *flags)
    assert (ended.code, words in ended.err) == (code, True), ended.err
    assert _me(people_lab).name == before


# create


def test_create_through_api_refuses_role_admin(api_lab: ApiLab) -> None:
    ended = api_lab("users", "create", *ADA, "--role", "admin", who="sysadmin")
    assert (ended.code, ended.out) == (2, "")
    assert "--via db" in ended.err


def test_create_requires_system_admin(api_lab: ApiLab) -> None:
    ended = api_lab("users", "create", *ADA, who="gadmin")
    assert (ended.code, ended.out) == (4, "")
    assert "Only a system administrator" in ended.err


def test_create_of_existing_user_is_conflict(api_lab: ApiLab) -> None:
    assert api_lab("users", "create", *ADA, who="sysadmin").code == 0
    again = api_lab("users", "create", *ADA, who="sysadmin")
    assert (again.code, again.out) == (7, "")


def test_failed_create_suggests_database_backend(api_lab: ApiLab, serving: Serving) -> None:
    def route(seen: Seen) -> Reply:
        if seen.method == "POST":
            return reply(500, "Internal Server Error")
        return Relay(api_lab.service.url, "POST", [])(seen)

    address = serving(route=route).url
    ended = api_lab("users", "create", *ADA, who="sysadmin", env={"ASPEN_API": address})
    assert (ended.code, ended.out) == (1, "")
    assert "--via db" in ended.err


@pytest.mark.parametrize(("delivered", "again"), [(True, 7), (False, 0)])
def test_create_with_lost_response_is_settled_by_second_run(
    api_lab: ApiLab, serving: Serving, delivered: bool, again: int
) -> None:
    address = serving(route=Relay(api_lab.service.url, "POST", [delivered])).url
    ended = api_lab("users", "create", *ADA, who="sysadmin", env={"ASPEN_API": address})
    assert (ended.code, ended.out) == (5, "")
    assert "Run the same command again" in ended.err
    assert api_lab("users", "create", *ADA, who="sysadmin").code == again
