"""``aspencli users onboard``: what exists on both sides, what is added, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aspencli.changes.step_log import StepState
from tests.cli.commands.people_lab import Account, PeopleLab, User, texts_below
from tests.local.auth0.detour import Detour
from tests.local.auth0.lab import ORGANIZATIONS

ORG, ORG2, _ = ORGANIZATIONS
KEYS = [
    *("email", "name", "group", "role", "account", "membership", "user", "invitation"),
    *("password_link", "changes", "auth0_user_id", "id", "reason", "outcome"),
]
PARTS = ("account", "membership", "user", "invitation")


def _parts(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[part] for part in PARTS)


def _is_complete(people: PeopleLab, email: str, role: str = "member") -> None:
    """Check that both sides have the person in group 1, and agree."""
    account, user = people.account(email), people.user(email)
    assert account is not None
    assert user is not None
    assert account.roles == {ORG: [role]}
    assert user == User(account.name, account.id, False, {ORG: role})


# One person


def test_onboard_creates_account_membership_user_and_invitation(people: PeopleLab) -> None:
    email = people.address_of()
    ended = people.onboard(email.upper(), role="viewer")
    assert ended.code == 0, ended.err
    (row,) = ended.json
    assert list(row) == KEYS
    assert _parts(row) == ("created", "created", "created", "created")
    assert (row["email"], row["role"], row["outcome"]) == (email, "viewer", "created")
    assert row["password_link"] == "skipped"
    _is_complete(people, email, "viewer")
    assert people.account(email) == Account(row["auth0_user_id"], "Nadia New", {ORG: ["viewer"]})
    assert people.invited(ORG).count(email) == 1
    assert "is onboarded in Redwood County Public Health Laboratory as viewer." in ended.err
    assert f"users offboard {email}" in ended.err
    run = people.last_run()
    assert (run["command"], run["outcome"]) == ("users onboard", "written")


def test_second_onboard_changes_nothing(people: PeopleLab) -> None:
    email = people.address_of()
    assert people.onboard(email).code == 0
    again = people.onboard(email)
    assert again.code == 0, again.err
    assert _parts(again.json[0]) == ("unchanged",) * 4
    assert again.json[0]["outcome"] == "unchanged"
    assert f"Nothing to change: {email} is complete." in again.err
    assert people.invited(ORG).count(email) == 1


def test_onboard_logs_each_step_before_and_after(people: PeopleLab) -> None:
    email = people.address_of()
    assert people.onboard(email).code == 0
    steps = people.steps()
    assert [one.step for one in steps] == [
        *("create account", "create user", "add role in database", "add member"),
        *("add role at provider", "send invitation", "commit"),
    ]
    assert {one.state for one in steps} == {StepState.DONE}
    account = people.account(email)
    assert account is not None
    assert steps[0].facts == {"account": account.id}


def test_dry_run_shows_every_part_and_writes_nothing(people: PeopleLab) -> None:
    email = people.address_of()
    ended = people.onboard(email, "--dry-run")
    assert ended.code == 0, ended.err
    assert _parts(ended.json[0]) == ("create", "create", "create", "create")
    assert "Dry run: nothing was written." in ended.err
    assert (people.account(email), people.user(email)) == (None, None)
    assert people.invited(ORG).count(email) == 0


@pytest.mark.parametrize("has_role", [True, False])
@pytest.mark.parametrize("is_member", [True, False])
@pytest.mark.parametrize("has_user", [True, False])
def test_person_who_has_part_of_it_gets_the_rest(
    people: PeopleLab, has_user: bool, is_member: bool, has_role: bool
) -> None:
    email = people.address_of()
    account = people.create_account(email)
    if is_member:
        people.join(account, ORG, *(["member"] if has_role else []))
    if has_user:
        people.execute(
            "INSERT INTO aspen.users (name, email, auth0_user_id, system_admin, agreed_to_tos,"
            " analytics_id) VALUES ('Ada Account', :email, :account, false, false, :email)",
            email=email,
            account=account,
        )
    ended = people.onboard(email, name="Another Name")
    assert ended.code == 0, ended.err
    (row,) = ended.json
    member = "created" if not is_member else "unchanged" if has_role else "updated"
    user = "updated" if has_user else "created"
    assert _parts(row) == ("unchanged", member, user, "created")
    assert row["outcome"] == "updated"
    assert "keeps the name 'Ada Account'" in ended.err
    _is_complete(people, email)


def test_user_without_account_gets_one(people: PeopleLab) -> None:
    email = people.address_of()
    people.execute(
        "INSERT INTO aspen.users (name, email, auth0_user_id, system_admin, agreed_to_tos,"
        " analytics_id) VALUES ('Una User', :email, 'auth0|gone', false, false, :email)",
        email=email,
    )
    ended = people.onboard(email)
    assert ended.code == 0, ended.err
    assert _parts(ended.json[0]) == ("created", "created", "updated", "created")
    _is_complete(people, email)
    account = people.account(email)
    assert account is not None
    assert account.name == "Una User"


def test_person_who_has_signed_in_gets_no_second_invitation(people: PeopleLab) -> None:
    email = people.address_of()
    assert people.onboard(email).code == 0
    people.identity.tokens(email)
    with people.identity.management() as api:
        for one in api.get(f"organizations/{ORG}/invitations").json():
            if one["invitee"]["email"] == email:  # as the service does when it is accepted
                api.delete(f"organizations/{ORG}/invitations/{one['id']}")
    assert people.onboard(email).json[0]["outcome"] == "unchanged"
    second = people.onboard(email, group="2")
    assert _parts(second.json[0]) == ("unchanged", "created", "updated", "created")
    assert (people.invited(ORG).count(email), people.invited(ORG2).count(email)) == (0, 1)


def test_expired_invitation_is_sent_again(people: PeopleLab) -> None:
    email = people.address_of()
    assert people.onboard(email).code == 0
    with people.identity.management() as api:
        for one in api.get(f"organizations/{ORG}/invitations").json():
            if one["invitee"]["email"] == email:
                api.delete(f"organizations/{ORG}/invitations/{one['id']}")
    again = people.onboard(email)
    assert _parts(again.json[0]) == ("unchanged", "unchanged", "unchanged", "created")
    assert people.invited(ORG).count(email) == 1


# What is refused


def test_unverified_account_is_refused(people: PeopleLab) -> None:
    email = people.address_of()
    account = people.create_account(email, email_verified=False)
    ended = people.onboard(email)
    assert (ended.code, ended.out) == (7, "")
    assert f"the account {account} with this address was never verified" in ended.err
    assert "nothing was written" in ended.err
    assert people.user(email) is None
    assert people.account(email) == Account(account, "Ada Account", {})


def test_blocked_account_is_unblocked_only_on_request(people: PeopleLab) -> None:
    email = people.address_of()
    people.create_account(email, blocked=True)
    refused = people.onboard(email)
    assert refused.code == 7
    assert "--unblock-account" in refused.err
    done = people.onboard(email, "--unblock-account")
    assert done.code == 0, done.err
    assert done.json[0]["account"] == "updated"
    account = people.account(email)
    assert account is not None
    assert not account.blocked
    _is_complete(people, email)


@pytest.mark.parametrize("side", ["database", "provider"])
def test_other_role_in_the_group_is_a_conflict(people: PeopleLab, side: str) -> None:
    email = people.address_of()
    if side == "database":
        assert people.onboard(email, role="admin").code == 0
    else:
        people.join(people.create_account(email), ORG, "admin")
    before = people.account(email), people.user(email)
    ended = people.onboard(email)
    assert ended.code == 7
    assert "is admin" in ended.err
    assert "not member" in ended.err
    assert (people.account(email), people.user(email)) == before


def test_account_of_another_user_is_a_conflict(people: PeopleLab) -> None:
    email, other = people.address_of(), people.address_of("other")
    account = people.create_account(email)
    people.execute(
        "INSERT INTO aspen.users (name, email, auth0_user_id, system_admin, agreed_to_tos,"
        " analytics_id) VALUES ('Other', :email, :account, false, false, :email)",
        email=other,
        account=account,
    )
    ended = people.onboard(email)
    assert ended.code == 7
    assert f"<{other}>" in ended.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "Missing an e-mail address or --file."),
        (("a@example.org", "--file", "x.csv", "--group", "1"), 2, "cannot be combined"),
        (("a@example.org", "--group", "1", "--invite", "--ticket"), 2, "cannot be combined"),
        (("not-an-address", "--group", "1"), 2, "Invalid e-mail address"),
        (("a@example.org", "--name", "A"), 2, "No group was given."),
        (("a@example.org", "--name", "A", "--group", "NOWHERE"), 6, "No such group: 'NOWHERE'"),
        (("a@example.org", "--group", "1", "--role", "owner"), 2, "Invalid role: 'owner'"),
        (("a@example.org", "--group", "1", "--name", " "), 2, "The name is blank"),
        (("nameless@example.org", "--group", "1"), 7, "the name is missing"),
    ],
)
def test_invalid_command_line_is_refused(
    people: PeopleLab, words: tuple[str, ...], code: int, said: str
) -> None:
    ended = people("users", "onboard", *words, "--yes")
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err


def test_group_without_organization_is_named(people: PeopleLab) -> None:
    people.execute("UPDATE aspen.groups SET auth0_org_id = 'org_none' WHERE id = 1")
    ended = people.onboard(people.address_of())
    assert ended.code == 7
    assert "organization org_none, which does not exist" in ended.err


def test_change_after_the_preview_is_a_conflict(people: PeopleLab, detour: Detour) -> None:
    email = people.address_of()

    def join_meanwhile(*_: object) -> None:
        # Between the preview and the confirmed run, the account appears.
        if detour.count("GET", "^roles$") == 2 and people.account(email) is None:
            people.create_account(email)

    detour.rules.append(join_meanwhile)
    ended = people.onboard(email)
    assert (ended.code, ended.out) == (7, "")
    assert "changed after the plan was shown" in ended.err
    assert people.user(email) is None
    assert people.last_run()["outcome"] == "rolled back"


# Links


def test_link_is_refused_without_a_terminal(people: PeopleLab) -> None:
    email = people.address_of()
    ended = people.onboard(email, "--ticket")
    assert (ended.code, ended.out) == (3, "")
    assert "only on a terminal" in ended.err
    assert people.account(email) is None


@pytest.fixture
def tickets(people: PeopleLab) -> None:
    with people.identity.management() as api:
        if api.post("tickets/password-change", json={}).status_code == 404:
            pytest.skip("this identity provider has no password tickets")


@pytest.mark.usefixtures("tickets")
def test_link_is_shown_once_and_stored_nowhere(people: PeopleLab) -> None:
    email = people.address_of()
    words = ("users", "onboard", email, "--name", "Tia", "--group", "1", "--ticket")
    seen = people.at_terminal(*words, answers=["y"])
    (line,) = [one for one in seen.splitlines() if "Password link for" in one]
    link = line.partition(": ")[2].strip()
    assert link.startswith(people.identity.issuer)
    assert people.identity.http.get(link).is_success
    assert seen.count(link) == 1
    _is_complete(people, email)
    assert people.invited(ORG).count(email) == 0
    secret = link.rpartition("=")[2].rstrip("#")
    assert secret not in texts_below(Path(os.environ["ASPEN_HOME"]))

    again = people.at_terminal(*words, answers=["y"])
    assert "Password link for" in again, "someone who never signed in can get another link"
    people.identity.tokens(email)
    assert "Nothing to change" in people.at_terminal(*words)


# Several people


def test_file_is_onboarded_with_one_row_per_person(people: PeopleLab) -> None:
    new, part, both = people.address_of(), people.address_of("part"), people.address_of("both")
    people.join(people.create_account(part, "Pat Part"), ORG, "admin")
    file = people.write(
        f"{new},Nadia New,1,member",
        f"{part},,RCPHL,Admin",
        f"{both},Bo Both,1,viewer",
        f"{both.upper()},,2,member",
    )
    ended = people("users", "onboard", "--file", file, "--yes", "-o", "json")
    assert ended.code == 0, ended.err
    rows = ended.json
    assert [row["email"] for row in rows] == [new, part, both, both]
    assert [row["outcome"] for row in rows] == ["created", "updated", "created", "updated"]
    _is_complete(people, new)
    _is_complete(people, part, "admin")
    account, user = people.account(both), people.user(both)
    assert account is not None
    assert user is not None
    assert account.roles == {ORG: ["viewer"], ORG2: ["member"]}
    assert user.roles == {ORG: "viewer", ORG2: "member"}
    assert "3 people onboarded, 0 unchanged." in ended.err
    again = people("users", "onboard", "--file", file, "--yes", "-o", "json")
    assert {row["outcome"] for row in again.json} == {"unchanged"}
    assert {row["password_link"] for row in again.json} == {"skipped"}
    assert "Nothing to change: everyone is complete." in again.err


def test_file_takes_group_and_role_from_options_and_names_from_map(people: PeopleLab) -> None:
    email = people.address_of()
    path = people.folder / "list.csv"
    path.write_text(f"Mail,name\n{email},Mia\n")
    words = ("--file", str(path), "--map", "Mail=email", "--group", "1", "--role", "viewer")
    ended = people("users", "onboard", *words, "--yes")
    assert ended.code == 0, ended.err
    _is_complete(people, email, "viewer")


def test_file_from_stdin_needs_the_confirmation_as_an_option(people: PeopleLab) -> None:
    email = people.address_of()
    text = f"email,name,group,role\n{email},Stan,1,member\n"
    refused = people("users", "onboard", "--file", "-", stdin=text)
    assert refused.code == 3
    assert "standard input is the list of people" in refused.err
    assert people("users", "onboard", "--file", "-", "--yes", stdin=text).code == 0
    _is_complete(people, email)


def test_every_bad_line_of_a_file_is_listed(people: PeopleLab) -> None:
    good = people.address_of()
    file = people.write(
        f"{good},Good,1,member",
        "nobody,Nick,1,member",
        "a@example.org,A,,member",
        "b@example.org,B,1,owner",
        f"{good},Good,1,viewer",
        "#N/A,C,1,member",
    )
    ended = people("users", "onboard", "--file", file, "--yes")
    assert (ended.code, ended.out) == (2, "")
    said = ended.err
    assert "line 3: email:" in said
    assert "line 4: group: is blank" in said
    assert 'line 5: role: "owner" is not a role' in said
    assert "line 6: email: duplicate of line 2" in said
    assert "line 7: email:" in said
    assert "5 problems found; nothing was written." in said
    assert people.account(good) is None


def test_every_person_with_a_conflict_is_listed(people: PeopleLab) -> None:
    good, unverified = people.address_of(), people.address_of("unverified")
    people.create_account(unverified, email_verified=False)
    file = people.write(f"{good},Good,1,member", f"{unverified},U,1,member", "x@example.org,,1,")
    ended = people("users", "onboard", "--file", file, "--yes")
    assert (ended.code, ended.out) == (7, "")
    assert f"line 3: {unverified}: the account" in ended.err
    assert "line 4: x@example.org: the name is missing" in ended.err
    assert "2 of 3 people cannot be onboarded; nothing was written." in ended.err
    assert people.account(good) is None


def test_lists_take_the_place_of_requests_per_person(people: PeopleLab, detour: Detour) -> None:
    rows = [f"{people.address_of()},P{number},1,member" for number in range(30)]
    ended = people("users", "onboard", "--file", people.write(*rows), "--dry-run")
    assert ended.code == 0, ended.err
    assert len(detour.calls) <= 8


# Without credentials


def test_create_without_account_id_explains_onboarding(people: PeopleLab) -> None:
    email = people.address_of()
    words = ("users", "create", "--name", "Carla", "--email", email, "--group", "1")
    ended = people(*words, "--role", "admin")
    assert (ended.code, ended.out) == (2, "")
    assert "Missing --auth0-user-id" in ended.err
    assert f"users onboard {email} --name Carla --group 1 --role admin" in ended.err
    assert "create" in ended.err
    assert (people.account(email), people.user(email)) == (None, None)


# Addresses of the provider


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:99999",
        "http://[::1",
        "ftp://127.0.0.1",
        "http://127.0.0.1:1/\x01",
        "http://user:s3cr3t-horse@127.0.0.1:1",
        "ftp://user:s3cr3t-horse@127.0.0.1:1",
        "https://",
    ],
)
def test_invalid_address_of_the_provider_is_reported(people: PeopleLab, address: str) -> None:
    words = ("users", "onboard", people.address_of(), "--name", "N", "--group", "1", "--dry-run")
    ended = people(*words, env={"AUTH0_MANAGEMENT_DOMAIN": address})
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert "AUTH0_MANAGEMENT_DOMAIN" in ended.err
    assert "s3cr3t-horse" not in ended.err


def test_blanks_around_credentials_are_ignored(people: PeopleLab) -> None:
    names = ("DOMAIN", "CLIENT_ID", "CLIENT_SECRET")
    given = {name: people.environment[name] for name in map("AUTH0_MANAGEMENT_{}".format, names)}
    people.extra.update({name: f" {value}\n" for name, value in given.items()})
    assert people.onboard(people.address_of(), "--dry-run").code == 0


def test_proxy_settings_that_httpx_cannot_parse_do_no_harm(people: PeopleLab) -> None:
    ended = people(
        *("users", "onboard", people.address_of(), "--name", "N", "--group", "1", "--dry-run"),
        env={"NO_PROXY": "::1/128,10.0.0.0/8,[fe80::1%eth0]", "ALL_PROXY": "http://127.0.0.1:1"},
    )
    assert ended.code == 0, ended.err
