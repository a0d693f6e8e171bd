"""Request admission: checks before a body is read, and limits and checks of the body itself.

The user, the group, and the pathogen are looked up once per request, and views get the same ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from itertools import islice
from typing import Any, cast

import sqlalchemy as sa
from fastapi.exceptions import RequestValidationError
from fastapi.security.utils import get_authorization_scheme_param
from pydantic import TypeAdapter, ValidationError
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aspen.api.authz import Access, load_access
from aspen.api.database import RequestSession
from aspen.api.errors import ApiError, login_failure, not_authorized, unavailable
from aspen.api.limits import MAX_FINDINGS, ServiceLimits, max_body_bytes
from aspen.api.runtime import Runtime
from aspen.api.schemas.base import RowId
from aspen.api.signin import InvalidTokenError, ProviderUnavailableError, account_of, read_session
from aspen.api.streaming import PIECE, Spool
from aspen.database.models import Pathogen, User

DEFAULT_PATHOGEN = "SC2"
ASKER = "aspen.asker"
"""The ASGI scope key under which an in-process caller names the requesting user, who need not sign
in: by e-mail address, ID, or account ID at the provider; None for no user."""
_ADMISSION = "aspen.admission"
_BEFORE_VALUES = (b",", b"{", b"[")
_READING = frozenset({"GET", "HEAD"})
_ROW_ID: TypeAdapter[int] = TypeAdapter(RowId)

_CONTAINERS = (dict, list)  # isinstance() takes four times as long with a union
_ESCAPED = rb"\u0000"


class Admission:
    """The user, permissions, and database session of one request, each looked up once.

    The dependencies in `aspen.api.auth` and `aspen.api.deps` document the errors.
    """

    def __init__(self, scope: Scope):
        self._request = Request(scope)
        self._session: RequestSession | None = None
        self._large = AsyncExitStack()
        self._name = ""  # the user's account ID, known before the database is queried
        self._user: User | None = None
        self._accesses: dict[int, Access] = {}
        self._pathogens: dict[str, Pathogen] = {}

    @classmethod
    def of(cls, request: HTTPConnection) -> Admission:
        """Return the admission of a request."""
        return cast("Admission", request.scope[_ADMISSION])

    @property
    def _runtime(self) -> Runtime:
        return cast("Runtime", self._request.app.state.runtime)

    async def session(self) -> RequestSession:
        """Return the request's session in a transaction, which is read-only for GET and HEAD."""
        session = self._session = self._session or self._runtime.sessions()
        if not session.in_transaction():
            if self._name:
                await session.turn.aclose()
                await session.turn.enter_async_context(self._runtime.turns.database(self._name))
            await session.start(readonly=self._request.method in _READING)
        return session

    async def pause(self) -> None:
        """Return the connection to the pool; loaded objects stay usable."""
        if self._session:
            await self._session.give_back()

    async def begin_large(self) -> None:
        """Wait for the turn to process a large body; it ends when the response starts."""
        await self._large.enter_async_context(self._runtime.turns.large(self._name))

    async def begin_answer(self) -> None:
        """Close the session before the response is sent, unless the response is read from it.

        This way, a slow client holds no database connection.
        """
        await self._large.aclose()
        if not (self._session and self._session.is_kept):
            await self.close()

    async def close(self) -> None:
        """Close the session and roll back uncommitted changes."""
        if self._session:
            await self._session.close()
        await self._large.aclose()

    async def user(self) -> User:
        """Return the current user."""
        if self._user is None:
            name: str | None = self._request.scope.get(ASKER)
            condition = await self._signed_in() if name is None else _known_as(name)
            query = sa.select(User).where(condition).limit(1)
            self._user = await (await self.session()).scalar(query)
            if self._user is None:
                raise login_failure() if name is None else ApiError(401, f"user {name} not found")
        return self._user

    async def access(self, group_id: int) -> Access:
        """Return the user's permissions in a group."""
        if group_id not in self._accesses:
            user = await self.user()
            access = await load_access(await self.session(), user, group_id)
            if access is None or not access.own:
                raise not_authorized()
            self._accesses[group_id] = access
        return self._accesses[group_id]

    async def pathogen(self, slug: str) -> Pathogen:
        """Return the pathogen with that slug."""
        if slug not in self._pathogens:
            query = sa.select(Pathogen).where(Pathogen.slug == slug)
            found = None if "\0" in slug else await (await self.session()).scalar(query)
            if found is None:
                raise ApiError(400, "Invalid pathogen slug")
            self._pathogens[slug] = found
        return self._pathogens[slug]

    async def check(self) -> None:
        """Check what is known without the body: the user, and the path's group and pathogen.

        Raises:
            ApiError: 401, 403, or 400.
        """
        await self.user()
        path, query = self._request.path_params, self._request.query_params
        if "org_id" not in path:
            return
        try:
            group_id = _ROW_ID.validate_python(query.get("group_id", path["org_id"]))
        except ValidationError:
            return  # the view's dependencies report what is wrong
        await self.access(group_id)
        slug = path.get("pathogen_slug", query.get("pathogen_slug", DEFAULT_PATHOGEN))
        await self.pathogen(slug)

    async def _signed_in(self) -> sa.ColumnElement[bool]:
        account = self._name = await self._account()
        return sa.false() if "\0" in account else User.auth0_user_id == account

    async def _account(self) -> str:
        account = account_of(read_session(self._request, self._runtime.settings))
        if account is not None:
            return account
        scheme, token = get_authorization_scheme_param(self._request.headers.get("Authorization"))
        if scheme.lower() != "bearer" or not token:
            raise login_failure()
        try:
            return str((await self._runtime.tokens.claims(token))["sub"])
        except InvalidTokenError as error:
            raise login_failure() from error
        except ProviderUnavailableError as error:
            raise unavailable("the identity provider") from error


def _known_as(name: str) -> sa.ColumnElement[bool]:
    by_id = User.id == int(name) if name.isdecimal() else sa.false()
    return sa.or_(by_id, User.email == name, User.auth0_user_id == name)


class AdmissionMiddleware:
    """Middleware that gives each request its `Admission`, which is checked before reading a body.

    FastAPI reads and parses a body before it resolves dependencies, so a dependency that
    authenticates the user runs too late. Here, the first read of a body runs the checks.
    """

    def __init__(self, app: ASGIApp, limits: ServiceLimits):
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        admission = scope[_ADMISSION] = Admission(scope)
        if has_body(scope):
            receive = _Body(admission, scope, receive, self._limits).receive

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                await admission.begin_answer()
            elif len(message.get("body", b"")) > PIECE:
                await _send_in_pieces(send, message)
                return
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            await admission.close()


async def _send_in_pieces(send: Send, message: Message) -> None:
    # The server buffers whatever it is given until the client reads it.
    body = memoryview(message["body"])
    for start in range(0, len(body), PIECE):
        part = {**message, "body": body[start : start + PIECE]}
        if start + PIECE < len(body):
            part["more_body"] = True
        await send(part)


def has_body(scope: Scope) -> bool:
    """Return True if the headers announce a body."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in scope["headers"]
    )


class _Body:
    """The body of a request, read in full when it is first requested."""

    def __init__(self, admission: Admission, scope: Scope, receive: Receive, limits: ServiceLimits):
        self._admission, self._scope = admission, scope  # the router stores the route in the scope
        self._receive, self._limits = receive, limits
        self._is_read = False
        self._size = self._values = 0

    async def receive(self) -> Message:
        """Return the whole body on the first call, and the server's messages after that."""
        if self._is_read:
            return await self._receive()
        self._is_read = True
        await self._admission.check()
        await self._admission.pause()  # a slow sender must not hold a connection
        spool = Spool()
        try:
            if not await self._read(spool):
                return {"type": "http.disconnect"}
            if self._values > self._limits.body_values:
                limit = self._limits.body_values
                raise ApiError(413, "the request body has too many values", limit=limit)
            if self._is_large:
                await self._admission.begin_large()
            body = await spool.read_all()
        finally:
            spool.close()
        return {"type": "http.request", "body": body, "more_body": False}

    @property
    def _is_large(self) -> bool:
        return self._size > self._limits.large_bytes or self._values > self._limits.large_values

    async def _read(self, spool: Spool) -> bool:
        """Read the body; return False if the client disconnects."""
        limit = max_body_bytes(getattr(self._scope.get("route"), "endpoint", None), self._limits)
        if _announced(self._scope) > limit:
            raise _too_large(limit)
        began, more = time.monotonic(), True
        while more:
            allowed = self._limits.body_seconds + self._size / self._limits.body_rate
            left = min(began + allowed - time.monotonic(), self._limits.pause_seconds)
            try:
                message = await asyncio.wait_for(self._receive(), max(left, 0))
            except TimeoutError as error:
                raise ApiError(408, "the request body did not arrive in time") from error
            if message["type"] == "http.disconnect":
                return False
            part = message.get("body", b"")
            self._size += len(part)
            if self._size > limit:
                raise _too_large(limit)
            self._values += sum(map(part.count, _BEFORE_VALUES))
            await spool.write(part)
            more = message.get("more_body", False)
        spool.complete()
        return True


def _announced(scope: Scope) -> int:
    """Return the content length of a request, or 0 if it has none."""
    sizes = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(sizes[0]) if sizes and sizes[0].isdigit() else 0


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "the request body is too large", limit=limit)


async def refuse_deep(request: Request) -> None:
    """Reject bodies that are nested too deeply.

    Raises:
        RequestValidationError: The body has too many levels of lists and objects.
    """
    body = await request.body()
    limit = cast("ServiceLimits", request.app.state.limits).body_depth
    if body.count(b"[") + body.count(b"{") <= limit:
        return
    if not _is_deeper(await _document(request), limit):
        return
    finding = {
        "type": "too_deep",
        "loc": ("body",),
        "msg": f"The body has more than {limit} levels of lists and objects",
    }
    raise RequestValidationError([finding])


async def _document(request: Request) -> Any:
    """Return the JSON of a body; None if it is not JSON, which is reported when it is parsed."""
    try:
        return await request.json()
    except ValueError:
        return None


def _is_deeper(document: Any, limit: int) -> bool:
    level = [document] if isinstance(document, _CONTAINERS) else []
    for _ in range(limit + 1):
        # A function call for each of half a million values would block the event loop for too long.
        level = [
            inner
            for outer in level
            if outer
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, _CONTAINERS)
        ]
        if not level:
            return False
    return True


async def refuse_nul(request: Request) -> None:
    """Reject strings with NUL, the only character that PostgreSQL cannot store.

    The raw bytes are searched first: searching each string of 10,000 samples takes a third as
    long as parsing them.

    Raises:
        RequestValidationError: Some strings contain NUL; the error lists them.
    """
    body = await request.body()
    if _ESCAPED not in body and b"\0" not in body:  # raw, or in UTF-16 or UTF-32
        return
    if findings := _nul_findings(await _document(request)):
        raise RequestValidationError(findings)


def _nul_findings(document: Any) -> list[dict[str, Any]]:
    holding = _holding_nul(document)
    findings: list[dict[str, Any]] = [
        {
            "type": "nul",
            "loc": ("body", *path),
            "msg": "a NUL character cannot be stored",
            "input": text,
        }
        for path, text in islice(holding, MAX_FINDINGS)
    ]
    if next(holding, None):
        # Finding and describing the rest of half a million strings takes seconds.
        left = "Strings after these were not checked for NUL characters"
        findings.insert(0, {"type": "not_checked", "loc": ("body",), "msg": left})
    return findings


def _holding_nul(document: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the path and text of each string that contains NUL, in document order.

    The document is searched only as far as the caller iterates. There is no recursion, since the
    nesting may be arbitrarily deep.
    """
    path: list[Any] = []
    left = [_entries([document])]
    while left:
        for key, value in left[-1]:
            if isinstance(value, str):
                if "\0" in value:
                    yield (*path, key)[1:], value
            elif isinstance(value, _CONTAINERS):
                path.append(key)
                left.append(_entries(value))
                break
        else:
            left.pop()
            if path:
                path.pop()


def _entries(container: dict[str, Any] | list[Any]) -> Iterator[tuple[Any, Any]]:
    entries: Iterable[tuple[Any, Any]] = (
        container.items() if isinstance(container, dict) else enumerate(container)
    )
    return iter(entries)
