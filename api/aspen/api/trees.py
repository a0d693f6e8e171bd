"""Phylogenetic trees as their viewers see them, and magic links that open one for a week."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import orjson
import sqlalchemy as sa
from botocore.exceptions import ClientError
from itsdangerous import BadData, SignatureExpired, URLSafeTimedSerializer
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.authz import Access, Action
from aspen.api.aws import Aws
from aspen.api.database import RequestSession
from aspen.api.errors import ApiError
from aspen.api.samples.naming import default_repository, prefixes
from aspen.api.settings import Settings
from aspen.database.models import (
    Group,
    Pathogen,
    PhyloRun,
    PhyloTree,
    PhyloTreeSample,
    Sample,
    UploadedPathogenGenome,
    WorkflowInput,
)

_COLOURS = (
    *("#277F8E", "#084A9F", "#4187E0", "#B2D3FD", "#DFC6FF", "#A171DF", "#6A2FB5", "#3D0F7A"),
    *("#7A0F5C", "#B5307F", "#E06FA8", "#FDB2C9", "#FDD5B2", "#E0A041", "#9F6A08", "#5C4A00"),
)
"""The colors of places in a tree: the group's own first, then the others by distance."""
_SCALES = {
    level: sa.text(f"""
SELECT place.{level}
  FROM aspen.locations place, aspen.locations home
 WHERE home.id = :home AND {kind}
 GROUP BY place.{level}, home.{level}
 ORDER BY place.{level} IS NOT DISTINCT FROM home.{level} DESC, min(
    -- the haversine of the angle between them: it grows as the distance does
    power(sind((place.latitude - home.latitude) / 2), 2) + cosd(place.latitude)
    * cosd(home.latitude) * power(sind((place.longitude - home.longitude) / 2), 2)
 ) NULLS LAST, place.{level}
 LIMIT {len(_COLOURS)}
""")  # noqa: S608 - built from constants
    for level, kind in {
        "country": "place.division IS NULL AND place.location IS NULL",
        "division": "place.division IS NOT NULL AND place.location IS NULL",
        "location": "place.location IS NOT NULL",
    }.items()
}

_BUILDERS = ThreadPoolExecutor(2, "trees")
"""Only two threads: modifying a tree takes ten times its size in memory."""

_LIFETIME_S = 7 * 24 * 3600


@dataclass(frozen=True)
class Labels:
    """The names and colors with which a tree shows its samples and places."""

    private: Mapping[str, str]  # to show, by the public identifier without its prefix
    beginnings: Sequence[str]  # the prefixes of public identifiers in the pathogen's repositories
    former: str  # the node key that keeps the public identifier, such as ``GISAID_ID``
    scales: Mapping[str, Sequence[Sequence[str | None]]]  # the colors of places, by coloring


async def find_tree(db: AsyncSession, access: Access, tree_id: int) -> PhyloTree | None:
    """Return the tree if the user may see it, else None."""
    query = sa.select(PhyloTree).where(
        PhyloTree.entity_id == tree_id, access.phylo_trees(Action.READ)
    )
    return await db.scalar(query)


async def read_labels(
    db: AsyncSession, access: Access, tree: PhyloTree, *, public: bool = False
) -> Labels:
    """Return the labels of a tree: for a user, or with public identifiers only."""
    pathogen = await db.get_one(Pathogen, tree.pathogen_id)
    beginnings = await prefixes(db, pathogen)
    private = {}
    if not public:
        query = (
            sa.select(Sample.public_identifier, Sample.private_identifier)
            .join(PhyloTreeSample, PhyloTreeSample.sample_id == Sample.id)
            .where(
                PhyloTreeSample.phylo_tree_id == tree.entity_id,
                access.samples(Action.READ_PRIVATE),
            )
        )
        private = {bare(name, beginnings): own for name, own in await db.execute(query)}
    repository = await default_repository(db, pathogen)
    return Labels(private, beginnings, f"{repository.upper()}_ID", await _scales(db, tree))


async def _scales(db: AsyncSession, tree: PhyloTree) -> dict[str, list[list[str | None]]]:
    home = await db.scalar(
        sa.select(Group.default_tree_location_id).where(Group.id == tree.group_id)
    )
    found = {}
    for level, query in _SCALES.items():
        places = await db.scalars(query, {"home": home})
        found[level] = [[place, color] for place, color in zip(places, _COLOURS, strict=False)]
    return found


async def tree_document(db: RequestSession, aws: Aws, tree: PhyloTree, labels: Labels) -> bytes:
    """Return the tree as Auspice JSON.

    Names have no repository prefix; a sample shown by its private identifier keeps its public
    identifier under another key. Colorings of places get color scales.

    Raises:
        ApiError: 404 if the tree's file is missing.
    """
    await db.give_back()  # storage may be slow
    work = partial(_document, aws, tree.s3_bucket, tree.s3_key, labels)
    return await asyncio.get_running_loop().run_in_executor(_BUILDERS, work)


def _document(aws: Aws, bucket: str, key: str, labels: Labels) -> bytes:
    try:
        body: bytes = aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"NoSuchKey", "NoSuchBucket"}:
            raise
        raise ApiError(
            404, "the tree file no longer exists", file=f"s3://{bucket}/{key}"
        ) from error
    document = orjson.loads(body)
    for node in nodes(document):
        name = node.get("name")
        if not isinstance(name, str):
            continue
        node["name"] = name = bare(name, labels.beginnings)
        if name in labels.private:
            node["name"], node[labels.former] = labels.private[name], name
    for coloring in document.get("meta", {}).get("colorings", ()):
        if scale := labels.scales.get(coloring.get("key")):
            coloring["scale"] = scale
    return orjson.dumps(document)


def nodes(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all nodes of one or more trees from the top down, without recursion: trees are deep."""
    roots = document.get("tree", [])
    waiting = [*reversed(roots)] if isinstance(roots, list) else [roots]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(node.get("children", ())))


async def selected_names(db: AsyncSession, tree: PhyloTree) -> frozenset[str]:
    """Return the samples selected for the tree's run, by public name without a prefix.

    For a tree without a run, these are all samples that it shows.
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


def tips(document: bytes, labels: Labels) -> Iterator[tuple[str, str]]:
    """Yield the displayed name and the public name of each sample in a tree's JSON."""
    for node in nodes(orjson.loads(document)):
        if "children" not in node and "name" in node:
            yield node["name"], node.get(labels.former, node["name"])


def bare(name: str, beginnings: Sequence[str]) -> str:
    """Return a public name without its repository prefix."""
    for beginning in beginnings:
        if name.startswith(f"{beginning}/"):
            return name[len(beginning) + 1 :]
    return name


@dataclass(frozen=True)
class MagicLink:
    """The contents of a link, which are protected by a signature."""

    tree_id: int
    user_id: int  # its creator; it shows what that user may see at the time of use
    group_id: int  # in whose context it opens

    def sign(self, settings: Settings) -> str:
        """Return the signed link for use in a URL."""
        return str(_serializer(settings).dumps(asdict(self)))

    @classmethod
    def read(cls, text: str, settings: Settings) -> MagicLink:
        """Return the contents of a signed link.

        Raises:
            ApiError: 400 if the link is invalid or has expired.
        """
        try:
            held = _serializer(settings).loads(text, max_age=_LIFETIME_S)
        except SignatureExpired as error:
            raise ApiError(400, "This link has expired") from error
        except BadData as error:
            raise unauthenticated() from error
        return cls(**held)


def unauthenticated() -> ApiError:
    """Return the error for a link that is invalid or opens nothing."""
    return ApiError(400, "Unauthenticated attempt to access an auspice magic link")


def _serializer(settings: Settings) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(
        settings.mac_key,
        salt="auspice",
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha3_512},
    )
