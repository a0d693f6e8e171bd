"""Verification of ID tokens: signature, issuer, audience, and times."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from aspencli.auth.models import SignIn
from aspencli.errors import CredentialsError
from aspencli.remote.errors import skew_words

_ALGORITHM = "RS256"  # the only one that the API accepts
_LEEWAY_S = 60
_FORM = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_CLOCK_HINT = (
    "Set the clock automatically: timedatectl set-ntp true (Linux), or System Settings > General > "
    "Date & Time (macOS). Then sign in again."
)


def is_token(text: str) -> bool:
    """Return True if a text has the form of a signed token, and so can be sent in a header."""
    return _FORM.fullmatch(text) is not None


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a token, unverified.

    Raises:
        ValueError: It is not a token.
    """
    if not is_token(token):
        raise ValueError("not a signed token")
    body = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    if not isinstance(claims, dict):
        raise TypeError("the token has no claims")
    return claims


def sign_in_of(token: str, claims: Mapping[str, Any], refresh_token: str | None = None) -> SignIn:
    """Return the sign-in for a token with these claims."""
    return SignIn(
        id_token=token,
        refresh_token=refresh_token,
        subject=str(claims["sub"]),
        issued_at=float(claims["iat"]),
        expires_at=float(claims["exp"]),
        name=str(claims.get("name") or claims.get("nickname") or ""),
        email=str(claims.get("email") or ""),
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
    """Verify a token, and return its claims.

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
        _registry(issuer, client_id, now).validate(claims)
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


def _registry(issuer: str, client_id: str, now: float) -> Any:
    from joserfc.jwt import JWTClaimsRegistry

    return JWTClaimsRegistry(
        now=int(now),
        leeway=_LEEWAY_S,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": client_id},
        sub={"essential": True},
        iat={"essential": True},
        exp={"essential": True},
    )


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
