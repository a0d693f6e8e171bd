"""Pages from templates, with all values escaped and strict security headers."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from aspen.local.auth0.pages.visits import Visit

_TEMPLATES = Environment(
    loader=PackageLoader("aspen.local.auth0.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
SCOPE_TEXTS = {
    "openid": "Verify who you are",
    "profile": "See your name",
    "email": "See your e-mail address",
    "offline_access": "Stay signed in until you sign out of it",
}
"""The description of each scope on the pages."""


def page(
    template: str,
    visit: Visit | None,
    *,
    status: int = 200,
    leads_to: str = "",
    **values: object,
) -> HTMLResponse:
    """Render a page.

    Args:
        template: The template's name, without the suffix.
        visit: The visit that the page is for; None for a page without a form.
        status: The HTTP status.
        leads_to: The external URL that the form finally redirects to.
        values: The template's variables.
    """
    token = visit.token() if visit else ""
    text = _TEMPLATES.get_template(f"{template}.html").render(token=token, **values)
    response = HTMLResponse(text, status, headers=_headers(leads_to))
    if visit:
        visit.keep(response)
    return response


def onward(address: str) -> RedirectResponse:
    """Redirect to another page by GET, whatever the method of this request."""
    return RedirectResponse(address, 303, headers={"Cache-Control": "no-store"})


def style() -> str:
    """Return the style sheet of the pages."""
    return _TEMPLATES.get_template("style.css").render()


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
