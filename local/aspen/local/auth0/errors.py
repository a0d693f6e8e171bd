"""The errors that clients receive, in OAuth 2 format, and those that people see on pages."""

from __future__ import annotations

from dataclasses import dataclass, field

from aspen.local.auth0.settings import Dialect

_AUTH0_STATUSES = {
    "authorization_pending": 403,
    "slow_down": 429,
    "expired_token": 403,
    "access_denied": 403,
    "invalid_grant": 403,
    "unauthorized_client": 403,
}


@dataclass
class OAuthError(Exception):
    """An OAuth error, as defined in RFC 6749 section 5.2.

    Attributes:
        error: The error code that clients act on.
        description: What happened, for people.
        status: The HTTP status according to the RFC.
        headers: Additional headers.
        about: Details for the audit log.
    """

    error: str
    description: str
    status: int = 400
    headers: dict[str, str] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)

    def status_in(self, dialect: Dialect) -> int:
        """Return the HTTP status in a dialect."""
        if dialect is Dialect.AUTH0 and self.status == 400:  # noqa: PLR2004 - the RFC's default
            return _AUTH0_STATUSES.get(self.error, self.status)
        return self.status

    def body(self) -> dict[str, str]:
        """Return the JSON body."""
        return {"error": self.error, "error_description": self.description}


class PageError(Exception):
    """An error on a page, shown to a person.

    Args:
        title: What happened, in a few words.
        text: The reason, and what to do next.
        status: The HTTP status.
    """

    def __init__(self, title: str, text: str, status: int = 400):
        super().__init__(title)
        self.title = title
        self.text = text
        self.status = status
