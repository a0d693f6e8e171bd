"""Requests to the identity provider's Management API: the token, retries, pages, and the pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from aspen.identity.pace import HeldError, Pace

TIMEOUT_S = 10.0
"""The time for one request."""
PAGE = 100
"""The maximum number of items that Auth0 returns at once."""
REACH = 1_000
"""The maximum number of items that Auth0 returns in numbered pages."""
_EARLY_S = 60  # a token is renewed this long before it expires
_REPEATABLE = frozenset({"GET", "PATCH", "DELETE"})
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_OK, _BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 200, 400, 401, 403, 404
_CONFLICT, _TOO_MANY, _BROKEN = 409, 429, 500
_NOT_IN_PLAN = frozenset({_FORBIDDEN, _NOT_FOUND})
_OTHERWISE = frozenset({"insufficient_scope", "inexistent_user"})  # codes with other reasons


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


@dataclass(frozen=True)
class Patience:
    """The patience with a provider that is busy or broken; the defaults are those of the service.

    Attributes:
        seconds: The time for all attempts at one request.
        tries: The maximum number of attempts.
        first: The same until the provider has responded for the first time, because its address may
            be wrong; None for no difference.
        persists: True to also repeat additions if that is safe, requests that may be sent only once
            if no connection could be opened, and requests for a token.
    """

    seconds: float = 20.0
    tries: int = 5
    first: float | None = None
    persists: bool = False


class ManagementError(Exception):
    """An error response from the provider: HTTP status, message, and code if there is one."""

    def __init__(self, status: int, message: str, code: str = ""):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code

    @property
    def absent(self) -> bool:
        """Return True if the requested object does not exist."""
        return self.status == _NOT_FOUND

    @property
    def taken(self) -> bool:
        """Return True if the name is taken."""
        return self.status == _CONFLICT

    @property
    def is_not_in_plan(self) -> bool:
        """Return True if the tenant's plan, or this version of the provider, has no such request.

        Auth0 answers those with 403 or 404, as if a permission or the object was missing.
        """
        return self.status in _NOT_IN_PLAN and self.code not in _OTHERWISE


class ManagementUnavailableError(Exception):
    """A provider that cannot be reached, is overloaded, or is not configured.

    Args:
        message: What happened.
        is_uncertain: True if the request may have been carried out, although no response says so.
    """

    def __init__(self, message: str, *, is_uncertain: bool = False):
        super().__init__(message)
        self.is_uncertain = is_uncertain


class ManagementCredentialsError(ManagementUnavailableError):
    """A provider that rejects the client's credentials."""


class _LaterError(Exception):
    """A request to retry after a pause in seconds; None for the default backoff."""

    def __init__(
        self,
        reason: str,
        pause: float | None = None,
        *,
        is_uncertain: bool = False,
        is_held: bool = False,  # the rate limit is exceeded
    ):
        super().__init__(reason)
        self.pause, self.is_uncertain, self.is_held = pause, is_uncertain, is_held


class ManagementRequests:
    """The requests of one client, which keeps its token until it expires.

    Args:
        credentials: The client's credentials.
        http: The client for HTTP.
        patience: The patience with each request.
        pace: The pace of all requests; None for no limit.
    """

    def __init__(
        self,
        credentials: Credentials,
        http: httpx.AsyncClient,
        patience: Patience | None = None,
        pace: Pace | None = None,
    ):
        self.pace = pace
        self._credentials, self._http = credentials, http
        self._patience = patience or Patience()
        self._base = f"{credentials.url}/api/v2/"
        self._has_responded = False
        self._token, self._renewed_at = "", 0.0
        self._scopes: frozenset[str] | None = None
        self._lock = asyncio.Lock()

    async def granted_scopes(self) -> frozenset[str] | None:
        """Return the scopes of the token, or None if the provider does not say; get one if needed.

        Raises:
            ManagementCredentialsError: The provider rejects the credentials.
            ManagementUnavailableError: The provider did not respond in time.
        """
        await self._bearer()
        return self._scopes

    async def _gone(self, *parts: str, json: Mapping[str, Any] | None = None) -> None:
        """Delete an object, with a body if one is given; do nothing if it does not exist."""
        content = {} if json is None else {"json": json}
        try:
            await self._call("DELETE", *parts, repeatable=True, **content)
        except ManagementError as error:
            if not error.absent:
                raise

    async def _pages(self, *parts: str, **filters: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the items of a list, page by page, up to the `REACH` of numbered pages."""
        page = seen = 0
        while True:
            query = {**filters, "page": page, "per_page": PAGE, "include_totals": "true"}
            answer = await self._call("GET", *parts, params=query)
            rows = _items(answer, parts)
            for row in rows:
                yield row
            seen, page = seen + len(rows), page + 1
            # Some Auth0 lists have no total; then a short page is the last one.
            told = answer if isinstance(answer, dict) else {}
            total, limit = told.get("total"), told.get("limit") or PAGE
            is_last = seen >= total if total is not None else len(rows) < limit
            if not rows or is_last or seen >= REACH:
                return

    async def _checkpoints(self, *parts: str, **filters: str) -> AsyncIterator[dict[str, Any]]:
        """Yield every item of a list of any length, page by page."""
        query = {**filters, "take": str(PAGE)}
        while True:
            answer = await self._call("GET", *parts, params=query)
            for row in _items(answer, parts):
                yield row
            if not (isinstance(answer, dict) and answer.get("next")):
                return
            query["from"] = str(answer["next"])

    async def _call(
        self, method: str, *parts: str, repeatable: bool = False, **content: Mapping[str, Any]
    ) -> Any:
        """Send a request to the path with these parts, with a body (``json``) or ``params``.

        It is retried on rate limits, rejected tokens, and, if that is safe, other failures. That is
        safe for reads, updates, and deletions, and for additions that are ``repeatable``.

        Raises:
            ManagementError: The provider refused the request.
            ManagementUnavailableError: The provider did not respond in time.
        """
        path = "/".join(quote(part, safe="") for part in parts)
        repeatable = (repeatable and self._patience.persists) or method in _REPEATABLE
        attempt, is_uncertain = 0, False
        spent = 0.0  # without the time in the queue, which says nothing about the provider
        while True:
            attempt += 1
            try:
                async with self._turn():
                    began = time.monotonic()
                    try:
                        return await self._once(method, path, content, repeatable=repeatable)
                    finally:
                        spent += time.monotonic() - began
            except _LaterError as later:
                is_uncertain |= later.is_uncertain
                pause = 0.2 * attempt**2 if later.pause is None else later.pause
                spent += pause
                if attempt == self._patience.tries or spent > self._seconds:
                    if self.pace is not None and later.is_held:
                        self.pace.surrender()
                    raise ManagementUnavailableError(
                        f"{method} {path}: {later}", is_uncertain=is_uncertain and method != "GET"
                    ) from later
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self.pace is None:
            yield
            return
        try:
            async with self.pace.turn(self._seconds):
                yield
        except HeldError as held:
            raise _LaterError("too many requests", held.seconds, is_held=True) from held

    @property
    def _seconds(self) -> float:
        """Return the time for all attempts at one request."""
        patience = self._patience
        if self._has_responded or patience.first is None:
            return patience.seconds
        return patience.first

    async def _once(
        self, method: str, path: str, content: Mapping[str, Any], *, repeatable: bool
    ) -> Any:
        token = await self._bearer()
        headers = {"Authorization": f"Bearer {token}"}
        try:
            answer = await self._http.request(method, self._base + path, headers=headers, **content)
        except httpx.HTTPError as error:
            raise self._unanswered(f"{method} {path}", error, repeatable=repeatable) from error
        self._has_responded = True
        self._note(answer)
        if answer.status_code == _TOO_MANY:
            raise _LaterError("too many requests", _pause(answer), is_held=True)
        if answer.status_code == _UNAUTHORIZED:
            if self._token == token:  # another request may have renewed it already
                self._token = ""
            raise _LaterError(f"token rejected: {_said(answer)}", 0)
        if answer.status_code < _BROKEN:
            return _result(answer)
        if repeatable:
            raise _LaterError(f"{answer.status_code} {_said(answer)}", is_uncertain=True)
        raise ManagementUnavailableError(
            f"{method} {path}: {answer.status_code}", is_uncertain=True
        )

    def _unanswered(self, request: str, error: httpx.HTTPError, *, repeatable: bool) -> Exception:
        unsent = isinstance(error, _UNSENT)
        if repeatable or (unsent and self._patience.persists):
            return _LaterError(_reason(error), is_uncertain=not unsent)
        return ManagementUnavailableError(f"{request}: {_reason(error)}", is_uncertain=not unsent)

    def _note(self, answer: httpx.Response) -> None:
        if self.pace is None:
            return
        if answer.status_code == _TOO_MANY:
            self.pace.refused(_pause(answer) or 0)
        else:
            self.pace.served(answer.headers)

    async def _bearer(self) -> str:
        async with self._lock:
            if not self._token or time.monotonic() > self._renewed_at:
                self._token, lifetime = await self._new_token()
                self._renewed_at = time.monotonic() + max(0, lifetime - _EARLY_S)
            return self._token

    async def _new_token(self) -> tuple[str, float]:
        """Return a token and its lifetime in seconds."""
        answer = await self._ask_for_token()
        self._has_responded = True
        said = f"cannot get a token: {answer.status_code} {_said(answer)}"
        if self._patience.persists and (
            answer.status_code == _TOO_MANY or answer.status_code >= _BROKEN
        ):
            raise _LaterError(said, _pause(answer))
        if answer.status_code != _OK:
            rejected = answer.status_code in {_BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN}
            kind = ManagementCredentialsError if rejected else ManagementUnavailableError
            raise kind(said)
        try:
            granted = answer.json()
            scopes = granted.get("scope")
            self._scopes = frozenset(scopes.split()) if isinstance(scopes, str) else None
            return str(granted["access_token"]), float(granted["expires_in"])
        except (AttributeError, ValueError, KeyError, TypeError) as error:
            raise ManagementUnavailableError("no token in the response") from error

    async def _ask_for_token(self) -> httpx.Response:
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
            return await self._http.post(f"{credentials.url}/oauth/token", json=body)
        except httpx.HTTPError as error:
            if self._patience.persists:
                raise _LaterError(f"cannot get a token: {_reason(error)}") from error
            raise ManagementUnavailableError(f"cannot get a token: {_reason(error)}") from error


def _items(answer: Any, parts: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the items in a page of a list, under the list's name if there is more."""
    name = parts[-1].replace("-", "_")
    found: list[dict[str, Any]] = answer[name] if isinstance(answer, dict) else answer
    return found


def _result(answer: httpx.Response) -> Any:
    if answer.is_error:
        raise ManagementError(answer.status_code, _said(answer), _code(answer))
    return answer.json() if answer.content else None


def _reason(error: httpx.HTTPError) -> str:
    """Return why there is no response."""
    if isinstance(error, httpx.TimeoutException):
        return "timed out"
    return str(error) or type(error).__name__


def _said(answer: httpx.Response) -> str:
    """Return the provider's error message, whose key varies."""
    try:
        body = answer.json()
    except ValueError:
        return answer.reason_phrase
    words = [body.get(key) for key in ("message", "error_description", "error")]
    return str(next((word for word in words if word), answer.reason_phrase))


def _code(answer: httpx.Response) -> str:
    """Return the provider's error code; empty if it has none."""
    try:
        code = answer.json().get("errorCode")
    except (AttributeError, ValueError):
        return ""
    return code if isinstance(code, str) else ""


def _pause(answer: httpx.Response) -> float | None:
    """Return the pause that the provider asks for, in seconds; None if it does not say."""
    after = answer.headers.get("Retry-After", "")
    if after.isascii() and after.isdecimal():
        return float(after)
    reset = answer.headers.get("X-RateLimit-Reset", "")  # seconds since 1970
    if reset.isascii() and reset.isdecimal():
        return max(0.1, float(reset) - time.time())
    return None
