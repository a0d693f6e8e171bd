"""Where the API of a target is, and where its users sign in."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli.clients.origins import origin_of
from aspencli.clients.sign_in_store import Ledger
from aspencli.config import Config
from aspencli.errors import BadInputError, CredentialsError, UnreachableError
from aspencli.identity import Place
from aspencli.targets import BUILT_IN, Safety, Target

if TYPE_CHECKING:
    from aspencli.addresses import Known
    from aspencli.clients.origins import Origin


class Whereabouts:
    """What is known, and can be found out, about where a target is.

    Args:
        target: The target, complete.
        config: Where it comes from.
        folder: Where sign-ins are noted.
        ask: Asks the API where its users sign in: issuer and client; None where it does not say.
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
        """What an operator calls the API."""
        return f"the API of {self._target.label}"

    @property
    def is_usual(self) -> bool:
        """Whether the API is the target's own, and not one that was named for this run."""
        return self._config.setting("api").value is None

    @cached_property
    def is_known(self) -> bool:
        """Return True if the address of the API belongs to a target, or to this machine's own."""
        return self.is_usual or bool(self._owners) or self._is_own_machine

    @property
    def has_own_issuer(self) -> bool:
        """Return True if the target at this address is known to have the issuer in `place`.

        What an API itself says of its issuer counts at an address that is built in, or where the
        operator has signed in; anywhere else it is a claim, and a token of that issuer must not be
        sent there.
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
        """Return every target that has exactly this address."""
        api = origin_of(self.api_url, f"the address of {self.api_name}")
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
        """What to type to sign in."""
        words = ["aspencli", "--env", self._target.name]
        if self._target.stack:
            words += ["--stack", self._target.stack]
        if not self.is_usual and self._target.api_url:
            words += ["--api", self._target.api_url]
        return shlex.join([*words, "auth", "login"])

    @cached_property
    def api_url(self) -> str:
        """Where the API answers.

        Raises:
            UnreachableError: Nobody told where that is.
            BadInputError: Tokens would go there without encryption.
        """
        target = self._target
        if not target.api_url:
            start = "Start it: aspencli local up; or g" if target.name == "local" else "G"
            raise UnreachableError(
                f"nobody told where {self.api_name} is",
                hint=f"{start}ive --api URL (or set ASPEN_API), or set api_url below "
                f"[targets.{target.name}] in {self._config.path}.",
            )
        self._check(target.api_url, f"the address of {self.api_name}")
        return target.api_url

    @cached_property
    def place(self) -> Place:
        """Where its users sign in.

        What is set; else where somebody signed in before; else what the API itself says.

        Raises:
            CredentialsError: Nobody told where that is.
            UnreachableError: The API would have to tell, and does not answer.
            BadInputError: Tokens would go there without encryption.
        """
        target = self._target
        api = str(origin_of(self.api_url, f"the address of {self.api_name}"))
        if target.auth_url and target.auth_client_id:
            issuer, client = target.auth_url, target.auth_client_id
        else:
            issuer, client = self._noted(api) or self._told()
        self._check(issuer, f"the identity provider of {target.label}")
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
            f"nobody told how to sign in to {self._target.label}, and its API does not say",
            hint=f"Set auth_url and auth_client_id below [targets.{name}] in {self._config.path}, "
            f"or {' and '.join(variables)}.",
        )

    def _check(self, address: str, what: str) -> None:
        origin = origin_of(address, what)
        if not origin.is_private and self._target.safety is not Safety.LOCAL:
            raise BadInputError(
                f"{what} is not encrypted ({origin}), and tokens would be sent there",
                hint="Write it with https://",
            )


def _is_at(address: str, api: Origin) -> bool:
    """Return True if an address, in which ``{stack}`` stands for any stack, is of this server."""
    try:
        if "{stack}" not in address:
            return origin_of(address, "") == api
        pattern = re.escape(str(origin_of(address.replace("{stack}", "any--stack"), "")))
    except BadInputError:  # then no API is reached by it
        return False
    return re.fullmatch(pattern.replace(r"any\-\-stack", "[^.]+"), str(api)) is not None
