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
from aspencli.auth.store import KeyringBox, KeyringError, OtherUserError, Store, Whereabouts
from aspencli.config import Config, Target
from aspencli.errors import AspenError, BadInputError, CredentialsError
from aspencli.text import quote

if TYPE_CHECKING:
    from aspencli.auth.accounts import Account
    from aspencli.auth.provider import Provider
    from aspencli.cli.output.console import Output
    from aspencli.remote.api import Api
    from aspencli.remote.http import WireLog
    from aspencli.remote.refusals import BrokenSamples
    from aspencli.remote.retry import Caller

PROXY_COOKIE = "OAUTH2_PROXY_COOKIE"
_COOKIE = "_oauth2_proxy"  # the default cookie name of oauth2-proxy


@dataclass(frozen=True)
class ActingAccount:
    """The account whose sign-in the requests of a command carry, as far as this machine knows."""

    name: str | None  # its name here; None for a token from the environment or the old tool
    email: str  # empty if not known
    subject: str  # the user's ID at the provider; empty if not known


@dataclass
class ApiAccess:
    """Access to the API of one target."""

    target: Target  # the target, with all settings resolved
    config: Config  # the configuration that the target comes from
    out: Output  # receives messages and prompts
    debug: bool  # True to show requests
    exits: ExitStack  # closes what was opened
    broken: BrokenSamples  # finds the samples that make the live service fail
    _new_name: str | None = None  # chosen for the account of a new sign-in

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
    def accounts(self) -> Store:
        """Return the store that lists the accounts of this target."""
        return Store(self.folder, self.at.place, self.keyring)

    @cached_property
    def account(self) -> Account | None:
        """Return the account that this command uses, or None if none is signed in.

        It is looked up once, so this command keeps it while others switch.

        Raises:
            CredentialsError: The chosen account is not signed in, or none is active.
        """
        name = self.config.value("account")
        if name is not None:
            found = self.accounts.find(name)
            if found is None:
                raise self.unknown_account(name)
            return found
        active = self.accounts.ledger.active(self.at.place)
        if active is None and self.accounts.ledger.accounts(self.at.place):
            raise CredentialsError(
                f"No account is active on {self.target.label}.",
                hint=f"Choose one: {self.switch_command}, or add --account NAME to a command.",
                details=self.account_lines(),
            )
        return active

    @property
    def switch_command(self) -> str:
        """Return the command to choose the active account."""
        accounts = self.accounts.all()
        name = accounts[0].label if len(accounts) == 1 else "NAME"
        return self.at.command("auth", "switch", name)

    def unknown_account(self, name: str) -> CredentialsError:
        """Return the error for the name of an account that is not signed in."""
        return CredentialsError(
            f"No account {quote(name)} is signed in to {self.target.label}.",
            hint=f"Sign in: {self.at.command('auth', 'login', '--as', name)}",
            details=self.account_lines(),
        )

    def account_lines(self) -> list[str]:
        """Return one line for each account of this target: its name, user, and if it is active."""
        if self.at.known_place is None:
            return []
        active = self.accounts.ledger.active(self.at.place)
        lines = []
        for account in self.accounts.all():
            is_active = active is not None and account.key == active.key
            lines.append(f"{account.title}{', active' if is_active else ''}")
        return lines

    def acting_account(self) -> ActingAccount | None:
        """Return the account whose sign-in the API requests of this command carry.

        None if there is none, or it is not known. Cheap: it sends no request, asks no question, and
        raises no error, so it may be called for any command, also one that does not use the API.
        It reads the ledger of accounts; the keyring only for an account that an older version
        stored, or the old tool. Nothing is verified: the service decides who a token belongs to.
        """
        try:
            if token := os.environ.get(TOKEN_VARIABLE, "").strip():
                given, _issuer, _audiences = read_token(token)
                return ActingAccount(None, given.email, given.subject)
            if self.at.known_place is None:
                return None
            account = self.store.account
            if account is not None:
                account = self.store.described(account)
                return ActingAccount(account.name, account.email, account.subject)
            left = self.old_tools()
        except (AspenError, OSError, ValueError):
            return None
        return ActingAccount(None, left.email, left.subject) if left and left.lasts() else None

    def old_tools(self) -> StoredSignIn | None:
        """Return the sign-in of the old tool, if this target has no other; it may have expired.

        Raises:
            AspenError: The API of the target is not known.
        """
        if self.at.known_place is None or not self._may_use_old or self.store.account is not None:
            return None
        return self.store.old_tools()

    @property
    def has_token(self) -> bool:
        """Return True if ``ASPEN_TOKEN`` is set, whatever it contains."""
        return bool(os.environ.get(TOKEN_VARIABLE, "").strip())

    def sign_in_as(self, name: str | None) -> None:
        """Choose the account of the sign-in to come, which need not exist yet.

        Without a name, it is the active account; if there is none, the user's e-mail address
        becomes its name.
        """
        self._new_name = name
        ledger = self.accounts.ledger
        self.account = self.accounts.find(name) if name else ledger.active(self.at.place)

    @cached_property
    def store(self) -> Store:
        """Return the store for the sign-in of the account that this command uses."""
        return Store(self.folder, self.at.place, self.keyring, self.account)

    @property
    def login_command(self) -> str:
        """Return the command to sign in to the account that this command uses."""
        name = self._new_name or self.config.value("account")
        return self.at.command("auth", "login", *(["--as", name] if name else []))

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
        chosen = self.config.setting("account")
        if chosen.source.startswith("flag"):
            raise BadInputError(
                f"--account {chosen.value} was given, but {TOKEN_VARIABLE} is set and takes "
                "precedence over any sign-in.",
                hint=f"Unset {TOKEN_VARIABLE}, or omit --account.",
            )
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
            # With a token from the environment, no account is looked up.
            self.accounts if self.given is not None else self.store,
            lambda: self.provider,
            sign_in=self._sign_in_now if self.out.interactive else None,
            given=self.given,
            use_old=self._may_use_old,
            command=self.login_command,
        )

    @property
    def _may_use_old(self) -> bool:
        return self.at.is_usual and self.at.has_own_issuer

    @cached_property
    def api(self) -> Api:
        """Return the API client; no request is sent yet."""
        from aspencli.remote.api import Api, ApiCalls

        return Api(ApiCalls(self._caller, self.session, self._cookie, self.broken))

    @cached_property
    def _log(self) -> WireLog:
        from aspencli.remote.http import WireLog

        write = self.out.info if self.debug else None
        if self.out.meter:
            return self.out.meter.log(write, self.out.detail)
        return WireLog(write)

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

    def sign_in(
        self, kind: str, *, browser: bool = True, force: bool = False, by_itself: bool = False
    ) -> StoredSignIn:
        """Sign in with a device code, and save the sign-in in the given kind of box.

        Args:
            kind: The kind of box.
            browser: True to open the page in a browser.
            force: True to accept a user that is not the account's.
            by_itself: True if a command that needs a sign-in starts it: then only the user of the
                account is accepted, and no other account becomes active.

        Raises:
            CredentialsError: The sign-in was denied, not approved in time, or a different user's.
            UnreachableError: The provider does not respond.
        """
        code = self.provider.begin()
        self._announce(code, browser=browser)
        label = f"Waiting for approval (up to {code.seconds / 60:.0f} minutes)"
        with self.out.progress(label, int(code.seconds)) as passed:
            found = wait_for_approval(self.provider, code, passed)
        try:
            with self.store.lock():
                replaced = self.store.replace(
                    found,
                    kind,
                    name=self._new_name,
                    same_user=by_itself,
                    force=force,
                    activate=not by_itself or self.account is None,
                )
        except OtherUserError as error:
            self._give_up(found, "The new sign-in")
            error.hint = self._other_user_hint()
            raise
        if replaced is not None:
            self._give_up(replaced, "The previous sign-in")
        if self.provider.skew:
            skew = self.provider.skew.removesuffix(".")
            self.out.warn(f"{skew}. Correct it, or tokens will appear to be expired.")
        return found

    def _give_up(self, sign_in: StoredSignIn, what: str) -> None:
        """Revoke a sign-in that is no longer stored."""
        if not sign_in.refresh_token:
            return
        try:
            self.provider.revoke(sign_in.refresh_token)
        except AspenError as error:
            self.out.warn(f"{what} could not be revoked: {error.message}")

    def _other_user_hint(self) -> str:
        return (
            "Try again, and approve the page as the right user (in a private window, if your "
            "browser is signed in as the other one). To add the other user as an account: "
            f"{self.at.command('auth', 'login', '--as', 'NAME')}. To replace the user of this "
            f"account: {self.login_command} --force"
        )

    def _sign_in_now(self, reason: str) -> StoredSignIn:
        self.out.info(f"{reason.removesuffix('.')}. Signing in...")
        return self.sign_in(self.choose_store(), by_itself=True)

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
