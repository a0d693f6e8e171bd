"""Verification of identity tokens with the provider's signing keys."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

import httpx
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from aspen.api.settings import Settings

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
    """A verifier of identity tokens that caches the provider's keys.

    Args:
        settings: The settings that name the provider and the client that its tokens are for.
        http: The HTTP client for requests to the provider.
    """

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
            if newer is known:
                raise InvalidTokenError("signed with an unknown key") from None
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
