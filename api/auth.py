"""Who asks: by the session cookie, else by the bearer token."""

from __future__ import annotations

from typing import Annotated

import sqlalchemy as sa
from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from sqlalchemy.ext.asyncio import AsyncSession

from api.cookies import COOKIE, account_of, read_session
from api.deps import AppRuntime, Db
from api.errors import login_failure, not_authorized, unavailable
from api.keys import InvalidTokenError, ProviderUnavailableError
from api.runtime import Runtime
from db.models import User

_bearer = HTTPBearer(auto_error=False, description="An id_token of the identity provider")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, description="Set by /v2/auth/login")

BearerToken = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def get_auth_user(
    request: Request,
    runtime: AppRuntime,
    bearer: BearerToken,
    _documented: Annotated[str | None, Depends(_cookie)],
    db: Db,
) -> User:
    """The user who asks.

    Raises:
        ApiError: 401, whatever the reason, so that nobody learns who has an account.
    """
    account = account_of(read_session(request, runtime.settings))
    if account is None:
        account = await _account_by_token(runtime, bearer)
    user = await find_user(db, account)
    if user is None:
        raise login_failure()
    return user


async def get_admin_user(user: CurrentUser) -> User:
    """The user who asks, who is a system administrator.

    Raises:
        ApiError: 401, or 403 for everybody else.
    """
    if not user.system_admin:
        raise not_authorized()
    return user


async def find_user(db: AsyncSession, account: str) -> User | None:
    """The user with that id at the identity provider."""
    if "\0" in account:
        return None
    return await db.scalar(sa.select(User).where(User.auth0_user_id == account))


async def _account_by_token(runtime: Runtime, bearer: BearerToken) -> str:
    if bearer is None:
        raise login_failure()
    try:
        return str((await runtime.tokens.claims(bearer.credentials))["sub"])
    except InvalidTokenError as error:
        raise login_failure() from error
    except ProviderUnavailableError as error:
        raise unavailable("the identity provider") from error


CurrentUser = Annotated[User, Depends(get_auth_user)]
AdminUser = Annotated[User, Depends(get_admin_user)]
