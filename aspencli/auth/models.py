"""Data types for signing in; only the standard library is imported here."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

EARLY_S = 60
"""Seconds before its expiration at which a token is no longer used, as requests take time."""


@dataclass(frozen=True)
class Place:
    """The properties of a target that matter for signing in.

    Attributes:
        target: Its label, such as ``rdev/mystack``.
        api: The server that its tokens may be sent to: scheme, host, and port.
        issuer: The address of its identity provider, without a trailing slash.
        client_id: The client that requests tokens there, and that they are issued for.
        audience: The audience to request for the access token, if the provider needs one.
    """

    target: str
    api: str
    issuer: str
    client_id: str
    audience: str | None = None

    @property
    def key(self) -> str:
        """Return a unique name for files and keyring entries."""
        told = "\n".join((self.target, self.api, self.issuer, self.client_id))
        words = re.sub(r"[^A-Za-z0-9.-]+", "-", self.target).strip("-.")
        return f"{words or 'target'}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class SignIn:
    """A sign-in: the token that the API accepts, and the means to renew it.

    Attributes:
        id_token: The token that is sent to the API.
        refresh_token: The token that renews the sign-in; None if the provider granted none.
        subject: The user's ID at the provider (``auth0_user_id``).
        issued_at: The time of issue, in seconds since 1970 by the provider's clock.
        expires_at: The time of expiration, by the same clock.
        name: The user's name at the provider; empty if not given.
        email: The user's e-mail address; empty if not given.
    """

    id_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    subject: str
    issued_at: float
    expires_at: float
    name: str = ""
    email: str = ""

    def lasts(self, now: float) -> bool:
        """Return True if the token can still be used."""
        return now < self.expires_at - EARLY_S

    @property
    def who(self) -> str:
        """Return the user's display name."""
        if self.name and self.email and self.name != self.email:
            return f"{self.name} <{self.email}>"
        return self.name or self.email or self.subject


@dataclass(frozen=True)
class DeviceCode:
    """A provider's response to a device authorization request (RFC 8628, 3.2).

    Attributes:
        device_code: The secret code that polls for the sign-in.
        user_code: The code that the user compares or types.
        page: The page where the user signs in.
        page_with_code: The same page with the code in its address, or None.
        seconds: The number of seconds that the codes are valid.
        interval: The number of seconds to wait between polls.
    """

    device_code: str = field(repr=False)
    user_code: str
    page: str
    page_with_code: str | None
    seconds: float
    interval: float

    @property
    def link(self) -> str:
        """Return the sign-in page, with the code in its address if the provider offers that."""
        return self.page_with_code or self.page


@dataclass(frozen=True)
class NotYet:
    """A provider's response that contains no sign-in.

    Attributes:
        error: The error code, such as ``authorization_pending``; empty if there was no response.
        description: The error description; may be empty.
        passing: True for a temporary problem: overload, or no connection.
        wait: The number of seconds that the provider asks to wait, or None.
    """

    error: str
    description: str = ""
    passing: bool = False
    wait: float | None = None
