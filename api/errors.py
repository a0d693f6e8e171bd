"""What went wrong, in the service's own shapes.

* The application says no: ``{"error": "text"}``, with details beside it.
* The request does not fit its schema: 422, ``{"detail": [{"loc", "msg", "type"}]}``.
* No such path or method: ``{"detail": "text"}``, as the framework has it.
* A bug: 500, ``Internal Server Error`` as plain text.
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

from api.limits import MAX_FINDINGS
from api.management import ManagementError, ManagementUnavailableError

_log = logging.getLogger(__name__)
_LOCK_TIMEOUT, _DEADLOCK, _LIMIT = "55P03", "40P01", "54000"
_UNREADABLE, _WRONG_METHOD = 400, 405
_MAX_TEXT, _MAX_WORD = 500_000, 500
_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")


class ApiError(HTTPException):
    """The application says no; ``raise ApiError(404, "sample not found", ids=[7])``.

    It is one of the framework's own, so that it passes through unchanged where a body is read.

    Args:
        status: The HTTP status.
        message: The text under ``error``; clients compare it, so a change of one is breaking.
        headers: Headers of the answer.
        details: Further keys of the body.
    """

    def __init__(
        self, status: int, message: str, *, headers: Mapping[str, str] | None = None, **details: Any
    ):
        super().__init__(status, message, headers)
        self.status, self.message, self.details = status, message, details


def login_failure() -> ApiError:
    """No token, a bad one, or that of somebody who is not in the database."""
    return ApiError(401, "Login failure")


def not_authorized() -> ApiError:
    """The gate: no role in the group, or no system administrator."""
    return ApiError(403, "Not authorized")


def unavailable(what: str) -> ApiError:
    """Something that the service needs does not answer; trying again may help."""
    return ApiError(503, f"{what} cannot be reached", headers={"Retry-After": "2"})


class ErrorResponse(BaseModel):
    """What the application says when it says no."""

    model_config = ConfigDict(extra="allow")

    error: str


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What to give as ``responses`` so that the documentation tells of these errors."""
    return {status: {"model": ErrorResponse} for status in statuses}


def add_handlers(app: FastAPI) -> None:
    """Let every error leave the service in its shape."""

    @app.exception_handler(ApiError)
    async def _application(_: Request, error: ApiError) -> JSONResponse:
        body = {"error": error.message, **error.details}
        return JSONResponse(body, error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> JSONResponse:
        _let_go_of_frames(error)
        return JSONResponse({"detail": _described(error)}, 422)

    @app.exception_handler(HTTPException)
    async def _framework(request: Request, error: HTTPException) -> Response:
        _let_go_of_frames(error)
        if error.status_code == _UNREADABLE:
            # The one such error that the framework has: a body that is no text, or too deep.
            finding = {"loc": ["body"], "msg": "not JSON in UTF-8", "type": "json_invalid"}
            return JSONResponse({"detail": [finding]}, 422)
        if error.status_code == _WRONG_METHOD:
            error.headers = {"Allow": ", ".join(_methods(request))}
        return await http_exception_handler(request, error)

    @app.exception_handler(ManagementError)
    async def _refused(request: Request, error: ManagementError) -> JSONResponse:
        # Not foreseen where it was asked: we may lack a right there.
        _log.error("the identity provider said %s: %s", error.status, error.message)
        refusal = ApiError(502, "the identity provider refused", reason=error.message)
        return await _application(request, refusal)

    @app.exception_handler(ManagementUnavailableError)
    async def _away(request: Request, error: ManagementUnavailableError) -> JSONResponse:
        _log.warning("the identity provider: %s", error)
        return await _application(request, unavailable("the identity provider"))

    @app.exception_handler(EndpointConnectionError)
    @app.exception_handler(ConnectTimeoutError)
    @app.exception_handler(ConnectionClosedError)
    @app.exception_handler(ReadTimeoutError)
    # The machine that hands credentials out does not answer now; the next request asks again.
    @app.exception_handler(NoCredentialsError)
    @app.exception_handler(CredentialRetrievalError)
    async def _no_aws(request: Request, error: BotoCoreError) -> JSONResponse:
        _log.warning("AWS: %s", error)
        return await _application(request, unavailable("AWS"))

    @app.exception_handler(DBAPIError)
    async def _database(request: Request, error: DBAPIError) -> JSONResponse:
        state = getattr(error.orig, "sqlstate", None)
        if state == _LIMIT:
            # Texts may be as long as one likes, but for those that have to be unique.
            return await _application(request, ApiError(400, "a value is too long"))
        if not (error.connection_invalidated or state in {_LOCK_TIMEOUT, _DEADLOCK}):
            raise error
        _log.warning("%s %s: %s", request.method, request.url.path, error.orig)
        return await _application(request, unavailable("the database"))


def _let_go_of_frames(error: BaseException) -> None:
    """Forget where an answered error was raised.

    FastAPI keeps the error of a broken body in a variable of the function that raises it. Its
    traceback leads back to that function, so the body, in another variable, would stay in memory
    until garbage is collected: 80 bodies of 20 MB took 1.1 GB.
    """
    one: BaseException | None = error
    while one is not None:
        one.__traceback__ = None
        one = one.__cause__ or one.__context__


def _methods(request: Request) -> list[str]:
    """What may be done with a path; each route knows its own method only."""
    found: set[str] = set()
    for method in _METHODS:
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            found.add(method)
    return sorted(found)


def _described(error: RequestValidationError) -> list[dict[str, Any]]:
    """Describe each finding once, up to a limit; never the value: it can be large, or a secret."""
    listed: list[dict[str, Any]] = []
    seen: set[str] = set()
    size = 0
    for entry in error.errors():
        finding: dict[str, Any] = {
            "loc": [_shortened(part) for part in entry["loc"]],
            "msg": _shortened(entry["msg"]),
            "type": entry["type"],
        }
        if context := entry.get("ctx"):
            finding["ctx"] = {key: _shortened(_plain(value)) for key, value in context.items()}
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


def _shortened(value: Any) -> Any:
    """A name or a value of the request may be as long as its body, and no Unicode text."""
    if not isinstance(value, str):
        return value
    text = value[:_MAX_WORD].encode(errors="backslashreplace").decode()
    return text if len(value) <= _MAX_WORD else f"{text}…"


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
