"""Sign-ins, and that of one command: its current token, its renewal, and signing in if needed.

Signing in uses the device flow (RFC 8628): the operator approves it in a browser, here or on
another device, while the command polls the identity provider.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from aspencli.errors import CredentialsError, UnreachableError
from aspencli.signals import Shield
from aspencli.text import local_time

if TYPE_CHECKING:
    from aspencli.auth.store import Store

TOKEN_VARIABLE = "ASPEN_TOKEN"  # noqa: S105 - the name of a secret is not a secret
_TOKEN = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_EARLY_S = 60  # before its expiration, a token is no longer used, as requests take time
_WORTHLESS = "invalid_grant"  # The refresh token was revoked, already used, or has expired.
_FRESH_S = 60  # A token younger than this was not rejected for its age.
_SLOWER_S = 5.0
_LONGEST_PAUSE_S = 60.0
_UNDECIDED = frozenset({"authorization_pending", "slow_down"})
_AGAIN = "Run the command again to get a new code."
_EXPIRED = frozenset({"expired_token", "invalid_grant"})  # Auth0 sends the second on expiry


@dataclass(frozen=True)
class SignInTarget:
    """The properties of a target that matter for signing in."""

    target: str  # its label, such as ``rdev/mystack``
    api: str  # the server that its tokens may be sent to: scheme, host, and port
    issuer: str  # the address of its identity provider, without a trailing slash
    client_id: str  # the client that requests tokens there, and that they are issued for
    # The audience to request for the access token, if the provider needs one.
    audience: str | None = None

    @property
    def key(self) -> str:
        """Return a unique name for files and keyring entries."""
        identity = "\n".join((self.target, self.api, self.issuer, self.client_id))
        words = re.sub(r"[^A-Za-z0-9.-]+", "-", self.target).strip("-.")
        return f"{words or 'target'}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class StoredSignIn:
    """A sign-in: the token that the API accepts, and the means to renew it."""

    id_token: str = field(repr=False)  # the token that is sent to the API
    # The token that renews the sign-in; None if the provider granted none.
    refresh_token: str | None = field(repr=False)
    subject: str  # the user's ID at the provider (``auth0_user_id``)
    issued_at: float  # the time of issue, in seconds since 1970 by the provider's clock
    expires_at: float  # the time of expiration, by the same clock
    name: str = ""  # the user's name at the provider; empty if not given
    email: str = ""  # the user's e-mail address; empty if not given

    def lasts(self) -> bool:
        """Return True if the token can still be used."""
        return time.time() < self.expires_at - _EARLY_S

    @property
    def who(self) -> str:
        """Return the user's display name."""
        if self.name and self.email and self.name != self.email:
            return f"{self.name} <{self.email}>"
        return self.name or self.email or self.subject


@dataclass(frozen=True)
class DeviceCode:
    """A provider's response to a device authorization request (RFC 8628, 3.2)."""

    device_code: str = field(repr=False)  # the secret code that polls for the sign-in
    user_code: str  # the code that the user compares or types
    page: str  # the page where the user signs in
    page_with_code: str | None  # the same page with the code in its address, or None
    seconds: float  # the number of seconds that the codes are valid
    interval: float  # the number of seconds to wait between polls

    @property
    def link(self) -> str:
        """Return the sign-in page, with the code in its address if the provider offers that."""
        return self.page_with_code or self.page


@dataclass(frozen=True)
class NotYet:
    """A provider's response that contains no sign-in."""

    error: str  # the error code, such as ``authorization_pending``; empty if there was no response
    description: str = ""  # the error description; may be empty
    passing: bool = False  # True for a temporary problem: overload, or no connection
    wait: float | None = None  # the number of seconds that the provider asks to wait, or None


def read_token(token: str) -> tuple[StoredSignIn, str, list[Any]]:
    """Return the sign-in for a token, its issuer, and its audiences, all unverified.

    Raises:
        ValueError: It is not an ID token.
    """
    if not _TOKEN.fullmatch(token):
        raise ValueError("not a signed token")
    body = token.split(".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        issuer, audience = str(claims["iss"]).rstrip("/"), claims["aud"]
        found = sign_in_of(token, claims)
    except (LookupError, TypeError) as error:
        raise ValueError("the token lacks a claim") from error
    return found, issuer, audience if isinstance(audience, list) else [audience]


def sign_in_of(
    token: str, claims: Mapping[str, Any], refresh_token: str | None = None
) -> StoredSignIn:
    """Return the sign-in for a token with these claims."""
    return StoredSignIn(
        id_token=token,
        refresh_token=refresh_token,
        subject=str(claims["sub"]),
        issued_at=float(claims["iat"]),
        expires_at=float(claims["exp"]),
        name=str(claims.get("name") or claims.get("nickname") or ""),
        email=str(claims.get("email") or ""),
    )


class _Renewer(Protocol):
    def refresh(self, before: StoredSignIn) -> StoredSignIn | NotYet: ...
    def refusal(self, error: str, description: str) -> CredentialsError: ...


@dataclass
class Session:
    """The sign-in used for the requests of one command."""

    place: SignInTarget
    store: Store
    provider: Callable[[], _Renewer]  # opens the identity provider
    # Signs in interactively, given the reason; None if not interactive.
    sign_in: Callable[[str], StoredSignIn] | None = None
    given: StoredSignIn | None = None  # the sign-in from ``ASPEN_TOKEN``; None if unset
    use_old: bool = True  # True if the old tool's sign-in may be used
    command: str = "aspencli auth login"  # the command to suggest for signing in
    is_new: bool = False  # True if the user signed in during this command
    _held: StoredSignIn | None = None
    _subject: str | None = None  # the user that this command acts as, once it is known
    _revoked: bool = False

    def token(self) -> str:
        """Return the token to send.

        Raises:
            CredentialsError: The user is not signed in, and the session is not interactive.
            UnreachableError: The token must be renewed, and the provider does not respond.
        """
        return self.current().id_token

    def current(self) -> StoredSignIn:
        """Return the sign-in to use now; see `token`."""
        if self._held is None or not self._held.lasts():
            self._held = self.found() or self._new()
        return self._held

    def known(self) -> StoredSignIn | None:
        """Return the sign-in that was or would be used, valid or not, without sending a request.

        Raises:
            CredentialsError: The stored sign-in cannot be read.
        """
        return self._held or self.given or self.store.load()

    def found(self, *, old: bool = True) -> StoredSignIn | None:
        """Return a valid sign-in without asking the user, renewed if needed; None if there is none.

        Args:
            old: True to also accept the old tool's sign-in.

        Raises:
            CredentialsError: ``ASPEN_TOKEN`` has expired.
            UnreachableError: The token must be renewed, and the provider does not respond.
        """
        if self.given is not None:
            return self._still_given(self.given)
        stored = self._load()
        if stored is not None and stored.lasts():
            return stored
        if stored is not None and stored.refresh_token:
            renewed = self._renewed()
            if renewed is not None:
                return renewed
        may_be_old = old and self.use_old and stored is None
        left = self.store.old_tools() if may_be_old else None
        return self._same(left) if left is not None and left.lasts() else None

    def renew(self, refused: str) -> str | None:
        """Return a new token to replace one that the API rejected, or None if there is none.

        It is renewed with the refresh token, or else by signing in again if interactive.
        """
        if self.given is not None:
            return None
        stored = self._load()
        current = stored or self._held  # The latter is the old tool's sign-in.
        young = current is not None and time.time() - current.issued_at < _FRESH_S
        if current is not None and young and current.id_token == refused:
            return None
        found = self._renewed(refused)
        if found is None and self.sign_in is not None:
            self.is_new = True
            reason = f"Your sign-in was rejected by the {self.place.target} API"
            found = self._same(self.sign_in(reason))
        if found is not None:
            self._held = found
        return found.id_token if found else None

    def use(self, sign_in: StoredSignIn) -> None:
        """Use a sign-in that was just made, even if it is a different user's."""
        self._held, self._subject, self.is_new = sign_in, sign_in.subject, True

    def advice(self) -> str:
        """Return what to do when the API rejects the token."""
        if self.given is not None:
            return f"The token is from {TOKEN_VARIABLE}. Set a new one, or unset it and sign in."
        who = f" as {self._held.who} ({self._held.subject})" if self._held else ""
        return (
            f"You are signed in{who}, but the API may have no user with this ID (see: aspencli "
            f"users list). To sign in as a different user: {self.command} --force"
        )

    def _load(self) -> StoredSignIn | None:
        """Return the stored sign-in, or None if there is none.

        Raises:
            CredentialsError: It cannot be read, or it is now a different user's.
        """
        stored = self.store.load()
        return None if stored is None else self._same(stored)

    def _same(self, found: StoredSignIn) -> StoredSignIn:
        """Return a sign-in if it is of the user that this command has acted as so far."""
        if self._subject not in {None, found.subject}:
            raise CredentialsError(
                f"The sign-in to {self._which} was replaced while this command was running: it is "
                f"now that of {found.who}.",
                hint="The command stopped, and sent nothing as the other user. Run it again.",
            )
        self._subject = found.subject
        return found

    @property
    def _which(self) -> str:
        """Return the target, with the account if its name was chosen or there are several."""
        account, target = self.store.account, self.place.target
        if account is None or account.name is None:
            return target
        several = len(self.store.ledger.accounts(self.place)) > 1
        return f"{target} (account {account.label})" if several or account.is_named else target

    def _renewed(self, refused: str | None = None) -> StoredSignIn | None:
        """Return a valid sign-in whose token differs from the rejected one, or None.

        The first process to get the lock renews it for all: a refresh token works only once.
        """
        with self.store.lock(), Shield() as shield:
            stored = self._load()
            if stored is None or not stored.refresh_token:
                return None
            if stored.id_token != refused and stored.lasts():
                return stored
            shield.raise_shield()  # An interrupt before the save would lose the token.
            found = self.provider().refresh(stored)
            if isinstance(found, StoredSignIn):
                self.store.save(found)
            elif found.error == _WORTHLESS:
                self.store.save(replace(stored, refresh_token=None))
            shield.check()
        if isinstance(found, StoredSignIn):
            return found
        self._note(found)
        return None

    def _note(self, found: NotYet) -> None:
        """Handle a failed renewal.

        Raises:
            UnreachableError: The failure is temporary.
            CredentialsError: The provider refused for a reason other than an invalid refresh token.
        """
        if found.passing:
            raise UnreachableError(
                f"Could not renew the sign-in to {self._which}: the identity provider is "
                f"having problems ({found.error}).",
                hint="Try again in a few minutes.",
            )
        if found.error != _WORTHLESS:
            raise self.provider().refusal(found.error, found.description)
        self._revoked = True

    def _still_given(self, given: StoredSignIn) -> StoredSignIn:
        if given.lasts():
            return given
        raise CredentialsError(
            f"The token in {TOKEN_VARIABLE} expired at {local_time(given.expires_at)}.",
            hint=f"Set a new one, or unset {TOKEN_VARIABLE} and sign in: {self.command}",
        )

    def _new(self) -> StoredSignIn:
        stored, target = self._load(), self._which
        if stored is None:
            reason = f"You are not signed in to {target}"
        elif self._revoked:
            reason = f"Your sign-in to {target} has expired or was revoked"
        else:
            reason = f"Your sign-in to {target} expired at {local_time(stored.expires_at)}"
        if self.sign_in is None:
            raise CredentialsError(
                f"{reason}.", hint=f"Sign in: {self.command} (in scripts, set {TOKEN_VARIABLE})"
            )
        return self._same(self.sign_in(reason))


class _Approver(Protocol):
    def poll(self, code: DeviceCode) -> StoredSignIn | NotYet: ...
    def refusal(self, error: str, description: str) -> CredentialsError: ...


@dataclass
class Clock:
    """A source of the current time and of delays."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def wait_for_approval(
    provider: _Approver,
    code: DeviceCode,
    passed: Callable[[int], None],
    clock: Clock | None = None,
) -> StoredSignIn:
    """Poll until the operator has approved the sign-in, and return it.

    ``passed`` is called about once a second with the number of seconds waited so far.

    Raises:
        CredentialsError: The sign-in was denied, timed out, or was refused by the provider.
    """
    clock = clock or Clock()
    start, polling = clock.now(), _Polling(code.interval)
    while (left := code.seconds - (clock.now() - start)) > 0:
        _sleep(clock, min(polling.pause, left), lambda: passed(int(clock.now() - start)))
        found = provider.poll(code)
        if isinstance(found, StoredSignIn):
            return found
        if not found.passing and found.error not in _UNDECIDED:
            raise _denied(provider, found)
        polling.adapt(found)
    raise _not_approved(code)


class _Polling:
    """The pause between two polls, in seconds, which the provider's responses change."""

    def __init__(self, interval: float):
        self._interval = self.pause = interval
        self._troubles = 0

    def adapt(self, found: NotYet) -> None:
        """Set the pause before the poll that follows this response."""
        self._troubles = self._troubles + 1 if found.passing else 0
        if found.error == "slow_down":
            self._interval += _SLOWER_S
        interval = self._interval
        # RFC 8628, section 3.5, asks for exponential backoff while requests fail.
        slower = min(interval * 2**self._troubles, max(interval, _LONGEST_PAUSE_S))
        self.pause = max(slower if found.wait is None else interval, found.wait or 0)


def _not_approved(code: DeviceCode) -> CredentialsError:
    return CredentialsError(
        f"The sign-in was not approved within {code.seconds / 60:.0f} minutes; the code expired.",
        hint=_AGAIN,
    )


def _denied(provider: _Approver, found: NotYet) -> CredentialsError:
    if found.error == "access_denied":
        words = f": {found.description}" if found.description else "."
        return CredentialsError(
            f"The sign-in was denied on the other device{words}",
            hint="If you denied it by mistake, run the command again. If it was not you, contact "
            "your administrators.",
        )
    if found.error in _EXPIRED:
        return CredentialsError("The code expired before the sign-in was approved.", hint=_AGAIN)
    return provider.refusal(found.error, found.description)


def _sleep(clock: Clock, seconds: float, tick: Callable[[], None]) -> None:
    """Wait, and call ``tick`` every second."""
    end = clock.now() + seconds
    while (left := end - clock.now()) > 0:
        clock.sleep(min(1.0, left))
        tick()


def has_browser() -> bool:
    """Return True if there is a graphical browser; one inside the terminal does not count."""
    if os.environ.get("BROWSER") or sys.platform in {"darwin", "win32"}:
        return not os.environ.get("SSH_CONNECTION") or bool(os.environ.get("BROWSER"))
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def open_browser(link: str) -> bool:
    """Open a page without waiting for the browser; its output is discarded.

    Returns:
        True if something was started; the page itself may still have failed to open.
    """
    try:
        # A separate process, because the output of browsers would end up among the results.
        subprocess.Popen(  # noqa: S603 - a web page of the provider, checked before
            [sys.executable, "-m", "webbrowser", link],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return False
    return True
