"""Sign-in with OpenID Connect: identity tokens, the browser's sign-in, and its session cookie.

The browser's sign-in uses the authorization code flow with PKCE. The cookie is signed but not
encrypted, in Flask's format.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import secrets
import time
from dataclasses import asdict, dataclass
from typing import Any, Self
from urllib.parse import urlencode

import httpx
from itsdangerous import BadData, URLSafeTimedSerializer
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from starlette.requests import Request
from starlette.responses import Response

from aspen.api.settings import Settings

COOKIE = "session"
_LIFETIME_S = 14 * 24 * 3600
_SCOPE = "openid profile email"
_BROKEN = 500
_MAX_AGE_S = 600.0
"""The maximum time that a key is trusted after the provider revokes it."""
_MIN_AGE_S = 1.0
"""The minimum interval between key requests, even if tokens have forged key IDs."""
_log = logging.getLogger(__name__)


class InvalidTokenError(Exception):
    """An error for a token that is not valid."""


class ProviderUnavailableError(Exception):
    """A failure to get a usable response from the identity provider."""


@dataclass(frozen=True)
class _Keys:
    issuer: str
    keys: KeySet
    fetched: float


class TokenVerifier:
    """A verifier of identity tokens that caches the provider's keys."""

    def __init__(self, settings: Settings, http: httpx.AsyncClient):
        self._settings, self._http = settings, http
        self._cached: _Keys | None = None
        self._tried = -_MIN_AGE_S
        self._lock = asyncio.Lock()

    async def claims(self, token: str) -> dict[str, Any]:
        """Return the claims of a token; ``sub`` is the account ID of its user.

        Raises:
            InvalidTokenError: The token is not meant for this service, or is not valid now.
            ProviderUnavailableError: The keys that verify it are not available.
        """
        known = await self._keys(older_than=_MAX_AGE_S)
        try:
            return self._verify(token, known)
        except InvalidKeyIdError:
            # The provider may have rotated its keys.
            newer = await self._keys(older_than=_MIN_AGE_S)
        try:
            return self._verify(token, newer)
        except InvalidKeyIdError as error:
            raise InvalidTokenError("signed with an unknown key") from error

    def _verify(self, token: str, known: _Keys) -> dict[str, Any]:
        client = self._settings.auth0_client_id
        required = jwt.JWTClaimsRegistry(
            leeway=0,
            iss={"essential": True, "value": known.issuer},
            sub={"essential": True},
            aud={"essential": True, "value": client},
            exp={"essential": True},
            iat={"essential": True},
        )
        try:
            claims = jwt.decode(token, known.keys, algorithms=["RS256"]).claims
            required.validate(claims)
        except InvalidKeyIdError:
            raise
        except (JoseError, ValueError) as error:
            raise InvalidTokenError(str(error)) from error
        # A token for several audiences must name the one that requested it (OpenID Connect Core).
        if isinstance(claims["aud"], list) and claims.get("azp") != client:
            raise InvalidTokenError("issued for several audiences, but azp is not this client")
        return claims

    async def _keys(self, *, older_than: float) -> _Keys:
        """Return the keys, fetching them again if they are older than that many seconds."""
        if fresh := self._younger(older_than):
            return fresh
        async with self._lock:
            if fresh := self._younger(older_than):
                return fresh
            if self._cached and time.monotonic() - self._tried < _MIN_AGE_S:
                return self._cached
            self._tried = time.monotonic()
            try:
                self._cached = await self._fetch()
            except ProviderUnavailableError as error:
                if self._cached is None:
                    raise
                _log.warning("%s; continuing with the previous keys", error)
            return self._cached

    def _younger(self, seconds: float) -> _Keys | None:
        known = self._cached
        return known if known and time.monotonic() - known.fetched < seconds else None

    async def _fetch(self) -> _Keys:
        issuer, address = f"{self._settings.auth0_url}/", None
        if self._settings.auth0_metadata_url:
            document = await self._get(self._settings.auth0_metadata_url)
            issuer, address = document.get("issuer", ""), document.get("jwks_uri")
        document = await self._get(address or f"{issuer}.well-known/jwks.json")
        try:
            return _Keys(issuer, KeySet.import_key_set(document), time.monotonic())  # type: ignore[arg-type] # invalid keys raise
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise ProviderUnavailableError(f"no signing keys at {address or issuer}") from error

    async def _get(self, address: str) -> dict[str, str]:
        try:
            answer = await self._http.get(address)
            document = answer.raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            raise ProviderUnavailableError(f"no response from {address}: {error}") from error
        if not isinstance(document, dict):
            raise ProviderUnavailableError(f"the response from {address} is not a JSON object")
        return document


@dataclass(frozen=True)
class Attempt:
    """A sign-in in progress, kept in the browser's session cookie."""

    state: str  # ties the response to this browser
    nonce: str  # ties the token to this attempt
    verifier: str  # proves to the provider that the client that requested the code redeems it

    @classmethod
    def begin(cls) -> Self:
        """Return a new attempt."""
        return cls(*(secrets.token_urlsafe(32) for _ in range(3)))

    @classmethod
    def of(cls, session: dict[str, Any]) -> Self | None:
        """Return the attempt stored in a session, if any."""
        held = session.get("attempt")
        names = ("state", "nonce", "verifier")
        if not isinstance(held, dict) or not all(isinstance(held.get(n), str) for n in names):
            return None
        return cls(*(held[name] for name in names))

    def as_session(self) -> dict[str, Any]:
        """Return the session to keep until the browser returns."""
        return {"attempt": asdict(self)}

    @property
    def challenge(self) -> str:
        """Return the code challenge derived from the verifier."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class SignIn:
    """The browser sign-in, from the redirect to the provider to the claims of the user."""

    def __init__(self, settings: Settings, http: httpx.AsyncClient, tokens: TokenVerifier):
        self._settings, self._http, self._tokens = settings, http, tokens
        self._callback = f"{settings.api_url.rstrip('/')}/v2/auth/callback"

    def address(self, attempt: Attempt, **also: str | None) -> str:
        """Return the URL where the browser signs in, with further query parameters if not None."""
        settings = self._settings
        query = {
            "response_type": "code",
            "client_id": settings.auth0_client_id,
            "redirect_uri": self._callback,
            "scope": settings.auth0_client_kwargs.get("scope", _SCOPE),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
            **{name: value for name, value in also.items() if value},
        }
        base = settings.auth0_authorize_url or f"{settings.auth0_url}/authorize"
        return f"{base}?{urlencode(query)}"

    async def redeem(self, attempt: Attempt, state: str, code: str) -> dict[str, Any]:
        """Return the ID token claims of the user who signed in.

        Raises:
            InvalidTokenError: The response is not for this attempt, or is not valid.
            ProviderUnavailableError: The provider does not respond.
        """
        if not hmac.compare_digest(state.encode(), attempt.state.encode()):
            raise InvalidTokenError("the response belongs to another sign-in")
        claims = await self._tokens.claims(await self._exchange(attempt, code))
        nonce = str(claims.get("nonce", ""))
        if not hmac.compare_digest(nonce.encode(), attempt.nonce.encode()):
            raise InvalidTokenError("the token belongs to another sign-in")
        return claims

    def sign_out_address(self) -> str:
        """Return the URL that signs the browser out at the provider."""
        query = {
            "client_id": self._settings.auth0_client_id,
            "returnTo": self._settings.frontend_url,
        }
        return f"{self._settings.auth0_url}/v2/logout?{urlencode(query)}"

    async def _exchange(self, attempt: Attempt, code: str) -> str:
        settings = self._settings
        form = {
            "grant_type": "authorization_code",
            "client_id": settings.auth0_client_id,
            "client_secret": settings.auth0_client_secret.get_secret_value(),
            "redirect_uri": self._callback,
            "code": code,
            "code_verifier": attempt.verifier,
        }
        address = settings.auth0_token_url or f"{settings.auth0_url}/oauth/token"
        try:
            answer = await self._http.post(address, data=form)
            document = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise ProviderUnavailableError(f"no response from {address}: {error!r}") from error
        if answer.status_code >= _BROKEN:
            raise ProviderUnavailableError(f"{answer.status_code} from {address}")
        token = document.get("id_token") if isinstance(document, dict) else None
        if not isinstance(token, str):
            raise InvalidTokenError(f"no token in the response: {document}")
        return token


def _serializer(settings: Settings) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(
        settings.flask_secret.get_secret_value(),
        salt="cookie-session",
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha1},
    )


def read_session(request: Request, settings: Settings) -> dict[str, Any]:
    """Return the contents of the cookie; empty if it is missing, expired, or invalid."""
    signed = request.cookies.get(COOKIE)
    if not signed:
        return {}
    try:
        session = _serializer(settings).loads(signed, max_age=_LIFETIME_S)
    except BadData:
        return {}
    return session if isinstance(session, dict) else {}


def write_session(response: Response, settings: Settings, session: dict[str, Any]) -> None:
    """Set the cookie, or delete it if the session is empty."""
    secure = settings.api_url.startswith("https://")
    if not session:
        response.delete_cookie(COOKIE, httponly=True, secure=secure, samesite="lax")
        return
    response.set_cookie(
        COOKIE,
        _serializer(settings).dumps(session),
        max_age=_LIFETIME_S,
        httponly=True,
        secure=secure,
        samesite="lax",
    )


def account_of(session: dict[str, Any]) -> str | None:
    """Return the session user's account ID at the identity provider, if any."""
    profile = session.get("profile")
    account = profile.get("user_id") if isinstance(profile, dict) else None
    return account if isinstance(account, str) else None
