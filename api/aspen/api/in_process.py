"""A single request answered in this process, without a port, to inspect what it does."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import httpx
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import ASGIApp, Receive, Scope, Send

from aspen.api.admission import ASKER, Asker
from aspen.api.main import create_app
from aspen.api.settings import Settings
from aspen.database.models import User

_HOST = "http://profiled"


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        method: The HTTP method, such as ``GET``.
        path: The path with its query string.
        user: The user's e-mail address, ID, or account ID at the provider; None for no user.
        body: The JSON body; None for no body.
    """

    method: str
    path: str
    user: str | None = None
    body: bytes | None = None


@dataclass(frozen=True)
class Answer:
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
    app: Any = None,
) -> Answer:
    """Answer a request.

    Args:
        settings: The service's settings.
        asked: The request.
        around: Returns a context manager, given the service's engine; it wraps the request.
        app: An application to use instead of the service's own.
    """
    return asyncio.run(_answer(settings, asked, around, app))


async def _answer(
    settings: Settings,
    asked: Asked,
    around: Callable[[AsyncEngine], AbstractContextManager[object]],
    app: Any,
) -> Answer:
    app = app or create_app(settings)
    asked_app = app if asked.user is None else _asked_by(app, asked.user)
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
    return Answer(response.status_code, response.content)


def _asked_by(app: ASGIApp, name: str) -> ASGIApp:
    """Wrap the application so that requests come from that user without a token."""
    by_id = User.id == int(name) if name.isdecimal() else sa.false()
    known_as = sa.or_(by_id, User.email == name, User.auth0_user_id == name)

    async def known(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, ASKER: Asker(name, known_as)}, receive, send)

    return known
