"""Auth0's own client against the stand-in, if installed (``pip install auth0-python``).

It is not a development dependency, because its 54 MB are not used for anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.local.auth0.lab import CLIENT, ORGANIZATIONS, Identity

management = pytest.importorskip(
    "auth0.management", reason="Auth0's own client (auth0-python) is not installed"
)
CONNECTION = "Username-Password-Authentication"


@pytest.fixture
def auth0(identity: Identity) -> Iterator[Any]:
    with identity.management() as client:
        token = client.headers["Authorization"].removeprefix("Bearer ")
    with httpx.Client() as connections:
        yield management.Auth0(
            base_url=f"{identity.issuer}api/v2", token=token, httpx_client=connections
        )


def test_auth0_client_manages_users(auth0: Any) -> None:
    user = auth0.users.create(connection=CONNECTION, email="new@example.org", password="x")
    assert [u.user_id for u in auth0.users.list(q='email:"new@example.org"')] == [user.user_id]
    assert auth0.users.list_users_by_email(email="new@example.org")[0].user_id == user.user_id
    auth0.users.update(user.user_id, name="Newer", app_metadata={"lab": "RCPHL"})
    changed = auth0.users.get(user.user_id)
    assert (changed.name, changed.app_metadata) == ("Newer", {"lab": "RCPHL"})
    auth0.users.delete(user.user_id)
    assert not auth0.users.list_users_by_email(email="new@example.org")


def test_auth0_client_manages_organizations_members_and_invitations(auth0: Any) -> None:
    made = auth0.organizations.create(name="group-new", display_name="A new group")
    assert auth0.organizations.get_by_name("group-new").id == made.id
    roles = {role.name: role.id for role in auth0.roles.list()}
    members = auth0.organizations.members
    members.create(made.id, members=["auth0|member"])
    members.roles.assign(made.id, "auth0|member", roles=[roles["admin"]])
    assert [role.name for role in members.roles.list(made.id, "auth0|member")] == ["admin"]
    invitation = auth0.organizations.invitations.create(
        made.id,
        inviter={"name": "Gale"},
        invitee={"email": "invited@example.org"},
        client_id=CLIENT,
        roles=[roles["viewer"]],
    )
    assert [i.id for i in auth0.organizations.invitations.list(made.id)] == [invitation.id]
    auth0.organizations.invitations.delete(made.id, invitation.id)
    members.roles.delete(made.id, "auth0|member", roles=[roles["admin"]])
    members.delete(made.id, members=["auth0|member"])
    assert not list(members.list(made.id))
    auth0.organizations.delete(made.id)


def test_auth0_client_reads_all_pages(auth0: Any) -> None:
    assert {o.id for o in auth0.organizations.list(take=1)} >= set(ORGANIZATIONS)
    members = auth0.organizations.members.list(ORGANIZATIONS[0], take=2)
    assert len({member.user_id for member in members}) == 5
    assert len(list(auth0.users.list(per_page=3))) >= 11


def test_auth0_client_raises_its_own_error_classes(auth0: Any) -> None:
    with pytest.raises(management.NotFoundError) as missing:
        auth0.organizations.get("org_none")
    assert missing.value.body["errorCode"] == "inexistent_organization"
    with pytest.raises(management.BadRequestError):
        auth0.organizations.create(name="Not A Name")


def test_auth0_client_creates_tickets_and_verification_jobs(auth0: Any, identity: Identity) -> None:
    user = auth0.users.create(
        connection=CONNECTION, email="ticket@example.org", password="x", verify_email=False
    )
    password = auth0.tickets.change_password(user_id=user.user_id, client_id=CLIENT)
    verification = auth0.tickets.verify_email(user_id=user.user_id, ttl_sec=60)
    for link in (password.ticket, verification.ticket):
        assert httpx.get(link).status_code == 200
    assert auth0.users.get(user.user_id).email_verified
    job = auth0.jobs.verification_email.create(user_id=user.user_id)
    assert auth0.jobs.get(job.id).status == "completed"
    auth0.users.delete(user.user_id)
    with pytest.raises(management.NotFoundError):
        auth0.tickets.change_password(user_id=user.user_id)


def test_auth0_client_ends_sessions_and_revokes_refresh_tokens(
    auth0: Any, identity: Identity
) -> None:
    token = identity.tokens("g2admin@example.org")["refresh_token"]
    user = "auth0|g2admin"
    (session,) = auth0.users.sessions.list(user)
    assert (session.user_id, session.expires_at > session.created_at) == (user, True)
    (found,) = auth0.users.refresh_token.list(user, take=1)
    assert (found.user_id, found.client_id) == (user, CLIENT)
    auth0.users.sessions.delete(user)
    auth0.users.refresh_token.delete(user)
    assert not list(auth0.users.sessions.list(user))
    assert not list(auth0.users.refresh_token.list(user))
    sent = {"grant_type": "refresh_token", "refresh_token": token}
    assert identity.token(**sent).json()["error"] == "invalid_grant"


def test_auth0_client_reads_log(auth0: Any, identity: Identity) -> None:
    identity.tokens("g3member@example.org")
    newest = next(iter(auth0.logs.list(per_page=1)))
    assert (newest.type, newest.user_id) == ("sede", "auth0|g3member")
    assert newest.log_id
    assert len({entry.log_id for entry in auth0.logs.list(per_page=2, sort="date:1")}) >= 3
