"""The identity provider of a target: its discovery, and requests to its endpoints.

OpenID Connect Discovery, RFC 8628 (device flow), RFC 7009 (revocation). Which provider a target has
is found through its API, if it is not configured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from aspencli.addresses import origin_of
from aspencli.auth.session import DeviceCode, NotYet, SignInTarget, StoredSignIn, sign_in_of
from aspencli.errors import BadInputError, CredentialsError, UnreachableError
from aspencli.remote.http import Answer, Http, Request, WireLog
from aspencli.remote.refusals import skew_words
from aspencli.remote.retry import Caller, Deadline, Patience, SetbackError, retry_after

_ALGORITHM = "RS256"  # the only one that the API accepts
_LEEWAY_S = 60
_CLOCK_HINT = (
    "Set the clock automatically: timedatectl set-ntp true (Linux), or System Settings > General > "
    "Date & Time (macOS). Then sign in again."
)
_PATIENCE = Patience(read=15, total=40)
_NO_SUCCESS = 300
_SCOPE = "openid profile email offline_access"
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_INTERVAL_S, _VALID_S = 5.0, 900.0  # RFC 8628, 3.2, sets the default interval
_TOO_MANY, _SERVER_ERRORS = 429, 500
_LOGIN = Request("GET", "/v2/auth/login")
_AUTHORIZE = "/authorize"
_LOGIN_PATIENCE = Patience(read=20, total=40)


@dataclass(frozen=True)
class Reply:
    """A provider's JSON response, whatever its status."""

    status: int
    body: Mapping[str, Any]  # the JSON object; empty if there is none
    error: str  # the error code; empty if there was no error
    description: str
    wait: float | None  # the number of seconds that the provider asks to wait, or None
    seconds_ahead: float | None  # how far its clock is ahead of this machine's; None if not known


def login_redirect(caller: Caller, cookie: str | None = None) -> tuple[str, str] | None:
    """Return the issuer and client that the service sends browsers to, or None if not known.

    This needs no sign-in: the service's login page redirects to its provider. The cookie is for a
    proxy in front of it.
    """
    request = _LOGIN.having({"cookie": cookie}) if cookie else _LOGIN

    def read(answer: Answer) -> tuple[str, str] | None:
        address = urlsplit(answer.headers.get("location", ""))
        client = parse_qs(address.query).get("client_id")
        if not client or not address.netloc or not address.path.endswith(_AUTHORIZE):
            return None
        path = address.path.removesuffix(_AUTHORIZE)
        return f"{address.scheme}://{address.netloc}{path}", client[0]

    return caller.call(lambda: request, read, _LOGIN_PATIENCE)


class Provider:
    """The identity provider of a target.

    Args:
        place: The target's issuer and client.
        log: The log of requests.
        tell: Called with a message for each noticeable wait.
    """

    def __init__(
        self,
        place: SignInTarget,
        log: WireLog | None = None,
        tell: Callable[[str], None] = lambda _words: None,
    ):
        self.name = f"the {place.target} identity provider"
        self._place = place
        self._log = log
        self._tell = tell
        self._callers: dict[str, Caller] = {}
        self._exits = ExitStack()
        self._seconds_ahead: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._exits.close()

    @property
    def skew(self) -> str | None:
        """Return a message if this machine's clock and the provider's disagree, or None."""
        return skew_words(self._seconds_ahead, self.name)

    def begin(self) -> DeviceCode:
        """Request a code for signing in on another device.

        Raises:
            CredentialsError: The provider refuses this client.
            UnreachableError: The provider does not respond.
        """
        form = {"scope": _SCOPE}
        if self._place.audience:
            form["audience"] = self._place.audience
        reply = self._post("device_authorization_endpoint", form)
        if "device_code" not in reply.body:
            raise self.refusal(reply.error, reply.description or f"HTTP {reply.status}")
        return self._device_code(reply.body)

    def poll(self, code: DeviceCode) -> StoredSignIn | NotYet:
        """Ask once whether the sign-in was approved.

        Errors are recognized by the JSON, not by the status, which can be 200, 400, or 403.

        Raises:
            CredentialsError: It was approved, but the token is invalid.
        """
        form = {"grant_type": _DEVICE_GRANT, "device_code": code.device_code}
        caller, request = self._form("token_endpoint", form)
        try:
            with caller.http.open(request, Deadline(_PATIENCE.total), _PATIENCE) as answer:
                reply = _read(answer)
        except SetbackError as error:
            return NotYet("", error.reason, passing=True)
        return self._result(reply)

    def refresh(self, before: StoredSignIn) -> StoredSignIn | NotYet:
        """Exchange a refresh token for a new sign-in, which replaces the old one.

        Raises:
            CredentialsError: The new token is invalid.
            UnreachableError: The provider does not respond.
        """
        form = {"grant_type": "refresh_token", "refresh_token": before.refresh_token or ""}
        found = self._result(self._post("token_endpoint", form), before.refresh_token)
        if isinstance(found, StoredSignIn) and found.subject != before.subject:
            raise CredentialsError(
                f"Renewing the sign-in of {before.who} returned a token for a different user.",
                hint="The token was not used. Sign out, then sign in again.",
            )
        return found

    def revoke(self, refresh_token: str) -> bool:
        """Revoke a refresh token; return False if the provider does not support that.

        Raises:
            CredentialsError: The provider refuses.
            UnreachableError: The provider does not respond.
        """
        if "revocation_endpoint" not in self._document:
            return False
        form = {"token": refresh_token, "token_type_hint": "refresh_token"}
        reply = self._post("revocation_endpoint", form)
        if reply.error:
            raise self.refusal(reply.error, reply.description)
        return True

    def refusal(self, error: str, description: str) -> CredentialsError:
        """Return the error for a refusal in any step except polling for approval."""
        words = ": ".join(part for part in (error, description) if part)
        if error in {"unauthorized_client", "invalid_client", "invalid_request", "invalid_scope"}:
            hint = (
                "Ask its administrators to enable the Device Code and Refresh Token grants for "
                f"client {self._place.client_id}, or check auth_client_id: aspencli config show"
            )
        else:
            hint = "Try again. If it keeps failing, contact the provider's administrators."
        return CredentialsError(f"Request rejected by {self.name}: {words}", hint=hint)

    def _result(self, reply: Reply, refresh_token: str | None = None) -> StoredSignIn | NotYet:
        self._seconds_ahead = reply.seconds_ahead
        overloaded = reply.status == _TOO_MANY or reply.status >= _SERVER_ERRORS
        if reply.error or overloaded:
            error = reply.error or f"HTTP {reply.status}"
            return NotYet(error, reply.description, passing=overloaded, wait=reply.wait)
        token = reply.body.get("id_token")
        if not isinstance(token, str):
            raise CredentialsError(
                f"No id_token was issued by {self.name} (HTTP {reply.status}).",
                hint="Ask its administrators to allow the openid scope for this client.",
            )
        claims = verify(
            token,
            self._json(self._endpoint("jwks_uri")),
            issuer=str(self._document["issuer"]),
            client_id=self._place.client_id,
            name=self.name,
            now=time.time(),
            seconds_ahead=reply.seconds_ahead,
        )
        # Without rotation, the refresh token stays the same.
        return sign_in_of(token, claims, reply.body.get("refresh_token", refresh_token))

    def _device_code(self, body: Mapping[str, Any]) -> DeviceCode:
        page = str(body.get("verification_uri", body.get("verification_url", "")))
        whole = body.get("verification_uri_complete")
        for link in (page, whole):
            if link is not None and not _can_be_opened(str(link)):
                raise CredentialsError(
                    f"No valid sign-in page was returned by {self.name}.",
                    hint="Check auth_url: aspencli config show",
                )
        return DeviceCode(
            device_code=str(body["device_code"]),
            user_code=str(body.get("user_code", "")),
            page=page,
            page_with_code=None if whole is None else str(whole),
            seconds=_number(body.get("expires_in"), _VALID_S),
            interval=_number(body.get("interval"), _INTERVAL_S),
        )

    @cached_property
    def _document(self) -> Mapping[str, Any]:
        """Return the discovery document, which must name the expected issuer.

        Raises:
            CredentialsError: It names another issuer.
            UnreachableError: The provider does not respond, or with something else.
        """
        found = self._json(f"{self._place.issuer}/.well-known/openid-configuration")
        issuer = found.get("issuer")
        if not isinstance(issuer, str) or issuer.rstrip("/") != self._place.issuer:
            raise CredentialsError(
                f"Wrong issuer: {self._place.issuer} identifies itself as {issuer!r}.",
                hint="Set the target's auth_url to the issuer; see: aspencli config show",
            )
        return found

    def _post(self, endpoint: str, form: Mapping[str, str]) -> Reply:
        """Send a form, retrying if the provider is busy or its response is lost."""
        caller, request = self._form(endpoint, form)
        return caller.call(lambda: request, _read, _PATIENCE, safe=True)

    def _endpoint(self, name: str) -> str:
        address = self._document.get(name)
        if not isinstance(address, str):
            raise CredentialsError(
                f"No {name} in the discovery document of {self.name}.",
                hint="Check auth_url (aspencli config show), or set ASPEN_TOKEN.",
            )
        if not origin_of(address, f"the {name} of {self.name}").is_private:
            raise CredentialsError(
                f"Refused to send secrets unencrypted to {address}, the {name} of {self.name}.",
                hint="Nothing was sent. Contact the provider's administrators.",
            )
        return address

    def _json(self, address: str) -> Mapping[str, Any]:
        caller, path = self._caller(address)
        request = Request("GET", path)
        reply = caller.call(lambda: request, _read, _PATIENCE)
        if not reply.body or reply.status >= _NO_SUCCESS:
            raise UnreachableError(
                f"Unexpected response from {address} (HTTP {reply.status}); expected JSON from an "
                "identity provider.",
                hint="Check auth_url: aspencli config show",
            )
        return reply.body

    def _form(self, endpoint: str, form: Mapping[str, str]) -> tuple[Caller, Request]:
        caller, path = self._caller(self._endpoint(endpoint))
        kind = {"content-type": "application/x-www-form-urlencoded"}
        body = urlencode({"client_id": self._place.client_id, **form}).encode()
        return caller, Request("POST", path, headers=kind, body=body)

    def _caller(self, address: str) -> tuple[Caller, str]:
        """Return the caller for the server of an address, and the path on it."""
        origin = str(origin_of(address, self.name))
        if origin not in self._callers:
            http = Http(origin, self.name, log=self._log)
            self._exits.callback(http.close)
            hint = "Check your network and auth_url (aspencli config show)."
            self._callers[origin] = Caller(http, self.name, hint=hint, tell=self._tell)
        parts = urlsplit(address)
        path = parts.path or "/"
        return self._callers[origin], f"{path}?{parts.query}" if parts.query else path


def _number(value: Any, default: float) -> float:
    right = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
    return float(value) if right else default


def _can_be_opened(link: str) -> bool:
    try:
        return origin_of(link, "the page").is_private
    except BadInputError:
        return False


def _read(answer: Answer) -> Reply:
    body: Any = None
    with suppress(ValueError):
        body = json.loads(answer.read())
    if not isinstance(body, dict):
        body = {}
    texts = {key: value for key, value in body.items() if isinstance(value, str)}
    return Reply(
        answer.status,
        body,
        texts.get("error", ""),
        texts.get("error_description", ""),
        retry_after(answer.headers),
        answer.seconds_ahead,
    )


def verify(
    token: str,
    keys: Mapping[str, Any],
    *,
    issuer: str,
    client_id: str,
    name: str,
    now: float,
    seconds_ahead: float | None,
) -> dict[str, Any]:
    """Verify a token's signature, issuer, audience, and times, and return its claims.

    Args:
        token: The token, fresh from the provider.
        keys: The provider's keys (JWKS).
        issuer: The required issuer.
        client_id: The required audience.
        name: The display name of the provider.
        now: The time by this machine's clock.
        seconds_ahead: How far the provider's clock is ahead of it; None if not known.

    Raises:
        CredentialsError: The token is invalid, or one of the clocks is wrong.
    """
    from joserfc import jwt
    from joserfc.errors import ClaimError, ExpiredTokenError, JoseError, MissingClaimError
    from joserfc.jwk import KeySet

    required: Any = {claim: {"essential": True} for claim in ("sub", "iat", "exp")}
    registry = jwt.JWTClaimsRegistry(
        now=int(now),
        leeway=_LEEWAY_S,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": client_id},
        **required,
    )
    usable = [key for key in keys.get("keys", ()) if key.get("kty") == "RSA"]
    try:
        claims = jwt.decode(
            token, KeySet.import_key_set({"keys": usable}), algorithms=[_ALGORITHM]
        ).claims
    except JoseError as error:
        raise CredentialsError(
            f"The token from {name} has an invalid signature ({error.error}).",
            hint="The token was not used. Try again. If it keeps failing, contact the provider's "
            "administrators.",
        ) from None  # the cause might repeat the token
    try:
        registry.validate(claims)
    except ExpiredTokenError:
        _wrong_time("has already expired", name, seconds_ahead)
    except MissingClaimError as error:
        _wrong(f"has no {error.claim} claim", name)
    except ClaimError as error:
        if error.claim in {"iat", "nbf"}:
            _wrong_time("is not valid yet", name, seconds_ahead)
        said = json.dumps(claims.get(error.claim or ""))
        _wrong(f"is not for this client: its {error.claim} is {said}", name)
    if isinstance(claims["aud"], list) and claims.get("azp") != client_id:
        _wrong("has several audiences, and its azp is not this client", name)
    return dict(claims)


def _wrong(what: str, name: str) -> NoReturn:
    raise CredentialsError(
        f"The token from {name} {what}.",
        hint="The token was not used. Check the target's auth_url and auth_client_id: "
        "aspencli config show",
    )


def _wrong_time(what: str, name: str, seconds_ahead: float | None) -> NoReturn:
    words = skew_words(seconds_ahead, name)
    if words is None and seconds_ahead is None:
        words = "one of the two clocks is wrong"
    if words is None:
        raise CredentialsError(
            f"The token from {name} {what}, although its clock and this machine's agree.",
            hint="The token was not used. Contact the provider's administrators.",
        )
    raise CredentialsError(f"The token from {name} {what}: {words}", hint=_CLOCK_HINT)
