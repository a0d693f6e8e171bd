"""A single request answered in this process, without a port, to inspect what it does."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import httpx
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import Receive, Scope, Send

from aspen.api.admission import ASKER
from aspen.api.main import create_app
from aspen.api.settings import Settings

_HOST = "http://profiled"


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str  # with its query string
    user: str | None = None  # the user's e-mail address, ID, or account ID at the provider
    body: bytes | None = None  # JSON


@dataclass(frozen=True)
class InProcessResponse:
    """The response."""

    status: int
    body: bytes


def settings_for(dsn: str) -> Settings:
    """Return settings for a service on that database that signs with temporary keys.

    Storage and jobs are configured by the environment.
    """
    own = {
        "GENEPI_CONFIG_SECRET_NAME": "",
        "DB_DSN": dsn,
        "FLASK_SECRET": secrets.token_urlsafe(),
        "AUSPICE_MAC_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }
    needed = {
        "AUTH0_CLIENT_ID": "profiled",
        "AUTH0_CLIENT_SECRET": secrets.token_urlsafe(),
        "AUTH0_DOMAIN": "profiled.invalid",
        "S3_external_auspice_bucket": "profiled",
    }
    return Settings.load({**needed, **os.environ, **own})


def answer(
    settings: Settings,
    asked: Asked,
    around: Callable[[AsyncEngine], AbstractContextManager[object]],
    app: FastAPI | None = None,
) -> InProcessResponse:
    """Answer a request, with the service's own application unless another is given.

    `around` returns a context manager, given the service's engine; it wraps the request.
    """
    return asyncio.run(_answer(app or create_app(settings), asked, around))


async def _answer(
    app: FastAPI, asked: Asked, around: Callable[[AsyncEngine], AbstractContextManager[object]]
) -> InProcessResponse:
    async def asked_app(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, ASKER: asked.user}, receive, send)

    async with app.router.lifespan_context(app):
        engine: AsyncEngine = app.state.runtime.sessions.kw["bind"]
        transport = httpx.ASGITransport(asked_app, raise_app_exceptions=False)
        with around(engine):
            async with httpx.AsyncClient(transport=transport, base_url=_HOST) as client:
                headers = {"Content-Type": "application/json"} if asked.body is not None else {}
                response = await client.request(
                    asked.method, asked.path, content=asked.body, headers=headers
                )
            await engine.dispose()  # here, while closing can still be awaited
    return InProcessResponse(response.status_code, response.content)
