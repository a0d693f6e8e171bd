"""What a view can ask for by naming it: the session, the settings, AWS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, cast

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from api.admission import Admission
from api.aws import Aws
from api.database import connect
from api.management import Management
from api.runtime import Runtime
from api.settings import Settings


def get_runtime(request: Request) -> Runtime:
    """What this process holds open."""
    return cast("Runtime", request.app.state.runtime)


def get_settings(request: Request) -> Settings:
    """How the service is configured."""
    return get_runtime(request).settings


def get_aws(request: Request) -> Aws:
    """AWS; its clients block, so call them with `asyncio.to_thread`."""
    return get_runtime(request).aws


def get_identity(request: Request) -> Management:
    """The Management API of the identity provider."""
    return get_runtime(request).identity


async def get_db(request: Request) -> AsyncSession:
    """Return the request's session, in one transaction that a GET may not write in.

    What a view has not committed at its end is rolled back: a view that writes says
    ``await db.commit()`` once, where its change is whole.
    """
    return await Admission.of(request).session()


async def get_writing_db(request: Request) -> AsyncIterator[AsyncSession]:
    """Like `get_db`, for the one kind of GET that writes: the way back from a sign-in."""
    async with get_runtime(request).sessions() as session:
        await connect(session, readonly=False)
        yield session


AppRuntime = Annotated[Runtime, Depends(get_runtime)]
AppSettings = Annotated[Settings, Depends(get_settings)]
Identity = Annotated[Management, Depends(get_identity)]
AwsClients = Annotated[Aws, Depends(get_aws)]
Db = Annotated[AsyncSession, Depends(get_db)]
WritingDb = Annotated[AsyncSession, Depends(get_writing_db)]
