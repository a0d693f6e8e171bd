"""The error responses of the service.

* Application error: ``{"error": "text"}``, with further keys for details.
* Request that does not match its schema: 422, ``{"detail": [{"loc", "msg", "type"}]}``.
* Unknown path or method: ``{"detail": "text"}``, the framework's format.
* Bug: 500, ``Internal Server Error`` as plain text.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from aspen.api.limits import MAX_FINDINGS
from aspen.identity.management import ManagementError, ManagementUnavailableError

_log = logging.getLogger(__name__)
_LOCK_TIMEOUT, _DEADLOCK, _LIMIT = "55P03", "40P01", "54000"
_UNREADABLE, _WRONG_METHOD = 400, 405
_MAX_TEXT, _MAX_WORD = 500_000, 500
_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
_AWS_IS_AWAY = (
    EndpointConnectionError,
    ConnectTimeoutError,
    ConnectionClosedError,
    ReadTimeoutError,
    # The credential provider is not responding; the next request tries again.
    NoCredentialsError,
    CredentialRetrievalError,
)


class ApiError(HTTPException):
    """An application error, as in ``raise ApiError(404, "sample not found", ids=[7])``.

    It extends the framework's exception so that it passes unchanged through the reading of bodies.
    Clients compare the message, the text under ``error``: changing one is a breaking change.
    `details` are further keys of the body.
    """

    def __init__(
        self, status: int, message: str, *, headers: Mapping[str, str] | None = None, **details: Any
    ):
        super().__init__(status, message, headers)
        self.status, self.message, self.details = status, message, details


def login_failure() -> ApiError:
    """Return the error for a missing or invalid token, or a user who is not in the database."""
    return ApiError(401, "Login failure")


def not_authorized() -> ApiError:
    """Return the error for a user without the required role or administrator rights."""
    return ApiError(403, "Not authorized")


def unavailable(what: str) -> ApiError:
    """Return the error for a dependency that cannot be reached; retrying may help."""
    return ApiError(503, f"{what} cannot be reached", headers={"Retry-After": "2"})


class ErrorResponse(BaseModel):
    """An application error."""

    model_config = ConfigDict(extra="allow")

    error: str


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` argument that documents these errors."""
    return {status: {"model": ErrorResponse} for status in statuses}


def add_handlers(app: FastAPI) -> None:
    """Register the handlers that turn errors into responses."""
    app.exception_handler(ApiError)(_application)
    app.exception_handler(RequestValidationError)(_validation)
    app.exception_handler(HTTPException)(_framework)
    app.exception_handler(ManagementError)(_refused)
    app.exception_handler(ManagementUnavailableError)(_away)
    for kind in _AWS_IS_AWAY:
        app.exception_handler(kind)(_no_aws)
    app.exception_handler(DBAPIError)(_database)


async def _application(_: Request, error: ApiError) -> JSONResponse:
    body = {"error": error.message, **error.details}
    return JSONResponse(body, error.status, error.headers)


async def _validation(_: Request, error: RequestValidationError) -> JSONResponse:
    _let_go_of_frames(error)
    return JSONResponse({"detail": _described(error)}, 422)


async def _framework(request: Request, error: HTTPException) -> Response:
    _let_go_of_frames(error)
    if error.status_code == _UNREADABLE:
        # The framework's only error 400: a body that is not text, or is nested too deeply.
        finding = {"loc": ["body"], "msg": "not valid JSON in UTF-8", "type": "json_invalid"}
        return JSONResponse({"detail": [finding]}, 422)
    if error.status_code == _WRONG_METHOD:
        error.headers = {"Allow": ", ".join(_methods(request))}
    return await http_exception_handler(request, error)


async def _refused(request: Request, error: ManagementError) -> JSONResponse:
    # The calling code did not expect this: the service may lack a permission there.
    _log.error("The identity provider returned %s: %s", error.status, error.message)
    refusal = ApiError(502, "the identity provider rejected the request", reason=error.message)
    return await _application(request, refusal)


async def _away(request: Request, error: ManagementUnavailableError) -> JSONResponse:
    _log.warning("Cannot reach the identity provider: %s", error)
    return await _application(request, unavailable("the identity provider"))


async def _no_aws(request: Request, error: BotoCoreError) -> JSONResponse:
    _log.warning("Cannot reach AWS: %s", error)
    return await _application(request, unavailable("AWS"))


async def _database(request: Request, error: DBAPIError) -> JSONResponse:
    state = getattr(error.orig, "sqlstate", None)
    if state == _LIMIT:
        # Texts may have any length, except for those with a unique index.
        return await _application(request, ApiError(400, "a value is too long"))
    if not (error.connection_invalidated or state in {_LOCK_TIMEOUT, _DEADLOCK}):
        raise error
    _log.warning("%s %s: %s", request.method, request.url.path, error.orig)
    return await _application(request, unavailable("the database"))


def _let_go_of_frames(error: BaseException) -> None:
    """Drop the tracebacks of a handled error and its causes.

    FastAPI keeps the error of an invalid body in a local variable of the function that raises it.
    The traceback refers back to that frame, so the body, another local, would stay in memory
    until the next garbage collection: 80 bodies of 20 MB took 1.1 GB.
    """
    one: BaseException | None = error
    while one is not None:
        one.__traceback__ = None
        one = one.__cause__ or one.__context__


def _methods(request: Request) -> list[str]:
    """Return the methods that a path allows; each route knows only its own."""
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def _described(error: RequestValidationError) -> list[dict[str, Any]]:
    """Return each distinct error once, up to a limit; omit values, which may be long or secret."""
    listed: list[dict[str, Any]] = []
    seen: set[str] = set()
    size = 0
    for entry in error.errors():
        finding = _finding(entry)
        text = json.dumps(finding)
        if text in seen:
            continue
        seen.add(text)
        if len(listed) < MAX_FINDINGS and size + len(text) <= _MAX_TEXT:
            listed.append(finding)
            size += len(text)
    if left := len(seen) - len(listed):
        listed.append(
            {
                "loc": ["body"],
                "msg": f"{left} more errors are not listed",
                "type": "too_many_errors",
                "ctx": {"listed": len(listed), "not_listed": left},
            }
        )
    return listed


def _finding(entry: Mapping[str, Any]) -> dict[str, Any]:
    finding: dict[str, Any] = {
        "loc": [_shortened(part) for part in entry["loc"]],
        "msg": _shortened(entry["msg"]),
        "type": entry["type"],
    }
    if context := entry.get("ctx"):
        finding["ctx"] = {key: _shortened(_plain(value)) for key, value in context.items()}
    return finding


def _shortened(value: Any) -> Any:
    """Truncate a string and escape invalid Unicode in it; return other values unchanged."""
    if not isinstance(value, str):
        return value
    text = value[:_MAX_WORD].encode(errors="backslashreplace").decode()
    return text if len(value) <= _MAX_WORD else f"{text}…"


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
