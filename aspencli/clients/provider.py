"""The identity provider of a target (OpenID Connect, RFC 8628, RFC 7009)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from aspencli.clients.clocks import skew_words
from aspencli.clients.discovery import Discovery, Reply
from aspencli.clients.id_tokens import sign_in_of, verify
from aspencli.clients.origins import origin_of
from aspencli.clients.retrying import SetbackError
from aspencli.clients.wirelog import WireLog
from aspencli.errors import BadInputError, CredentialsError
from aspencli.identity import DeviceCode, NotYet, Place, SignIn

_SCOPE = "openid profile email offline_access"
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_INTERVAL_S, _VALID_S = 5.0, 900.0  # RFC 8628, 3.2, sets the default interval
_TOO_MANY, _SERVER_ERRORS = 429, 500


class Provider:
    """The identity provider of a target.

    Args:
        place: The target's issuer and client.
        log: The log of requests.
        tell: Called with a message for each noticeable wait.
    """

    def __init__(
        self,
        place: Place,
        log: WireLog | None = None,
        tell: Callable[[str], None] = lambda _words: None,
    ):
        self.name = f"the identity provider of {place.target}"
        self._place = place
        self._discovery = Discovery(place.issuer, self.name, log or WireLog(), tell)
        self._seconds_ahead: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._discovery.close()

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
        form = {"client_id": self._place.client_id, "scope": _SCOPE}
        if self._place.audience:
            form["audience"] = self._place.audience
        reply = self._discovery.post("device_authorization_endpoint", form)
        if "device_code" not in reply.body:
            raise self.refusal(reply.error, reply.description or f"status {reply.status}")
        return self._device_code(reply.body)

    def poll(self, code: DeviceCode) -> SignIn | NotYet:
        """Ask once whether the sign-in was approved.

        Errors are recognized by the JSON, not by the status, which can be 200, 400, or 403.

        Raises:
            CredentialsError: It was approved, but the token is invalid.
        """
        form = {
            "grant_type": _DEVICE_GRANT,
            "device_code": code.device_code,
            "client_id": self._place.client_id,
        }
        try:
            reply = self._discovery.post_once("token_endpoint", form)
        except SetbackError as error:
            return NotYet("", error.reason, passing=True)
        return self._result(reply)

    def refresh(self, before: SignIn) -> SignIn | NotYet:
        """Exchange a refresh token for a new sign-in, which replaces the old one.

        Raises:
            CredentialsError: The new token is invalid.
            UnreachableError: The provider does not respond.
        """
        form = {
            "grant_type": "refresh_token",
            "refresh_token": before.refresh_token or "",
            "client_id": self._place.client_id,
        }
        found = self._result(self._discovery.post("token_endpoint", form), before.refresh_token)
        if isinstance(found, SignIn) and found.subject != before.subject:
            raise CredentialsError(
                f"{self.name} renewed the sign-in of {before.who} for somebody else",
                hint="It was not used. Sign out, and in again.",
            )
        return found

    def revoke(self, refresh_token: str) -> bool:
        """Revoke a refresh token; return False if the provider does not support that.

        Raises:
            CredentialsError: The provider refuses.
            UnreachableError: The provider does not respond.
        """
        if "revocation_endpoint" not in self._discovery.document:
            return False
        form = {"token": refresh_token, "token_type_hint": "refresh_token"}
        form["client_id"] = self._place.client_id
        reply = self._discovery.post("revocation_endpoint", form)
        if reply.error:
            raise self.refusal(reply.error, reply.description)
        return True

    def refusal(self, error: str, description: str) -> CredentialsError:
        """Return the error for a refusal in any step except polling for approval."""
        words = ": ".join(part for part in (error, description) if part)
        if error in {"unauthorized_client", "invalid_client", "invalid_request", "invalid_scope"}:
            hint = (
                f"Its administrators must let the client {self._place.client_id} use the grants "
                "Device Code and Refresh Token; or auth_client_id is another: aspencli config show"
            )
        else:
            hint = "Try again; if it stays so, tell those who run the provider."
        return CredentialsError(f"{self.name} refuses: {words}", hint=hint)

    def _result(self, reply: Reply, refresh_token: str | None = None) -> SignIn | NotYet:
        self._seconds_ahead = reply.seconds_ahead
        overloaded = reply.status == _TOO_MANY or reply.status >= _SERVER_ERRORS
        if reply.error or overloaded:
            error = reply.error or f"status {reply.status}"
            return NotYet(error, reply.description, passing=overloaded, wait=reply.wait)
        token = reply.body.get("id_token")
        if not isinstance(token, str):
            raise CredentialsError(
                f"{self.name} granted no id_token (status {reply.status})",
                hint="Its administrators must allow the scope openid for this client.",
            )
        claims = verify(
            token,
            self._discovery.keys(),
            issuer=str(self._discovery.document["issuer"]),
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
                    f"{self.name} names no web page to sign in at",
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


def _number(value: Any, default: float) -> float:
    right = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
    return float(value) if right else default


def _can_be_opened(link: str) -> bool:
    try:
        return origin_of(link, "the page").is_private
    except BadInputError:
        return False
