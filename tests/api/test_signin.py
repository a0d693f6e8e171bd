"""Browser sign-in, with a real provider's pages and a user who goes through them."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest
import sqlalchemy as sa
from itsdangerous import URLSafeTimedSerializer

from aspen.api.signin import COOKIE
from aspen.database.engine import Database
from aspen.database.models import Role, User, UserRole
from tests.api.conftest import Api, ApiFactory, told_of, use_organizations
from tests.local.auth0.lab import ORGANIZATIONS, Identity, submit


@pytest.fixture
def lab(make_api: ApiFactory, seeded: Database, identity: Identity) -> Api:
    use_organizations(seeded)
    return make_api(seeded, **told_of(identity))


@pytest.fixture
def browser(lab: Api) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=lab.url, timeout=30, trust_env=False) as client:
        yield client


def onward(browser: httpx.Client, answer: httpx.Response) -> httpx.Response:
    """Follow redirects up to a page or up to the service's own callback."""
    while answer.is_redirect and "code=" not in answer.headers["location"]:
        answer = browser.get(httpx.URL(answer.url).join(answer.headers["location"]))
    return answer


def choose(browser: httpx.Client, page: httpx.Response, email: str) -> httpx.Response:
    """Choose an account on the provider's page; return the redirect back to the service."""
    own = browser.base_url
    browser.base_url = page.url.join("/")
    try:
        return onward(browser, submit(browser, page, email=email))
    finally:
        browser.base_url = own


def signed_in(browser: httpx.Client, email: str, **query: str) -> httpx.Response:
    """Sign in and return the service's answer to the callback."""
    page = onward(browser, browser.get("/v2/auth/login", params=query))
    back = choose(browser, page, email)
    assert back.is_redirect, back.text
    return browser.get(back.headers["location"])


def roles_of(api: Api, account: str) -> dict[int, list[str]]:
    with api.database.reading() as session:
        query = (
            sa.select(UserRole.group_id, sa.func.array_agg(Role.name))
            .join(Role)
            .join(User)
            .where(User.auth0_user_id == account)
            .group_by(UserRole.group_id)
        )
        return {group: sorted(roles) for group, roles in session.execute(query)}


def test_sign_in_creates_session_for_api(lab: Api, browser: httpx.Client) -> None:
    answer = signed_in(browser, "member@example.org")
    assert (answer.status_code, answer.headers["location"]) == (307, f"{lab.url}/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    me = browser.get("/v2/users/me").json()
    assert me == lab("GET", "/v2/users/me", headers=bearer(lab, "member")).json()
    # The session takes precedence over a token.
    assert browser.get("/v2/users/me", headers=bearer(lab, "viewer")).json() == me


def bearer(lab: Api, name: str) -> dict[str, str]:
    with httpx.Client() as client:
        issuer = f"{lab.settings.auth0_url}/"
        asked = client.post(
            f"{issuer}oauth/device/code",
            data={"client_id": "aspencli-local", "scope": "openid profile email"},
        ).json()
        with httpx.Client(base_url=issuer, follow_redirects=True) as browser:
            page = browser.get("activate", params={"user_code": asked["user_code"]})
            page = submit(browser, page, email=f"{name}@example.org")
            submit(browser, page, decision="approve")
        tokens = client.post(
            f"{issuer}oauth/token",
            data={
                "client_id": "aspencli-local",
                "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
                "device_code": asked["device_code"],
            },
        ).json()
    return {"Authorization": f"Bearer {tokens['id_token']}"}


def test_sign_in_redirects_to_provider_with_required_parameters(
    lab: Api, browser: httpx.Client
) -> None:
    query = {"organization": "org_x", "invitation": "ticket", "organization_name": "group-x"}
    answer = browser.get("/v2/auth/login", params=query)
    assert answer.status_code == 302
    sent = {k: v[0] for k, v in parse_qs(urlsplit(answer.headers["location"]).query).items()}
    assert sent.items() >= query.items()
    assert sent["redirect_uri"] == f"{lab.url}/v2/auth/callback"
    assert sent["code_challenge_method"] == "S256"
    assert len(sent["state"]) > 30


def test_sign_in_callback_in_another_browser_is_rejected(lab: Api, browser: httpx.Client) -> None:
    page = onward(browser, browser.get("/v2/auth/login"))
    back = choose(browser, page, "member@example.org")
    with httpx.Client(trust_env=False) as other:
        without = other.get(back.headers["location"])
        other.get(f"{lab.url}/v2/auth/login")
        foreign = other.get(back.headers["location"])
    for answer in (without, foreign):
        assert (answer.status_code, answer.json()["error"]) == (403, "Invalid token")
    assert browser.get(back.headers["location"]).status_code == 307
    # A code works only once.
    assert browser.get(back.headers["location"]).status_code == 403


@pytest.mark.parametrize(
    "query",
    [{}, {"code": "x"}, {"code": "x", "state": "x"}, {"error_description": "denied"}],
    ids=str,
)
def test_sign_in_callback_without_pending_sign_in_is_rejected(
    browser: httpx.Client, query: dict[str, str]
) -> None:
    answer = browser.get("/v2/auth/callback", params=query)
    assert (answer.status_code, answer.json()["error"]) == (403, "Invalid token")
    assert browser.get("/v2/users/me").status_code == 401


@pytest.mark.parametrize("knob", ["wrong_key", "unknown_key"])
def test_sign_in_token_not_signed_by_provider_is_rejected(
    browser: httpx.Client, identity: Identity, knob: str
) -> None:
    identity.turn(signing=knob)
    assert signed_in(browser, "member@example.org").status_code == 403


def test_sign_in_updates_roles_of_groups_known_to_provider(lab: Api, browser: httpx.Client) -> None:
    assert roles_of(lab, "auth0|multi") == {1: ["member"], 2: ["admin"]}
    with lab.database.begin() as session:
        user = session.scalars(sa.select(User).where(User.auth0_user_id == "auth0|multi")).one()
        session.execute(sa.delete(UserRole).where(UserRole.user_id == user.id))
        viewer = session.scalars(sa.select(Role).where(Role.name == "viewer")).one()
        for group in (1, 3):  # a wrong role in 1; the provider does not know 3
            session.add(UserRole(user_id=user.id, group_id=group, role=viewer))
    assert signed_in(browser, "multi@example.org").status_code == 307
    assert roles_of(lab, "auth0|multi") == {1: ["member"], 2: ["admin"], 3: ["viewer"]}


def invite(lab: Api, email: str, role: str = "viewer") -> None:
    with httpx.Client(base_url=lab.url, headers=bearer(lab, "gadmin"), trust_env=False) as client:
        body = {"role": role, "emails": [email]}
        answer = client.post("/v2/groups/1/invitations/", json=body).json()
        assert answer["invitations"][0]["success"], answer


def ticket_of(identity: Identity, email: str) -> dict[str, str]:
    with identity.management() as management:
        path = f"organizations/{ORGANIZATIONS[0]}/invitations"
        found = management.get(path, params={"per_page": 100}).json()
    (url,) = [row["invitation_url"] for row in found if row["invitee"]["email"] == email]
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def test_first_sign_in_with_invitation_creates_user(
    lab: Api, browser: httpx.Client, identity: Identity
) -> None:
    email = f"{uuid4().hex}@example.org"
    invite(lab, email)
    link = ticket_of(identity, email)
    assert signed_in(browser, email, **link).status_code == 307
    me = browser.get("/v2/users/me").json()
    assert [(group["id"], group["roles"]) for group in me["groups"]] == [(1, ["viewer"])]
    assert me["split_id"]
    assert me["analytics_id"]
    # A second sign-in finds the same user.
    browser.cookies.clear()
    assert signed_in(browser, email).status_code == 307
    assert browser.get("/v2/users/me").json() == me


def test_sign_in_without_invitation_is_rejected_and_creates_no_user(
    lab: Api, browser: httpx.Client, identity: Identity
) -> None:
    email = f"{uuid4().hex}@example.org"
    with identity.management() as management:
        management.post(
            "users",
            json={
                "connection": "Username-Password-Authentication",
                "email": email,
                "password": "a made-up one",
            },
        ).raise_for_status()
    answer = signed_in(browser, email)
    assert (answer.status_code, answer.json()) == (401, {"error": "Login failure"})
    with lab.database.reading() as session:
        assert not session.scalars(sa.select(User).where(User.email == email)).all()


def test_invitation_is_accepted_only_for_signed_in_invitee(
    lab: Api, browser: httpx.Client, identity: Identity
) -> None:
    invite(lab, "nogroup@example.org", "member")
    link = ticket_of(identity, "nogroup@example.org")
    query = {name: link[name] for name in ("organization", "invitation")}
    path = "/v2/auth/process_invitation"
    assert browser.get(path, params=query).status_code == 401
    assert browser.get(path, headers=bearer(lab, "nogroup")).status_code == 422
    other = browser.get(path, params=query, headers=bearer(lab, "g3member"))
    assert (other.status_code, other.json()) == (400, {"error": "email address mismatch"})
    assert roles_of(lab, "auth0|nogroup") == {}
    answer = browser.get(path, params=query, headers=bearer(lab, "nogroup"))
    assert (answer.status_code, answer.headers["location"]) == (307, f"{lab.url}/")
    assert roles_of(lab, "auth0|nogroup") == {1: ["member"]}
    again = browser.get(path, params=query, headers=bearer(lab, "nogroup"))
    assert (again.status_code, again.json()) == (400, {"error": "Not found"})


def test_sign_out_ends_sessions_in_service_and_provider(lab: Api, browser: httpx.Client) -> None:
    signed_in(browser, "member@example.org")
    answer = browser.get("/v2/auth/logout")
    assert answer.status_code == 307
    assert answer.headers["location"].startswith(f"{lab.settings.auth0_url}/v2/logout?")
    assert browser.get("/v2/users/me").status_code == 401
    gone = browser.get(answer.headers["location"])
    assert gone.headers["location"] == f"{lab.url}/"


def test_session_cookie_with_wrong_key_or_shape_is_ignored(lab: Api) -> None:
    def cookie(secret: str, session: object) -> dict[str, str]:
        serializer = URLSafeTimedSerializer(
            secret, salt="cookie-session", signer_kwargs={"key_derivation": "hmac"}
        )
        return {"Cookie": f"{COOKIE}={serializer.dumps(session)}"}

    ours = {"profile": {"user_id": "auth0|member", "name": "M"}}
    right = "a-secret-for-tests"
    assert lab("GET", "/v2/users/me", headers=cookie(right, ours)).status_code == 200
    assert lab("GET", "/v2/users/me", headers=cookie("another", ours)).status_code == 401
    odd_ones: list[object] = [[], {"profile": []}]
    odd_ones += [{"profile": {"user_id": 1}}, {"profile": {"user_id": "x"}}]
    for odd in odd_ones:
        assert lab("GET", "/v2/users/me", headers=cookie(right, odd)).status_code == 401
    broken = {"Cookie": f"{COOKIE}=not.a.session", **bearer(lab, "member")}
    assert lab("GET", "/v2/users/me", headers=broken).status_code == 200
