"""The current user, identified by the session cookie or else by the bearer token."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from aspen.api.admission import Admission
from aspen.api.errors import not_authorized
from aspen.api.signin import COOKIE
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


CurrentUser = Annotated[User, Depends(get_auth_user)]
AdminUser = Annotated[User, Depends(get_admin_user)]
