"""The identity provider's web application, and the command that serves it.

    python -m aspen.local.auth0 --port 3031 --folder DIR

With ``--trial``, tests change the provider's behavior at ``/trial/knobs``.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from aspen.local.auth0 import (
    endpoints,
    management,
    organizations,
    sessions,
    sign_in,
    tenant_log,
    ticket_pages,
    tickets,
    users,
)
from aspen.local.auth0.audit import audit, log_to_stderr
from aspen.local.auth0.clients import OAuthError, PageError
from aspen.local.auth0.management import PREFIX, Bucket, LimitMiddleware, ManagementError, not_valid
from aspen.local.auth0.pages import TEMPLATES, page
from aspen.local.auth0.settings import Dialect, ProviderSettings
from aspen.local.auth0.store import LocalProvider, ProviderOf
from aspen.local.auth0.tenant_log import TenantLogMiddleware
from aspen.local.processes import HOST, is_free, is_own_connection
from aspencli.errors import AspenError, ConflictError

_STOP_SECONDS = 2
_OPEN = ("/.well-known/", "/healthz", "/assets/")
_NOT_YOURS = "This identity provider belongs to another user of this machine."
# Normal answers to a client that polls.
_QUIET = {"authorization_pending", "slow_down"}
# Auth0's statuses for errors that have status 400 in the RFCs.
_AUTH0_STATUSES = {
    "authorization_pending": 403,
    "slow_down": 429,
    "expired_token": 403,
    "access_denied": 403,
    "invalid_grant": 403,
    "unauthorized_client": 403,
}
_THROTTLED = ("/oauth/", "/api/v2/")

trial_router = APIRouter(prefix="/trial")


def main(arguments: list[str] | None = None) -> int:
    """Serve until stopped; return the exit code."""
    os.umask(0o077)
    try:
        return _serve(_settings(arguments))
    except AspenError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        if error.hint:
            print(error.hint, file=sys.stderr)  # noqa: T201 - same
        return error.exit_code


def _serve(settings: ProviderSettings) -> int:
    import uvicorn

    _check_free(settings.port)
    # uvicorn re-raises the signal that stops it; this makes that a normal exit.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log_to_stderr()
    provider = LocalProvider(settings)
    audit("provider.started", issuer=settings.issuer, trial=settings.trial)
    try:
        with provider.database.kept_open():
            # uvicorn's access log would contain the codes in URLs.
            uvicorn.run(
                create_app(provider),
                host=HOST,
                port=settings.port,
                access_log=False,
                log_level="warning",
                server_header=False,
                timeout_graceful_shutdown=_STOP_SECONDS,
            )
    finally:
        audit("provider.stopped", issuer=settings.issuer)
    return 0


def _check_free(port: int) -> None:
    if not is_free(port):
        raise ConflictError(
            f"Port {port} is in use by another program.",
            hint="Choose another port with --port, or stop that program.",
        )


def _settings(arguments: list[str] | None) -> ProviderSettings:
    parser = argparse.ArgumentParser(
        prog="python -m aspen.local.auth0",
        description="Serve the identity provider of a local deployment, on 127.0.0.1 only.",
        argument_default=argparse.SUPPRESS,  # those of Settings apply
    )
    parser.add_argument("--port", type=_port, required=True, help="port to listen on")
    parser.add_argument("--folder", type=_folder, required=True, help="folder for the data")
    parser.add_argument(
        "--issuer", type=_issuer, help="issuer URL in tokens (default: http://127.0.0.1:PORT/)"
    )
    parser.add_argument(
        "--dialect",
        type=Dialect,
        choices=list(Dialect),
        help="HTTP status for a pending device code: 403 (auth0) or 400 (rfc)",
    )
    parser.add_argument(
        "--reuse-seconds",
        type=float,
        metavar="N",
        help="accept a used refresh token for N more seconds, in case the response was lost",
    )
    parser.add_argument(
        "--burst", type=_burst, metavar="N", help="Management API rate limit: burst size"
    )
    parser.add_argument(
        "--rate", type=_rate, metavar="N", help="Management API rate limit: requests per second"
    )
    parser.add_argument(
        "--trial", action="store_true", help="enable the endpoints for tests (/trial)"
    )
    chosen = vars(parser.parse_args(arguments))
    return ProviderSettings(**{"issuer": f"http://{HOST}:{chosen['port']}/", **chosen})


def _folder(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _port(text: str) -> int:
    if not 0 < (port := int(text)) < 65_536:  # noqa: PLR2004 - the range of ports
        raise ValueError(text)
    return port


def _burst(text: str) -> int:
    if (burst := int(text)) < 1:
        raise ValueError(text)
    return burst


def _rate(text: str) -> float:
    if not 0 < (rate := float(text)) < float("inf"):
        raise ValueError(text)
    return rate


def _issuer(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        raise ValueError(text)
    return f"{text.rstrip('/')}/"


def create_app(provider: LocalProvider) -> FastAPI:
    """Create the web application of a provider."""
    settings = provider.settings
    app = FastAPI(
        title="Identity provider",
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers={
            OAuthError: _answer_client,
            PageError: _answer_person,
            ManagementError: _answer_manager,
            RequestValidationError: _answer_invalid,
            HTTPException: _answer_lost,
        },
    )
    app.state.provider = provider
    _add_routes(app, trial=settings.trial)
    app.add_middleware(LimitMiddleware, bucket=Bucket(settings.burst, settings.rate))
    if settings.trial:
        app.add_middleware(RefusalMiddleware, refusal=throttled)
    app.add_middleware(TenantLogMiddleware, store=provider.database)
    app.add_middleware(RefusalMiddleware, refusal=_for_other_account)
    # Refuse other host names: a web page could use one to read the answers (DNS rebinding).
    hosts = {"127.0.0.1", "localhost", urlsplit(settings.issuer).hostname or ""}
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=sorted(hosts - {""}))
    return app


def _add_routes(app: FastAPI, *, trial: bool) -> None:
    for part in (endpoints, sign_in, ticket_pages):
        app.include_router(part.router)
    for managed in (users, sessions, organizations, tickets, tenant_log, management):
        app.include_router(managed.router, prefix=PREFIX.rstrip("/"))
    app.get("/healthz")(health)
    app.get("/assets/style.css")(style_sheet)
    if trial:
        app.include_router(trial_router)


def health() -> dict[str, bool]:
    """Report that the provider is running."""
    return {"healthy": True}


def style_sheet() -> Response:
    """Return the style sheet of the pages."""
    headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    style = TEMPLATES.get_template("style.css").render()
    return Response(style, media_type="text/css", headers=headers)


class RefusalMiddleware:
    """Answers a request itself if a function returns a response for it.

    Starlette's own base class for this takes a quarter of the time of a request.
    """

    def __init__(self, app: ASGIApp, refusal: Callable[[Request], Response | None]):
        self._app, self._refusal = app, refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        refused = self._refusal(Request(scope)) if scope["type"] == "http" else None
        await (refused or self._app)(scope, receive, send)


def _for_other_account(request: Request) -> Response | None:
    """Refuse connections from other accounts on this machine, as they could sign in as anyone."""
    path, peer = request.url.path, request.client
    if path.startswith(_OPEN):
        return None
    own_port: int = request.app.state.provider.settings.port
    if peer is not None and is_own_connection(peer.port, own_port):
        return None
    audit("connection.refused", path=path)
    return JSONResponse(
        {"error": "access_denied", "error_description": _NOT_YOURS}, status_code=403
    )


async def _answer_client(request: Request, error: OAuthError) -> Response:
    if error.error not in _QUIET:
        about = {"error": error.error, **error.about, "description": error.description}
        audit("request.refused", path=request.url.path, **about)
    status, dialect = error.status, request.app.state.provider.knobs.dialect
    if dialect is Dialect.AUTH0 and status == 400:  # noqa: PLR2004 - the RFC's default
        status = _AUTH0_STATUSES.get(error.error, status)
    return JSONResponse(error.body(), status, {"Cache-Control": "no-store", **error.headers})


async def _answer_person(_request: Request, error: PageError) -> Response:
    return page("error", None, status=error.status, error=error)


async def _answer_manager(_request: Request, error: ManagementError) -> Response:
    return JSONResponse(error.body, error.status)


async def _answer_invalid(request: Request, error: RequestValidationError) -> Response:
    return await _answer_manager(request, not_valid(error.errors()))


async def _answer_lost(request: Request, error: HTTPException) -> Response:
    if "text/html" in request.headers.get("accept", ""):
        lost = PageError("Page not found", f"There is no page at {request.url.path}.")
        return page("error", None, status=error.status_code, error=lost)
    detail = str(error.detail)
    body = {"statusCode": error.status_code, "error": detail, "message": detail}
    return JSONResponse(body, error.status_code, error.headers)


@trial_router.get("/knobs")
def show(provider: ProviderOf) -> dict[str, Any]:
    """Return the current knobs."""
    return asdict(provider.knobs)


@trial_router.patch("/knobs", response_model=None)
def turn(provider: ProviderOf, changes: dict[str, Any]) -> Response | dict[str, Any]:
    """Change some of the knobs; see ``aspen.local.auth0.settings.Knobs``."""
    try:
        return asdict(provider.change(changes))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        return JSONResponse({"error": "; ".join(problems)}, 400)


@trial_router.delete("/knobs")
def reset(provider: ProviderOf) -> dict[str, Any]:
    """Reset the knobs to their defaults."""
    return asdict(provider.reset())


def throttled(request: Request) -> Response | None:
    """Answer with 429 as often as the ``throttled`` knob says."""
    provider: LocalProvider = request.app.state.provider
    if not request.url.path.startswith(_THROTTLED) or not provider.take("throttled"):
        return None
    body = {"error": "too_many_requests", "error_description": "Too Many Requests"}
    if request.url.path.startswith("/api/"):
        body = {"statusCode": "429", "error": "Too Many Requests"}
    wait = provider.knobs.retry_after
    headers = {} if wait is None else {"Retry-After": str(wait)}
    return JSONResponse(body, 429, headers)
