"""Browser sign-in with OpenID Connect, which also updates the user's roles in the database.

It uses the authorization code flow with PKCE.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Self
from urllib.parse import urlencode

import httpx
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.keys import InvalidTokenError, ProviderUnavailableError, TokenVerifier
from aspen.api.management import Management
from aspen.api.settings import Settings
from aspen.database.models import Group, Role, UserRole

_SCOPE = "openid profile email"
_BROKEN = 500


@dataclass(frozen=True)
class Attempt:
    """A sign-in in progress, kept in the browser's session cookie.

    Attributes:
        state: Ties the response to this browser.
        nonce: Ties the token to this attempt.
        verifier: Proves to the provider that the code is redeemed by the client that requested it.
    """

    state: str
    nonce: str
    verifier: str

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
    """The browser sign-in, from the redirect to the provider to the claims of the user.

    Args:
        settings: The settings that name the provider and this client.
        http: The HTTP client for requests to the provider.
        tokens: The verifier of the provider's tokens.
    """

    def __init__(self, settings: Settings, http: httpx.AsyncClient, tokens: TokenVerifier):
        self._settings, self._http, self._tokens = settings, http, tokens
        self._callback = f"{settings.api_url.rstrip('/')}/v2/auth/callback"

    def address(self, attempt: Attempt, **also: str | None) -> str:
        """Return the URL where the browser signs in.

        Args:
            attempt: The attempt that this starts.
            also: Further query parameters, such as ``organization``; None is omitted.
        """
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


async def sync_roles(
    db: AsyncSession, identity: Management, user_id: int, account: str, *, also: str | None = None
) -> None:
    """Give a user the provider's roles in each group that they are a member of there.

    Roles stay unchanged in groups whose organization does not list the user, and for memberships
    without a role at the provider. Users who were entered by hand have only such groups.

    Args:
        db: A writable session; the caller commits.
        identity: The Management API of the provider.
        user_id: The user's ID.
        account: The user's account ID at the provider.
        also: An organization to include even if the user is not (yet) listed there.
    """
    organizations = {*await identity.organizations_of(account), *([also] if also else [])}
    query = sa.select(Group.id, Group.auth0_org_id).where(Group.auth0_org_id.in_(organizations))
    for group_id, organization in (await db.execute(query)).all():
        names = await identity.member_roles(organization, account)
        await set_roles(db, user_id, group_id, names)


async def set_roles(db: AsyncSession, user_id: int, group_id: int, names: Collection[str]) -> None:
    """Replace the user's roles in the group; if no name is known, change nothing."""
    roles = (await db.scalars(sa.select(Role.id).where(Role.name.in_(names)))).all()
    if not roles:
        return
    held = sa.and_(UserRole.user_id == user_id, UserRole.group_id == group_id)
    await db.execute(sa.delete(UserRole).where(held, UserRole.role_id.not_in(roles)))
    rows = [{"user_id": user_id, "group_id": group_id, "role_id": role} for role in roles]
    await db.execute(insert(UserRole).values(rows).on_conflict_do_nothing())
