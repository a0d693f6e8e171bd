"""The names that samples can be filtered by: lineages, their families, and variants."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

import sqlalchemy as sa
from fastapi import APIRouter

from api.deps import Db
from api.schemas.lineages import PathogenLineagesResponse
from db.models import PangoLineage, Pathogen, PathogenLineage

router = APIRouter(tags=["lineages"])
_PANGO_PATHOGEN = "SC2"


@router.get("/pango")
async def list_pango_lineages(db: Db) -> PathogenLineagesResponse:
    """The Pango lineages, with families such as ``BA.2* / 21L`` and the WHO's names, sorted."""
    listed = (
        sa.select(PathogenLineage.lineage)
        .join(Pathogen, Pathogen.id == PathogenLineage.pathogen_id)
        .where(Pathogen.slug == _PANGO_PATHOGEN)
    )
    known = await db.scalars(sa.union(sa.select(PangoLineage.lineage), listed))
    return PathogenLineagesResponse(lineages=sorted({*known, *_variants()}))


@cache
def _variants() -> frozenset[str]:
    """The WHO's names, and each family: its oldest lineage with all descendants, and its clade."""
    text = (files("api.data") / "variants.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    families = {f"{row['lineage']}* / {row['clade']}" for row in rows}
    return frozenset(families | {row["name"] for row in rows})
