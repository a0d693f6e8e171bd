"""Whose browser is asking: two cookies, and forms that only this browser can send."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from itsdangerous import BadData, URLSafeTimedSerializer

from local.identity.errors import PageError
from local.identity.hashing import hashed, new_secret
from local.identity.provider import Provider

_BROWSER = "identity_browser"
_SESSION = "identity_session"
_BROWSER_SECONDS = 30 * 86_400
_SESSION_SECONDS = 12 * 3600
_FORM_SECONDS = 3600


@dataclass(frozen=True)
class Person:
    """Who is signed in to these pages.

    Attributes:
        user_id: Who they are.
        name: What they are called.
        email: Their address.
        auth_time: When they signed in.
    """

    user_id: str
    name: str
    email: str
    auth_time: float


@dataclass(frozen=True)
class Visit:
    """One request of a browser.

    Attributes:
        provider: The provider.
        browser: What tells this browser from others; its forms are tied to it.
        person: Who is signed in; None for nobody.
    """

    provider: Provider
    browser: str
    person: Person | None

    def token(self) -> str:
        """What every form carries: proof that the page came from here, to this browser."""
        return _serializer(self.provider, "form").dumps(hashed(self.browser))

    def check(self, sent: Mapping[str, str]) -> None:
        """Refuse a form that did not come from a page of ours in this browser.

        Raises:
            PageError: It did not, or its page is an hour old.
        """
        try:
            owner = _serializer(self.provider, "form").loads(
                sent.get("token", ""), max_age=_FORM_SECONDS
            )
        except BadData:
            owner = None
        if owner != hashed(self.browser):
            raise PageError(
                "That page is too old",
                "The form was not sent from a current page of this browser. Start again from the"
                " program that brought you here; cookies must be allowed.",
                403,
            )

    def keep(self, response: Response) -> None:
        """Have the browser keep what tells it from others."""
        _set_cookie(response, _BROWSER, self.browser, _BROWSER_SECONDS)


def packed(provider: Provider, content: Mapping[str, Any]) -> str:
    """Something to be carried through a page and back, which nobody can change on the way."""
    return str(_serializer(provider, "state").dumps(dict(content)))


def unpacked(provider: Provider, state: str) -> dict[str, Any]:
    """What was packed.

    Raises:
        PageError: It is nothing of ours, or older than an hour.
    """
    try:
        content: dict[str, Any] = _serializer(provider, "state").loads(state, max_age=_FORM_SECONDS)
    except BadData as error:
        raise PageError(
            "Nothing to sign in to",
            "This page is reached from a program that asks you to sign in. Start there.",
        ) from error
    return content


def begin_session(
    provider: Provider, db: sqlite3.Connection, response: Response, user_id: str
) -> None:
    """Remember in this browser who signed in."""
    session, now = new_secret(), provider.now()
    db.execute("DELETE FROM sessions WHERE expires_at < ?", (now,))
    db.execute(
        "INSERT INTO sessions (session_hash, user_id, auth_time, expires_at) VALUES (?, ?, ?, ?)",
        (hashed(session), user_id, now, now + _SESSION_SECONDS),
    )
    db.execute(
        "UPDATE users SET last_login = ?, logins_count = logins_count + 1 WHERE user_id = ?",
        (now, user_id),
    )
    _set_cookie(response, _SESSION, session, _SESSION_SECONDS)


def end_session(request: Request, db: sqlite3.Connection, response: Response) -> str | None:
    """Forget who signed in; returns who it was."""
    ended = db.execute(
        "DELETE FROM sessions WHERE session_hash = ? RETURNING user_id",
        (hashed(request.cookies.get(_SESSION, "")),),
    ).fetchone()
    response.delete_cookie(_SESSION)
    return None if ended is None else str(ended["user_id"])


def _visit(request: Request) -> Visit:
    provider: Provider = request.app.state.provider
    browser = request.cookies.get(_BROWSER) or new_secret()
    session = request.cookies.get(_SESSION)
    return Visit(provider, browser, _person(provider, session) if session else None)


def _person(provider: Provider, session: str) -> Person | None:
    with provider.database.reading() as db:
        row = db.execute(
            "SELECT user_id, name, email, auth_time FROM sessions JOIN users USING (user_id)"
            " WHERE session_hash = ? AND expires_at > ? AND NOT blocked",
            (hashed(session), provider.now()),
        ).fetchone()
    return None if row is None else Person(**row)


def _serializer(provider: Provider, purpose: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(
        provider.form_secret,
        salt=f"local.identity.{purpose}",
        signer_kwargs={"digest_method": hashlib.sha256},
    )


def _set_cookie(response: Response, name: str, value: str, seconds: int) -> None:
    # Not "secure": the pages are served on loopback without TLS.
    response.set_cookie(name, value, max_age=seconds, httponly=True, samesite="lax")


VisitOf = Annotated[Visit, Depends(_visit)]
"""Whose browser it is, as an endpoint's parameter."""
