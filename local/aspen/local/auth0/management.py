"""The parts that all of the Management API shares: errors, paged lists, scopes, rate limit.

Formats and messages are Auth0's. The resources of the provider as a whole, its connection and its
signing keys, are here too.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from sqlite3 import Connection, Row
from threading import Lock
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aspen.local.auth0.audit import audit
from aspen.local.auth0.clients import Authorization
from aspen.local.auth0.settings import iso
from aspen.local.auth0.store import ProviderOf, revoke_key, rotate
from aspen.local.auth0.tokens import checked_claims

PREFIX = "/api/v2/"
CONNECTION = "Username-Password-Authentication"
CONNECTION_ID = "con_0000000000000001"

_REACH = 1000
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")

Document = dict[str, Any]
Listed = list[Document] | Document

router = APIRouter()

_TYPES = {
    "string_type": "string",
    "int_type": "integer",
    "bool_type": "boolean",
    "dict_type": "object",
    "model_type": "object",
    "model_attributes_type": "object",
    "list_type": "array",
    "int_parsing": "integer",
    "bool_parsing": "boolean",
}
_FOUND = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object"}
_MISSING = {
    "users": (404, "The user does not exist.", "inexistent_user"),
    "organizations": (404, "No organization found by that id or name", "inexistent_organization"),
    "members": (400, "The user is not a member of the organization.", "invalid_membership"),
    "roles": (404, "The role does not exist.", "inexistent_role"),
    "clients": (404, "The client does not exist.", "inexistent_client"),
    "invitations": (404, "The invitation does not exist.", "inexistent_invitation"),
    "jobs": (404, "The job does not exist.", "inexistent_job"),
}


class ManagementError(Exception):
    """An error in a Management API request; Auth0 omits the code for token errors."""

    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {
            "statusCode": status,
            "error": HTTPStatus(status).phrase,
            "message": message,
        }
        if code is not None:
            self.body["errorCode"] = code


def missing(table: str) -> ManagementError:
    """Return the error for an object that does not exist."""
    return ManagementError(*_MISSING[table])


def find(db: Connection, table: str, **values: str) -> Row:
    """Return the row with these values.

    Raises:
        ManagementError: There is none.
    """
    conditions = " AND ".join(f"{name} = :{name}" for name in values)
    statement = f"SELECT * FROM {table} WHERE {conditions}"  # noqa: S608 - names are ours
    row: Row | None = db.execute(statement, values).fetchone()
    if row is None:
        raise missing(table)
    return row


@contextmanager
def refused_with(error: ManagementError) -> Iterator[None]:
    """Raise an error if the block violates a constraint of the database."""
    try:
        yield
    except sqlite3.IntegrityError as cause:
        raise error from cause


def bad_query(message: str) -> ManagementError:
    """Return the error for an invalid query."""
    return ManagementError(400, f"Query validation error: {message}", "invalid_query_string")


def bad_body(message: str) -> ManagementError:
    """Return the error for an invalid request body."""
    return ManagementError(400, f"Payload validation error: {message}", "invalid_body")


def not_valid(problems: Sequence[Mapping[str, Any]]) -> ManagementError:
    """Return the error for the first problem that pydantic found, in Auth0's wording."""
    problem = problems[0]
    place, *path = problem["loc"]
    if problem["type"] == "json_invalid":
        return ManagementError(400, "Invalid request payload JSON format")
    words = _words(problem, path)
    if place == "body":
        return bad_body(words)
    return bad_query(words)


def _words(problem: Mapping[str, Any], path: list[str | int]) -> str:
    where = ".".join(map(str, path))
    parent = ".".join(map(str, path[:-1]))
    on_parent = f" on property {parent}" if parent else ""
    kind = problem["type"]
    if kind == "missing" and not path:
        return "'Expected type object but found no body'."
    if kind == "missing":
        return f"'Missing required property: {path[-1]}'{on_parent}."
    if kind == "extra_forbidden":
        return f"'Additional properties not allowed: {path[-1]}'{on_parent}."
    if kind in _TYPES:
        found = _FOUND.get(type(problem["input"]), "array")
        found = "null" if problem["input"] is None else found
        return f"'Expected type {_TYPES[kind]} but found type {found}' on property {where}."
    return f"'{problem['msg']}' on property {where}."


class Body(BaseModel):
    """A request body, which allows no unknown fields and no values of the wrong type."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _email(value: str) -> str:
    if not _EMAIL.fullmatch(value):
        raise PydanticCustomError(
            "format", "Object didn't pass validation for format email: {value}", {"value": value}
        )
    return value.lower()


Email = Annotated[str, Field(max_length=320), AfterValidator(_email)]
Metadata = dict[str, Any]
METADATA = ("user_metadata", "app_metadata")


def metadata_of(row: Row) -> Document:
    """Return the metadata of a user or an invitation, without empty ones."""
    return {name: json.loads(row[name]) for name in METADATA if row[name] != "{}"}


def parts(fields: str = "", include_fields: bool = True) -> Callable[[Document], Document]:
    """Return a function that keeps the given fields of a document, or only the others."""
    named = set(fields.split(","))
    return lambda document: {
        name: value
        for name, value in document.items()
        if not fields or (name in named) == include_fields
    }


PartsOf = Annotated[Callable[[Document], Document], Depends(parts)]
"""An endpoint parameter: reduces a document to the requested fields."""


@dataclass(frozen=True)
class Page:
    """The requested part of a list.

    Attributes:
        page: The page number, from 0.
        take: The number of items after a checkpoint; None for numbered pages.
        after: The checkpoint; None to start at the beginning.
    """

    page: int
    per_page: int
    totals: bool
    take: int | None = None
    after: str | None = None


def _page(
    page: Annotated[int, Query(ge=0)] = 0,
    per_page: Annotated[int, Query(ge=0, le=100)] = 50,
    include_totals: bool = False,
) -> Page:
    return Page(page, per_page, include_totals)


def _page_or_checkpoint(
    by_number: Annotated[Page, Depends(_page)],
    take: Annotated[int | None, Query(ge=1, le=100)] = None,
    after: Annotated[str | None, Query(alias="from")] = None,
) -> Page:
    if take is None and after is None:
        return by_number
    return Page(0, 0, totals=False, take=take or 50, after=after)


def _checkpoint(
    take: Annotated[int, Query(ge=1, le=100)] = 50,
    after: Annotated[str | None, Query(alias="from")] = None,
) -> Page:
    return Page(0, 0, totals=False, take=take, after=after)


PageOf = Annotated[Page, Depends(_page)]
"""An endpoint parameter: a numbered page."""
AnyPageOf = Annotated[Page, Depends(_page_or_checkpoint)]
"""An endpoint parameter: a numbered page, or the items after a checkpoint."""
CheckpointOf = Annotated[Page, Depends(_checkpoint)]
"""An endpoint parameter: the items after a checkpoint."""


def listed(
    db: Connection,
    page: Page,
    name: str,
    source: str,
    document: Callable[[Row], Document],
    *,
    order: str,
    key: str = "id",
    columns: str = "*",
    values: Mapping[str, object] | None = None,
    counted: bool = True,
    length: bool = False,
) -> Listed:
    """Return the requested part of a list of ``name``.

    ``source`` is what follows ``SELECT ... FROM``, and ``key`` the unique column that checkpoints
    use. Totals include the number of all items if ``counted``, of those on the page if ``length``.

    Raises:
        ManagementError: The part is beyond the reach of numbered pages.
    """
    select = f"SELECT {columns} FROM {source}"  # noqa: S608 - all ours
    sent = {**(values or {}), "checkpoint": page.after}
    if page.take is not None:
        after = f"AND {key} > :checkpoint" if page.after else ""
        rows = db.execute(f"{select} {after} ORDER BY {key} LIMIT {page.take + 1}", sent).fetchall()
        answer: Document = {name: [document(row) for row in rows[: page.take]]}
        return answer if len(rows) <= page.take else {**answer, "next": rows[page.take - 1][key]}
    start = page.page * page.per_page
    if start + page.per_page > _REACH:
        raise ManagementError(
            400, f"You can only page through the first {_REACH} records.", "invalid_paging"
        )
    tail = f"ORDER BY {order} LIMIT {page.per_page} OFFSET {start}"
    found = [document(row) for row in db.execute(f"{select} {tail}", sent)]
    if not page.totals:
        return found
    answer = {"start": start, "limit": page.per_page, name: found}
    if length:
        answer["length"] = len(found)
    if counted:
        count = f"SELECT count(*) FROM {source}"  # noqa: S608 - the source is ours
        answer["total"] = db.execute(count, sent).fetchone()[0]
    return answer


def needs(*scopes: str) -> Any:
    """Return a route dependency that requires a token with one of the scopes (``read:users``)."""

    def check(request: Request, provider: ProviderOf, authorization: Authorization = None) -> None:
        claims = _claims(provider, authorization)
        request.state.client_id = claims["azp"]
        if not set(scopes).intersection(str(claims.get("scope", "")).split()):
            expected = ",".join(scopes)
            raise ManagementError(
                403, f"Insufficient scope, expected any of: {expected}", "insufficient_scope"
            )

    return Depends(check)


def _claims(provider: ProviderOf, authorization: str | None) -> dict[str, Any]:
    scheme, _, token = (authorization or "").partition(" ")
    if not token:
        raise ManagementError(401, "Missing authentication")
    if scheme.lower() != "bearer":
        raise ManagementError(
            400, "Bad HTTP authentication header format", "invalid_authorization_header"
        )
    with provider.database.reading() as db:
        audience = provider.settings.management_audience
        claims = checked_claims(provider, db, token.strip(), audience)
    if claims is None:
        error = ManagementError(401, "Invalid token")
        error.body["attributes"] = {"error": "Invalid token"}
        raise error
    return claims


class Bucket:
    """A token bucket: each request takes a token, and ``rate`` tokens are added per second."""

    def __init__(self, burst: int, rate: float):
        self._burst, self._rate = burst, rate
        self._level, self._at = float(burst), time.monotonic()
        self._lock = Lock()

    def take(self) -> tuple[bool, dict[str, str]]:
        """Take a token; return False if there was none, and the headers of the response."""
        with self._lock:
            now = time.monotonic()
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
            self._at = now
            allowed = self._level >= 1
            if allowed:
                self._level -= 1
            level = self._level
        missing = min(self._burst, math.floor(level) + 1) - level
        more_at = time.time() + missing / self._rate
        headers = {
            "x-ratelimit-limit": str(self._burst),
            "x-ratelimit-remaining": str(int(level)),
            "x-ratelimit-reset": str(math.ceil(more_at)),
        }
        if not allowed:
            headers["Retry-After"] = str(max(1, math.ceil((1 - level) / self._rate)))
        return allowed, headers


class LimitMiddleware:
    """Applies the rate limit to Management API requests, and audits those that change something."""

    def __init__(self, app: ASGIApp, bucket: Bucket):
        self._app, self._bucket = app, bucket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        allowed, headers = self._bucket.take()

        async def send_with_level(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
                if request.method != "GET":
                    _audit(request, message["status"])
            await send(message)

        answer = self._app
        if not allowed:
            error = ManagementError(429, "Global limit has been reached", "too_many_requests")
            answer = JSONResponse(error.body, error.status)
        await answer(scope, receive, send_with_level)


def _audit(request: Request, status: int) -> None:
    audit(
        "management.called",
        client=getattr(request.state, "client_id", None),
        method=request.method,
        path=request.url.path,
        status=status,
        description=_purpose(request),
    )


def _purpose(request: Request) -> str | None:
    """Return what a request is for: the first sentence about its endpoint, if there is one."""
    text = getattr(request.scope.get("endpoint"), "__doc__", None) or ""
    return text.partition("\n")[0].rstrip(".") or None


@router.get("/connections", dependencies=[needs("read:connections")])
def connections(page: AnyPageOf, name: str = "", strategy: str = "") -> Listed:
    """List the connections: only the database connection exists here."""
    only = {
        "id": CONNECTION_ID,
        "name": CONNECTION,
        "strategy": "auth0",
        "enabled_clients": [],
        "realms": [CONNECTION],
        "options": {},
    }
    fits = name in {"", CONNECTION} and strategy in {"", "auth0"}
    found = [only] if fits and page.page == 0 else []
    if page.take is not None:
        return {"connections": found}
    if page.totals:
        length = len(found)
        limits = {"start": 0, "limit": page.per_page, "length": length, "total": length}
        return {**limits, "connections": found}
    return found


@router.get("/keys/signing", dependencies=[needs("read:signing_keys")])
def list_keys(provider: ProviderOf) -> list[Document]:
    """List the current and former signing keys."""
    with provider.database.reading() as db:
        rows = db.execute("SELECT * FROM signing_keys ORDER BY made_at DESC").fetchall()
    return [_key_document(row) for row in rows]


@router.post("/keys/signing/rotate", status_code=201, dependencies=[needs("create:signing_keys")])
def rotate_signing_key(provider: ProviderOf) -> Document:
    """Replace the signing key; the old one stays published for a while."""
    with provider.database.writing() as db:
        kid = rotate(db)
    audit("key.rotated", kid=kid)
    return {"kid": kid}


@router.put("/keys/signing/{kid}/revoke", dependencies=[needs("update:signing_keys")])
def revoke_signing_key(provider: ProviderOf, kid: str) -> Document:
    """Revoke a signing key; if it is the current one, create a new one."""
    with provider.database.writing() as db:
        if not revoke_key(db, kid):
            raise ManagementError(404, "The signing key does not exist.", "inexistent_key")
    audit("key.revoked", kid=kid)
    return {"kid": kid}


def _key_document(row: Row) -> Document:
    document: Document = {
        "kid": row["kid"],
        "current": row["retired_at"] is None,
        "current_since": iso(row["made_at"]),
        "revoked": row["revoked_at"] is not None,
    }
    if row["revoked_at"] is not None:
        document["revoked_at"] = iso(row["revoked_at"])
    return document
