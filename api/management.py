"""The Management API of the identity provider (Auth0, or what stands in for it)."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from api.settings import Settings

_PAGE = 50  # what Auth0 gives at most
_EARLY_S = 60  # a token is renewed that long before it expires
_TRIES = 5
_PATIENCE_S = 20.0  # for all tries of one request
_REPEATABLE = frozenset({"GET", "PATCH", "DELETE"})
_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 200, 401, 403, 404
_CONFLICT, _TOO_MANY, _BROKEN = 409, 429, 500
_log = logging.getLogger(__name__)


class ManagementError(Exception):
    """The provider says no.

    Args:
        status: Its HTTP status.
        message: What it says.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message

    @property
    def absent(self) -> bool:
        """Whether what was named is not there."""
        return self.status == _NOT_FOUND

    @property
    def taken(self) -> bool:
        """Whether the name is taken."""
        return self.status == _CONFLICT


class ManagementUnavailableError(Exception):
    """The provider does not answer, has no time, or was never set up."""


@dataclass(frozen=True)
class _Token:
    text: str
    renewed_at: float


class Management:
    """One client a process; its token is kept until it expires.

    Args:
        settings: Where the API is, and who we are there.
        http: What it is asked with.
    """

    def __init__(self, settings: Settings, http: httpx.AsyncClient):
        self._settings, self._http = settings, http
        self._base = f"{settings.management_url}/api/v2/"
        self._token: _Token | None = None
        self._lock = asyncio.Lock()

    async def create_organization(self, name: str, display_name: str) -> str:
        """Make an organization whose members sign in with the provider's own accounts.

        It carries a mark, so that it is found where the answer to the request is lost.

        Returns:
            Its id.
        """
        mark = {"request": secrets.token_hex(16)}
        enabled = [
            {"connection_id": connection, "assign_membership_on_login": False}
            for connection in await self._own_connections()
        ]
        body = {"name": name, "display_name": display_name, "enabled_connections": enabled}
        try:
            made = await self._call("POST", "organizations", json={**body, "metadata": mark})
        except ManagementUnavailableError:
            made = await self._organization(name)
            if made is None or made.get("metadata") != mark:
                raise
        return str(made["id"])

    async def delete_organization(self, organization: str) -> None:
        """Remove an organization; one that is gone already is fine."""
        await self._gone(f"organizations/{quote(organization, safe='')}")

    async def organizations_of(self, account: str) -> list[str]:
        """The ids of the organizations that somebody is a member of."""
        path = f"users/{quote(account, safe='')}/organizations"
        return [str(found["id"]) async for found in self._pages(path, "organizations")]

    async def role_ids(self) -> dict[str, str]:
        """The id of each role, by its name."""
        return {str(role["name"]): str(role["id"]) async for role in self._pages("roles", "roles")}

    async def member_roles(self, organization: str, account: str) -> list[str]:
        """The names of the roles that a member has in an organization."""
        path = _member(organization, account)
        return [str(role["name"]) async for role in self._pages(f"{path}/roles", "roles")]

    async def add_member(self, organization: str, account: str, roles: Sequence[str]) -> None:
        """Make somebody a member of an organization, with roles by their ids; again is fine."""
        members = f"organizations/{quote(organization, safe='')}/members"
        await self._call("POST", members, json={"members": [account]})
        if roles:
            path = f"{_member(organization, account)}/roles"
            await self._call("POST", path, json={"roles": list(roles)})

    async def invitations(self, organization: str) -> list[dict[str, Any]]:
        """Every invitation to an organization, expired ones included."""
        path = f"organizations/{quote(organization, safe='')}/invitations"
        return [found async for found in self._pages(path, "invitations")]

    async def invite(self, organization: str, email: str, inviter: str, role: str) -> None:
        """Send somebody an invitation to an organization, with a role by its id."""
        body = {
            "inviter": {"name": inviter},
            "invitee": {"email": email},
            "client_id": self._settings.auth0_client_id,
            "roles": [role],
            "send_invitation_email": True,
        }
        path = f"organizations/{quote(organization, safe='')}/invitations"
        await self._call("POST", path, json=body)

    async def delete_invitation(self, organization: str, invitation: str) -> None:
        """Take an invitation back; one that is gone already is fine."""
        path = f"organizations/{quote(organization, safe='')}/invitations"
        await self._gone(f"{path}/{quote(invitation, safe='')}")

    async def rename_user(self, account: str, name: str) -> None:
        """Change somebody's full name."""
        await self._call("PATCH", f"users/{quote(account, safe='')}", json={"name": name})

    async def _organization(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._call("GET", f"organizations/name/{name}")
        except ManagementError as error:
            if not error.absent:
                raise
            return None
        return found

    async def _own_connections(self) -> list[str]:
        try:
            query = {"strategy": "auth0"}
            found = [c async for c in self._pages("connections", "connections", query)]
        except ManagementError as error:
            if error.status != _FORBIDDEN:
                raise
            _log.warning("may not read connections, so an administrator has to enable them")
            return []
        return [str(connection["id"]) for connection in found]

    async def _gone(self, path: str) -> None:
        try:
            await self._call("DELETE", path)
        except ManagementError as error:
            if not error.absent:
                raise

    async def _pages(
        self, path: str, key: str, also: Mapping[str, str] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        page = seen = 0
        while True:
            query = {**(also or {}), "page": page, "per_page": _PAGE, "include_totals": "true"}
            answer = await self._call("GET", path, params=query)
            # Some lists of Auth0 know no totals; then a short page is the last one.
            rows = answer[key] if isinstance(answer, dict) else answer
            total = answer.get("total") if isinstance(answer, dict) else None
            for row in rows:
                yield row
            seen, page = seen + len(rows), page + 1
            if not rows or (seen >= total if total is not None else len(rows) < _PAGE):
                return

    async def _call(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        """One request, tried again where the provider asks for patience or our token is old.

        Raises:
            ManagementError: It says no.
            ManagementUnavailableError: It does not answer in time.
        """
        deadline = time.monotonic() + _PATIENCE_S
        for attempt in range(1, _TRIES + 1):
            token = await self._bearer()
            headers = {"Authorization": f"Bearer {token.text}"}
            try:
                answer = await self._http.request(
                    method, self._base + path, json=json, params=params, headers=headers
                )
            except httpx.HTTPError as error:
                if method not in _REPEATABLE or attempt == _TRIES:
                    raise ManagementUnavailableError(f"{method} {path}: {error!r}") from error
                pause = 0.2 * attempt
            else:
                if answer.status_code == _UNAUTHORIZED and attempt == 1:
                    self._token = None
                    continue
                if answer.status_code != _TOO_MANY and answer.status_code < _BROKEN:
                    return _result(answer)
                if answer.status_code != _TOO_MANY and method not in _REPEATABLE:
                    raise ManagementUnavailableError(f"{method} {path}: {answer.status_code}")
                pause = _pause(answer, attempt)
            if time.monotonic() + pause > deadline:
                break
            await asyncio.sleep(pause)
        raise ManagementUnavailableError(f"{method} {path}: no answer in {_TRIES} tries")

    async def _bearer(self) -> _Token:
        async with self._lock:
            if self._token is None or time.monotonic() > self._token.renewed_at:
                self._token = await self._new_token()
            return self._token

    async def _new_token(self) -> _Token:
        settings = self._settings
        if not (settings.management_domain and settings.management_client_id):
            raise ManagementUnavailableError("AUTH0_MANAGEMENT_DOMAIN or _CLIENT_ID is not set")
        body = {
            "grant_type": "client_credentials",
            "client_id": settings.management_client_id,
            "client_secret": settings.management_client_secret.get_secret_value(),
            "audience": self._base,
        }
        try:
            answer = await self._http.post(f"{settings.management_url}/oauth/token", json=body)
        except httpx.HTTPError as error:
            raise ManagementUnavailableError(f"no token: {error!r}") from error
        if answer.status_code != _OK:
            raise ManagementUnavailableError(f"no token: {answer.status_code} {_said(answer)}")
        granted = answer.json()
        lifetime = float(granted.get("expires_in", 0))
        return _Token(granted["access_token"], time.monotonic() + max(0, lifetime - _EARLY_S))


def _member(organization: str, account: str) -> str:
    return f"organizations/{quote(organization, safe='')}/members/{quote(account, safe='')}"


def _result(answer: httpx.Response) -> Any:
    if answer.is_error:
        raise ManagementError(answer.status_code, _said(answer))
    return answer.json() if answer.content else None


def _said(answer: httpx.Response) -> str:
    """The provider's words, which it has under different names."""
    try:
        body = answer.json()
    except ValueError:
        return answer.reason_phrase
    words = [body.get(key) for key in ("message", "error_description", "error")]
    return str(next((word for word in words if word), answer.reason_phrase))


def _pause(answer: httpx.Response, attempt: int) -> float:
    """How long the provider wants to be left alone, in seconds."""
    after = answer.headers.get("Retry-After", "")
    if after.isascii() and after.isdecimal():
        return float(after)
    reset = answer.headers.get("X-RateLimit-Reset", "")  # seconds since 1970
    if reset.isascii() and reset.isdecimal():
        return max(0.1, float(reset) - time.time())
    return 0.2 * attempt**2
