"""OpenID Connect Discovery, and requests to the endpoints of an identity provider."""

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
    """A provider's JSON response, whatever its status.

    Attributes:
        status: The HTTP status.
        body: The JSON object; empty if there is none.
        wait: The number of seconds that the provider asks to wait, or None.
        seconds_ahead: How far its clock is ahead of this machine's; None if not known.
    """

    status: int
    body: Mapping[str, Any]
    wait: float | None
    seconds_ahead: float | None

    @property
    def error(self) -> str:
        """Return the error code; empty if there was no error."""
        return self._text("error")

    @property
    def description(self) -> str:
        """Return the error description."""
        return self._text("error_description")

    def _text(self, key: str) -> str:
        said = self.body.get(key, "")
        return said if isinstance(said, str) else ""


class Discovery:
    """A provider's discovery document, and requests to the endpoints in it.

    Args:
        issuer: The provider's address, without a trailing slash.
        name: The display name of the provider.
        log: The log of requests.
        tell: Called with a message for each noticeable wait.
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
        """Return the discovery document, which must name the expected issuer.

        Raises:
            CredentialsError: It names another issuer.
            UnreachableError: The provider does not respond, or with something else.
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
        """Return the provider's current keys (JWKS)."""
        return self._json(self._endpoint("jwks_uri"))

    def post(self, endpoint: str, form: Mapping[str, str]) -> Reply:
        """Send a form, retrying if the provider is busy or its response is lost."""
        caller, request = self._form(endpoint, form)
        return caller.call(lambda: request, _read, PATIENCE, safe=True)

    def post_once(self, endpoint: str, form: Mapping[str, str]) -> Reply:
        """Send a form once.

        Raises:
            SetbackError: There was no response.
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
        """Return the caller for the server of an address, and the path on it."""
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
