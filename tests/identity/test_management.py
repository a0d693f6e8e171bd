"""The client of the Management API, against a provider that can be made to fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar
from uuid import uuid4

import httpx
import pytest

from aspen.identity.management import (
    Credentials,
    Management,
    ManagementError,
    ManagementUnavailableError,
)
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
        await management.delete_invitation(place, found["id"])
        await management.delete_invitation(place, found["id"])
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
