"""Endpoints for the knobs of a running provider: ``/trial/knobs``, only with ``--trial``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from local.identity.provider import Provider, ProviderOf

router = APIRouter(prefix="/trial")
_THROTTLED = ("/oauth/", "/api/v2/")


@router.get("/knobs")
def show(provider: ProviderOf) -> dict[str, Any]:
    """The knobs as they stand."""
    return asdict(provider.knobs)


@router.patch("/knobs", response_model=None)
def turn(provider: ProviderOf, changes: dict[str, Any]) -> Response | dict[str, Any]:
    """Turn some of them; see ``local.identity.trial.Knobs``."""
    try:
        return asdict(provider.trial.change(changes))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        return JSONResponse({"error": "; ".join(problems)}, 400)


@router.delete("/knobs")
def reset(provider: ProviderOf) -> dict[str, Any]:
    """Have their ordinary values again."""
    return asdict(provider.trial.reset())


async def throttle(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
    """Answer with 429 as often as the ``throttled`` knob says."""
    provider: Provider = request.app.state.provider
    if not request.url.path.startswith(_THROTTLED) or not provider.trial.take("throttled"):
        return await proceed(request)
    body = {"error": "too_many_requests", "error_description": "Too Many Requests"}
    if request.url.path.startswith("/api/"):
        body = {"statusCode": "429", "error": "Too Many Requests"}
    wait = provider.knobs.retry_after
    headers = {} if wait is None else {"Retry-After": str(wait)}
    return JSONResponse(body, 429, headers)
