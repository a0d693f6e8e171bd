"""Visits: what a browser is doing at the identity provider."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from itsdangerous import BadData, URLSafeTimedSerializer

from aspen.local.auth0.errors import PageError
from aspen.local.auth0.settings import hashed, new_secret
from aspen.local.auth0.store import Provider

_BROWSER = "identity_browser"


_SESSION = "identity_session"


_BROWSER_SECONDS = 30 * 86_400


_SESSION_SECONDS = 12 * 3600


_FORM_SECONDS = 3600


@dataclass(frozen=True)
class Person:
    """A person signed in to these pages.

    Attributes:
        user_id: Their user ID.
        name: Their name.
        email: Their e-mail address.
        auth_time: When they signed in, in seconds since 1970.
    """

    user_id: str
    name: str
    email: str
    auth_time: float


@dataclass(frozen=True)
class Visit:
    """A request from a browser.

    Attributes:
        provider: The provider.
        browser: The ID of the browser, to which its forms are tied.
        person: The person signed in; None if there is none.
    """

    provider: Provider
    browser: str
    person: Person | None

    def token(self) -> str:
        """Return the form token, which proves that a page was served to this browser."""
        return _serializer(self.provider, "form").dumps(hashed(self.browser))

    def check(self, sent: Mapping[str, str]) -> None:
        """Check that a form was sent from one of our pages in this browser.

        Raises:
            PageError: It was not, or the page is more than an hour old.
        """
        try:
            owner = _serializer(self.provider, "form").loads(
                sent.get("token", ""), max_age=_FORM_SECONDS
            )
        except BadData:
            owner = None
        if owner != hashed(self.browser):
            raise PageError(
                "This page has expired",
                "The form was not sent from a current page in this browser. Start again from the"
                " app that sent you here, and make sure that cookies are allowed.",
                403,
            )

    def keep(self, response: Response) -> None:
        """Set the cookie that identifies the browser."""
        _set_cookie(response, _BROWSER, self.browser, _BROWSER_SECONDS)


def packed(provider: Provider, content: Mapping[str, Any]) -> str:
    """Sign content, so that it cannot be altered while a page carries it and sends it back."""
    return str(_serializer(provider, "state").dumps(dict(content)))


def unpacked(provider: Provider, state: str) -> dict[str, Any]:
    """Return the content of a signed state.

    Raises:
        PageError: The signature is invalid or more than an hour old.
    """
    try:
        content: dict[str, Any] = _serializer(provider, "state").loads(state, max_age=_FORM_SECONDS)
    except BadData as error:
        raise PageError(
            "Nothing to sign in to",
            "Start from the app that you want to sign in to; it opens this page.",
        ) from error
    return content


def begin_session(
    provider: Provider, db: sqlite3.Connection, response: Response, user_id: str
) -> None:
    """Start a session for a user in this browser."""
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
    """End the browser's session; return the ID of its user, if there was one."""
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
        salt=f"aspen.local.auth0.{purpose}",
        signer_kwargs={"digest_method": hashlib.sha256},
    )


def _set_cookie(response: Response, name: str, value: str, seconds: int) -> None:
    # Not "secure": the pages are served on loopback without TLS.
    response.set_cookie(name, value, max_age=seconds, httponly=True, samesite="lax")


VisitOf = Annotated[Visit, Depends(_visit)]
"""An endpoint parameter: the visit."""
