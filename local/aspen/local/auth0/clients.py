"""The parameters of a token request, the client that sent it, and what that client may do."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl, unquote_plus, urlsplit

from fastapi import Depends, Request

from aspen.local.auth0.errors import OAuthError
from aspen.local.auth0.settings import matches
from aspen.local.auth0.store import Grant

_LONGEST = 65_536

_LOOPBACK = {"127.0.0.1", "localhost"}


@dataclass(frozen=True)
class KnownClient:
    """A registered client; see ``aspen.local.auth0.store.Client``.

    Attributes:
        authenticated: True if the client proved its identity with its secret.
    """

    client_id: str
    name: str
    public: bool
    grants: frozenset[str]
    callbacks: tuple[str, ...]
    logout_urls: tuple[str, ...]
    audiences: tuple[str, ...]
    management_scopes: tuple[str, ...]
    authenticated: bool = False

    def require(self, grant: Grant) -> None:
        """Check that the client may use a grant type.

        Raises:
            OAuthError: The client may not use it.
        """
        if grant not in self.grants:
            raise OAuthError(
                "unauthorized_client", f"Grant type '{grant}' not allowed for the client."
            )


def find_client(db: sqlite3.Connection, client_id: str) -> KnownClient | None:
    """Return the client with an ID; None if there is none."""
    row = db.execute("SELECT * FROM clients WHERE client_id = ?", (client_id,)).fetchone()
    return None if row is None else _known(row)


def authenticate(
    db: sqlite3.Connection, parameters: Mapping[str, str], authorization: str | None
) -> KnownClient:
    """Return the client that sent a request.

    Args:
        db: A connection to the state.
        parameters: The parameters sent, which may include ``client_id`` and ``client_secret``.
        authorization: The Authorization header, which may carry them instead.

    Raises:
        OAuthError: The client is unknown, or its secret is missing or wrong.
    """
    client_id, secret = _credentials(parameters, authorization)
    row = db.execute("SELECT * FROM clients WHERE client_id = ?", (client_id,)).fetchone()
    if row is None:
        raise _refused("Unauthorized or unknown client")
    if secret is None or row["secret_hash"] is None:
        if not row["public"]:
            raise _refused("Client authentication is required")
        return _known(row)
    if not matches(secret, row["secret_hash"]):
        raise _refused("Unauthorized")
    return _known(row, authenticated=True)


def allows_address(allowed: tuple[str, ...], address: str) -> bool:
    """Return True if a URL is registered; a loopback URL without a port allows any (RFC 8252)."""
    if address in allowed:
        return True
    try:
        parts = urlsplit(address)
        open_port = parts._replace(netloc=parts.hostname or "").geturl()
        has_port = parts.port is not None
    except ValueError:
        return False
    plain = "@" not in parts.netloc and parts.scheme == "http"
    return plain and has_port and parts.hostname in _LOOPBACK and open_port in allowed


def _known(row: sqlite3.Row, *, authenticated: bool = False) -> KnownClient:
    return KnownClient(
        client_id=row["client_id"],
        name=row["name"],
        public=bool(row["public"]),
        grants=frozenset(json.loads(row["grants"])),
        callbacks=tuple(json.loads(row["callbacks"])),
        logout_urls=tuple(json.loads(row["logout_urls"])),
        audiences=tuple(json.loads(row["audiences"])),
        management_scopes=tuple(json.loads(row["management_scopes"])),
        authenticated=authenticated,
    )


def _credentials(
    parameters: Mapping[str, str], authorization: str | None
) -> tuple[str, str | None]:
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        if "client_id" not in parameters:
            raise OAuthError("invalid_request", "Missing required parameter: client_id")
        return parameters["client_id"], parameters.get("client_secret")
    try:
        name, _, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError as error:
        raise _refused("The Authorization header is malformed") from error
    if parameters.get("client_id", unquote_plus(name)) != unquote_plus(name):
        raise OAuthError("invalid_request", "The request contains two different client IDs.")
    return unquote_plus(name), unquote_plus(secret)


def _refused(description: str) -> OAuthError:
    return OAuthError(
        "invalid_client", description, 401, {"WWW-Authenticate": 'Basic realm="identity"'}
    )


async def _read(request: Request) -> Mapping[str, str]:
    body = await request.body()
    if len(body) > _LONGEST:
        raise OAuthError("invalid_request", "The request is too long.", 413)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return _from_json(body)
    if kind != "application/x-www-form-urlencoded":
        raise OAuthError(
            "invalid_request", "Send the parameters as application/x-www-form-urlencoded."
        )
    return _from_form(body)


def _from_json(body: bytes) -> Mapping[str, str]:
    try:
        document = json.loads(body)
    except ValueError as error:
        raise OAuthError("invalid_request", "The body is not valid JSON.") from error
    if not _encodable(document):
        raise OAuthError("invalid_request", "The body contains invalid Unicode.")
    if not isinstance(document, dict) or not all(isinstance(v, str) for v in document.values()):
        raise OAuthError("invalid_request", "The body must be a JSON object of strings.")
    return _without_empty(document)


def _encodable(document: object) -> bool:
    """Return True if there are no lone surrogates, which JSON allows but UTF-8 does not."""
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _from_form(body: bytes) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise OAuthError("invalid_request", "The form is not valid UTF-8.") from error
    if len(dict(pairs)) < len(pairs):
        raise OAuthError("invalid_request", "A parameter is repeated.")
    return _without_empty(dict(pairs))


def _without_empty(parameters: Mapping[str, str]) -> Mapping[str, str]:
    """Drop empty parameters, which count as omitted (RFC 6749 section 3.2)."""
    return {name: value for name, value in parameters.items() if value}


def required(parameters: Mapping[str, str], name: str) -> str:
    """Return a required parameter.

    Raises:
        OAuthError: The parameter is missing.
    """
    if name not in parameters:
        raise OAuthError("invalid_request", f"Missing required parameter: {name}")
    return parameters[name]


Parameters = Annotated[Mapping[str, str], Depends(_read)]
"""An endpoint parameter: the parameters in the request body."""
