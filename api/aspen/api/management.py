"""The Management API of the identity provider (Auth0 or an emulator)."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import httpx

from aspen.api.management_calls import ManagementCalls, ManagementError, ManagementUnavailableError
from aspen.api.settings import Settings

__all__ = ["Management", "ManagementError", "ManagementUnavailableError"]
_log = logging.getLogger(__name__)


class Management:
    """The Management API operations of the service: one client per process.

    Args:
        settings: The settings with the API's address and credentials.
        http: The HTTP client for requests to the API.
    """

    def __init__(self, settings: Settings, http: httpx.AsyncClient):
        self._client_id = settings.auth0_client_id
        self._calls = ManagementCalls(settings, http)

    async def create_organization(self, name: str, display_name: str) -> str:
        """Create an organization whose members sign in with the provider's own accounts.

        Its metadata contains a unique mark that identifies it if the response is lost.

        Returns:
            The organization's ID.
        """
        mark = {"request": secrets.token_hex(16)}
        enabled = [
            {"connection_id": connection, "assign_membership_on_login": False}
            for connection in await self._own_connections()
        ]
        body = {"name": name, "display_name": display_name, "enabled_connections": enabled}
        try:
            made = await self._calls.call("POST", "organizations", json={**body, "metadata": mark})
        except ManagementUnavailableError:
            made = await self._organization(name)
            if made is None or made.get("metadata") != mark:
                raise
        return str(made["id"])

    async def delete_organization(self, organization: str) -> None:
        """Delete an organization; do nothing if it does not exist."""
        await self._gone(f"organizations/{quote(organization, safe='')}")

    async def organizations_of(self, account: str) -> list[str]:
        """Return the IDs of the organizations that an account is a member of."""
        path = f"users/{quote(account, safe='')}/organizations"
        return [str(found["id"]) async for found in self._calls.pages(path, "organizations")]

    async def role_ids(self) -> dict[str, str]:
        """Return the ID of each role by its name."""
        return {
            str(role["name"]): str(role["id"]) async for role in self._calls.pages("roles", "roles")
        }

    async def member_roles(self, organization: str, account: str) -> list[str]:
        """Return the names of a member's roles in an organization."""
        path = _member(organization, account)
        return [str(role["name"]) async for role in self._calls.pages(f"{path}/roles", "roles")]

    async def add_member(self, organization: str, account: str, roles: Sequence[str]) -> None:
        """Add an account to an organization with roles given by ID; repeating this is safe."""
        members = f"organizations/{quote(organization, safe='')}/members"
        await self._calls.call("POST", members, json={"members": [account]})
        if roles:
            path = f"{_member(organization, account)}/roles"
            await self._calls.call("POST", path, json={"roles": list(roles)})

    async def invitations(self, organization: str) -> list[dict[str, Any]]:
        """Return all invitations to an organization, including expired ones."""
        path = f"organizations/{quote(organization, safe='')}/invitations"
        return [found async for found in self._calls.pages(path, "invitations")]

    async def invite(self, organization: str, email: str, inviter: str, role: str) -> None:
        """E-mail an invitation to an organization, with a role given by ID."""
        body = {
            "inviter": {"name": inviter},
            "invitee": {"email": email},
            "client_id": self._client_id,
            "roles": [role],
            "send_invitation_email": True,
        }
        path = f"organizations/{quote(organization, safe='')}/invitations"
        await self._calls.call("POST", path, json=body)

    async def delete_invitation(self, organization: str, invitation: str) -> None:
        """Delete an invitation; do nothing if it does not exist."""
        path = f"organizations/{quote(organization, safe='')}/invitations"
        await self._gone(f"{path}/{quote(invitation, safe='')}")

    async def rename_user(self, account: str, name: str) -> None:
        """Change the full name of an account."""
        await self._calls.call("PATCH", f"users/{quote(account, safe='')}", json={"name": name})

    async def _organization(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._calls.call("GET", f"organizations/name/{name}")
        except ManagementError as error:
            if not error.absent:
                raise
            return None
        return found

    async def _own_connections(self) -> list[str]:
        try:
            query = {"strategy": "auth0"}
            found = [c async for c in self._calls.pages("connections", "connections", query)]
        except ManagementError as error:
            if not error.forbidden:
                raise
            _log.warning("Not allowed to read connections; an administrator has to enable them")
            return []
        return [str(connection["id"]) for connection in found]

    async def _gone(self, path: str) -> None:
        try:
            await self._calls.call("DELETE", path)
        except ManagementError as error:
            if not error.absent:
                raise


def _member(organization: str, account: str) -> str:
    return f"organizations/{quote(organization, safe='')}/members/{quote(account, safe='')}"
