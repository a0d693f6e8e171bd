"""Being signed in: the token of this moment, renewed in time, asked for when there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from aspencli.errors import CredentialsError, UnreachableError
from aspencli.identity import NotYet, Place, SignIn
from aspencli.interrupts import Shield

_WORTHLESS = "invalid_grant"  # the refresh token was revoked, used before, or has lapsed
_FRESH_S = 60  # a token that is refused at this age is not refused for its age
TOKEN_VARIABLE = "ASPEN_TOKEN"  # noqa: S105 - the name of a secret is not a secret


class SignInStore(Protocol):
    """Where the sign-in to one place is kept."""

    def load(self) -> SignIn | None:
        """The sign-in; None where there is none."""

    def save(self, sign_in: SignIn) -> None:
        """Keep a sign-in."""

    def drop_refresh_token(self, sign_in: SignIn) -> None:
        """Keep the sign-in, but not its refresh token."""

    def lock(self) -> AbstractContextManager[None]:
        """Nobody else renews it meanwhile."""

    def old_tools(self) -> SignIn | None:
        """The sign-in that the old tool left behind."""


class Renewer(Protocol):
    """What an identity provider offers here."""

    def refresh(self, before: SignIn) -> SignIn | NotYet:
        """Exchange a refresh token for a new sign-in."""

    def refusal(self, error: str, description: str) -> CredentialsError:
        """What it means that the provider refuses."""


class Session:
    """The sign-in that the requests of one command are made with.

    Args:
        place: Where it is for.
        store: Where it is kept.
        provider: Opens the identity provider.
        sign_in: Signs in anew, told why; None where nobody is there to do it.
        given: The sign-in of ``ASPEN_TOKEN``; None where that is not set.
        use_old: Whether the old tool's sign-in may be used.
        command: What to type to sign in.

    Attributes:
        is_new: Whether somebody signed in during this command.
    """

    def __init__(
        self,
        place: Place,
        store: SignInStore,
        provider: Callable[[], Renewer],
        *,
        sign_in: Callable[[str], SignIn] | None = None,
        given: SignIn | None = None,
        use_old: bool = True,
        command: str = "aspencli auth login",
        now: Callable[[], float] = time.time,
    ):
        self.is_new = False
        self._place = place
        self._store = store
        self._provider = provider
        self._sign_in = sign_in
        self._given = given
        self._use_old = use_old
        self._command = command
        self._now = now
        self._held: SignIn | None = None
        self._revoked = False

    def token(self) -> str:
        """The token to send.

        Raises:
            CredentialsError: Nobody is signed in, and nobody is there to do it.
            UnreachableError: It has to be renewed, and the provider does not answer.
        """
        return self.current().id_token

    def current(self) -> SignIn:
        """The sign-in to use now; see `token`."""
        if self._held is None or not self._held.lasts(self._now()):
            self._held = self.found() or self._anew()
        return self._held

    def found(self, *, old: bool = True) -> SignIn | None:
        """The sign-in that there is, renewed where needed; None where there is none that lasts.

        Args:
            old: Whether the old tool's counts.

        Raises:
            CredentialsError: ``ASPEN_TOKEN`` has expired.
            UnreachableError: It has to be renewed, and the provider does not answer.
        """
        if self._given is not None:
            return self._still_given(self._given)
        stored = self._store.load()
        if stored is not None and stored.lasts(self._now()):
            return stored
        if stored is not None and stored.refresh_token:
            renewed = self._renewed()
            if renewed is not None:
                return renewed
        may_be_old = old and self._use_old and stored is None
        left = self._store.old_tools() if may_be_old else None
        return left if left is not None and left.lasts(self._now()) else None

    def renew(self, refused: str) -> str | None:
        """Return another token instead of one that the API refused; None where there is none.

        It is renewed with the refresh token, or else by signing in again where somebody can.
        """
        if self._given is not None:
            return None
        stored = self._store.load()
        current = stored or self._held  # the latter is what the old tool left behind
        young = current is not None and self._now() - current.issued_at < _FRESH_S
        if current is not None and young and current.id_token == refused:
            return None
        found = self._renewed(refused)
        if found is None and self._sign_in is not None:
            self.is_new = True
            found = self._sign_in(f"the API does not accept the sign-in to {self._place.target}")
        if found is not None:
            self._held = found
        return found.id_token if found else None

    def use(self, sign_in: SignIn) -> None:
        """Use a sign-in that was made just now."""
        self._held, self.is_new = sign_in, True

    def advice(self) -> str:
        """What to do when the API refuses the token."""
        if self._given is not None:
            return f"It came from {TOKEN_VARIABLE}: give a new one, or unset it and sign in."
        who = f"{self._held.who} ({self._held.subject})" if self._held else "whoever is signed in"
        return (
            f"The identity provider knows {who}; the API may not: it wants a user with that id. "
            f"See: aspencli users list. Or sign in as somebody else: {self._command} --force"
        )

    def _renewed(self, refused: str | None = None) -> SignIn | None:
        """A sign-in that lasts, with another token than one that was refused; None for none.

        Whoever gets the lock first renews it for all: a refresh token can be used once.
        """
        with self._store.lock(), Shield() as shield:
            stored = self._store.load()
            if stored is None or not stored.refresh_token:
                return None
            if stored.id_token != refused and stored.lasts(self._now()):
                return stored
            shield.raise_shield()  # between the exchange and the disk nothing may be lost
            found = self._provider().refresh(stored)
            if isinstance(found, SignIn):
                self._store.save(found)
            elif found.error == _WORTHLESS:
                self._store.drop_refresh_token(stored)
            shield.check()
        if isinstance(found, SignIn):
            return found
        self._note(found)
        return None

    def _note(self, found: NotYet) -> None:
        """Take it that there is no renewal.

        Raises:
            UnreachableError: Another time there may be one.
            CredentialsError: The provider refuses for another reason than the token's.
        """
        if found.passing:
            raise UnreachableError(
                f"the sign-in to {self._place.target} could not be renewed: the identity provider "
                f"has trouble ({found.error})",
                hint="Try again in a few minutes.",
            )
        if found.error != _WORTHLESS:
            raise self._provider().refusal(found.error, found.description)
        self._revoked = True

    def _still_given(self, given: SignIn) -> SignIn:
        if given.lasts(self._now()):
            return given
        raise CredentialsError(
            f"the token in {TOKEN_VARIABLE} expired {_moment(given.expires_at)}",
            hint=f"Give a new one, or unset {TOKEN_VARIABLE} and sign in: {self._command}",
        )

    def _anew(self) -> SignIn:
        stored, target = self._store.load(), self._place.target
        if stored is None:
            reason = f"nobody is signed in to {target}"
        elif self._revoked:
            reason = f"the sign-in to {target} was revoked, or has lapsed"
        else:
            reason = f"the sign-in to {target} ended {_moment(stored.expires_at)}"
        if self._sign_in is None:
            raise CredentialsError(
                reason, hint=f"Sign in: {self._command} (for a machine: {TOKEN_VARIABLE})"
            )
        return self._sign_in(reason)


def _moment(seconds: float) -> str:
    return f"at {datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M}"
