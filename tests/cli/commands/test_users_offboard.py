"""``aspencli users offboard``: everything that lets a person in is removed, on both sides."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from tests.api.conftest import ApiFactory, managed_by
from tests.cli.commands.ending import Ended
from tests.cli.commands.people_lab import PeopleLab, User
from tests.local.auth0.detour import Detour
from tests.local.auth0.lab import CLIENT, ORGANIZATIONS

ORG, ORG2, _ = ORGANIZATIONS
KEYS = [
    *("id", "email", "name", "sessions", "memberships", "invitations", "roles", "account"),
    *("samples", "outcome"),
]


@pytest.fixture
def email(people: PeopleLab) -> str:
    """Return the address of a member of group 1 who is also a viewer of group 2."""
    email = people.address_of()
    assert people.onboard(email).code == 0
    assert people.onboard(email, group="2", role="viewer").code == 0
    return email


def _offboard(people: PeopleLab, email: str, *words: str) -> Ended:
    return people("users", "offboard", email, "--yes", "-o", "json", *words)


def _has_no_way_in(people: PeopleLab, email: str) -> None:
    user = people.user(email)
    assert user is not None
    assert user.auth0_user_id.startswith("offboarded|auth0|")
    assert (user.system_admin, user.roles) == (False, {})
    account = people.account(email)
    assert account is None or account.roles == {}
    for place in ORGANIZATIONS:
        assert email not in people.invited(place)


def test_offboard_removes_memberships_roles_and_invitations(people: PeopleLab, email: str) -> None:
    before = people.account(email)
    assert before is not None
    ended = _offboard(people, email)
    assert ended.code == 0, ended.err
    (row,) = ended.json
    assert list(row) == KEYS
    assert (row["email"], row["outcome"], row["account"]) == (email, "updated", "unchanged")
    assert len(row["memberships"]) == len(row["roles"]) == len(row["invitations"]) == 2
    _has_no_way_in(people, email)
    user = people.user(email)
    assert user is not None
    assert user.auth0_user_id == f"offboarded|{before.id}"
    after = people.account(email)
    assert after is not None
    assert not after.blocked
    assert "every request with their tokens is rejected" in ended.err
    run = people.last_run()
    assert (run["command"], run["outcome"]) == ("users offboard", "written")


def test_second_offboard_changes_nothing(people: PeopleLab, email: str) -> None:
    assert _offboard(people, email).code == 0
    again = _offboard(people, email)
    assert again.code == 0, again.err
    assert again.json[0]["outcome"] == "unchanged"
    assert f"Nothing to change: nothing lets {email} in." in again.err


def test_dry_run_offboards_nothing(people: PeopleLab, email: str) -> None:
    before = people.account(email), people.user(email)
    ended = _offboard(people, email, "--dry-run")
    assert ended.code == 0, ended.err
    assert (ended.json[0]["outcome"], ended.json[0]["sessions"]) == ("update", "delete")
    assert (people.account(email), people.user(email)) == before


def test_account_is_blocked_or_deleted_only_on_request(people: PeopleLab, email: str) -> None:
    blocked = _offboard(people, email, "--block-account")
    assert blocked.json[0]["account"] == "updated"
    account = people.account(email)
    assert account is not None
    assert account.blocked
    deleted = _offboard(people, email, "--delete-account")
    assert deleted.code == 0, deleted.err
    assert deleted.json[0]["account"] == "deleted"
    assert people.account(email) is None
    _has_no_way_in(people, email)
    assert _offboard(people, email, "--delete-account").json[0]["outcome"] == "unchanged"


@pytest.mark.parametrize("key", ["id", "email", "account"])
def test_person_is_found_by_each_key(people: PeopleLab, email: str, key: str) -> None:
    (row,) = people("users", "show", email, "-o", "json").json
    chosen = {"id": str(row["id"]), "email": email.upper(), "account": row["auth0_user_id"]}[key]
    assert _offboard(people, chosen).code == 0
    _has_no_way_in(people, email)


def test_person_without_user_loses_account_rights(people: PeopleLab) -> None:
    email = people.address_of()
    people.join(people.create_account(email), ORG, "member")
    ended = _offboard(people, email)
    assert ended.code == 0, ended.err
    assert ended.json[0]["id"] is None
    account = people.account(email)
    assert account is not None
    assert account.roles == {}


def test_unknown_person_is_not_found(people: PeopleLab) -> None:
    ended = _offboard(people, "nobody@example.org")
    assert (ended.code, ended.out) == (6, "")
    assert "No such user: 'nobody@example.org'" in ended.err


def test_only_admin_of_a_group_is_named(people: PeopleLab) -> None:
    ended = _offboard(people, "g3admin@example.org", "--dry-run")
    assert "is the only admin of Valley State University Virology" in ended.err


def test_uploads_stay(people: PeopleLab) -> None:
    count = "SELECT count(*) FROM aspen.samples WHERE uploaded_by_id = 2"
    with people.database.reading() as session:
        before = session.scalar(sa.text(count))
        found = session.execute(sa.text("SELECT email FROM aspen.users WHERE id = 2")).scalar_one()
    assert before
    ended = _offboard(people, str(found))
    assert ended.code == 0, ended.err
    assert ended.json[0]["samples"] == before
    with people.database.reading() as session:
        assert session.scalar(sa.text(count)) == before


def test_offboarded_person_can_be_onboarded_again(people: PeopleLab, email: str) -> None:
    before = people.user(email)
    assert before is not None
    ended = _offboard(people, email, "--block-account")
    hints = [line for line in ended.err.splitlines() if "To bring them back:" in line]
    assert len(hints) == 2
    again = people.onboard(email, "--unblock-account")
    assert again.code == 0, again.err
    assert again.json[0]["user"] == "updated"
    after = people.user(email)
    assert after == User(before.name, before.auth0_user_id, False, {ORG: "member"})


# Failures


def test_database_is_changed_even_if_the_provider_fails(
    people: PeopleLab, email: str, detour: Detour, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aspen.identity.management import Patience
    from aspencli.remote import identity

    monkeypatch.setattr(identity, "PATIENCE", Patience(seconds=1, tries=2, persists=True))
    detour.fail("DELETE", "/members$", status=500)
    ended = _offboard(people, email)
    assert ended.code == 5, ended.err
    assert ended.json[0]["outcome"] == "failed"
    assert "Failed to remove member of Redwood County Public Health Laboratory" in ended.err
    assert "The service rejects every request with their tokens already." in ended.err
    user = people.user(email)
    assert user is not None
    assert user.auth0_user_id.startswith("offboarded|")
    assert people.last_run()["outcome"] == "unfinished"
    detour.rules.clear()
    again = _offboard(people, email)
    assert again.code == 0, again.err
    _has_no_way_in(people, email)


# Tokens


@pytest.fixture
def service(people: PeopleLab, make_api: ApiFactory) -> Callable[..., int]:
    """Return a function that requests a path of the service with a token, and returns the status.

    The service accepts the tokens of the same provider.
    """
    import httpx

    settings = {
        **managed_by(people.identity),
        "AUTH0_DOMAIN": people.identity.issuer.rstrip("/"),
        "AUTH0_CLIENT_ID": CLIENT,
    }
    api = make_api(people.database, **settings)

    def request(path: str, token: str, method: str = "GET") -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.request(method, api.url + path, headers=headers, timeout=60).status_code

    return request


def test_tokens_are_rejected_everywhere_at_once(
    people: PeopleLab, email: str, service: Callable[..., int]
) -> None:
    paths = {
        "/v2/users/me": "GET",
        "/v2/orgs/1/pathogens/SC2/samples/": "GET",
        "/v2/orgs/2/pathogens/SC2/samples/": "GET",
        "/v2/groups/1/": "GET",
        "/v2/groups/1/members/": "GET",
        "/v2/locations/": "GET",
        "/v2/pathogens/": "GET",
        "/v2/lineages/pango": "GET",
        "/v2/locations/search/": "POST",
    }
    tokens = people.identity.tokens(email)
    token = tokens["id_token"]
    assert service("/v2/users/me", token) == 200
    assert service("/v2/orgs/1/pathogens/SC2/samples/", token) == 200
    assert _offboard(people, email).code == 0
    assert {path: service(path, token, method) for path, method in paths.items()} == dict.fromkeys(
        paths, 401
    )
    # A new sign-in without an organization still gives a token, which is of no use.
    fresh = people.identity.tokens(email)["id_token"]
    assert service("/v2/users/me", fresh) == 401


def test_sessions_and_refresh_tokens_end(people: PeopleLab, email: str) -> None:
    refresh = people.identity.tokens(email)["refresh_token"]
    assert _offboard(people, email).code == 0
    answer = people.identity.token(grant_type="refresh_token", refresh_token=refresh)
    assert answer.status_code == 403
    assert _offboard(people, email).json[0]["outcome"] == "unchanged"


@pytest.mark.parametrize("status", [403, 404])
def test_refresh_tokens_end_without_an_enterprise_plan(
    people: PeopleLab, email: str, status: int
) -> None:
    people.identity.turn(enterprise=False, refusal=status)
    refresh = [people.identity.tokens(email)["refresh_token"] for _ in range(2)]
    planned = _offboard(people, email, "--dry-run")
    assert planned.json[0]["sessions"] == "skip"
    assert "cannot end sessions in browsers" in planned.err
    ended = _offboard(people, email)
    assert ended.code == 0, ended.err
    assert (ended.json[0]["sessions"], ended.json[0]["outcome"]) == ("skipped", "updated")
    assert "cannot end sessions in browsers" in ended.err
    for one in refresh:
        answer = people.identity.token(grant_type="refresh_token", refresh_token=one)
        assert answer.json()["error"] == "invalid_grant"
    again = _offboard(people, email)
    assert again.json[0]["outcome"] == "unchanged"
    assert "cannot end sessions" not in again.err


def test_missing_scope_for_sessions_is_named(people: PeopleLab, email: str, detour: Detour) -> None:
    detour.fail("DELETE", "/sessions$", status=403, code="insufficient_scope")
    ended = _offboard(people, email)
    assert ended.code == 4, ended.err
    assert "Failed to end sessions" in ended.err
    detour.rules.clear()
    assert _offboard(people, email).code == 0


def test_all_open_invitations_of_a_person_are_deleted(people: PeopleLab) -> None:
    email = people.address_of()
    assert people.onboard(email).code == 0
    body = {"inviter": {"name": "I"}, "invitee": {"email": email}, "client_id": CLIENT}
    with people.identity.management() as api:
        api.post(f"organizations/{ORG}/invitations", json=body).raise_for_status()
    assert people.invited(ORG).count(email) == 2
    ended = _offboard(people, email)
    assert ended.code == 0, ended.err
    assert email not in people.invited(ORG)


def test_offboarded_user_is_no_difference(people: PeopleLab, email: str) -> None:
    assert _offboard(people, email).code == 0
    ended = people("identity", "diff", "-o", "json")
    assert "Note: not compared: 1 offboarded user." in ended.err
    assert email not in ended.out
