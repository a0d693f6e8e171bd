"""Dependencies that views declare as parameters, such as the session, AWS, or the pathogen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, cast

from fastapi import Depends, Request

from aspen.api.admission import DEFAULT_PATHOGEN, Admission
from aspen.api.auth import CurrentUser
from aspen.api.authz import Access
from aspen.api.aws import Aws
from aspen.api.database import RequestSession
from aspen.api.runtime import Runtime
from aspen.api.schemas.base import RowId
from aspen.api.settings import Settings
from aspen.database.models import Pathogen
from aspen.identity.management import Management


def get_runtime(request: Request) -> Runtime:
    """Return the shared resources of this process."""
    return cast("Runtime", request.app.state.runtime)


def get_settings(request: Request) -> Settings:
    """Return the service's settings."""
    return get_runtime(request).settings


def get_aws(request: Request) -> Aws:
    """Return the AWS clients; they block, so call them with `asyncio.to_thread`."""
    return get_runtime(request).aws


def get_identity(request: Request) -> Management:
    """Return the client of the identity provider's Management API."""
    return get_runtime(request).identity


async def get_db(request: Request) -> RequestSession:
    """Return the request's session in a single transaction, which is read-only for GET and HEAD.

    Anything that a view does not commit is rolled back: a view that writes calls
    ``await db.commit()`` once, when its change is complete.
    """
    return await Admission.of(request).session()


async def get_writing_db(request: Request) -> AsyncIterator[RequestSession]:
    """Yield a writable session for the only GET requests that write: sign-ins and invitations."""
    async with get_runtime(request).sessions() as session:
        await session.start(readonly=False)
        yield session


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


AppRuntime = Annotated[Runtime, Depends(get_runtime)]
AppSettings = Annotated[Settings, Depends(get_settings)]
Identity = Annotated[Management, Depends(get_identity)]
AwsClients = Annotated[Aws, Depends(get_aws)]
Db = Annotated[RequestSession, Depends(get_db)]
WritingDb = Annotated[RequestSession, Depends(get_writing_db)]

OrgAccess = Annotated[Access, Depends(get_access)]
CurrentPathogen = Annotated[Pathogen, Depends(get_pathogen)]
