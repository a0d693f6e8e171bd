"""Dependencies for the group and the pathogen in the path."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from aspen.api.admission import DEFAULT_PATHOGEN, Admission
from aspen.api.auth import CurrentUser
from aspen.api.authz import Access
from aspen.api.schemas.base import RowId
from aspen.database.models import Pathogen


async def get_access(
    request: Request, org_id: RowId, _: CurrentUser, group_id: RowId | None = None
) -> Access:
    """Return the user's permissions in the path's group, or in the one given by ``?group_id=``.

    Raises:
        ApiError: 403 if the group does not exist or the user has no role in it.
    """
    return await Admission.of(request).access(org_id if group_id is None else group_id)


async def get_pathogen(request: Request, pathogen_slug: str = DEFAULT_PATHOGEN) -> Pathogen:
    """Return the pathogen of the path, or for the short form, of ``?pathogen_slug=``.

    Raises:
        ApiError: 400 if no pathogen has that slug.
    """
    return await Admission.of(request).pathogen(pathogen_slug)


OrgAccess = Annotated[Access, Depends(get_access)]
CurrentPathogen = Annotated[Pathogen, Depends(get_pathogen)]
