"""Phylogenetic trees: who may see one, and under which names it shows the samples."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa
from botocore.exceptions import ClientError
from sqlalchemy.ext.asyncio import AsyncSession

from api.authz import Access, Action
from api.aws import Aws
from api.errors import ApiError
from api.samples.naming import prefixes
from db.models import (
    Pathogen,
    PhyloRun,
    PhyloTree,
    PhyloTreeSample,
    Sample,
    UploadedPathogenGenome,
    WorkflowInput,
)

Names = Mapping[str, str]
"""The private identifier for each name that a tree may show a sample under."""


async def find_tree(db: AsyncSession, access: Access, tree_id: int) -> PhyloTree | None:
    """A tree that the user may see."""
    query = sa.select(PhyloTree).where(
        PhyloTree.entity_id == tree_id, access.phylo_trees(Action.READ)
    )
    return await db.scalar(query)


async def private_names(db: AsyncSession, access: Access, tree: PhyloTree) -> Names:
    """The private identifiers of the tree's samples, as far as the user may see them.

    Trees show public identifiers, with or without what the repositories begin them with.
    """
    query = (
        sa.select(Sample.public_identifier, Sample.private_identifier)
        .join(PhyloTreeSample, PhyloTreeSample.sample_id == Sample.id)
        .where(PhyloTreeSample.phylo_tree_id == tree.entity_id, access.samples(Action.READ_PRIVATE))
    )
    beginnings = await prefixes(db, await db.get_one(Pathogen, tree.pathogen_id))
    names: dict[str, str] = {}
    for public, private in await db.execute(query):
        for beginning in beginnings:
            names.setdefault(public.removeprefix(f"{beginning}/"), private)
        names[public] = private
    return names


async def tree_document(aws: Aws, tree: PhyloTree, names: Names) -> bytes:
    """The tree as JSON, its samples renamed; the name of before is kept as ``GISAID_ID``.

    Raises:
        ApiError: 404, when its file is gone.
    """
    return await asyncio.to_thread(_document, aws, tree.s3_bucket, tree.s3_key, names)


def _document(aws: Aws, bucket: str, key: str, names: Names) -> bytes:
    try:
        body: bytes = aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"NoSuchKey", "NoSuchBucket"}:
            raise
        raise ApiError(404, "the tree's file is gone", file=f"s3://{bucket}/{key}") from error
    document = orjson.loads(body)
    for node in nodes(document):
        private = names.get(node.get("name", ""))
        if private is not None:
            node["GISAID_ID"], node["name"] = node["name"], private
    return orjson.dumps(document)


def nodes(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a tree, or of several, without recursion: trees are deep."""
    roots = document.get("tree", [])
    waiting = [*roots] if isinstance(roots, list) else [roots]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.get("children", ()))


async def selected_names(db: AsyncSession, tree: PhyloTree) -> frozenset[str]:
    """The samples that the tree's run was asked for, by public names without a prefix.

    Of a tree that no run made, those are all samples that it shows.
    """
    beginnings = await prefixes(db, await db.get_one(Pathogen, tree.pathogen_id))
    query = sa.select(Sample.public_identifier)
    run = await db.get(PhyloRun, tree.producing_workflow_id or 0)
    if run is None:
        query = query.join(PhyloTreeSample, PhyloTreeSample.sample_id == Sample.id).where(
            PhyloTreeSample.phylo_tree_id == tree.entity_id
        )
    else:
        uploaded = UploadedPathogenGenome.__table__
        query = (
            query.join(uploaded, uploaded.c.sample_id == Sample.id)
            .join(WorkflowInput, WorkflowInput.entity_id == uploaded.c.pathogen_genome_id)
            .where(WorkflowInput.workflow_id == run.id)
        )
    found = [*await db.scalars(query), *(run.gisaid_ids if run else ())]
    return frozenset(bare(name, beginnings) for name in found)


def tips(document: bytes) -> Iterator[tuple[str, str]]:
    """The samples of a tree's JSON: what each is called there, and its public name."""
    for node in nodes(orjson.loads(document)):
        if "children" not in node and "name" in node:
            yield node["name"], node.get("GISAID_ID", node["name"])


def bare(name: str, beginnings: Sequence[str]) -> str:
    """A public name without what a repository begins it with."""
    for beginning in beginnings:
        name = name.removeprefix(f"{beginning}/")
    return name
