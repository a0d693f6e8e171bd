"""The parts that all of the Management API shares: errors, paged lists, scopes, rate limit.

Formats and messages are Auth0's.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from threading import Lock
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from aspen.local.auth0.settings import audit
from aspen.local.auth0.store import ProviderOf
from aspen.local.auth0.tokens import checked_claims

PREFIX = "/api/v2/"

_REACH = 1000

Document = dict[str, Any]

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


class ManagementError(Exception):
    """An error in a Management API request.

    Args:
        status: The HTTP status.
        message: What happened.
        code: The error code for programs; Auth0 omits it for token errors.
        headers: Additional headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.body: dict[str, Any] = {
            "statusCode": status,
            "error": HTTPStatus(status).phrase,
            "message": message,
        }
        if code is not None:
            self.body["errorCode"] = code


@dataclass(frozen=True)
class Page:
    """The requested part of a list.

    Attributes:
        page: The page number, from 0.
        per_page: The number of items per page.
        totals: True to include the totals.
        take: The number of items after a checkpoint; None for numbered pages.
        after: The checkpoint; None to start at the beginning.
    """

    page: int
    per_page: int
    totals: bool
    take: int | None = None
    after: str | None = None


@dataclass(frozen=True)
class Listing:
    """A list to read from the database.

    Attributes:
        name: The key of the documents in the response.
        source: The tables and conditions after ``SELECT ... FROM``.
        document: Converts a row to a document.
        order: The ORDER BY expression.
        key: The unique column that checkpoints use.
        columns: The selected columns.
        values: The parameters of the conditions.
        counted: True if the response includes the total.
        length: True if the response includes the number of items on the page.
    """

    name: str
    source: str
    document: Callable[[sqlite3.Row], Document]
    order: str
    key: str = "id"
    columns: str = "*"
    values: Mapping[str, object] = field(default_factory=dict)
    counted: bool = True
    length: bool = False


def no_user() -> ManagementError:
    """Return the error for a user that does not exist."""
    return ManagementError(404, "The user does not exist.", "inexistent_user")


def no_organization() -> ManagementError:
    """Return the error for an organization that does not exist."""
    return ManagementError(
        404, "No organization found by that id or name", "inexistent_organization"
    )


def no_role() -> ManagementError:
    """Return the error for a role that does not exist."""
    return ManagementError(404, "The role does not exist.", "inexistent_role")


def bad_body(message: str) -> ManagementError:
    """Return the error for an invalid body."""
    return ManagementError(400, message, "invalid_body")


def bad_query(message: str) -> ManagementError:
    """Return the error for an invalid query."""
    return ManagementError(400, message, "invalid_query_string")


def not_valid(problems: Sequence[Mapping[str, Any]]) -> ManagementError:
    """Return the error for the first problem that pydantic found, in Auth0's wording."""
    problem = problems[0]
    place, *path = problem["loc"]
    if problem["type"] == "json_invalid":
        return ManagementError(400, "Invalid request payload JSON format")
    words = _words(problem, path)
    if place == "body":
        return bad_body(f"Payload validation error: {words}")
    if place == "query":
        return bad_query(f"Query validation error: {words}")
    return ManagementError(400, f"Path validation error: {words}", "invalid_uri")


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


def listed(db: sqlite3.Connection, listing: Listing, page: Page) -> list[Document] | Document:
    """Return the requested part of a list.

    Raises:
        ManagementError: The part is beyond the reach of numbered pages.
    """
    if page.take is not None:
        return _behind_checkpoint(db, listing, page.take, page.after)
    start = page.page * page.per_page
    if start + page.per_page > _REACH:
        raise ManagementError(
            400, f"You can only page through the first {_REACH} records.", "invalid_paging"
        )
    rows = _rows(db, listing, f"ORDER BY {listing.order} LIMIT {page.per_page} OFFSET {start}")
    if not page.totals:
        return rows
    answer: Document = {"start": start, "limit": page.per_page, listing.name: rows}
    if listing.length:
        answer["length"] = len(rows)
    if listing.counted:
        count = f"SELECT count(*) FROM {listing.source}"  # noqa: S608 - the source is ours
        answer["total"] = db.execute(count, listing.values).fetchone()[0]
    return answer


def parts(
    document: Document,
    fields: str | None,
    include: bool,
) -> Document:
    """Return a document with only the given fields, or without them."""
    if not fields:
        return document
    named = set(fields.split(","))
    return {name: value for name, value in document.items() if (name in named) == include}


def iso(moment: float) -> str:
    """Return a time in Auth0's format."""
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


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


PageOf = Annotated[Page, Depends(_page)]
"""An endpoint parameter: a numbered page."""
AnyPageOf = Annotated[Page, Depends(_page_or_checkpoint)]
"""An endpoint parameter: a numbered page, or the items after a checkpoint."""


def _behind_checkpoint(
    db: sqlite3.Connection, listing: Listing, take: int, after: str | None
) -> Document:
    condition = f"AND {listing.key} > :checkpoint" if after else ""
    tail = f"{condition} ORDER BY {listing.key} LIMIT {take + 1}"
    rows = _rows(db, listing, tail, after)
    answer: Document = {listing.name: rows[:take]}
    if len(rows) > take:
        answer["next"] = rows[take - 1][listing.key.rpartition(".")[2]]
    return answer


def _rows(
    db: sqlite3.Connection, listing: Listing, tail: str, after: str | None = None
) -> list[Document]:
    statement = f"SELECT {listing.columns} FROM {listing.source} {tail}"  # noqa: S608 - all ours
    values = {**listing.values, "checkpoint": after}
    return [listing.document(row) for row in db.execute(statement, values)]


def needs(*scopes: str) -> Any:
    """Return a route dependency that requires a token with at least one of the scopes.

    Args:
        scopes: Scopes such as ``read:users``.
    """

    def check(
        request: Request,
        provider: ProviderOf,
        authorization: Annotated[str | None, Header()] = None,
    ) -> None:
        claims = _claims(provider, authorization)
        request.state.client_id = claims["azp"]
        if not set(scopes) & set(str(claims.get("scope", "")).split()):
            raise ManagementError(
                403,
                f"Insufficient scope, expected any of: {','.join(scopes)}",
                "insufficient_scope",
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


@dataclass(frozen=True)
class Allowance:
    """The rate limit's decision on one request.

    Attributes:
        allowed: True if the request may proceed.
        limit: The number of requests allowed at once.
        remaining: The number of further requests allowed now.
        reset_at: When the full burst is available again, in seconds since 1970.
        retry_after: The number of seconds until the next request is allowed.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_at: int
    retry_after: int

    def headers(self) -> dict[str, str]:
        """Return the rate limit headers."""
        headers = {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(self.reset_at),
        }
        return headers if self.allowed else {**headers, "Retry-After": str(self.retry_after)}


class Bucket:
    """A token bucket: each request takes a token, and tokens are added at a fixed rate.

    Args:
        burst: The capacity.
        rate: The number of tokens added per second.
    """

    def __init__(self, burst: int, rate: float):
        self._burst, self._rate = burst, rate
        self._level, self._at = float(burst), time.monotonic()
        self._lock = Lock()

    def take(self) -> Allowance:
        """Take a token, if there is one."""
        with self._lock:
            now = time.monotonic()
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
            self._at = now
            allowed = self._level >= 1
            if allowed:
                self._level -= 1
            level = self._level
        full_in = (self._burst - level) / self._rate
        return Allowance(
            allowed=allowed,
            limit=self._burst,
            remaining=int(level),
            reset_at=math.ceil(time.time() + full_in),
            retry_after=max(1, math.ceil((1 - level) / self._rate)),
        )


async def limit(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
    """Apply the rate limit to Management API requests, and audit those that change something."""
    if not request.url.path.startswith(PREFIX):
        return await proceed(request)
    bucket: Bucket = request.app.state.bucket
    allowance = bucket.take()
    if allowance.allowed:
        response = await proceed(request)
    else:
        error = ManagementError(429, "Global limit has been reached", "too_many_requests")
        response = JSONResponse(error.body, error.status)
    response.headers.update(allowance.headers())
    if request.method != "GET":
        audit(
            "management.called",
            client=getattr(request.state, "client_id", None),
            method=request.method,
            path=request.url.path,
            status=response.status_code,
        )
    return response
