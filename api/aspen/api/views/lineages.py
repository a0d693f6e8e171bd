"""The names that samples can be filtered by: lineages, their parents, and variants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import sqlalchemy as sa
from fastapi import APIRouter

from aspen.api.deps import Db
from aspen.api.schemas.reference import PathogenLineagesResponse
from aspen.database.models import PangoLineage, Pathogen, PathogenLineage

router = APIRouter(tags=["lineages"])
_PANGO_PATHOGEN = "SC2"
_CLADES = {"BA.1": "21K", "BA.2": "21L", "BA.4": "22A", "BA.5": "22B"}
"""Nextstrain's clades, by the first lineage of each."""
_VARIANTS = ("Delta", "Omicron")
"""The WHO variant names that a run's filter accepts."""


@router.get("/pango")
async def list_pango_lineages(db: Db) -> PathogenLineagesResponse:
    """List Pango lineages, their parents such as ``BA.2* / 21L``, and WHO names, sorted."""
    listed = (
        sa.select(PathogenLineage.lineage)
        .join(Pathogen, Pathogen.id == PathogenLineage.pathogen_id)
        .where(Pathogen.slug == _PANGO_PATHOGEN)
    )
    known = set(await db.scalars(sa.union(sa.select(PangoLineage.lineage), listed)))
    return PathogenLineagesResponse(lineages=sorted({*known, *_parents(known), *_VARIANTS}))


def _parents(lineages: Iterable[str]) -> Iterator[str]:
    """Yield the parent of each lineage as a wildcard that matches all its descendants."""
    for lineage in lineages:
        parent = lineage.rpartition(".")[0]
        if parent:
            clade = _CLADES.get(parent)
            yield f"{parent}* / {clade}" if clade else f"{parent}*"
