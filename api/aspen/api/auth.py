"""The current user, identified by the session cookie or else by the bearer token."""

from __future__ import annotations

from typing import Annotated

import sqlalchemy as sa
from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.admission import Admission
from aspen.api.cookies import COOKIE
from aspen.api.errors import not_authorized
from aspen.database.models import User

# For the documentation only; `Admission` reads both before FastAPI resolves dependencies.
_bearer = HTTPBearer(auto_error=False, description="An id_token of the identity provider")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, description="Set by /v2/auth/login")


async def get_auth_user(
    request: Request,
    _documented: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    _also: Annotated[str | None, Depends(_cookie)],
) -> User:
    """Return the current user.

    Raises:
        ApiError: 401, identical for every reason so as not to reveal who has an account.
    """
    return await Admission.of(request).user()


async def get_admin_user(user: CurrentUser) -> User:
    """Return the current user, who must be a system administrator.

    Raises:
        ApiError: 401, or 403 if the user is not a system administrator.
    """
    if not user.system_admin:
        raise not_authorized()
    return user


async def find_user(db: AsyncSession, account: str) -> User | None:
    """Return the user with that account ID at the identity provider, if any."""
    if "\0" in account:
        return None
    return await db.scalar(sa.select(User).where(User.auth0_user_id == account))


CurrentUser = Annotated[User, Depends(get_auth_user)]
AdminUser = Annotated[User, Depends(get_admin_user)]
