"""What an identity provider says about itself, and requests to it (OpenID Connect Discovery)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlencode, urlsplit

from aspencli.clients.caller import Caller
from aspencli.clients.http import Answer, Http, Request
from aspencli.clients.origins import origin_of
from aspencli.clients.retrying import Deadline, Patience, retry_after
from aspencli.clients.wirelog import WireLog
from aspencli.errors import CredentialsError, UnreachableError

PATIENCE = Patience(connect=10, read=15, total=40)
_NO_SUCCESS = 300


@dataclass(frozen=True)
class Reply:
    """What the provider answered: its JSON, whatever the status.

    Attributes:
        status: The HTTP status.
        body: The JSON object; empty where it is none.
        wait: How many seconds it asks to wait, else None.
        seconds_ahead: How far its clock is ahead of this machine's; None if not known.
    """

    status: int
    body: Mapping[str, Any]
    wait: float | None
    seconds_ahead: float | None

    @property
    def error(self) -> str:
        """Its code for what went wrong; empty where nothing did."""
        return self._text("error")

    @property
    def description(self) -> str:
        """Its words for it."""
        return self._text("error_description")

    def _text(self, key: str) -> str:
        said = self.body.get(key, "")
        return said if isinstance(said, str) else ""


class Discovery:
    """A provider's document about itself, and requests to the addresses in it.

    Args:
        issuer: The provider's address, without a slash at the end.
        name: What an operator calls it.
        log: Where requests are told.
        tell: Told each wait that an operator would notice.
    """

    def __init__(self, issuer: str, name: str, log: WireLog, tell: Callable[[str], None]):
        self._base = issuer
        self._name = name
        self._log = log
        self._tell = tell
        self._callers: dict[str, Caller] = {}
        self._exits = ExitStack()

    def close(self) -> None:
        """Close every connection."""
        self._exits.close()

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """What it says; its issuer is who we asked.

        Raises:
            CredentialsError: It says that it is somebody else.
            UnreachableError: It does not answer, or with something else.
        """
        found = self._json(f"{self._base}/.well-known/openid-configuration")
        issuer = found.get("issuer")
        if not isinstance(issuer, str) or issuer.rstrip("/") != self._base:
            raise CredentialsError(
                f"{self._base} says that it is somebody else: {issuer!r}",
                hint="auth_url of the target has to be the issuer: aspencli config show",
            )
        return found

    def keys(self) -> Mapping[str, Any]:
        """Its keys of this moment (JWKS)."""
        return self._json(self._endpoint("jwks_uri"))

    def post(self, endpoint: str, form: Mapping[str, str]) -> Reply:
        """Send a form; tried again when the provider is busy or its answer is lost."""
        caller, request = self._form(endpoint, form)
        return caller.call(lambda: request, _read, PATIENCE, safe=True)

    def post_once(self, endpoint: str, form: Mapping[str, str]) -> Reply:
        """Send a form, once.

        Raises:
            SetbackError: No answer came.
        """
        caller, request = self._form(endpoint, form)
        with caller.http.open(request, Deadline(PATIENCE.total), PATIENCE) as answer:
            return _read(answer)

    def _endpoint(self, name: str) -> str:
        address = self.document.get(name)
        if not isinstance(address, str):
            what = name.removesuffix("_endpoint").replace("_", " ")
            raise CredentialsError(
                f"{self._name} offers no {what}",
                hint="Is auth_url right? See: aspencli config show. Else set ASPEN_TOKEN.",
            )
        if not origin_of(address, f"the {name} of {self._name}").is_private:
            raise CredentialsError(
                f"{self._name} would have secrets sent without encryption, to {address}",
                hint="Nothing was sent. Tell those who run it.",
            )
        return address

    def _json(self, address: str) -> Mapping[str, Any]:
        caller, path = self._caller(address)
        request = Request("GET", path)
        reply = caller.call(lambda: request, _read, PATIENCE)
        if not reply.body or reply.status >= _NO_SUCCESS:
            raise UnreachableError(
                f"{address} is no document of an identity provider (status {reply.status})",
                hint="Check auth_url: aspencli config show",
            )
        return reply.body

    def _form(self, endpoint: str, form: Mapping[str, str]) -> tuple[Caller, Request]:
        caller, path = self._caller(self._endpoint(endpoint))
        kind = {"content-type": "application/x-www-form-urlencoded"}
        return caller, Request("POST", path, headers=kind, body=urlencode(form).encode())

    def _caller(self, address: str) -> tuple[Caller, str]:
        """Who speaks to the server of an address, and the path there."""
        origin = str(origin_of(address, f"the address of {self._name}"))
        if origin not in self._callers:
            http = Http(origin, self._name, log=self._log)
            self._exits.callback(http.close)
            hint = "Check your network, and auth_url: aspencli config show"
            self._callers[origin] = Caller(http, self._name, hint=hint, tell=self._tell)
        parts = urlsplit(address)
        path = parts.path or "/"
        return self._callers[origin], f"{path}?{parts.query}" if parts.query else path


def _read(answer: Answer) -> Reply:
    try:
        body = json.loads(answer.read())
    except ValueError:
        body = {}
    return Reply(
        answer.status,
        body if isinstance(body, dict) else {},
        retry_after(answer.headers),
        answer.seconds_ahead,
    )
