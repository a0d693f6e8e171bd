"""Requests to the Management API: token, paging, rate limits, and errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from aspen.api.settings import Settings

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
