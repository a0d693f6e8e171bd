"""The API of a target and the sign-in for it; each resource is opened on first use."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli import files
from aspencli.auth.session import (
    TOKEN_VARIABLE,
    DeviceCode,
    Session,
    StoredSignIn,
    has_browser,
    open_browser,
    read_token,
    wait_for_approval,
)
from aspencli.auth.store import KeyringBox, KeyringError, Store, Whereabouts
from aspencli.config import Config, Target
from aspencli.errors import BadInputError, CredentialsError

if TYPE_CHECKING:
    from aspencli.auth.provider import Provider
    from aspencli.cli.output.console import Output
    from aspencli.remote.api import Api
    from aspencli.remote.http import WireLog
    from aspencli.remote.retry import Caller
    from aspencli.remote.transport import BrokenSamples

PROXY_COOKIE = "OAUTH2_PROXY_COOKIE"
_COOKIE = "_oauth2_proxy"  # the default cookie name of oauth2-proxy


@dataclass
class ApiAccess:
    """Access to the API of one target."""

    target: Target  # the target, with all settings resolved
    config: Config  # the configuration that the target comes from
    out: Output  # receives messages and prompts
    debug: bool  # True to show requests
    exits: ExitStack  # closes what was opened
    broken: BrokenSamples  # finds the samples that make the live service fail

    @cached_property
    def folder(self) -> Path:
        """Return the directory where sign-ins are recorded."""
        return files.state_dir() / "sign-ins"

    @cached_property
    def at(self) -> Whereabouts:
        """Return the addresses of the API and of its identity provider."""
        return Whereabouts(self.target, self.config, self.folder, self._ask_where)

    def _ask_where(self) -> tuple[str, str] | None:
        from aspencli.auth.provider import login_redirect

        found = login_redirect(self._caller, self._cookie)
        if found is not None:
            self.out.info(f"Sign-in page of {self.at.api_name}: {found[0]}")
        return found

    @cached_property
    def keyring(self) -> KeyringBox:
        """Return the system keyring."""
        return KeyringBox(self.out.info)

    @cached_property
    def store(self) -> Store:
        """Return the store for the sign-in to this target."""
        return Store(self.folder, self.at.place, self.keyring)

    @cached_property
    def provider(self) -> Provider:
        """Return the identity provider of the target."""
        from aspencli.auth.provider import Provider

        return self.exits.enter_context(Provider(self.at.place, self._log, self.out.info))

    @cached_property
    def given(self) -> StoredSignIn | None:
        """Return the sign-in from ``ASPEN_TOKEN``, or None if that is not set.

        Raises:
            CredentialsError: It is not a token, or not one for this target.
        """
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            return None
        try:
            found, issuer, audiences = read_token(token)
        except ValueError:
            raise CredentialsError(
                f"{TOKEN_VARIABLE} is not an id_token.",
                hint="Set it to the output of `aspencli auth token`, or unset it and sign in.",
            ) from None
        place = self.at.place
        if issuer != place.issuer or place.client_id not in audiences:
            named = ", ".join(map(str, audiences))
            raise CredentialsError(
                f"The token in {TOKEN_VARIABLE} is not valid for {place.target} and was not sent: "
                f"it was issued by {issuer} for client {named}.",
                hint=f"{place.target} needs a token issued by {place.issuer} for client "
                f"{place.client_id}.",
            )
        if not self.at.has_own_issuer:
            name = self.target.name
            raise CredentialsError(
                f"{TOKEN_VARIABLE} was not sent to {place.api}: no target is configured with that "
                f"address and the issuer {place.issuer}.",
                hint=f"If this is the right API, set api_url, auth_url, and auth_client_id under "
                f"[targets.{name}] in {self.config.path}; or unset {TOKEN_VARIABLE} and sign in.",
            )
        return found

    @cached_property
    def session(self) -> Session:
        """Return the session for requests; it can prompt for a new sign-in only on a terminal."""
        return Session(
            self.at.place,
            self.store,
            lambda: self.provider,
            sign_in=self._sign_in_now if self.out.interactive else None,
            given=self.given,
            use_old=self.at.is_usual and self.at.has_own_issuer,
            command=self.at.login_command,
        )

    @cached_property
    def api(self) -> Api:
        """Return the API client; no request is sent yet."""
        from aspencli.remote.api import Api
        from aspencli.remote.transport import ApiCalls

        return Api(ApiCalls(self._caller, self.session, self._cookie, self.broken))

    @cached_property
    def _log(self) -> WireLog:
        from aspencli.remote.http import WireLog

        return WireLog(self.out.info if self.debug else None)

    @cached_property
    def _caller(self) -> Caller:
        from aspencli.remote.http import Http
        from aspencli.remote.retry import Caller

        name = self.at.api_name
        http = Http(self.at.api_url, f"the address of {name}", log=self._log)
        self.exits.callback(http.close)
        hint = "Check your network or VPN, and the configured address: aspencli config show"
        if self.target.name == "local":
            hint = "Start it: aspencli local up"
        return Caller(http, name, hint=hint, tell=self.out.info)

    @cached_property
    def _cookie(self) -> str | None:
        cookie = _proxy_cookie()
        if cookie and not self.at.is_known:
            self.out.warn(
                f"{PROXY_COOKIE} was not sent: no target is configured with the address "
                f"{self.at.api_url}."
            )
            return None
        return cookie

    def check_health(self) -> None:
        """Ask the API if it is healthy; this needs no sign-in.

        Raises:
            AspenError: It does not answer, or is not healthy.
        """
        from aspencli.remote.http import Request
        from aspencli.remote.retry import Patience

        request = Request("GET", "/v2/health/")
        if self._cookie:
            request = request.having({"cookie": self._cookie})
        self._caller.call(lambda: request, lambda _answer: None, Patience(read=5, total=10))

    @property
    def where(self) -> str:
        """Return a description of where the current sign-in is stored."""
        if self.given is not None:
            return f"environment ({TOKEN_VARIABLE})"
        return self.store.where or f"{self.keyring.where('')}, from the old tool"

    def choose_store(self, asked: str | None = None) -> str:
        """Choose the backend for a new sign-in, and check that it works before signing in.

        The user may have asked for ``keyring`` or ``file``; the choice is remembered.

        Raises:
            CredentialsError: The keyring cannot be used, and the user did not choose a file.
        """
        ledger = self.store.ledger
        kind = asked or ledger.choice or "keyring"
        if kind == "keyring":
            try:
                self.keyring.probe()
            except KeyringError as error:
                if asked or not self.out.interactive or not self._accepts_file(error):
                    raise
                kind = "file"
        if kind != ledger.choice:
            ledger.choose(kind)
        return kind

    def _accepts_file(self, error: KeyringError) -> bool:
        self.out.warn(error.message)
        question = f"Store sign-ins in {self.folder} instead, in files that only you can read?"
        return self.out.confirm(question)

    def sign_in(self, kind: str, *, browser: bool = True) -> StoredSignIn:
        """Sign in with a device code, and save the sign-in in the given kind of backend.

        Raises:
            CredentialsError: The sign-in was denied, or not approved in time.
            UnreachableError: The provider does not respond.
        """
        code = self.provider.begin()
        self._announce(code, browser=browser)
        label = f"Waiting for approval (up to {code.seconds / 60:.0f} minutes)"
        with self.out.progress(label, int(code.seconds)) as passed:
            found = wait_for_approval(self.provider, code, passed)
        with self.store.lock():
            self.store.save(found, kind)
        if self.provider.skew:
            skew = self.provider.skew.removesuffix(".")
            self.out.warn(f"{skew}. Correct it, or tokens will appear to be expired.")
        return found

    def _sign_in_now(self, reason: str) -> StoredSignIn:
        self.out.info(f"{reason.removesuffix('.')}. Signing in...")
        return self.sign_in(self.choose_store())

    def _announce(self, code: DeviceCode, *, browser: bool) -> None:
        self.out.info(f"To sign in to {self.target.label}, open this page on any device:")
        self.out.info(f"  {code.link}")
        if not self.at.is_usual:
            self.out.warn(f"Your token will be sent to {self.at.place.api}.")
        self.out.info(f"Check that the page shows the code {code.user_code}")
        if browser and has_browser() and open_browser(code.link):
            self.out.info("The page should open in your browser automatically.")


def _proxy_cookie() -> str | None:
    """Return the Cookie header for a proxy in front of the API, or None if it is not set.

    Raises:
        BadInputError: It contains characters that are not allowed in a header.
    """
    cookie = os.environ.get(PROXY_COOKIE, "").strip()
    if not (cookie.isascii() and cookie.isprintable()):
        raise BadInputError(
            f"{PROXY_COOKIE} contains characters that are not allowed in a cookie.",
            hint="Copy the cookie again.",
        )
    named = cookie.startswith(_COOKIE)  # long cookies are split: _oauth2_proxy_0=...
    if not cookie:
        return None
    return cookie if named else f"{_COOKIE}={cookie}"
