"""The identity provider of a service, found through the service itself."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from aspencli.clients.caller import Caller
from aspencli.clients.http import Answer, Request
from aspencli.clients.retrying import Patience

_LOGIN = Request("GET", "/v2/auth/login")
_AUTHORIZE = "/authorize"
_PATIENCE = Patience(read=20, total=40)


def where_to_sign_in(caller: Caller, cookie: str | None = None) -> tuple[str, str] | None:
    """Return the issuer and client that the service sends browsers to, or None if not known.

    This needs no sign-in: the service's login page redirects to its provider.

    Args:
        caller: Sends requests to the service.
        cookie: The Cookie header for a proxy in front of it.
    """
    request = _LOGIN.having({"cookie": cookie}) if cookie else _LOGIN

    def read(answer: Answer) -> tuple[str, str] | None:
        address = urlsplit(answer.headers.get("location", ""))
        client = parse_qs(address.query).get("client_id")
        if not client or not address.netloc or not address.path.endswith(_AUTHORIZE):
            return None
        path = address.path.removesuffix(_AUTHORIZE)
        return f"{address.scheme}://{address.netloc}{path}", client[0]

    return caller.call(lambda: request, read, _PATIENCE)
