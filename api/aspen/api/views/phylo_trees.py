"""Phylogenetic trees."""

from __future__ import annotations

import asyncio
from collections.abc import Set

from fastapi import APIRouter, Response

from aspen.api.authz import Access
from aspen.api.deps import AwsClients, CurrentPathogen, Db, OrgAccess
from aspen.api.errors import ApiError, documented
from aspen.api.schemas.base import RowId
from aspen.api.streaming import Pieces, attachment
from aspen.api.trees import Labels, find_tree, read_labels, selected_names, tips, tree_document
from aspen.database.models import PhyloTree

router = APIRouter(tags=["phylo_trees"])


@router.get("/{item_id}/download", response_model=dict[str, object], responses=documented(404))
async def get_single_phylo_tree(
    item_id: RowId,
    db: Db,
    access: OrgAccess,
    _: CurrentPathogen,
    aws: AwsClients,
    id_style: str = "",
) -> Response:
    """Download a tree in Auspice's format (JSON).

    The group's own samples have their private identifiers, unless ``id_style`` is ``public``.
    """
    tree, labels = await _visible(db, access, item_id, id_style)
    document = await tree_document(db, aws, tree, labels)
    headers = attachment(f"{tree.entity_id}.json", "application/json")
    return Pieces([document], headers=headers)


@router.get("/{item_id}/sample_ids", response_class=Response, responses=documented(404))
async def get_tree_sample_ids(
    item_id: RowId,
    db: Db,
    access: OrgAccess,
    _: CurrentPathogen,
    aws: AwsClients,
    id_style: str = "",
) -> Response:
    """Download the samples of a tree, and whether they were selected for its run (TSV)."""
    tree, labels = await _visible(db, access, item_id, id_style)
    selected = await selected_names(db, tree)
    document = await tree_document(db, aws, tree, labels)
    table = await asyncio.to_thread(_table, document, selected, labels)
    headers = attachment(f"{tree.entity_id}_sample_ids.tsv", "text/tsv")
    return Pieces([table.encode()], headers=headers)


def _table(document: bytes, selected: Set[str], labels: Labels) -> str:
    lines = ["Sample Identifier\tSelected"]
    for name, public in tips(document, labels):
        lines.append(f"{name}\t{'yes' if public in selected else 'no'}")
    return "\r\n".join([*lines, ""])


async def _visible(db: Db, access: Access, tree_id: int, id_style: str) -> tuple[PhyloTree, Labels]:
    tree = await find_tree(db, access, tree_id)
    if tree is None:
        raise ApiError(400, f"PhyloTree with id {tree_id} not viewable by user")
    return tree, await read_labels(db, access, tree, public=id_style == "public")
