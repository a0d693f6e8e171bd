"""The pages for people, as plain HTML without scripts, and the browsers that visit them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from sqlite3 import Connection, Row
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from itsdangerous import BadData, URLSafeTimedSerializer
from jinja2 import Environment, PackageLoader, StrictUndefined

from aspen.local.auth0.clients import PageError
from aspen.local.auth0.settings import hashed, new_secret
from aspen.local.auth0.store import LocalProvider, ProviderOf, insert

TEMPLATES = Environment(
    loader=PackageLoader("aspen.local.auth0"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_BROWSER, _BROWSER_SECONDS = "identity_browser", 30 * 86_400
_SESSION, _SESSION_SECONDS = "identity_session", 12 * 3600
_FORM_SECONDS = 3600


@dataclass(frozen=True)
class Visit:
    """A request from a browser, whose ID its forms are tied to, and the user signed in there."""

    provider: LocalProvider
    browser: str
    person: Row | None

    def check(self, sent: Mapping[str, str]) -> None:
        """Check that a form was sent from one of our pages in this browser.

        Raises:
            PageError: It was not, or the page is more than an hour old.
        """
        if _verified(self.provider, "form", sent.get("token", "")) != hashed(self.browser):
            raise PageError(
                "This page has expired",
                "The form was not sent from a current page in this browser. Start again from the"
                " app that sent you here, and make sure that cookies are allowed.",
                403,
            )


def page(
    template: str, visit: Visit | None, *, status: int = 200, leads_to: str = "", **values: object
) -> HTMLResponse:
    """Render a template with all values escaped and strict security headers.

    Only a page with a form needs the visit; ``leads_to`` is the external URL that the form finally
    redirects to.
    """
    # The token proves that the form was served to this browser.
    token = signed(visit.provider, "form", hashed(visit.browser)) if visit else ""
    text = TEMPLATES.get_template(f"{template}.html").render(token=token, **values)
    response = HTMLResponse(text, status, headers=_headers(leads_to))
    if visit:
        _set_cookie(response, _BROWSER, visit.browser, _BROWSER_SECONDS)
    return response


def onward(address: str, status: int = 303) -> Response:
    """Redirect to another page; with status 303 by GET, whatever the method of this request."""
    return RedirectResponse(address, status, headers={"Cache-Control": "no-store"})


def _headers(leads_to: str) -> dict[str, str]:
    # Browsers also apply "form-action" to the redirect that follows a form.
    parts = urlsplit(leads_to)
    elsewhere = f" {parts.scheme}://{parts.netloc}" if parts.netloc else ""
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src data:;"
        f" form-action 'self'{elsewhere}; base-uri 'none'; frame-ancestors 'none'",
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
    }


def unpacked(provider: LocalProvider, state: str) -> dict[str, Any]:
    """Return the content of a signed state.

    Raises:
        PageError: The signature is invalid or more than an hour old.
    """
    content: dict[str, Any] | None = _verified(provider, "state", state)
    if content is None:
        raise PageError(
            "Nothing to sign in to",
            "Start from the app that you want to sign in to; it opens this page.",
        )
    return content


def signed(provider: LocalProvider, purpose: str, content: object) -> str:
    """Sign content, so that it cannot be altered while a page carries it and sends it back."""
    return str(_serializer(provider, purpose).dumps(content))


def _verified(provider: LocalProvider, purpose: str, text: str) -> Any:
    try:
        return _serializer(provider, purpose).loads(text, max_age=_FORM_SECONDS)
    except BadData:
        return None


def begin_session(db: Connection, response: Response, user_id: str) -> None:
    """Start a session for a user in this browser."""
    session, now = new_secret(), time.time()
    db.execute("DELETE FROM sessions WHERE expires_at < ?", (now,))
    row = {"session_hash": hashed(session), "user_id": user_id}
    insert(db, "sessions", {**row, "auth_time": now, "expires_at": now + _SESSION_SECONDS})
    db.execute(
        "UPDATE users SET last_login = ?, logins_count = logins_count + 1 WHERE user_id = ?",
        (now, user_id),
    )
    _set_cookie(response, _SESSION, session, _SESSION_SECONDS)


def end_session(request: Request, db: Connection, response: Response) -> str | None:
    """End the browser's session; return the ID of its user, if there was one."""
    ended = db.execute(
        "DELETE FROM sessions WHERE session_hash = ? RETURNING user_id",
        (hashed(request.cookies.get(_SESSION, "")),),
    ).fetchone()
    response.delete_cookie(_SESSION)
    return None if ended is None else str(ended["user_id"])


def _visit(request: Request, provider: ProviderOf) -> Visit:
    browser = request.cookies.get(_BROWSER) or new_secret()
    with provider.database.reading() as db:
        person = db.execute(
            "SELECT user_id, name, email, auth_time FROM sessions JOIN users USING (user_id)"
            " WHERE session_hash = ? AND expires_at > ? AND NOT blocked",
            (hashed(request.cookies.get(_SESSION, "")), time.time()),
        ).fetchone()
    return Visit(provider, browser, person)


def _serializer(provider: LocalProvider, purpose: str) -> URLSafeTimedSerializer:
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
