"""The client of the Management API, against a provider that can be made to fail."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import pytest

from aspen.identity.management import (
    Account,
    Credentials,
    Management,
    ManagementError,
    ManagementUnavailableError,
    Member,
    Pace,
    Patience,
)
from aspen.local.auth0.store import Member as SeededMember
from aspen.local.auth0.store import Organization, Seed, User, seed
from tests.local.auth0.lab import (
    CLIENT,
    MANAGEMENT,
    MANAGEMENT_SECRET,
    ORGANIZATIONS,
    Identity,
)

T = TypeVar("T")


def ask(identity: Identity, question: Callable[[Management], Awaitable[T]], **changes: str) -> T:
    given = Credentials(identity.issuer.rstrip("/"), MANAGEMENT, MANAGEMENT_SECRET, CLIENT)

    async def run() -> T:
        async with httpx.AsyncClient(timeout=10) as http:
            return await question(Management(replace(given, **changes), http))

    return asyncio.run(run())


def audited(identity: Identity, text: str) -> int:
    return identity.log.count(text)


def test_management_token_is_reused_until_shortly_before_expiry(identity: Identity) -> None:
    identity.turn(access_token_seconds=62)

    async def question(management: Management) -> list[int]:
        counts = []
        for pause in (0.0, 0.0, 2.5):
            await asyncio.sleep(pause)
            await management.role_ids()
            counts.append(audited(identity, "client_credentials"))
        return counts

    first, second, third = ask(identity, question)
    assert first == second
    assert third > second


def test_rejected_management_token_is_renewed(identity: Identity) -> None:
    async def question(management: Management) -> dict[str, str]:
        before = await management.role_ids()
        with identity.management() as keys:
            for key in keys.get("keys/signing").json():
                keys.put(f"keys/signing/{key['kid']}/revoke")
        assert await management.role_ids() == before
        return before

    assert set(ask(identity, question)) == {"admin", "member", "viewer"}


def test_management_client_waits_for_retry_after(identity: Identity) -> None:
    async def question(management: Management) -> float:
        await management.role_ids()
        identity.turn(throttled=2, retry_after=1)
        began = time.monotonic()
        await management.role_ids()
        return time.monotonic() - began

    assert 2 <= ask(identity, question) < 100


def test_management_client_gives_up_on_long_retry_after(identity: Identity) -> None:
    async def question(management: Management) -> None:
        await management.role_ids()
        identity.turn(throttled=1, retry_after=3600)
        began = time.monotonic()
        with pytest.raises(ManagementUnavailableError):
            await management.role_ids()
        assert time.monotonic() - began < 100

    ask(identity, question)


def test_management_errors_distinguish_absent_and_taken(identity: Identity) -> None:
    async def question(management: Management) -> None:
        with pytest.raises(ManagementError) as caught:
            await management.invitations("org_none")
        assert caught.value.absent
        name = f"group-{uuid4().hex[:8]}"
        organization = await management.create_organization(name, "Twice")
        with pytest.raises(ManagementError) as caught:
            await management.create_organization(name, "Twice")
        assert caught.value.taken
        await management.delete_organization(organization)
        await management.delete_organization(organization)
        with pytest.raises(ManagementError, match=r"\w"):
            await management.rename_user("auth0|nobody", "N")

    ask(identity, question)


def test_management_client_adds_members_with_roles(identity: Identity) -> None:
    async def question(management: Management) -> None:
        roles = await management.role_ids()
        organization = await management.create_organization(f"group-{uuid4().hex[:8]}", "Members")
        for _ in range(2):  # repeating it is allowed
            await management.add_member(organization, "auth0|nogroup", [roles["member"]])
        assert await management.member_roles(organization, "auth0|nogroup") == ["member"]
        assert organization in await management.organizations_of("auth0|nogroup")
        assert await management.organizations_of("auth0|multi") == [*ORGANIZATIONS[:2]]
        await management.delete_organization(organization)

    ask(identity, question)


def test_delete_of_invitation_can_be_repeated(identity: Identity) -> None:
    async def question(management: Management) -> None:
        roles, place = await management.role_ids(), ORGANIZATIONS[2]
        email = f"{uuid4().hex}@example.org"
        await management.invite(place, email, "Inge", roles["viewer"])
        (found,) = [
            row for row in await management.invitations(place) if row["invitee"]["email"] == email
        ]
        assert await management.has_invitation(place, found["id"])
        await management.delete_invitation(place, found["id"])
        await management.delete_invitation(place, found["id"])
        assert not await management.has_invitation(place, found["id"])
        assert found not in await management.invitations(place)

    ask(identity, question)


@pytest.mark.parametrize(
    "changes",
    [
        {"url": ""},
        {"url": "http://127.0.0.1:1"},
        {"client_id": "unknown"},
        {"secret": "wrong"},
    ],
    ids=str,
)
def test_unusable_provider_raises_management_unavailable_error(
    identity: Identity, changes: dict[str, str]
) -> None:
    async def question(management: Management) -> None:
        with pytest.raises(ManagementUnavailableError):
            await management.role_ids()

    ask(identity, question, **changes)


# What onboarding and offboarding need


_PATIENT = Patience(seconds=60, tries=12, persists=True)


def _unique() -> str:
    return uuid4().hex[:8]


class _Faulty(httpx.AsyncBaseTransport):
    """A transport that loses some requests or their responses, or replaces the responses.

    Args:
        fails: The method of the requests that fail, and a pattern for their path.
        times: The number of requests that fail.
        delivered: True if the provider receives these requests.
        status: The status of the response to them; None to fail without a response.
    """

    def __init__(
        self, fails: tuple[str, str], times: int = 1, *, delivered: bool, status: int | None = None
    ):
        self._transport = httpx.AsyncHTTPTransport()
        self._fails, self._left = fails, times
        self._delivered, self._status = delivered, status
        self.sent: list[str] = []

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        method, pattern = self._fails
        is_chosen = request.method == method and re.search(pattern, request.url.path)
        if is_chosen:
            self.sent.append(request.url.path)
        if not is_chosen or not self._left:
            return await self._transport.handle_async_request(request)
        self._left -= 1
        if self._delivered:
            await (await self._transport.handle_async_request(request)).aread()
        if self._status is None:
            raise httpx.ReadTimeout("no response", request=request)
        return httpx.Response(self._status, json={"message": "broken"}, request=request)


def ask_through(
    identity: Identity,
    transport: httpx.AsyncBaseTransport,
    question: Callable[[Management], Awaitable[T]],
    patience: Patience = _PATIENT,
) -> T:
    given = Credentials(identity.issuer.rstrip("/"), MANAGEMENT, MANAGEMENT_SECRET, CLIENT)

    async def run() -> T:
        async with httpx.AsyncClient(transport=transport) as http:
            return await question(Management(given, http, patience, Pace()))

    return asyncio.run(run())


def test_members_come_with_their_roles_in_pages_of_a_hundred(identity: Identity) -> None:
    place = Organization(f"org_{uuid4().hex[:16]}", f"group-{_unique()}", "Many")
    people = [f"auth0|many-{number:03}-{place.id}" for number in range(205)]
    seed(
        identity.folder,
        Seed(
            users=[User(one, f"{one[6:]}@example.org".lower(), "Many") for one in people],
            organizations=[place],
            members=[
                SeededMember(place.id, one, ["viewer", "admin"][: number % 3])
                for number, one in enumerate(people)
            ],
        ),
    )
    transport = _Faulty(("GET", "/members"), 0, delivered=True)
    found = ask_through(identity, transport, lambda management: management.members(place.id))
    assert len(transport.sent) == 3
    assert [one.id for one in found] == people
    assert found[0] == Member(people[0], f"{people[0][6:]}@example.org".lower(), "Many", ())
    assert {one.roles for one in found} == {(), ("viewer",), ("admin", "viewer")}


def test_organizations_are_listed_and_found_by_name_and_id(identity: Identity) -> None:
    async def question(management: Management) -> None:
        name = f"group-{_unique()}"
        made = await management.create_organization(name, "Found")
        found = await management.organization_named(name)
        assert found is not None
        assert (found.id, found.name, found.display_name) == (made, name, "Found")
        assert await management.organization(made) == found
        assert found in await management.organizations()
        await management.delete_organization(made)
        assert await management.organization_named(name) is None
        assert await management.organization(made) is None

    ask(identity, question)


def test_accounts_are_found_by_many_addresses_with_few_requests(identity: Identity) -> None:
    mark = _unique()
    people = [User(f"auth0|{mark}{n}", f"{mark}.{n}@example.org", f"N{n}") for n in range(120)]
    seed(identity.folder, Seed(users=people))
    transport = _Faulty(("GET", "/users$"), 0, delivered=True)
    wanted = [one.email.upper() for one in people] + [
        f"nobody{mark}@example.org",
        'a"b@example.org',
    ]

    found = ask_through(
        identity, transport, lambda management: management.find_accounts(wanted + wanted)
    )
    assert {one.id for one in found} == {one.user_id for one in people}
    assert len(found) == len(people)
    assert len(transport.sent) <= 4


def test_account_is_created_changed_blocked_and_deleted(identity: Identity) -> None:
    async def question(management: Management) -> None:
        email = f"{_unique()}@example.org"
        made = await management.create_account(email.upper(), "Nadia New")
        assert made == Account(made.id, email, "Nadia New", True, False, False)
        assert await management.accounts_with_email(email.upper()) == [made]
        with pytest.raises(ManagementError) as caught:
            await management.create_account(email, "Again")
        assert caught.value.taken
        await management.block_account(made.id)
        await management.update_account(made.id, name="Nadia Newer")
        assert await management.account(made.id) == replace(
            made, name="Nadia Newer", is_blocked=True
        )
        await management.block_account(made.id, blocked=False)
        await management.delete_account(made.id)
        await management.delete_account(made.id)
        assert await management.account(made.id) is None
        assert await management.accounts_with_email(email) == []

    ask(identity, question)


def test_new_account_has_a_strong_random_password_and_sends_no_mail() -> None:
    bodies: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth/token":
            return httpx.Response(200, json={"access_token": "t", "expires_in": 100})
        bodies.append(json.loads(request.content))
        return httpx.Response(201, json={"user_id": "auth0|1", "email": bodies[-1]["email"]})

    async def run() -> None:
        given = Credentials("https://example.org", "id", "secret", CLIENT)
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            for _ in range(20):
                await Management(given, http).create_account("new@example.org", "New")

    asyncio.run(run())
    passwords = {body["password"] for body in bodies}
    assert len(passwords) == len(bodies)
    for one in passwords:
        assert len(one) == 22
        assert all(re.search(kind, one) for kind in ("[a-z]", "[A-Z]", "[0-9]", "[^a-zA-Z0-9]"))
    sent = {key: bodies[0][key] for key in ("email_verified", "verify_email", "connection")}
    assert sent == {
        "email_verified": True,
        "verify_email": False,
        "connection": "Username-Password-Authentication",
    }


@pytest.mark.parametrize("status", [None, 500], ids=["lost", "500"])
def test_account_whose_response_was_lost_is_found_and_not_created_twice(
    identity: Identity, status: int | None
) -> None:
    email = f"{_unique()}@example.org"
    transport = _Faulty(("POST", "/users$"), delivered=True, status=status)
    made = ask_through(identity, transport, lambda m: m.create_account(email, "Once"))
    assert len(transport.sent) == 1
    assert ask(identity, lambda m: m.accounts_with_email(email)) == [made]


def test_lost_request_for_an_account_is_reported_as_uncertain(identity: Identity) -> None:
    email = f"{_unique()}@example.org"
    transport = _Faulty(("POST", "/users$"), delivered=False)
    with pytest.raises(ManagementUnavailableError) as caught:
        ask_through(identity, transport, lambda m: m.create_account(email, "Never"))
    assert caught.value.is_uncertain
    assert len(transport.sent) == 1


@pytest.mark.parametrize("delivered", [True, False])
def test_invitation_is_never_sent_twice(identity: Identity, delivered: bool) -> None:
    email = f"{_unique()}@example.org"
    transport = _Faulty(("POST", "/invitations$"), delivered=delivered)

    async def question(management: Management) -> None:
        roles = await management.role_ids()
        await management.invite(ORGANIZATIONS[2], email, "Inge", roles["viewer"])

    with pytest.raises(ManagementUnavailableError) as caught:
        ask_through(identity, transport, question)
    assert caught.value.is_uncertain
    assert len(transport.sent) == 1
    found = ask(identity, lambda m: m.invitations(ORGANIZATIONS[2]))
    assert [one["invitee"]["email"] for one in found].count(email) == delivered


@pytest.mark.parametrize("delivered", [True, False])
@pytest.mark.parametrize("status", [None, 503], ids=["lost", "503"])
def test_membership_and_roles_are_repeated_until_they_are_confirmed(
    identity: Identity, delivered: bool, status: int | None
) -> None:
    async def question(management: Management) -> None:
        roles = await management.role_ids()
        place = await management.create_organization(f"group-{_unique()}", "Repeated")
        await management.add_member(place, "auth0|nogroup", [roles["member"]])
        assert [one.roles for one in await management.members(place)] == [("member",)]
        await management.remove_roles(place, "auth0|nogroup", [roles["member"]])
        assert [one.roles for one in await management.members(place)] == [()]
        for _ in range(2):
            await management.remove_member(place, "auth0|nogroup")
        assert await management.members(place) == []
        await management.delete_organization(place)

    transport = _Faulty(("POST", "/members"), 2, delivered=delivered, status=status)
    ask_through(identity, transport, question)
    assert len(transport.sent) == 4  # membership and role, each of them twice


def test_service_repeats_no_addition(identity: Identity) -> None:
    transport = _Faulty(("POST", "/members$"), delivered=False, status=500)
    with pytest.raises(ManagementUnavailableError):
        ask_through(
            identity,
            transport,
            lambda m: m.add_member(ORGANIZATIONS[2], "auth0|nogroup", []),
            Patience(),
        )
    assert len(transport.sent) == 1


class _Unconnected(_Faulty):
    """A transport that cannot connect at first."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await super().handle_async_request(request)
        except httpx.ReadTimeout as error:
            raise httpx.ConnectError("refused", request=request) from error


@pytest.mark.parametrize("path", ["/oauth/token", "/users$"])
def test_request_that_was_not_sent_is_repeated(identity: Identity, path: str) -> None:
    email = f"{_unique()}@example.org"
    transport = _Unconnected(("POST", path), 2, delivered=False)
    made = ask_through(identity, transport, lambda m: m.create_account(email, "Late"))
    assert ask(identity, lambda m: m.accounts_with_email(email)) == [made]
    assert len(transport.sent) == 3


def test_password_ticket_and_sign_outs_are_requested_as_auth0_documents_them() -> None:
    seen: list[tuple[str, str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth/token":
            return httpx.Response(200, json={"access_token": "t", "expires_in": 100})
        path = request.url.raw_path.decode().removeprefix("/api/v2/")
        seen.append((request.method, path, json.loads(request.content or b"null")))
        if request.method == "POST":
            return httpx.Response(201, json={"ticket": "https://example.org/lo/reset?ticket=x"})
        return httpx.Response(202)

    async def run() -> None:
        given = Credentials("https://example.org", "id", "secret", CLIENT)
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            management = Management(given, http)
            link = await management.password_ticket("auth0|1", 60)
            assert link == "https://example.org/lo/reset?ticket=x"
            await management.end_sessions("auth0|1")
            await management.revoke_refresh_tokens("auth0|1")

    asyncio.run(run())
    body = {"user_id": "auth0|1", "ttl_sec": 60, "client_id": CLIENT}
    assert seen == [
        ("POST", "tickets/password-change", body),
        ("DELETE", "users/auth0%7C1/sessions", None),
        ("DELETE", "users/auth0%7C1/refresh-tokens", None),
    ]
