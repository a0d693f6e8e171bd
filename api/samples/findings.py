"""What was found in sequences of samples: their quality, and how they differ from the reference."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from api.authz import Access, Action
from api.errors import ApiError
from api.samples.finding import named
from api.streaming import fetch_parts
from db.models import Pathogen, Sample, SampleMutation, SampleQCMetric

_ROWS = 200
_COLUMNS: dict[str, Any] = {
    "qc_score": SampleQCMetric.qc_score,
    "qc_status": SampleQCMetric.qc_status,
    "qc_software_version": SampleQCMetric.qc_software_version,
    "reference_dataset_name": SampleQCMetric.reference_dataset_name,
    "reference_dataset_tag": SampleQCMetric.reference_dataset_tag,
    "reference_sequence_accession": sa.func.coalesce(
        SampleMutation.reference_sequence_accession, SampleQCMetric.reference_sequence_accession
    ),
    "substitutions": SampleMutation.substitutions,
    "insertions": SampleMutation.insertions,
    "deletions": SampleMutation.deletions,
    "aa_substitutions": SampleMutation.aa_substitutions,
    "aa_insertions": SampleMutation.aa_insertions,
    "aa_deletions": SampleMutation.aa_deletions,
}
_BREAKS = "\t\r\n"


async def findings(
    db: AsyncSession, access: Access, pathogen: Pathogen, names: Sequence[str]
) -> AsyncIterator[bytes]:
    """Quality and mutations of those of the samples that the user may see, as a table (TSV).

    Raises:
        ApiError: 404, when nothing is known of any.
    """
    own = Sample.submitting_group_id == access.group.id
    title = sa.case((own, Sample.private_identifier), else_=Sample.public_identifier)
    cells = [
        sa.func.translate(sa.func.coalesce(cell, ""), _BREAKS, " " * len(_BREAKS))
        for cell in (title, *_COLUMNS.values())
    ]
    query = (
        sa.select(sa.func.concat_ws("\t", *cells))
        .select_from(Sample)
        .outerjoin(SampleQCMetric, SampleQCMetric.sample_id == Sample.id)
        .outerjoin(SampleMutation, SampleMutation.sample_id == Sample.id)
        .where(
            named(access, pathogen, names),
            access.samples(Action.READ),
            sa.or_(SampleQCMetric.id.is_not(None), SampleMutation.id.is_not(None)),
        )
        .order_by(Sample.id)
    )
    parts = await fetch_parts(db, query, rows=_ROWS)
    first = await anext(parts, None)
    if first is None:
        raise ApiError(404, "No associated QC/Mutation data found")

    async def body() -> AsyncIterator[bytes]:
        yield ("\t".join(["sample_identifier", *_COLUMNS]) + "\n").encode()
        yield _lines(first)
        async for part in parts:
            yield _lines(part)

    return body()


def _lines(rows: Sequence[str]) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()
