"""Links through which Auspice loads a tree for people without an account."""

from __future__ import annotations

from fastapi import APIRouter, Response

from aspen.api.authz import load_access
from aspen.api.deps import AppSettings, AwsClients, CurrentPathogen, Db, OrgAccess
from aspen.api.errors import ApiError, documented
from aspen.api.schemas.base import RowId
from aspen.api.schemas.phylo_runs import AuspiceLinkRequest, AuspiceLinkResponse
from aspen.api.streaming import Pieces
from aspen.api.trees import MagicLink, find_tree, read_labels, tree_document, unauthenticated
from aspen.database.models import User

router = APIRouter(tags=["auspice"])
open_router = APIRouter(tags=["auspice"])
"""The router that requires no sign-in: the link is the credential."""


@router.post("/generate")
async def generate_auspice_string(
    wanted: AuspiceLinkRequest,
    db: Db,
    settings: AppSettings,
    access: OrgAccess,
    pathogen: CurrentPathogen,
) -> AuspiceLinkResponse:
    """Create a link that opens the tree, and nothing else, for a week."""
    if await find_tree(db, access, wanted.tree_id) is None:
        raise ApiError(400, "No phylo run found for user to generate auspice request")
    link = MagicLink(wanted.tree_id, access.user.id, access.group.id).sign(settings)
    path = f"/v2/orgs/{access.group.id}/pathogens/{pathogen.slug}/auspice/access/{link}"
    host = settings.api_url.rstrip("/").rpartition("://")[2]
    return AuspiceLinkResponse(url=host + path)


@open_router.get(
    "/access/{magic_link}", response_model=dict[str, object], responses=documented(404)
)
async def auspice_view(
    magic_link: str,
    org_id: RowId,
    db: Db,
    settings: AppSettings,
    aws: AwsClients,
    _: CurrentPathogen,
    group_id: RowId | None = None,
) -> Response:
    """Return the tree of a link, as the link's creator would see it now."""
    link = MagicLink.read(magic_link, settings)
    if link.group_id != (org_id if group_id is None else group_id):
        raise ApiError(400, "This link is for another organization")
    user = await db.get(User, link.user_id)
    access = await load_access(db, user, link.group_id) if user else None
    tree = await find_tree(db, access, link.tree_id) if access and access.own else None
    if access is None or tree is None:
        raise unauthenticated()
    document = await tree_document(db, aws, tree, await read_labels(db, access, tree))
    return Pieces([document])
