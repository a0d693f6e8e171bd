"""Who signs in where, and what comes of it; the standard library only."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

EARLY_S = 60
"""A token is not used any more so many seconds before it expires: a request takes a while."""


@dataclass(frozen=True)
class Place:
    """A target, as far as signing in to it goes.

    Attributes:
        target: What an operator calls it, such as ``rdev/mystack``.
        api: The server that its tokens may be sent to: scheme, host and port.
        issuer: The address of its identity provider, without a slash at the end.
        client_id: The client that asks for tokens there, and that they are made for.
        audience: What the provider is to make the access token for, where that must be said.
    """

    target: str
    api: str
    issuer: str
    client_id: str
    audience: str | None = None

    @property
    def key(self) -> str:
        """A name for files and keyring entries: nobody else's, whatever differs."""
        told = "\n".join((self.target, self.api, self.issuer, self.client_id))
        words = re.sub(r"[^A-Za-z0-9.-]+", "-", self.target).strip("-.")
        return f"{words or 'target'}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class SignIn:
    """A sign-in: the token that the API accepts, and how to get the next one.

    Attributes:
        id_token: The token that is sent to the API.
        refresh_token: What the next one can be had for; None where the provider granted none.
        subject: The user's id at the provider (``auth0_user_id``).
        issued_at: When, in seconds since 1970 by the provider's clock.
        expires_at: Until when it is valid, by the same clock.
        name: What the provider calls the user; empty where it does not say.
        email: The user's address; empty where it does not say.
    """

    id_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    subject: str
    issued_at: float
    expires_at: float
    name: str = ""
    email: str = ""

    def lasts(self, now: float) -> bool:
        """Whether it can still be used."""
        return now < self.expires_at - EARLY_S

    @property
    def who(self) -> str:
        """The user, as people would say it."""
        if self.name and self.email and self.name != self.email:
            return f"{self.name} <{self.email}>"
        return self.name or self.email or self.subject


@dataclass(frozen=True)
class DeviceCode:
    """What a provider answers to the wish to sign in on another device (RFC 8628, 3.2).

    Attributes:
        device_code: What the sign-in is asked after with; a secret.
        user_code: What the operator compares or types.
        page: Where the operator goes.
        page_with_code: The same with the code in it, or None.
        seconds: How long the codes are valid.
        interval: How many seconds to leave between two questions.
    """

    device_code: str = field(repr=False)
    user_code: str
    page: str
    page_with_code: str | None
    seconds: float
    interval: float

    @property
    def link(self) -> str:
        """Where to go, with the code in it where the provider offers that."""
        return self.page_with_code or self.page


@dataclass(frozen=True)
class NotYet:
    """Why there is no sign-in after a question.

    Attributes:
        error: The provider's code for it, such as ``authorization_pending``; empty where none came.
        description: Its words; may be empty.
        passing: Whether it is a trouble of the moment: overload, or no connection.
        wait: How many seconds it asks to wait, else None.
    """

    error: str
    description: str = ""
    passing: bool = False
    wait: float | None = None
