"""What the path says: the group, and the pathogen."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from api.admission import DEFAULT_PATHOGEN, Admission
from api.auth import CurrentUser
from api.authz import Access
from api.schemas.base import RowId
from db.models import Pathogen


async def get_access(
    request: Request, org_id: RowId, _: CurrentUser, group_id: RowId | None = None
) -> Access:
    """The user in the context of the path's group; ``?group_id=`` names another one.

    Raises:
        ApiError: 403, when the user has no role in that group, or there is no such group.
    """
    return await Admission.of(request).access(org_id if group_id is None else group_id)


async def get_pathogen(request: Request, pathogen_slug: str = DEFAULT_PATHOGEN) -> Pathogen:
    """The pathogen of the path, or on the short form of ``?pathogen_slug=``.

    Raises:
        ApiError: 400, when there is none of that slug.
    """
    return await Admission.of(request).pathogen(pathogen_slug)


OrgAccess = Annotated[Access, Depends(get_access)]
CurrentPathogen = Annotated[Pathogen, Depends(get_pathogen)]
