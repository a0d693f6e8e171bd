"""The parameters of a token request, the client that sent it, what it may do, and the refusals."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from secrets import compare_digest
from sqlite3 import Connection, Row
from typing import Annotated
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

from fastapi import Depends, Header, Request

from aspen.local.auth0.settings import hashed
from aspen.local.auth0.store import LISTS, Client, Grant

_LONGEST = 65_536

_LOOPBACK = {"127.0.0.1", "localhost"}


@dataclass
class OAuthError(Exception):
    """An OAuth error for a client, as defined in RFC 6749 section 5.2.

    Attributes:
        error: The error code that clients act on.
        status: The HTTP status according to the RFC.
        about: Details for the audit log.
    """

    error: str
    description: str
    status: int = 400
    headers: dict[str, str] = field(default_factory=dict)
    about: dict[str, str | bool] = field(default_factory=dict)

    def body(self) -> dict[str, str]:
        """Return the JSON body."""
        return {"error": self.error, "error_description": self.description}


@dataclass
class PageError(Exception):
    """An error on a page, shown to a person: what happened, then the reason and what to do next."""

    title: str
    text: str
    status: int = 400


@dataclass(frozen=True)
class KnownClient(Client):
    """A registered client, ``authenticated`` if it proved its identity with its secret."""

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


def find_client(db: Connection, client_id: str) -> KnownClient | None:
    """Return the client with an ID; None if there is none."""
    row = db.execute("SELECT * FROM clients WHERE client_id = ?", (client_id,)).fetchone()
    return None if row is None else _known(row)


def authenticate(
    db: Connection, parameters: Mapping[str, str], authorization: str | None
) -> KnownClient:
    """Return the client that sent a request.

    The parameters may include ``client_id`` and ``client_secret``, or the Authorization header may.

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
    if not compare_digest(hashed(secret), row["secret_hash"]):
        raise _refused("Unauthorized")
    return _known(row, authenticated=True)


def allows_address(allowed: Sequence[str], address: str) -> bool:
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


def with_query(address: str, parameters: Mapping[str, str]) -> str:
    """Return a URL with further query parameters."""
    joint = "&" if "?" in address else "?"
    return f"{address}{joint}{urlencode(parameters)}" if parameters else address


def _known(row: Row, *, authenticated: bool = False) -> KnownClient:
    values = dict(row) | {name: json.loads(row[name]) for name in LISTS}
    del values["secret_hash"]
    return KnownClient(**values, authenticated=authenticated)


def _credentials(
    parameters: Mapping[str, str], authorization: str | None
) -> tuple[str, str | None]:
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return required(parameters, "client_id"), parameters.get("client_secret")
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
    """Return the parameters without the empty ones, which count as omitted (RFC 6749 3.2)."""
    body = await request.body()
    if len(body) > _LONGEST:
        raise OAuthError("invalid_request", "The request is too long.", 413)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in {"application/json", "application/x-www-form-urlencoded"}:
        raise OAuthError(
            "invalid_request", "Send the parameters as application/x-www-form-urlencoded."
        )
    parameters = _from_json(body) if kind == "application/json" else _from_form(body)
    return {name: value for name, value in parameters.items() if value}


def _from_json(body: bytes) -> Mapping[str, str]:
    try:
        document = json.loads(body)
        # JSON allows lone surrogates, UTF-8 does not.
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise OAuthError("invalid_request", "The body contains invalid Unicode.") from error
    except ValueError as error:
        raise OAuthError("invalid_request", "The body is not valid JSON.") from error
    if not isinstance(document, dict) or not all(isinstance(v, str) for v in document.values()):
        raise OAuthError("invalid_request", "The body must be a JSON object of strings.")
    return document


def _from_form(body: bytes) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise OAuthError("invalid_request", "The form is not valid UTF-8.") from error
    if len(dict(pairs)) < len(pairs):
        raise OAuthError("invalid_request", "A parameter is repeated.")
    return dict(pairs)


def required(parameters: Mapping[str, str], name: str) -> str:
    """Return a required parameter.

    Raises:
        OAuthError: The parameter is missing.
    """
    if name not in parameters:
        raise OAuthError("invalid_request", f"Missing required parameter: {name}")
    return parameters[name]


Authorization = Annotated[str | None, Header()]
"""An endpoint parameter: the Authorization header."""
Parameters = Annotated[Mapping[str, str], Depends(_read)]
"""An endpoint parameter: the parameters in the request body."""
