"""Phylogenetic trees."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set

from fastapi import APIRouter, Response

from api.authz import Access
from api.aws import Aws
from api.context import CurrentPathogen, OrgAccess
from api.deps import AwsClients, Db
from api.errors import ApiError, documented
from api.samples.naming import prefixes
from api.schemas.base import RowId
from api.streaming import attachment
from api.trees import bare, find_tree, private_names, selected_names, tips, tree_document
from db.models import PhyloTree

router = APIRouter(tags=["phylo_trees"])
_PUBLIC = "public"


@router.get("/{item_id}/download", response_model=dict[str, object], responses=documented(404))
async def get_single_phylo_tree(
    item_id: RowId,
    db: Db,
    access: OrgAccess,
    _: CurrentPathogen,
    aws: AwsClients,
    id_style: str = "",
) -> Response:
    """A tree as Auspice reads it (JSON), a file to download.

    The group's own samples have their private identifiers, unless ``id_style`` is ``public``.
    """
    tree = await _visible(db, access, item_id)
    document = await _document(db, access, aws, tree, id_style)
    headers = attachment(f"{tree.entity_id}.json", "application/json")
    return Response(document, headers=headers)


@router.get("/{item_id}/sample_ids", response_class=Response, responses=documented(404))
async def get_tree_sample_ids(
    item_id: RowId,
    db: Db,
    access: OrgAccess,
    pathogen: CurrentPathogen,
    aws: AwsClients,
    id_style: str = "",
) -> Response:
    """The samples of a tree, and whether its run was asked for them (TSV), a file to download."""
    tree = await _visible(db, access, item_id)
    document = await _document(db, access, aws, tree, id_style)
    selected = await selected_names(db, tree)
    beginnings = await prefixes(db, pathogen)
    table = await asyncio.to_thread(_table, document, selected, beginnings)
    headers = attachment(f"{tree.entity_id}_sample_ids.tsv", "text/tsv")
    return Response(table, headers=headers)


def _table(document: bytes, selected: Set[str], beginnings: Sequence[str]) -> str:
    lines = ["Sample Identifier\tSelected"]
    for name, public in tips(document):
        lines.append(f"{name}\t{'yes' if bare(public, beginnings) in selected else 'no'}")
    return "\r\n".join([*lines, ""])


async def _visible(db: Db, access: Access, tree_id: int) -> PhyloTree:
    tree = await find_tree(db, access, tree_id)
    if tree is None:
        raise ApiError(400, f"PhyloTree with id {tree_id} not viewable by user")
    return tree


async def _document(db: Db, access: Access, aws: Aws, tree: PhyloTree, id_style: str) -> bytes:
    names = {} if id_style == _PUBLIC else await private_names(db, access, tree)
    return await tree_document(aws, tree, names)
