"""The identity provider's web application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from local.identity import trial_routes
from local.identity.audit import audit
from local.identity.errors import OAuthError, PageError
from local.identity.management import invitations, members, organizations, roles, tenant, users
from local.identity.management.errors import ManagementError, not_valid
from local.identity.management.limits import PREFIX, Bucket, limit
from local.identity.oauth import device, discovery, ending, token, userinfo
from local.identity.pages import activate, authorize, signin
from local.identity.pages.rendering import page, style
from local.identity.provider import Provider
from local.listeners import is_own_connection

_common = APIRouter()
_OPEN = ("/.well-known/", "/healthz", "/assets/")
_NOT_YOURS = "This identity provider belongs to another account of this machine."
# Normal answers to a client that polls.
_QUIET = {"authorization_pending", "slow_down"}


def create_app(provider: Provider) -> FastAPI:
    """Create the web application of a provider."""
    settings = provider.settings
    app = FastAPI(title="Identity provider", openapi_url=None, redirect_slashes=False)
    app.state.provider = provider
    for part in (discovery, device, token, ending, userinfo, activate, signin, authorize):
        app.include_router(part.router)
    for managed in (users, organizations, members, invitations, roles, tenant):
        app.include_router(managed.router, prefix=PREFIX.rstrip("/"))
    app.include_router(_common)
    app.state.bucket = Bucket(settings.burst, settings.rate)
    app.middleware("http")(limit)
    if settings.trial:
        app.include_router(trial_routes.router)
        app.middleware("http")(trial_routes.throttle)
    app.middleware("http")(_for_our_account)
    # Refuse other host names: a web page could use one to read the answers (DNS rebinding).
    hosts = {"127.0.0.1", "localhost", urlsplit(settings.issuer).hostname or ""}
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=sorted(hosts - {""}))
    app.exception_handler(OAuthError)(_answer_client)
    app.exception_handler(PageError)(_answer_person)
    app.exception_handler(ManagementError)(_answer_manager)
    app.exception_handler(RequestValidationError)(_answer_invalid)
    app.exception_handler(StarletteHTTPException)(_answer_lost)
    return app


@_common.get("/healthz")
def health() -> dict[str, bool]:
    """Report that the provider is running."""
    return {"healthy": True}


@_common.get("/assets/style.css")
def style_sheet() -> Response:
    """The style sheet of the pages."""
    headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return Response(style(), media_type="text/css", headers=headers)


async def _for_our_account(
    request: Request, proceed: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Refuse connections from other accounts on this machine, as they could sign in as anyone."""
    path, peer = request.url.path, request.client
    if not path.startswith(_OPEN):
        own_port: int = request.app.state.provider.settings.port
        if peer is None or not is_own_connection(peer.port, own_port):
            audit("connection.refused", path=path)
            return JSONResponse(
                {"error": "access_denied", "error_description": _NOT_YOURS}, status_code=403
            )
    return await proceed(request)


async def _answer_client(request: Request, error: Exception) -> Response:
    assert isinstance(error, OAuthError)  # noqa: S101 - registered for this error only
    if error.error not in _QUIET:
        audit("request.refused", path=request.url.path, error=error.error, **error.about)
    status = error.status_in(request.app.state.provider.knobs.dialect)
    headers = {"Cache-Control": "no-store", **error.headers}
    return JSONResponse(error.body(), status, headers)


async def _answer_person(_request: Request, error: Exception) -> Response:
    assert isinstance(error, PageError)  # noqa: S101 - registered for this error only
    return page("error", None, status=error.status, error=error)


async def _answer_manager(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ManagementError)  # noqa: S101 - registered for this error only
    return JSONResponse(error.body, error.status, error.headers)


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this error only
    return await _answer_manager(request, not_valid(error.errors()))


async def _answer_lost(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException | StarletteHTTPException)  # noqa: S101 - same
    if "text/html" in request.headers.get("accept", ""):
        lost = PageError("There is nothing here", f"No page has the address {request.url.path}.")
        return page("error", None, status=error.status_code, error=lost)
    body: dict[str, Any] = {
        "statusCode": error.status_code,
        "error": str(error.detail),
        "message": str(error.detail),
    }
    return JSONResponse(body, error.status_code, error.headers)
