"""The client of the identity provider's Management API (Auth0 or an emulator)."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

_log = logging.getLogger(__name__)

_PAGE = 50  # the maximum that Auth0 returns
_EARLY_S = 60  # a token is renewed this long before it expires
_TRIES = 5
_TIMEOUT_S = 10.0  # of one request
_PATIENCE_S = 20.0  # for all attempts at one request
_REPEATABLE = frozenset({"GET", "PATCH", "DELETE"})
_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 200, 401, 403, 404
_CONFLICT, _TOO_MANY, _BROKEN = 409, 429, 500


@dataclass(frozen=True)
class Credentials:
    """The credentials of a client that may use the Management API.

    Attributes:
        url: The provider's address, without a trailing slash; empty if there is none.
        client_id: The client's ID; empty if there is none.
        secret: The client's secret.
        login_client_id: The client that people sign in to, which invitations lead to.
    """

    url: str
    client_id: str
    secret: str = field(repr=False)
    login_client_id: str

    @property
    def are_complete(self) -> bool:
        """Return True if requests can be made with them."""
        return bool(self.url and self.client_id and self.secret)


def provider_url(domain: str) -> str:
    """Return the address of the provider at a domain; empty for an empty one."""
    if not domain:
        return ""
    return (domain if "://" in domain else f"https://{domain}").rstrip("/")


@asynccontextmanager
async def connected(credentials: Credentials) -> AsyncIterator[Management]:
    """Yield a client with connections of its own, which are closed at the end."""
    async with httpx.AsyncClient(timeout=_TIMEOUT_S) as http:
        yield Management(credentials, http)


class ManagementError(Exception):
    """An error response from the provider, with its HTTP status and message."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message

    @property
    def absent(self) -> bool:
        """Return True if the requested object does not exist."""
        return self.status == _NOT_FOUND

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


class Management:
    """The client of one process for the Management API, which keeps its token until it expires."""

    def __init__(self, credentials: Credentials, http: httpx.AsyncClient):
        self._credentials, self._http = credentials, http
        self._base = f"{credentials.url}/api/v2/"
        self._token, self._renewed_at = "", 0.0
        self._lock = asyncio.Lock()

    async def create_organization(self, name: str, display_name: str) -> str:
        """Create an organization for the provider's own accounts, and return its ID.

        Its metadata contains a unique mark that identifies it if the response is lost.
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
        """Delete an organization; do nothing if it does not exist."""
        await self._gone("organizations", organization)

    async def organizations_of(self, account: str) -> list[str]:
        """Return the IDs of the organizations that an account is a member of."""
        found = self._pages("users", account, "organizations")
        return [str(organization["id"]) async for organization in found]

    async def role_ids(self) -> dict[str, str]:
        """Return the ID of each role by its name."""
        return {str(role["name"]): str(role["id"]) async for role in self._pages("roles")}

    async def member_roles(self, organization: str, account: str) -> list[str]:
        """Return the names of a member's roles in an organization."""
        found = self._pages("organizations", organization, "members", account, "roles")
        return [str(role["name"]) async for role in found]

    async def add_member(self, organization: str, account: str, roles: Sequence[str]) -> None:
        """Add an account to an organization with roles given by ID; repeating this is safe."""
        members = ("organizations", organization, "members")
        await self._call("POST", *members, json={"members": [account]})
        if roles:
            await self._call("POST", *members, account, "roles", json={"roles": list(roles)})

    async def invitations(self, organization: str) -> list[dict[str, Any]]:
        """Return all invitations to an organization, including expired ones."""
        found = self._pages("organizations", organization, "invitations")
        return [invitation async for invitation in found]

    async def invite(self, organization: str, email: str, inviter: str, role: str) -> None:
        """E-mail an invitation to an organization, with a role given by ID."""
        body = {
            "inviter": {"name": inviter},
            "invitee": {"email": email},
            "client_id": self._credentials.login_client_id,
            "roles": [role],
            "send_invitation_email": True,
        }
        await self._call("POST", "organizations", organization, "invitations", json=body)

    async def delete_invitation(self, organization: str, invitation: str) -> None:
        """Delete an invitation; do nothing if it does not exist."""
        await self._gone("organizations", organization, "invitations", invitation)

    async def rename_user(self, account: str, name: str) -> None:
        """Change the full name of an account."""
        await self._call("PATCH", "users", account, json={"name": name})

    async def _organization(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._call("GET", "organizations", "name", name)
        except ManagementError as error:
            if not error.absent:
                raise
            return None
        return found

    async def _own_connections(self) -> list[str]:
        try:
            found = [c async for c in self._pages("connections", strategy="auth0")]
        except ManagementError as error:
            if error.status != _FORBIDDEN:
                raise
            _log.warning("Not allowed to read connections; an administrator has to enable them")
            return []
        return [str(connection["id"]) for connection in found]

    async def _gone(self, *parts: str) -> None:
        try:
            await self._call("DELETE", *parts)
        except ManagementError as error:
            if not error.absent:
                raise

    async def _pages(self, *parts: str, **filters: str) -> AsyncIterator[dict[str, Any]]:
        """Yield every item of a list, page by page."""
        key = parts[-1]  # that of the items in a response
        page = seen = 0
        while True:
            query = {**filters, "page": page, "per_page": _PAGE, "include_totals": "true"}
            answer = await self._call("GET", *parts, params=query)
            # Some Auth0 lists have no total; then a short page is the last one.
            rows = answer[key] if isinstance(answer, dict) else answer
            total = answer.get("total") if isinstance(answer, dict) else None
            for row in rows:
                yield row
            seen, page = seen + len(rows), page + 1
            if not rows or (seen >= total if total is not None else len(rows) < _PAGE):
                return

    async def _call(self, method: str, *parts: str, **content: Mapping[str, Any]) -> Any:
        """Send a request to the path with these parts, with a body (``json``) or ``params``.

        It is retried on rate limits, rejected tokens, and, if that is safe, other failures.

        Raises:
            ManagementError: The provider refused the request.
            ManagementUnavailableError: The provider did not respond in time.
        """
        path = "/".join(quote(part, safe="") for part in parts)
        deadline = time.monotonic() + _PATIENCE_S
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._once(method, path, content)
            except _LaterError as later:
                pause = 0.2 * attempt**2 if later.pause is None else later.pause
                if attempt == _TRIES or time.monotonic() + pause > deadline:
                    raise ManagementUnavailableError(f"{method} {path}: {later}") from later
            await asyncio.sleep(pause)

    async def _once(self, method: str, path: str, content: Mapping[str, Any]) -> Any:
        headers = {"Authorization": f"Bearer {await self._bearer()}"}
        try:
            answer = await self._http.request(method, self._base + path, headers=headers, **content)
        except httpx.HTTPError as error:
            if method in _REPEATABLE:
                raise _LaterError(repr(error)) from error
            raise ManagementUnavailableError(f"{method} {path}: {error!r}") from error
        if answer.status_code == _TOO_MANY:
            raise _LaterError("too many requests", _pause(answer))
        if answer.status_code == _UNAUTHORIZED:
            self._token = ""
            raise _LaterError(f"token rejected: {_said(answer)}", 0)
        if answer.status_code < _BROKEN:
            return _result(answer)
        if method in _REPEATABLE:
            raise _LaterError(f"{answer.status_code} {_said(answer)}")
        raise ManagementUnavailableError(f"{method} {path}: {answer.status_code}")

    async def _bearer(self) -> str:
        async with self._lock:
            if not self._token or time.monotonic() > self._renewed_at:
                self._token, lifetime = await self._new_token()
                self._renewed_at = time.monotonic() + max(0, lifetime - _EARLY_S)
            return self._token

    async def _new_token(self) -> tuple[str, float]:
        """Return a token and its lifetime in seconds."""
        credentials = self._credentials
        if not credentials.are_complete:
            raise ManagementUnavailableError("AUTH0_MANAGEMENT_DOMAIN or _CLIENT_ID is not set")
        body = {
            "grant_type": "client_credentials",
            "client_id": credentials.client_id,
            "client_secret": credentials.secret,
            "audience": self._base,
        }
        try:
            answer = await self._http.post(f"{credentials.url}/oauth/token", json=body)
        except httpx.HTTPError as error:
            raise ManagementUnavailableError(f"cannot get a token: {error!r}") from error
        if answer.status_code != _OK:
            raise ManagementUnavailableError(
                f"cannot get a token: {answer.status_code} {_said(answer)}"
            )
        try:
            granted = answer.json()
            return str(granted["access_token"]), float(granted["expires_in"])
        except (ValueError, KeyError, TypeError) as error:
            raise ManagementUnavailableError("no token in the response") from error


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
