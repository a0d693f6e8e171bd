"""The addresses of a target's API and identity provider."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli.auth.models import Place
from aspencli.auth.store import Ledger
from aspencli.config import Config
from aspencli.errors import BadInputError, CredentialsError, UnreachableError
from aspencli.remote.urls import origin_of
from aspencli.targets import BUILT_IN, Safety, Target

if TYPE_CHECKING:
    from aspencli.remote.urls import Origin
    from aspencli.targets import Known


class Whereabouts:
    """The addresses of a target's API and identity provider, found on first use.

    Args:
        target: The target, with all settings resolved.
        config: The configuration that the target comes from.
        folder: The directory where sign-ins are recorded.
        ask: Asks the API for its issuer and client; returns None if it does not say.
    """

    def __init__(
        self,
        target: Target,
        config: Config,
        folder: Path,
        ask: Callable[[], tuple[str, str] | None],
    ):
        self._target = target
        self._config = config
        self._folder = folder
        self._ask = ask

    @property
    def api_name(self) -> str:
        """Return the display name of the API."""
        return f"the {self._target.label} API"

    @property
    def is_usual(self) -> bool:
        """Return True if the API is the target's own, not one that was given for this run."""
        return self._config.setting("api").value is None

    @cached_property
    def is_known(self) -> bool:
        """Return True if the address of the API belongs to a target, or to this machine."""
        return self.is_usual or bool(self._owners) or self._is_own_machine

    @property
    def has_own_issuer(self) -> bool:
        """Return True if the target at this address is known to use the issuer in `place`.

        The issuer that an API itself reports is trusted only at a built-in address, or if the
        operator has signed in there before. Anywhere else, a token from that issuer must not be
        sent.
        """
        issuer, target = self.place.issuer, self._target
        configured = (target.auth_url or "").rstrip("/")
        owners = [(target.name, configured)] if self.is_usual or self._is_own_machine else []
        owners += [(one.target.name, self._issuer_of(one)) for one in self._owners]
        if any(known == issuer for _, known in owners):
            return True
        api = origin_of(self.api_url, self.api_name)
        for name, known in owners:
            built_in = BUILT_IN[name].api_url if name in BUILT_IN else None
            if built_in and not known and origin_of(built_in, name) == api:
                return True
        noted = self._noted(str(api))
        return noted is not None and noted[0].rstrip("/") == issuer

    @property
    def _owners(self) -> list[Known]:
        """Return all targets that have exactly this address."""
        api = origin_of(self.api_url, self.api_name)
        return [one for one in self._config.known if any(_is_at(a, api) for a in one.apis)]

    @property
    def _is_own_machine(self) -> bool:
        local = self._target.safety is Safety.LOCAL
        return local and origin_of(self.api_url, self.api_name).is_loopback

    def _issuer_of(self, owner: Known) -> str:
        found = os.environ.get(Config.variable("auth_url", owner.target.name))
        return (found or owner.target.auth_url or "").rstrip("/")

    @property
    def login_command(self) -> str:
        """Return the command to sign in."""
        words = ["aspencli", "--env", self._target.name]
        if self._target.stack:
            words += ["--stack", self._target.stack]
        if not self.is_usual and self._target.api_url:
            words += ["--api", self._target.api_url]
        return shlex.join([*words, "auth", "login"])

    @cached_property
    def api_url(self) -> str:
        """Return the address of the API.

        Raises:
            UnreachableError: No address is configured.
            BadInputError: Tokens would be sent there without encryption.
        """
        target = self._target
        if not target.api_url:
            start = "Start it: aspencli local up. Or pass" if target.name == "local" else "Pass"
            raise UnreachableError(
                f"No URL is configured for {self.api_name}.",
                hint=f"{start} --api URL (or set ASPEN_API), or set api_url under "
                f"[targets.{target.name}] in {self._config.path}.",
            )
        self._check(target.api_url, self.api_name)
        return target.api_url

    @cached_property
    def place(self) -> Place:
        """Return the API, issuer, and client to sign in with.

        They come from the settings, or from an earlier sign-in, or from the API itself.

        Raises:
            CredentialsError: The issuer and client are not known.
            UnreachableError: The API has to be asked for them, and does not respond.
            BadInputError: Tokens would be sent there without encryption.
        """
        target = self._target
        api = str(origin_of(self.api_url, self.api_name))
        if target.auth_url and target.auth_client_id:
            issuer, client = target.auth_url, target.auth_client_id
        else:
            issuer, client = self._noted(api) or self._told()
        self._check(issuer, f"the {target.label} identity provider")
        return Place(target.label, api, issuer.rstrip("/"), client, target.auth_audience)

    def _noted(self, api: str) -> tuple[str, str] | None:
        for noted in Ledger(self._folder).all().values():
            place = noted.place
            if noted.store and (place.target, place.api) == (self._target.label, api):
                return place.issuer, place.client_id
        return None

    def _told(self) -> tuple[str, str]:
        found = self._ask()
        if found is not None:
            return found
        name = self._target.name
        variables = [Config.variable(key, name) for key in ("auth_url", "auth_client_id")]
        raise CredentialsError(
            f"No identity provider is configured for {self._target.label}, and its API does not "
            "name one.",
            hint=f"Set auth_url and auth_client_id under [targets.{name}] in {self._config.path}, "
            f"or {' and '.join(variables)}.",
        )

    def _check(self, address: str, what: str) -> None:
        origin = origin_of(address, what)
        if not origin.is_private and self._target.safety is not Safety.LOCAL:
            raise BadInputError(
                f"Refused to send tokens unencrypted to {what}: {origin}",
                hint="Use an https:// URL.",
            )


def _is_at(address: str, api: Origin) -> bool:
    """Return True if an address leads to this server; ``{stack}`` in it matches any stack."""
    try:
        if "{stack}" not in address:
            return origin_of(address, "") == api
        pattern = re.escape(str(origin_of(address.replace("{stack}", "any--stack"), "")))
    except BadInputError:  # an invalid address leads to no API
        return False
    return re.fullmatch(pattern.replace(r"any\-\-stack", "[^.]+"), str(api)) is not None
