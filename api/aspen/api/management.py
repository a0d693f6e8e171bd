"""The client of the identity provider's Management API (Auth0 or an emulator)."""

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

from aspen.api.settings import Settings

_log = logging.getLogger(__name__)

_PAGE = 50  # the maximum that Auth0 returns
_EARLY_S = 60  # a token is renewed this long before it expires
_TRIES = 5
_PATIENCE_S = 20.0  # for all attempts at one request
_REPEATABLE = frozenset({"GET", "PATCH", "DELETE"})
_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 200, 401, 403, 404
_CONFLICT, _TOO_MANY, _BROKEN = 409, 429, 500


class ManagementError(Exception):
    """An error response from the provider.

    Args:
        status: The HTTP status.
        message: The provider's error message.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message

    @property
    def absent(self) -> bool:
        """Return True if the requested object does not exist."""
        return self.status == _NOT_FOUND

    @property
    def forbidden(self) -> bool:
        """Return True if the service lacks a permission."""
        return self.status == _FORBIDDEN

    @property
    def taken(self) -> bool:
        """Return True if the name is taken."""
        return self.status == _CONFLICT


class ManagementUnavailableError(Exception):
    """A provider that cannot be reached, is overloaded, or is not configured."""


class _LaterError(Exception):
    """A request to retry after a pause in seconds; None for the default backoff."""

    def __init__(self, reason: str, pause: float | None = None):
        super().__init__(reason)
        self.pause = pause


@dataclass(frozen=True)
class _Token:
    text: str
    renewed_at: float


class ManagementCalls:
    """A Management API client, one per process, that keeps its token until it expires.

    Args:
        settings: The settings with the API's address and credentials.
        http: The HTTP client for requests to the API.
    """

    def __init__(self, settings: Settings, http: httpx.AsyncClient):
        self._settings, self._http = settings, http
        self._base = f"{settings.management_url}/api/v2/"
        self._token: _Token | None = None
        self._lock = asyncio.Lock()

    async def pages(
        self, path: str, key: str, also: Mapping[str, str] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield every item of a list, page by page.

        Args:
            path: The path of the list.
            key: The key of the items in the response.
            also: Further query parameters.
        """
        page = seen = 0
        while True:
            query = {**(also or {}), "page": page, "per_page": _PAGE, "include_totals": "true"}
            answer = await self.call("GET", path, params=query)
            # Some Auth0 lists have no total; then a short page is the last one.
            rows = answer[key] if isinstance(answer, dict) else answer
            total = answer.get("total") if isinstance(answer, dict) else None
            for row in rows:
                yield row
            seen, page = seen + len(rows), page + 1
            if not rows or (seen >= total if total is not None else len(rows) < _PAGE):
                return

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Send a request; retry on rate limits, rejected tokens, and, if safe, other failures.

        Raises:
            ManagementError: The provider refused the request.
            ManagementUnavailableError: The provider did not respond in time.
        """
        deadline = time.monotonic() + _PATIENCE_S
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._once(method, path, json, params)
            except _LaterError as later:
                pause = 0.2 * attempt**2 if later.pause is None else later.pause
                if attempt == _TRIES or time.monotonic() + pause > deadline:
                    raise ManagementUnavailableError(f"{method} {path}: {later}") from later
            await asyncio.sleep(pause)

    async def _once(
        self,
        method: str,
        path: str,
        json: Mapping[str, Any] | None,
        params: Mapping[str, Any] | None,
    ) -> Any:
        token = await self._bearer()
        try:
            answer = await self._http.request(
                method,
                self._base + path,
                json=json,
                params=params,
                headers={"Authorization": f"Bearer {token.text}"},
            )
        except httpx.HTTPError as error:
            if method in _REPEATABLE:
                raise _LaterError(repr(error)) from error
            raise ManagementUnavailableError(f"{method} {path}: {error!r}") from error
        if answer.status_code == _TOO_MANY:
            raise _LaterError("too many requests", _pause(answer))
        if answer.status_code == _UNAUTHORIZED:
            self._token = None
            raise _LaterError(f"token rejected: {_said(answer)}", 0)
        if answer.status_code < _BROKEN:
            return _result(answer)
        if method in _REPEATABLE:
            raise _LaterError(f"{answer.status_code} {_said(answer)}")
        raise ManagementUnavailableError(f"{method} {path}: {answer.status_code}")

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
            raise ManagementUnavailableError(f"cannot get a token: {error!r}") from error
        if answer.status_code != _OK:
            raise ManagementUnavailableError(
                f"cannot get a token: {answer.status_code} {_said(answer)}"
            )
        try:
            granted = answer.json()
            lifetime, text = float(granted["expires_in"]), str(granted["access_token"])
        except (ValueError, KeyError, TypeError) as error:
            raise ManagementUnavailableError("no token in the response") from error
        return _Token(text, time.monotonic() + max(0, lifetime - _EARLY_S))


def _result(answer: httpx.Response) -> Any:
    if answer.is_error:
        raise ManagementError(answer.status_code, _said(answer))
    return answer.json() if answer.content else None


def _said(answer: httpx.Response) -> str:
    """Return the provider's error message, whose key varies."""
    try:
        body = answer.json()
    except ValueError:
        return answer.reason_phrase
    words = [body.get(key) for key in ("message", "error_description", "error")]
    return str(next((word for word in words if word), answer.reason_phrase))


def _pause(answer: httpx.Response) -> float | None:
    """Return the pause that the provider asks for, in seconds; None if it does not say."""
    after = answer.headers.get("Retry-After", "")
    if after.isascii() and after.isdecimal():
        return float(after)
    reset = answer.headers.get("X-RateLimit-Reset", "")  # seconds since 1970
    if reset.isascii() and reset.isdecimal():
        return max(0.1, float(reset) - time.time())
    return None


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
        await self._gone(_path("organizations", organization))

    async def organizations_of(self, account: str) -> list[str]:
        """Return the IDs of the organizations that an account is a member of."""
        path = _path("users", account, "organizations")
        return [str(found["id"]) async for found in self._calls.pages(path, "organizations")]

    async def role_ids(self) -> dict[str, str]:
        """Return the ID of each role by its name."""
        return {
            str(role["name"]): str(role["id"]) async for role in self._calls.pages("roles", "roles")
        }

    async def member_roles(self, organization: str, account: str) -> list[str]:
        """Return the names of a member's roles in an organization."""
        path = _path("organizations", organization, "members", account, "roles")
        return [str(role["name"]) async for role in self._calls.pages(path, "roles")]

    async def add_member(self, organization: str, account: str, roles: Sequence[str]) -> None:
        """Add an account to an organization with roles given by ID; repeating this is safe."""
        members = _path("organizations", organization, "members")
        await self._calls.call("POST", members, json={"members": [account]})
        if roles:
            path = _path("organizations", organization, "members", account, "roles")
            await self._calls.call("POST", path, json={"roles": list(roles)})

    async def invitations(self, organization: str) -> list[dict[str, Any]]:
        """Return all invitations to an organization, including expired ones."""
        path = _path("organizations", organization, "invitations")
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
        path = _path("organizations", organization, "invitations")
        await self._calls.call("POST", path, json=body)

    async def delete_invitation(self, organization: str, invitation: str) -> None:
        """Delete an invitation; do nothing if it does not exist."""
        await self._gone(_path("organizations", organization, "invitations", invitation))

    async def rename_user(self, account: str, name: str) -> None:
        """Change the full name of an account."""
        await self._calls.call("PATCH", _path("users", account), json={"name": name})

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


def _path(*parts: str) -> str:
    return "/".join(quote(part, safe="") for part in parts)
