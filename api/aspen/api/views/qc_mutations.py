"""The quality of samples' sequences, and their mutations: the results of Nextclade."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import sqlalchemy as sa
from fastapi import APIRouter, Response
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.authz import Access, Action
from aspen.api.deps import CurrentPathogen, Db, OrgAccess
from aspen.api.errors import ApiError, documented
from aspen.api.limits import NAMES_MIB, accepts
from aspen.api.samples.naming import named, own_names
from aspen.api.schemas.samples import QcMutationsRequest
from aspen.api.streaming import Streamed, attachment, delimited, fetch_parts
from aspen.database.models import Pathogen, Sample, SampleMutation, SampleQCMetric

router = APIRouter(tags=["qc_mutations"])
_PER_PART = 200
_NAME = "seqName"
_KEPT: dict[str, Any] = {
    "qc.overallScore": SampleQCMetric.qc_score,
    "qc.overallStatus": SampleQCMetric.qc_status,
    "substitutions": SampleMutation.substitutions,
    "deletions": SampleMutation.deletions,
    "insertions": SampleMutation.insertions,
    "aaSubstitutions": SampleMutation.aa_substitutions,
    "aaDeletions": SampleMutation.aa_deletions,
    "aaInsertions": SampleMutation.aa_insertions,
}
"""The stored values to use if the raw output is missing, by the names of Nextclade's columns."""


@router.post("/", response_class=Response, responses=documented(404))
@accepts(mebibytes=NAMES_MIB)
async def get_qc_mutations(
    wanted: QcMutationsRequest, db: Db, access: OrgAccess, pathogen: CurrentPathogen
) -> Response:
    """Download the quality and mutations of samples (TSV)."""
    body = await _findings(db, access, pathogen, wanted.sample_ids)
    return Streamed(db, body, headers=attachment("sample_mutation.tsv", "text/tsv"))


async def _findings(
    db: AsyncSession, access: Access, pathogen: Pathogen, names: Sequence[str]
) -> AsyncIterator[bytes]:
    """Return Nextclade's output for the samples that the user may see, as TSV."""
    chosen = _chosen(access, pathogen)
    columns = await _columns(db, chosen, names)
    query = (
        sa.select(sa.cast(sa.func.jsonb_build_array(own_names(access), chosen.c.output), sa.Text))
        .join(chosen, chosen.c.id == Sample.id)
        .order_by(Sample.id)
    )
    parts = await fetch_parts(db, query, {"names": names}, rows=_PER_PART)
    first = await anext(parts, None)
    if first is None:
        raise ApiError(404, "No associated QC/Mutation data found")

    async def body() -> AsyncIterator[bytes]:
        yield delimited([[_NAME, *columns]]).encode()
        yield delimited(_cells(row, columns) for row in first).encode()
        async for part in parts:
            yield delimited(_cells(row, columns) for row in part).encode()

    return body()


def _chosen(access: Access, pathogen: Pathogen) -> sa.Subquery:
    """Return the results for the chosen samples that the user may see."""
    kept = [part for name, value in _KEPT.items() for part in (sa.literal(name), value)]
    output = sa.func.coalesce(
        SampleQCMetric.raw_qc_output, sa.func.jsonb_strip_nulls(sa.func.jsonb_build_object(*kept))
    )
    return (
        sa.select(Sample.id, output.label("output"))
        .select_from(Sample)
        .outerjoin(SampleQCMetric, SampleQCMetric.sample_id == Sample.id)
        .outerjoin(SampleMutation, SampleMutation.sample_id == Sample.id)
        .where(
            named(access, pathogen),
            access.samples(Action.READ),
            sa.or_(SampleQCMetric.id.is_not(None), SampleMutation.id.is_not(None)),
        )
        .subquery("chosen")
    )


async def _columns(db: AsyncSession, chosen: sa.Subquery, names: Sequence[str]) -> list[str]:
    """Return the columns of all outputs, ordered by their first position in any output."""
    key = (
        sa.func.jsonb_object_keys(chosen.c.output)
        .table_valued("name", with_ordinality="place", name="key")
        .render_derived()
    )
    query = (
        sa.select(key.c.name)
        .select_from(chosen)
        .join(key, sa.true())
        .where(key.c.name != _NAME)
        .group_by(key.c.name)
        .order_by(sa.func.min(key.c.place), sa.func.min(chosen.c.id))
    )
    return list(await db.scalars(query, {"names": names}))


def _cells(row: str, columns: Sequence[str]) -> list[str]:
    title, output = orjson.loads(row)
    return [title, *(_text(output.get(column)) for column in columns)]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
