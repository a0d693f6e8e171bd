"""What the path says: the group, and the pathogen."""

from __future__ import annotations

from typing import Annotated

import sqlalchemy as sa
from fastapi import Depends

from api.auth import CurrentUser
from api.authz import Access, load_access
from api.deps import Db
from api.errors import ApiError, not_authorized
from api.schemas.base import RowId
from db.models import Pathogen

DEFAULT_PATHOGEN = "SC2"


async def get_access(
    org_id: RowId, user: CurrentUser, db: Db, group_id: RowId | None = None
) -> Access:
    """The user in the context of the path's group; ``?group_id=`` names another one.

    Raises:
        ApiError: 403, when the user has no role in that group, or there is no such group.
    """
    access = await load_access(db, user, org_id if group_id is None else group_id)
    if access is None or not access.own:
        raise not_authorized()
    return access


async def get_pathogen(db: Db, pathogen_slug: str = DEFAULT_PATHOGEN) -> Pathogen:
    """The pathogen of the path, or on the short form of ``?pathogen_slug=``.

    Raises:
        ApiError: 400, when there is none of that slug.
    """
    known = None
    if "\0" not in pathogen_slug:
        known = await db.scalar(sa.select(Pathogen).where(Pathogen.slug == pathogen_slug))
    if known is None:
        raise ApiError(400, "Invalid pathogen slug")
    return known


OrgAccess = Annotated[Access, Depends(get_access)]
CurrentPathogen = Annotated[Pathogen, Depends(get_pathogen)]
